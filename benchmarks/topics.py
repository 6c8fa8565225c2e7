"""Fills topics for the cases to read, once each, and removes them in the end."""

import contextlib
import itertools
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from benchmarks.records import HEADERS, Workload, contents
from octopus.transports.base import Admin, Outgoing
from octopus.transports.opening import open_transport

CHUNK = 5000


class Topics:
    """The topics of one invocation, on one broker.

    Args:
        brokers: Bootstrap servers.
        seed: For the records.
    """

    def __init__(self, brokers: str, seed: int) -> None:
        self._transport = open_transport(brokers)
        self._prefix = f"bench-{uuid.uuid4().hex[:6]}"
        self._seed = seed
        self._made: dict[Workload, str] = {}
        self._numbers = itertools.count()

    async def ready(self, workload: Workload, *, fill: bool, copies: int = 1) -> str:
        """Return the name of a topic: the one with this workload's records, or an empty one that is new each time."""
        if fill and workload in self._made:
            return self._made[workload]
        name = f"{self._prefix}-{next(self._numbers)}"
        async with self._admin() as admin:
            await admin.create_topic(name, partitions=workload.partitions, replication=copies)
        if fill:
            await self._fill(name, workload)
            self._made[workload] = name
        return name

    async def remove(self, name: str) -> None:
        """Delete a topic."""
        async with self._admin() as admin:
            await admin.delete_topic(name)

    async def remove_all(self) -> None:
        """Delete the topics that were filled."""
        async with self._admin() as admin:
            for name in self._made.values():
                await admin.delete_topic(name)
        self._made.clear()

    @contextlib.asynccontextmanager
    async def _admin(self) -> AsyncIterator[Admin]:
        admin = self._transport.admin()
        await admin.start()
        try:
            yield admin
        finally:
            await admin.stop()

    async def _fill(self, name: str, workload: Workload) -> None:
        headers: Any = HEADERS if workload.headers else ()
        now = int(time.time() * 1000)
        run = max(1, min(100, workload.records // workload.partitions))
        producer = self._transport.producer()
        await producer.start()
        try:
            chunk: list[Outgoing] = []
            for number, (key, value) in enumerate(contents(workload, self._seed)):
                # Without a key, round-robin: every partition gets its share, whatever the client's partitioner does.
                partition = None if key is not None else number // run % workload.partitions
                chunk.append(Outgoing(name, value, key, headers, partition, now))
                if len(chunk) == CHUNK or len(chunk) * workload.value_bytes > 2**24:
                    await producer.send_many(chunk)
                    chunk = []
            await producer.send_many(chunk)
        finally:
            await producer.stop()
