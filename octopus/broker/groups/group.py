"""The group coordinator's state machine: the members, the leader, which of them must rejoin, and until when.

    Empty ──join──▶ PreparingRebalance ──all joined, or time is up──▶ CompletingRebalance ──leader's sync──▶ Stable
      ▲                   ▲   │                                            │                                │
      └──none joined──────┼───┘                                            │                                │
                          └──── member joins, leaves, expires or changes its metadata ◀─────────────────────┘

Pure: a request and `now` (milliseconds) go in, replies come out. A request that must wait hands in a *ticket*, any object
of the caller's choice; the reply that names the ticket may come out of this call or of a later one. Nothing here reads a
clock: the caller asks `deadline()` when to call `tick()`.

The rules are those of Kafka's classic coordinator (GroupCoordinator.scala; KIP-62, 345, 394, 429). Assignments and
subscriptions are opaque bytes: partitions are divided by the leading client.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from octopus.broker.codes import Code
from octopus.broker.groups.messages import Join, Joined, Member, Peer, Reply, State, Synced

# A join phase that no member answers is prolonged by at least this, so that a time-out of nothing cannot spin.
_SHORTEST_PHASE = 100


@dataclass(slots=True)
class Group:
    """One consumer group.

    Attributes:
        window: How long the first rebalance of an empty group waits for more members, milliseconds from the latest newcomer.
        max_members: Newcomers beyond this many members and promised ids are refused (81).
        generation: Counts completed join phases; never goes back.
        pending: Promised member ids that have not come back yet, with the time they lapse.
    """

    name: str
    window: int = 50
    max_members: int = 1000
    state: State = State.EMPTY
    generation: int = 0
    kind: str = ""
    protocol: str = ""
    leader: str = ""
    members: dict[str, Member] = field(default_factory=dict)
    instances: dict[str, str] = field(default_factory=dict)
    pending: dict[str, int] = field(default_factory=dict)
    _is_first: bool = (
        False  # this join phase began in an empty group: it ends when the window does, not when all joined
    )
    _started: int = 0
    _closes: int = 0  # end of the join phase (Preparing) or of the sync phase (Completing)
    _replies: list[Reply] = field(default_factory=list)

    # ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────

    def join(self, ask: Join, ticket: object, now: int) -> list[Reply]:
        """Take a JoinGroup request; its reply comes when the join phase ends, unless it can be given at once."""
        code = self._admit(ask)
        if code:
            self._reply(ticket, Joined(code, ask.member))
        elif ask.member:
            if ask.member in self.pending:
                del self.pending[ask.member]
                self._add(ask, ask.member, ticket, now)
            else:
                self._rejoin(self.members[ask.member], ask, ticket, now)
        elif ask.instance is not None and ask.instance in self.instances:
            self._return(self.members[self.instances[ask.instance]], ask, ticket, now)
        elif ask.instance is None and ask.asks_back:
            self.pending[ask.fresh] = now + ask.session_timeout
            self._reply(ticket, Joined(Code.MEMBER_ID_REQUIRED, ask.fresh))
        else:
            self._add(ask, ask.fresh, ticket, now)
        return self._drain()

    def sync(
        self,
        member: str,
        instance: str | None,
        generation: int,
        assignments: Iterable[tuple[str, bytes]],
        ticket: object,
        now: int,
    ) -> list[Reply]:
        """Take a SyncGroup request: the leader's brings the assignments, the others wait for it."""
        code = self._identify(member, instance, generation)
        if code or self.state is State.PREPARING:
            self._reply(ticket, Synced(code or Code.REBALANCE_IN_PROGRESS))
            return self._drain()
        known = self.members[member]
        self._touch(known, now)
        if self.state is State.STABLE:
            self._reply(ticket, Synced(Code.NONE, known.assignment))
            return self._drain()
        if known.syncing is not None:
            self._reply(known.syncing, Synced(Code.REBALANCE_IN_PROGRESS))
        known.syncing = ticket
        if member == self.leader:
            self._assign(dict(assignments), now)
        return self._drain()

    def heartbeat(self, member: str, instance: str | None, generation: int, now: int) -> Code:
        """Keep a member's session alive; the answer tells it whether to rejoin."""
        code = self._identify(member, instance, generation)
        if code:
            return code
        self._touch(self.members[member], now)
        return Code.REBALANCE_IN_PROGRESS if self.state is State.PREPARING else Code.NONE

    def leave(self, member: str, instance: str | None, now: int) -> tuple[Code, list[Reply]]:
        """Remove a member at its own wish; a static one may be named by its instance alone."""
        if member in self.pending:
            del self.pending[member]
            self._complete_join(now)
            return Code.NONE, self._drain()
        if instance is not None and not member:
            member = self.instances.get(instance, "")
        code = self._known(member, instance)
        if not code:
            self._remove(self.members[member], now)
        return code, self._drain()

    def may_commit(
        self, member: str, instance: str | None, generation: int, now: int, *, in_transaction: bool = False
    ) -> Code:
        """Check an OffsetCommit: members of this generation always may, outsiders only while the group has no member.

        In a transaction outsiders may as well: before version 3 of TxnOffsetCommit (KIP-447) a client could not name its member.
        """
        if generation < 0 and self.state is State.EMPTY:
            return Code.NONE
        if in_transaction:
            is_outsider = generation < 0 and not member and instance is None
            return Code.NONE if is_outsider else self._identify(member, instance, generation)
        code = self._identify(member, instance, generation)
        if code:
            return code
        self._touch(self.members[member], now)
        return Code.REBALANCE_IN_PROGRESS if self.state is State.COMPLETING else Code.NONE

    # ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def deadline(self) -> int | None:
        """Say when `tick` has something to do at the earliest, or None while nothing is timed."""
        times = list(self.pending.values())
        times += [each.expires for each in self.members.values() if not each.is_waiting]
        if self.state in (State.PREPARING, State.COMPLETING):
            times.append(self._closes)
        return min(times, default=None)

    def tick(self, now: int) -> list[Reply]:
        """End everything whose time has run out: promised ids, sessions, the join phase, the sync phase."""
        self.pending = {each: lapses for each, lapses in self.pending.items() if lapses > now}
        self._remove_all([each for each in self.members.values() if not each.is_waiting and each.expires <= now], now)
        if self.state is State.COMPLETING and self._closes <= now:
            # A member that joined but never synced would hold the others for ever while its heartbeats go on.
            self._remove_all([each for each in self.members.values() if each.syncing is None], now)
        self._complete_join(now)
        return self._drain()

    # ── membership ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _admit(self, ask: Join) -> Code:
        if not self._shares_protocol(ask):
            return Code.INCONSISTENT_GROUP_PROTOCOL
        if ask.member:
            return Code.NONE if ask.member in self.pending else self._known(ask.member, ask.instance)
        is_returning = ask.instance is not None and ask.instance in self.instances
        if not is_returning and len(self.members) + len(self.pending) >= self.max_members:
            return Code.GROUP_MAX_SIZE_REACHED
        return Code.NONE

    def _shares_protocol(self, ask: Join) -> bool:
        if not ask.kind or not ask.protocols:
            return False
        if not self.members:
            return True
        return ask.kind == self.kind and not self._shared_protocols().isdisjoint(each.name for each in ask.protocols)

    def _shared_protocols(self) -> set[str]:
        return set.intersection(*({each.name for each in member.protocols} for member in self.members.values()))

    def _known(self, member: str, instance: str | None) -> Code:
        # An instance that meanwhile belongs to another member id fences the caller, whether or not its id is still known.
        if instance is not None and self.instances.get(instance, member) != member:
            return Code.FENCED_INSTANCE_ID
        if member not in self.members or (instance is not None and instance not in self.instances):
            return Code.UNKNOWN_MEMBER_ID
        return Code.NONE

    def _identify(self, member: str, instance: str | None, generation: int) -> Code:
        code = self._known(member, instance)
        return code or (Code.NONE if generation == self.generation else Code.ILLEGAL_GENERATION)

    def _touch(self, member: Member, now: int) -> None:
        member.expires = now + member.session_timeout

    def _add(self, ask: Join, member: str, ticket: object, now: int) -> None:
        if not self.members:
            self.kind = ask.kind
            self.leader = member
        self.members[member] = Member(
            member,
            ask.instance,
            ask.client,
            ask.host,
            ask.session_timeout,
            ask.rebalance_timeout,
            ask.protocols,
            now + ask.session_timeout,
            joining=ticket,
        )
        if ask.instance is not None:
            self.instances[ask.instance] = member
        if self._is_first and self.state is State.PREPARING:
            self._closes = min(now + self.window, self._started + self._longest_rebalance())
        self._rebalance(now)

    def _rejoin(self, member: Member, ask: Join, ticket: object, now: int) -> None:
        """Take a known member's join: a new rebalance only if it leads or brings other metadata (KIP-429's second round)."""
        has_changed = member.protocols != ask.protocols
        may_stay = not has_changed and (
            self.state is State.COMPLETING or (self.state is State.STABLE and member.id != self.leader)
        )
        self._update(member, ask, now)
        if may_stay:
            self._reply(ticket, self._current(member))
            return
        self._wait_to_join(member, ticket)
        self._rebalance(now)

    def _return(self, old: Member, ask: Join, ticket: object, now: int) -> None:
        """Take a restarted static member: it replaces its former self at once, and the group need not notice (KIP-345)."""
        former_leader = self.leader
        self._dismiss(old, Code.FENCED_INSTANCE_ID)
        assert old.instance is not None
        # The newcomer takes its former self's place in the order of members, as if only the name had changed.
        self.members = {(ask.fresh if each is old else name): each for name, each in self.members.items()}
        self.instances[old.instance] = ask.fresh
        if self.leader == old.id:
            self.leader = ask.fresh
        old.id = ask.fresh
        old.client, old.host = ask.client, ask.host
        self._update(old, ask, now)
        if self.state is State.STABLE and self._elect_protocol() == self.protocol:
            # The former leader's id: a returning leader must not think it has to assign anew; it only syncs.
            answer = Joined(Code.NONE, old.id, self.generation, self.protocol, former_leader)
            self._reply(ticket, answer)
            return
        self._wait_to_join(old, ticket)
        self._rebalance(now)

    def _update(self, member: Member, ask: Join, now: int) -> None:
        member.protocols = ask.protocols
        member.session_timeout, member.rebalance_timeout = ask.session_timeout, ask.rebalance_timeout
        self._touch(member, now)

    def _wait_to_join(self, member: Member, ticket: object) -> None:
        if member.joining is not None:
            self._reply(member.joining, Joined(Code.REBALANCE_IN_PROGRESS, member.id))
        member.joining = ticket

    def _remove_all(self, members: list[Member], now: int) -> None:
        for each in members:
            if each.id in self.members:  # removing one may end a phase, and that may have removed the next
                self._remove(each, now)

    def _remove(self, member: Member, now: int) -> None:
        self._forget(member)
        if self.state in (State.STABLE, State.COMPLETING):
            self._rebalance(now)
        else:
            self._complete_join(now)

    def _forget(self, member: Member) -> None:
        del self.members[member.id]
        if member.instance is not None:
            del self.instances[member.instance]
        self._dismiss(member, Code.UNKNOWN_MEMBER_ID)
        if self.leader == member.id:
            self.leader = next(iter(self.members), "")

    def _dismiss(self, member: Member, code: Code) -> None:
        if member.joining is not None:
            self._reply(member.joining, Joined(code, member.id))
        if member.syncing is not None:
            self._reply(member.syncing, Synced(code))
        member.joining = member.syncing = None

    # ── phases ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _rebalance(self, now: int) -> None:
        """Enter the join phase, if not already in it."""
        if self.state is not State.PREPARING:
            for each in self.members.values():
                each.assignment = b"" if self.state is State.COMPLETING else each.assignment
                if each.syncing is not None:
                    self._reply(each.syncing, Synced(Code.REBALANCE_IN_PROGRESS))
                    each.syncing = None
                    self._touch(each, now)
            self._is_first = self.state is State.EMPTY
            self.state = State.PREPARING
            self._started = now
            longest = self._longest_rebalance()
            self._closes = now + (min(self.window, longest) if self._is_first else longest)
        self._complete_join(now)

    def _complete_join(self, now: int) -> None:
        """End the join phase when every member has joined, or when its time is up."""
        if self.state is not State.PREPARING:
            return
        absent = [each for each in self.members.values() if each.joining is None]
        is_complete = not absent and not self.pending and not self._is_first
        if not is_complete and now < self._closes:
            return
        for each in absent:
            # A static member may be restarting: only its session's end removes it.
            if each.instance is None:
                self._forget(each)
        if self.members and not self._elect_leader():
            self._closes = now + max(self._longest_rebalance(), _SHORTEST_PHASE)
            return
        self._begin_generation(now)

    def _elect_leader(self) -> bool:
        """Keep the leader if it has joined, else take the first member that has; False if none has."""
        if self.members[self.leader].joining is None:
            joined = next((each.id for each in self.members.values() if each.joining is not None), None)
            if joined is None:
                return False
            self.leader = joined
        return True

    def _begin_generation(self, now: int) -> None:
        self.generation += 1
        if not self.members:
            self.state, self.protocol = State.EMPTY, ""
            return
        self.state = State.COMPLETING
        self.protocol = self._elect_protocol()
        self._closes = now + self._longest_rebalance()
        for each in self.members.values():
            each.assignment = b""
            if each.joining is not None:
                ticket, each.joining = each.joining, None
                self._touch(each, now)
                self._reply(ticket, self._current(each))

    def _elect_protocol(self) -> str:
        """Choose among the protocols all members share: each votes for the first of its own that is shared."""
        shared = self._shared_protocols()
        votes = Counter(
            next(each.name for each in member.protocols if each.name in shared) for member in self.members.values()
        )
        return votes.most_common(1)[0][0]

    def _assign(self, assignments: dict[str, bytes], now: int) -> None:
        self.state = State.STABLE
        for each in self.members.values():
            each.assignment = assignments.get(each.id, b"")
            if each.syncing is not None:
                ticket, each.syncing = each.syncing, None
                self._touch(each, now)
                self._reply(ticket, Synced(Code.NONE, each.assignment))

    def _current(self, member: Member) -> Joined:
        peers: tuple[Peer, ...] = ()
        if member.id == self.leader:
            peers = tuple(Peer(each.id, each.instance, each.metadata(self.protocol)) for each in self.members.values())
        return Joined(Code.NONE, member.id, self.generation, self.protocol, self.leader, peers)

    def _longest_rebalance(self) -> int:
        return max((each.rebalance_timeout for each in self.members.values()), default=0)

    # ── replies ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _reply(self, ticket: object, answer: Joined | Synced) -> None:
        self._replies.append(Reply(ticket, answer))

    def _drain(self) -> list[Reply]:
        replies, self._replies = self._replies, []
        return replies
