"""Whatever members do, in whatever order, a group keeps its promises."""

from dataclasses import dataclass
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from octopus.broker.codes import Code
from octopus.broker.groups import Group, Joined, State, Synced
from tests.broker.groups.group_cast import REBALANCE, SESSION, WINDOW, Play, wish


@dataclass
class Client:
    """A client that does what the protocol allows, at any moment, or nothing at all."""

    name: str
    instance: str | None
    member: str = ""
    generation: int = -1
    peers: tuple[str, ...] = ()
    metadata: bytes = b"topics"


CLIENTS = st.integers(0, 4)


class GroupMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.play = Play(Group("g", WINDOW, max_members=4))
        self.clients = [Client(f"{i}", f"instance {i}" if i >= 3 else None) for i in range(5)]
        self.tickets = count()
        self.waiting: dict[object, tuple[Client, int]] = {}
        self.last_generation = 0
        self.leaders: dict[int, str] = {}
        self.shares: dict[tuple[int, bytes], str] = {}

    # ── what clients do ─────────────────────────────────────────────────────────────────────────────────────────────

    @rule(
        index=CLIENTS,
        changes=st.booleans(),
        asks_back=st.booleans(),
        protocols=st.sampled_from([("range",), ("sticky", "range"), ("odd",)]),
    )
    def join(self, index: int, changes: bool, asks_back: bool, protocols: tuple[str, ...]) -> None:
        client = self.clients[index]
        if changes:
            client.metadata += b"+"
        ask = wish(
            client.member,
            f"{client.name}-{next(self.tickets)}",
            instance=client.instance,
            metadata=client.metadata,
            protocols=protocols,
            asks_back=asks_back,
        )
        self.act(client, lambda ticket: self.play.join(ticket, ask))

    @rule(index=CLIENTS)
    def restart(self, index: int) -> None:
        self.clients[index].member = ""

    @rule(index=CLIENTS)
    def sync(self, index: int) -> None:
        client = self.clients[index]
        shares = {peer: f"{client.generation}/{number}".encode() for number, peer in enumerate(client.peers)}
        self.act(
            client,
            lambda ticket: self.play.sync(
                ticket, client.member, shares, generation=client.generation, instance=client.instance
            ),
        )

    @rule(some=st.sets(CLIENTS, min_size=2))
    def some_agree(self, some: set[int]) -> None:
        """Let several clients come together, as they mostly do: chance alone seldom gets that far."""
        for index in sorted(some):
            self.join(index, False, False, ("range",))
        self.play.wait(WINDOW)
        self.collect()
        for index in sorted(some):
            self.sync(index)

    @rule(milliseconds=st.sampled_from([SESSION // 3, REBALANCE]))
    def wait_alive(self, milliseconds: int) -> None:
        """Let time pass while every client that is a member says so."""
        for _ in range(0, milliseconds, SESSION // 3):
            for index in range(len(self.clients)):
                self.heartbeat(index)
            self.wait(SESSION // 3)

    @rule(index=CLIENTS)
    def heartbeat(self, index: int) -> None:
        client = self.clients[index]
        code = self.play.beat(client.member, client.generation, client.instance)
        if code in (Code.UNKNOWN_MEMBER_ID, Code.FENCED_INSTANCE_ID):
            client.member = ""

    @rule(index=CLIENTS)
    def leave(self, index: int) -> None:
        client = self.clients[index]
        self.play.leave(client.member, client.instance)
        client.member = ""
        self.collect()

    @rule(milliseconds=st.sampled_from([1, WINDOW, SESSION // 3, SESSION, REBALANCE]))
    def wait(self, milliseconds: int) -> None:
        self.play.wait(milliseconds)
        self.collect()

    def act(self, client: Client, request: object) -> None:
        ticket = f"{client.name}/{next(self.tickets)}"
        self.waiting[ticket] = (client, self.play.now)
        request(ticket)
        self.collect()

    def collect(self) -> None:
        """Let clients see their answers, and check each."""
        for ticket in [each for each in self.waiting if each in self.play.answers]:
            client, _ = self.waiting.pop(ticket)
            match self.play.answers[ticket]:
                case Joined() as joined:
                    self.see_join(client, joined)
                case Synced(Code.NONE, share):
                    self.see_share(client, share)

    def see_join(self, client: Client, joined: Joined) -> None:
        if joined.code == Code.MEMBER_ID_REQUIRED:
            client.member = joined.member
        if joined.code == Code.NONE:
            client.member, client.generation = joined.member, joined.generation
            client.peers = tuple(peer.member for peer in joined.peers)
            if joined.peers:
                assert joined.member == joined.leader
                assert self.leaders.setdefault(joined.generation, joined.member) == joined.member, "two leaders"
        if joined.code in (Code.UNKNOWN_MEMBER_ID, Code.FENCED_INSTANCE_ID):
            client.member = ""

    def see_share(self, client: Client, share: bytes) -> None:
        if share:
            owner = self.shares.setdefault((self.play.group.generation, share), client.name)
            assert owner == client.name, f"{share!r} was handed to two members"

    # ── what is always true ─────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def there_is_one_leader_and_it_is_a_member(self) -> None:
        group = self.play.group
        assert (group.leader in group.members) if group.members else group.state in (State.EMPTY, State.PREPARING)

    @invariant()
    def generations_only_grow(self) -> None:
        assert self.play.group.generation >= self.last_generation
        self.last_generation = self.play.group.generation

    @invariant()
    def nobody_waits_beyond_the_rebalance_timeout(self) -> None:
        held = {each.joining for each in self.play.group.members.values()}
        held |= {each.syncing for each in self.play.group.members.values()}
        for ticket, (_, since) in self.waiting.items():
            assert ticket in held, f"{ticket} will never be answered"
            assert self.play.now - since <= REBALANCE, f"{ticket} waits for too long"

    @invariant()
    def no_silent_member_outlives_its_session(self) -> None:
        for member in self.play.group.members.values():
            assert member.is_waiting or self.play.now - SESSION <= member.expires - SESSION <= self.play.now
        assert all(lapses > self.play.now for lapses in self.play.group.pending.values())

    @invariant()
    def the_next_deadline_lies_ahead(self) -> None:
        deadline = self.play.group.deadline()
        assert deadline is None or deadline > self.play.now
        assert deadline is not None or not self.play.group.members

    @invariant()
    def waiting_fits_the_state(self) -> None:
        group = self.play.group
        for member in group.members.values():
            assert member.joining is None or group.state is State.PREPARING
            assert member.syncing is None or group.state is State.COMPLETING
        assert set(group.instances.values()) <= set(group.members)


TestGroupMachine = GroupMachine.TestCase
TestGroupMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
