"""Notices what a fetch answers per partition. aiokafka logs most errors there and asks again, for ever."""

import asyncio
import time
from typing import Any

import aiokafka.errors as kafka
from aiokafka.protocol.fetch import FetchRequest

from octopus.events import TopicPartition

_HANDLED = (1, 29)  # out of range, not authorized: aiokafka raises these
_PAUSE = 0.1  # seconds; the fetcher would ask again at once
_AT_ONCE = (2, 76)  # corrupt, codec unknown: asking again does not help


class FetchWatch:
    """Stands between a fetcher and its client and keeps, per partition, the error that the broker answers.

    Attributes:
        errors: Error code and when it was first seen in a row, by partition.
    """

    def __init__(self, client: Any, patience: float) -> None:
        self._client = client
        self._patience = patience
        self.errors: dict[TopicPartition, tuple[int, float]] = {}

    @classmethod
    def on(cls, fetcher: Any, patience: float) -> "FetchWatch":
        """Watch a fetcher; errors that pass within `patience` seconds (elections, new topics) are nobody's business."""
        watch = cls(fetcher._client, patience)
        fetcher._client = watch
        return watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node_id: int, request: Any, **options: Any) -> Any:
        """Send, and look at the answer to a fetch."""
        reply = await self._client.send(node_id, request, **options)
        if isinstance(request, FetchRequest):
            now, failed = time.monotonic(), False
            for topic, partitions in reply.topics:
                for number, code, *_ in partitions:
                    if code and code not in _HANDLED:
                        self.errors.setdefault(TopicPartition(topic, number), (code, now))
                        failed = True
                    elif self.errors:
                        self.errors.pop(TopicPartition(topic, number), None)
            if failed:
                await asyncio.sleep(_PAUSE)
        return reply

    def persistent(self) -> dict[TopicPartition, kafka.KafkaError]:
        """Return the errors that do not go away, once each; they come back if they still are there later."""
        now = time.monotonic()
        due: dict[TopicPartition, kafka.KafkaError] = {
            partition: kafka.for_code(code)(str(partition))
            for partition, (code, since) in self.errors.items()
            if code in _AT_ONCE or now - since >= self._patience
        }
        for partition in due:
            del self.errors[partition]
        return due
