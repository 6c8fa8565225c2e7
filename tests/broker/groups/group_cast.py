"""Players for the tests of the group coordinator: requests with sensible defaults, and what each ticket was answered."""

from dataclasses import dataclass, field

from octopus.broker.groups import Group, Join, Joined, Protocol, Reply, Synced

SESSION, REBALANCE, WINDOW = 10_000, 30_000, 50


def wish(
    member: str = "",
    fresh: str = "",
    *,
    instance: str | None = None,
    metadata: bytes = b"topics",
    protocols: tuple[str, ...] = ("range",),
    kind: str = "consumer",
    asks_back: bool = False,
    session: int = SESSION,
    rebalance: int = REBALANCE,
) -> Join:
    return Join(
        member,
        instance,
        fresh or f"{member}-fresh",
        "client",
        "127.0.0.1",
        session,
        rebalance,
        kind,
        tuple(Protocol(name, metadata) for name in protocols),
        asks_back,
    )


@dataclass
class Play:
    """A group, a clock, and the answers by ticket."""

    group: Group = field(default_factory=lambda: Group("g", WINDOW))
    now: int = 1_000_000
    answers: dict[object, Joined | Synced] = field(default_factory=dict)

    def take(self, replies: list[Reply]) -> None:
        for each in replies:
            assert each.ticket not in self.answers, f"{each.ticket} was answered twice"
            self.answers[each.ticket] = each.answer

    def join(self, ticket: str, ask: Join) -> "Play":
        self.take(self.group.join(ask, ticket, self.now))
        return self

    def sync(self, ticket: str, member: str, assignments: dict[str, bytes] | None = None, **other: object) -> "Play":
        generation = other.get("generation", self.group.generation)
        instance = other.get("instance")
        self.take(self.group.sync(member, instance, generation, (assignments or {}).items(), ticket, self.now))
        return self

    def leave(self, member: str, instance: str | None = None) -> int:
        code, replies = self.group.leave(member, instance, self.now)
        self.take(replies)
        return code

    def beat(self, member: str, generation: int | None = None, instance: str | None = None) -> int:
        return self.group.heartbeat(
            member, instance, self.group.generation if generation is None else generation, self.now
        )

    def wait(self, milliseconds: int) -> "Play":
        """Let time pass, ringing at every deadline on the way."""
        end = self.now + milliseconds
        while (deadline := self.group.deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.take(self.group.tick(self.now))
        self.now = end
        return self

    def stable(self, *members: str, **wishes: object) -> "Play":
        """Bring these dynamic members into a stable group, the first leading."""
        for member in members:
            self.join(f"join {member}", wish(fresh=member, **wishes))
        self.wait(WINDOW)
        for member in reversed(members):
            shares = {each: f"share of {each}".encode() for each in members} if member == members[0] else None
            self.sync(f"sync {member}", member, shares)
        self.answers.clear()
        return self
