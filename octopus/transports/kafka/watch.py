"""Stands between aiokafka's fetcher and the brokers: asks by topic id, and notices what is answered per partition.

aiokafka logs most errors there and asks again, for ever.
"""

import asyncio
import time
from typing import Any

import aiokafka.errors as kafka
from aiokafka.protocol.fetch import FetchRequest

from octopus.events import TopicPartition
from octopus.transports.kafka.engine import Fetcher
from octopus.transports.kafka.fetch_by_id import FetchById

_HANDLED = (1, 29)  # out of range, not authorized: aiokafka raises these
_PAUSE = 0.1  # seconds; the fetcher would ask again at once
_AT_ONCE = (2, 76)  # corrupt, codec unknown: asking again does not help


class FetchWatch:
    """Stands between a fetcher and its client and keeps, per partition, the error that the broker answers.

    Attributes:
        topic_ids: The ids of the topics that positions belong to; a fetch that has a partition without goes by name.
        errors: Error code and when it was first seen in a row, by partition.
    """

    def __init__(self, client: Any, patience: float) -> None:
        self._client = client
        self._patience = patience
        self.topic_ids: dict[TopicPartition, str] = {}
        self.errors: dict[TopicPartition, tuple[int, float]] = {}

    @classmethod
    def on(cls, fetcher: Fetcher, patience: float) -> "FetchWatch":
        """Watch a fetcher; errors that pass within `patience` seconds (elections, new topics) are not reported."""
        watch: FetchWatch = fetcher.stand_between(lambda client: cls(client, patience))
        return watch

    def expect(self, partition: TopicPartition, topic_id: str | None) -> None:
        """Fetch the topic with this id from now on, also if its name means another; None to go by name."""
        self.errors.pop(partition, None)
        if topic_id is None:
            self.topic_ids.pop(partition, None)
        else:
            self.topic_ids[partition] = topic_id

    def clear(self) -> None:
        """Forget everything, of an assignment that is over."""
        self.errors.clear()
        self.topic_ids.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node_id: int, request: Any, **options: Any) -> Any:
        """Send, a fetch by topic id, and look at the answer to it."""
        if not isinstance(request, FetchRequest):
            return await self._client.send(node_id, request, **options)
        ids = self._ids_for(request)
        if ids is None:
            reply = await self._client.send(node_id, request, **options)
        else:
            by_id = FetchById(request, ids)
            reply = by_id.with_names(await self._client.send(node_id, by_id, **options), self.topic_ids)
        if self._has_errors(reply):
            await asyncio.sleep(_PAUSE)
        return reply

    def _ids_for(self, request: Any) -> dict[TopicPartition, str] | None:
        """Return the topic ids of all that a request asks for, None if some are not known."""
        ids = self.topic_ids
        asked = [TopicPartition(topic, number) for topic, partitions in request.topics for number, _, _ in partitions]
        return {partition: ids[partition] for partition in asked} if ids.keys() >= {*asked} else None

    def _has_errors(self, reply: Any) -> bool:
        now, failed = time.monotonic(), False
        for topic, partitions in reply.topics:
            for number, code, *_ in partitions:
                if code and code not in _HANDLED:
                    self.errors.setdefault(TopicPartition(topic, number), (code, now))
                    failed = True
                elif self.errors:
                    self.errors.pop(TopicPartition(topic, number), None)
        return failed

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
