"""Fills topics for the cases to read, once each, and removes them in the end."""

import time
import uuid
from typing import Any

from benchmarks.records import HEADERS, Workload, contents
from octopus.transports import open_transport
from octopus.transports.base import Outgoing

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
        self._made: set[str] = set()

    async def ready(self, workload: Workload, *, fill: bool) -> str:
        """Return the name of a topic for this workload, made and filled when asked for the first time."""
        name = f"{self._prefix}-{workload.name}" + ("" if fill else "-out")
        if name not in self._made:
            self._made.add(name)
            admin = self._transport.admin()
            await admin.start()
            try:
                await admin.create_topic(name, partitions=workload.partitions)
            finally:
                await admin.stop()
            if fill:
                await self._fill(name, workload)
        return name

    async def remove(self) -> None:
        """Delete every topic that was made."""
        admin = self._transport.admin()
        await admin.start()
        try:
            for name in self._made:
                await admin.delete_topic(name)
        finally:
            await admin.stop()

    async def _fill(self, name: str, workload: Workload) -> None:
        headers: Any = HEADERS if workload.headers else ()
        now = int(time.time() * 1000)
        producer = self._transport.producer()
        await producer.start()
        try:
            chunk: list[Outgoing] = []
            for number, (key, value) in enumerate(contents(workload, self._seed)):
                # Without a key, round-robin: every partition gets its share, whatever the client's partitioner does.
                partition = None if key is not None else number // 100 % workload.partitions
                chunk.append(Outgoing(name, value, key, headers, partition, now))
                if len(chunk) == CHUNK or len(chunk) * workload.value_bytes > 2**24:
                    await producer.send_many(chunk)
                    chunk = []
            await producer.send_many(chunk)
        finally:
            await producer.stop()
