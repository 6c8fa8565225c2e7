"""Leaves a consumer group in every state, where aiokafka leaves only when it has joined and is not joining again.

A client that stops without leaving stays a member until its session ends, and at the next rebalance all others wait for it. A
coordinator knows a member from its first JoinGroup on, long before that is answered; and it reads no other request from
the same connection meanwhile. So an unfinished join is followed to learn the id under which to leave, and the request goes
over a connection of its own.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import aiokafka.errors as kafka
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.group import JoinGroupRequest, LeaveGroupRequest
from aiokafka.protocol.types import Array, Int16, Int32, Schema, String

from octopus.errors import TransportError
from octopus.events import TopicPartition
from octopus.transports.kafka.engine import Consumer, name_member, partitions_in, speaking

TELLING_TIMEOUT, LEAVE_TIMEOUT = 1.5, 2.5
"""Seconds that a listener has that is just being told of a change, and then the coordinator to hear that we leave."""

ID_WAIT = 1.0
"""Seconds to wait for the id that a coordinator gives a newcomer. It comes at once (KIP-394), or only with the generation."""

LOOK_AGAIN = 0.05
"""Seconds until a coordinator is told again that a member leaves, and a task that it is cancelled."""

LEAVING = "leaving"
"""Names the connection over which a member leaves, beside aiokafka's own (`ConnectionGroup`)."""

NOT_THERE = (14, 15, 16)
"""Error codes of a coordinator that is loading, not available, or another broker by now."""

UNKNOWN_MEMBER, FENCED = 25, 82

_MEMBER = ("member_id", String("utf-8")), ("group_instance_id", String("utf-8"))


class _Answer(Response):
    API_KEY = 13
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32), ("error_code", Int16), ("members", Array(*_MEMBER, ("error_code", Int16)))
    )


class _Question(RequestStruct):
    API_KEY = 13
    API_VERSION = 3
    RESPONSE_TYPE = _Answer
    SCHEMA = Schema(("group", String("utf-8")), ("members", Array(*_MEMBER)))


@speaking(_Question)
class LeaveGroup(LeaveGroupRequest):
    """Takes members out of their group, in the version that can name a static one by its instance (3, KIP-345).

    Args:
        group: Which group.
        members: Member id and group instance id of each; an id may be empty where there is an instance, and the instance
            None. Brokers before 2.4 are told of the first alone.
    """

    def __init__(self, group: str, members: Sequence[tuple[str, str | None]]) -> None:
        super().__init__(group, members[0][0])
        self._of = group
        self._members = members

    def build(self, request_struct_class: Any) -> Any:
        """Return the request in a version."""
        if request_struct_class is not _Question:
            return super().build(request_struct_class)
        return _Question(self._of, list(self._members))


def codes_of(reply: Any) -> list[int]:
    """Return the error codes of an answer to `LeaveGroup`: its own, then each member's."""
    return [reply.error_code, *(code for *_, code in getattr(reply, "members", ()))]


class Membership:
    """What one member has asked its coordinator, and so under which name it is known there.

    Args:
        engine: aiokafka's consumer, started and not yet subscribed.
        instance: The static member's name, or None.
        stays: Whether the member keeps its place when it stops, for a successor of the same instance.

    Attributes:
        failure: Why it cannot be a member any more.
    """

    def __init__(self, engine: Consumer, instance: str | None, *, stays: bool) -> None:
        self._client = engine.client
        self._coordinator = engine.coordinator
        self._instance = instance
        self._stays = stays
        self._join: asyncio.Future[Any] | None = None
        self._id_before = ""  # of a static member: the last one it had, until the coordinator says that it is unknown
        self.failure: TransportError | None = None
        self._coordinator.between = self._follow

    async def _follow(self, request: Any) -> Any:
        if not isinstance(request, JoinGroupRequest):
            return await self._coordinator.ask(request)
        if self._instance is not None:
            # The engine forgets its id when the coordinator does not know it. A namesake would take it for a successor and
            # take the place back, for ever: with the id the coordinator can tell us apart.
            name_member(request, self._id_before)
        # Shielded: the answer to a join that is given up says under which id the coordinator knows us all the same.
        self._join = asyncio.ensure_future(self._coordinator.ask(request))
        self._join.add_done_callback(_look_at)
        reply = await asyncio.shield(self._join)
        self._id_before = "" if reply.error_code == UNKNOWN_MEMBER else reply.member_id
        if reply.error_code == FENCED:
            self.failure = TransportError(
                f"Another member of group {self._coordinator.group_id!r} has the instance id {self._instance!r} now. "
                "Give every worker one of its own (consumer.group_instance_id), or none."
            )
        return reply

    async def watch_topics(self, topics: Iterable[str]) -> None:
        """Let a static member notice new partitions, too: in aiokafka only the leader does.

        A leader that comes back in time is not told that it still leads (before JoinGroup 9, KIP-814), so no member would
        notice any more. Whether some came meanwhile follows from what the group has dealt out.
        """
        coordinator = self._coordinator
        if self._instance is None or coordinator.watches_topics:
            return
        with contextlib.suppress(kafka.KafkaError):
            reply = await coordinator.ask(DescribeGroupsRequest([coordinator.group_id]))
            _, _, state, _, _, members, *_ = reply.groups[0]
            if state == "Stable":  # else all members join again in a moment
                dealt = Counter(place.topic for _, _, _, _, assignment, *_ in members for place in assigned(assignment))
                coordinator.watch_topics({topic: dealt[topic] for topic in topics})

    async def leave(self, told: asyncio.Event) -> None:
        """Take the member out of its group, also in the middle of a rebalance; a coordinator that does not answer is let be.

        Args:
            told: Set when no listener is being told of a change.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TELLING_TIMEOUT):
                await told.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT):
                await self._leave()

    async def _leave(self) -> None:
        coordinator = self._coordinator
        # Neither may act for us any more: they would take the answer that we are unknown for a reason to join again. Again
        # and again, because the engine's tasks take it for their own when one is cancelled that they wait for.
        for name in ("coordination_task", "heartbeat_task"):
            while (task := getattr(coordinator, name)) is not None and not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=LOOK_AGAIN)
        coordinator.generation = -1  # the engine leaves no more
        if self._stays:
            return
        member = await self._id()
        while member or self._instance is not None:
            await coordinator.ensure_coordinator_known()
            with contextlib.suppress(kafka.KafkaError):
                codes = await self._say(LeaveGroup(coordinator.group_id, [(member, self._instance)]))
                is_on_its_way = UNKNOWN_MEMBER in codes and self._join is not None and not self._join.done()
                if not is_on_its_way and not any(code in NOT_THERE for code in codes):
                    return
            coordinator.coordinator_dead()
            await asyncio.sleep(LOOK_AGAIN)

    async def _id(self) -> str:
        """Return the id that the coordinator knows this member by, empty when there is none."""
        member: str = self._coordinator.member_id
        if member or self._join is None:
            return member
        with contextlib.suppress(kafka.KafkaError, TimeoutError):
            async with asyncio.timeout(0 if self._instance is not None else ID_WAIT):
                reply = await asyncio.shield(self._join)
                member = reply.member_id
        return member

    async def _say(self, request: LeaveGroup) -> list[int]:
        """Ask the coordinator over a connection of its own: what it reads from ours waits behind a join."""
        # The engine's stays where the engine looks for it: a request on it that times out closes it.
        return codes_of(await self._client.send(self._coordinator.coordinator_id, request, group=LEAVING))


def assigned(assignment: bytes) -> tuple[TopicPartition, ...]:
    """Return the partitions in what a leader has dealt out to a member."""
    if not assignment:
        return ()
    return tuple(sorted(TopicPartition(*partition) for partition in partitions_in(assignment)))


def _look_at(join: "asyncio.Future[Any]") -> None:
    """Retrieve the failure of a join whose caller has gone, so that asyncio does not report it."""
    if not join.cancelled():
        join.exception()
