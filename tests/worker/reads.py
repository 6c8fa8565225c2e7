"""Reads topics as a test wants to see them."""

import asyncio
import secrets
from collections.abc import Collection

from octopus.events import Record, TopicPartition
from octopus.transports.base import Admin, Chunk, Transport


class Reads:
    """Reads topics from their beginning, committed records only, in a group of nobody's."""

    def __init__(self, transport: Transport, admin: Admin) -> None:
        self._transport = transport
        self._admin = admin

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        await self._consumer.seek(dict.fromkeys(partitions, 0))
        self._places |= {*partitions}

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        self._places -= {*partitions}

    lost = revoked

    async def __call__(self, topic: str) -> list[Record]:
        """Return what is in a topic; nothing when there is none."""
        if topic not in {info.name for info in await self._admin.topics()}:
            return []
        self._places: set[TopicPartition] = set()
        self._consumer = self._transport.consumer(f"reads-{secrets.token_hex(4)}", [topic], isolation="read_committed")
        await self._consumer.start(self)
        found: list[Record] = []
        try:
            async with asyncio.timeout(60):
                while not self._places:
                    await self._consumer.fetch((), max_records=1, timeout=0.05)
                ends = await self._consumer.offsets(self._places, "latest")
                at = dict.fromkeys(self._places, 0)
                while any(at[place] < end for place, end in ends.items()):
                    for chunk in await self._consumer.fetch(self._places, max_records=1000, timeout=0.1):
                        assert isinstance(chunk, Chunk)
                        found += [Record.at(chunk.partition, record) for record in chunk.records]
                        at[chunk.partition] = chunk.next_offset
        finally:
            await self._consumer.stop()
        return found
