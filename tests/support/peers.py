"""Group members by hand, which do nothing unless told to: others wait for them."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.protocol.group import JoinGroupRequest, SyncGroupRequest


class Peer:
    """A member by hand, which does nothing unless told to: others wait for it.

    Args:
        client: Connected.
        group: Group id.
        topic: What it subscribes to.
    """

    def __init__(self, client: AIOKafkaClient, group: str, topic: str) -> None:
        self.client = client
        self.group = group
        self.topic = topic
        self.id = ""
        self.members: dict[str, bytes] = {}

    async def join(self) -> None:
        """Join, or join again; returns when the group has agreed. Takes the lead if nobody has it."""
        code = -1
        while code:
            reply = await self._send(
                JoinGroupRequest(self.group, 60_000, 60_000, self.id, None, "consumer", self._protocols()),  # type: ignore[arg-type]
            )
            self.id, code = reply.member_id, reply.error_code
        self.generation = reply.generation_id
        self.members = {member: metadata for member, _, metadata in reply.members}

    async def sync(self, assignments: Mapping[str, list[int]] | None = None) -> None:
        """Deal partitions out: to each member id those that are named, else none."""
        dealt = [
            (member, ConsumerProtocolMemberAssignment(0, [(self.topic, [*numbers])], b"").encode())
            for member, numbers in ({member: [] for member in self.members} | {**(assignments or {})}).items()
        ]
        await self._send(SyncGroupRequest(self.group, self.generation, self.id, None, dealt))  # type: ignore[arg-type]

    def _protocols(self) -> list[tuple[str, bytes]]:
        metadata = ConsumerProtocolMemberMetadata(0, [self.topic], b"").encode()
        return [(name, metadata) for name in ("range", "roundrobin", "sticky", "cooperative-sticky")]

    async def _send(self, request: Any) -> Any:
        while True:
            with contextlib.suppress(GroupCoordinatorNotAvailableError):  # of a cluster that is young
                node = await self.client.coordinator_lookup(CoordinationType.GROUP, self.group)
                return await self.client.send(node, request)
            await asyncio.sleep(0.1)
