"""Binds the group state machines to the event loop: tickets are futures, deadlines are timers."""

import asyncio
from collections.abc import Iterable
from uuid import uuid4

from octopus.broker.codes import BrokerError, Code
from octopus.broker.groups import Group, Join, Joined, Reply, State, Synced
from octopus.broker.limits import Limits


class GroupCoordinator:
    """Membership of all consumer groups of one broker; their offsets are the storage's.

    Attributes:
        groups: By name; a group that never had a member is not among them.
    """

    def __init__(self, limits: Limits, join_window_ms: int) -> None:
        self.groups: dict[str, Group] = {}
        self._limits = limits
        self._window = join_window_ms
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def join(self, group: str, ask: Join) -> Joined:
        """Answer a JoinGroup request when its rebalance has come far enough.

        Raises:
            BrokerError: 24 bad group id, 26 session time-out out of range, 44 too many groups.
        """
        self.check_name(group)
        shortest, longest = self._limits.min_session_timeout_ms, self._limits.max_session_timeout_ms
        if not shortest <= ask.session_timeout <= longest:
            raise BrokerError(Code.INVALID_SESSION_TIMEOUT)
        known = self.groups.get(group)
        if known is None:
            if ask.member:
                raise BrokerError(Code.UNKNOWN_MEMBER_ID)
            if len(self.groups) >= self._limits.max_groups:
                raise BrokerError(Code.POLICY_VIOLATION, "this broker has too many groups")
            known = self.groups[group] = Group(group, self._window, self._limits.max_members)
        ticket: asyncio.Future[Joined] = asyncio.get_running_loop().create_future()
        self._deliver(known, known.join(ask, ticket, self.now()))
        return await ticket

    async def sync(
        self, group: str, member: str, instance: str | None, generation: int, assignments: Iterable[tuple[str, bytes]]
    ) -> Synced:
        """Answer a SyncGroup request when the leader has brought the assignments.

        Raises:
            BrokerError: 24 bad group id, 25 unknown group.
        """
        known = self._known(group)
        ticket: asyncio.Future[Synced] = asyncio.get_running_loop().create_future()
        self._deliver(known, known.sync(member, instance, generation, assignments, ticket, self.now()))
        return await ticket

    def heartbeat(self, group: str, member: str, instance: str | None, generation: int) -> Code:
        """Keep a session alive. Raises as `sync`."""
        return self._known(group).heartbeat(member, instance, generation, self.now())

    def leave(self, group: str, member: str, instance: str | None) -> Code:
        """Remove a member. Raises as `sync`."""
        known = self._known(group)
        code, replies = known.leave(member, instance, self.now())
        self._deliver(known, replies)
        return code

    def is_known(self, group: str) -> bool:
        """Say whether a group has, or had not long ago, members."""
        return group in self.groups

    def may_commit(
        self, group: str, member: str, instance: str | None, generation: int, *, in_transaction: bool = False
    ) -> Code:
        """Check that a client may commit offsets; outsiders may commit to a group without members.

        Raises:
            BrokerError: 24 bad group id.
        """
        self.check_name(group)
        known = self.groups.get(group)
        if known is None:
            return Code.NONE if generation < 0 else Code.ILLEGAL_GENERATION
        return known.may_commit(member, instance, generation, self.now(), in_transaction=in_transaction)

    def is_active(self, group: str) -> bool:
        """Say whether a group has members, or ids promised to members."""
        known = self.groups.get(group)
        return known is not None and bool(known.members or known.pending)

    def active(self) -> list[str]:
        """Name the groups that have members."""
        return [name for name in self.groups if self.is_active(name)]

    def forget(self, group: str) -> None:
        """Drop a group without members; one with members stays."""
        if not self.is_active(group):
            self.groups.pop(group, None)
            self._disarm(group)

    def forget_inactive(self) -> None:
        """Drop every group without members; their offsets, if any, keep them listed."""
        for name in [name for name in self.groups if not self.is_active(name)]:
            self.forget(name)

    def check_name(self, group: str) -> None:
        """Refuse empty and overlong group ids.

        Raises:
            BrokerError: 24.
        """
        if not group or len(group) > self._limits.max_name_bytes:
            raise BrokerError(Code.INVALID_GROUP_ID)

    def new_member_id(self, prefix: str) -> str:
        """Invent a member id that names the client, as Kafka does."""
        return f"{prefix[:255]}-{uuid4()}"

    def stop(self) -> None:
        """Stop all timers and answer all waiting members that the coordinator is going away."""
        for name in list(self._timers):
            self._disarm(name)
        for group in self.groups.values():
            for member in group.members.values():
                _resolve(member.joining, Joined(Code.NOT_COORDINATOR, member.id))
                _resolve(member.syncing, Synced(Code.NOT_COORDINATOR))

    @staticmethod
    def now() -> int:
        """Milliseconds on the loop's clock: a step of the wall clock must not end sessions."""
        return int(asyncio.get_running_loop().time() * 1000)

    def _known(self, group: str) -> Group:
        self.check_name(group)
        known = self.groups.get(group)
        if known is None:
            raise BrokerError(Code.UNKNOWN_MEMBER_ID)
        return known

    def _deliver(self, group: Group, replies: list[Reply]) -> None:
        for each in replies:
            _resolve(each.ticket, each.answer)
        if group.state is State.EMPTY and not group.pending and group.generation == 0:
            self.groups.pop(group.name, None)  # a refused join must not leave a group behind
        self._arm(group)

    def _arm(self, group: Group) -> None:
        """Keep one timer for a group. One that rings too early is cheaper than moving it on every heartbeat."""
        deadline = group.deadline()
        if deadline is None:
            self._disarm(group.name)
            return
        loop, when = asyncio.get_running_loop(), deadline / 1000
        timer = self._timers.get(group.name)
        if timer is not None and timer.when() <= when:
            return
        self._disarm(group.name)
        self._timers[group.name] = loop.call_at(when, self._ring, group)

    def _disarm(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _ring(self, group: Group) -> None:
        self._timers.pop(group.name, None)
        # Timers may ring within the clock's resolution before their time; the deadline is then due all the same.
        self._deliver(group, group.tick(self.now() + 1))


def _resolve(ticket: object, answer: Joined | Synced) -> None:
    if isinstance(ticket, asyncio.Future) and not ticket.done():
        ticket.set_result(answer)
