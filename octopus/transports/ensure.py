"""A producer that sees to it that a topic exists before the first message goes there."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from octopus.config import TopicSettings
from octopus.errors import NotAuthorized, TopicNotFound
from octopus.events import Published
from octopus.transports.base import Admin, Outgoing, Transport


class TopicEnsurer:
    """Publishes through a transport's producer and creates what is missing, where that is allowed.

    Most clusters do not create topics on demand, and a dead letter must not fail because nobody made its topic.

    Args:
        transport: Where.
        settings: Whether to create topics, and how.
        **options: Of the producer.
    """

    def __init__(self, transport: Transport, settings: TopicSettings, **options: Any) -> None:
        self._transport = transport
        self._settings = settings
        self._producer = transport.producer(**options)
        self._known: set[str] = set()
        self._admin: Admin | None = None
        self._connecting = asyncio.Lock()

    async def start(self) -> None:
        """Connect."""
        await self._producer.start()

    async def stop(self) -> None:
        """Deliver what is queued, then close."""
        try:
            await self._producer.stop()
        finally:
            if self._admin is not None:
                await self._admin.stop()

    async def send(self, message: Outgoing) -> Published:
        """Publish one message; return when it is acknowledged."""
        if message.topic not in self._known:
            await self.ensure((message.topic,))
        return await self._producer.send(message)

    async def send_many(self, messages: Sequence[Outgoing]) -> list[Published]:
        """Publish many in order; return when all are acknowledged."""
        topics = {message.topic for message in messages}
        if not topics <= self._known:
            await self.ensure(topics)
        return await self._producer.send_many(messages)

    async def ensure(self, topics: Collection[str]) -> None:
        """Create those of the topics that do not exist.

        Raises:
            NotAuthorized: A topic is missing and may not be created by this principal.
            TopicNotFound: A topic is missing and `topics.create` is off.
        """
        wanted = {*topics} - self._known
        if not wanted:
            return
        admin = await self._connected_admin()
        missing = wanted - {topic.name for topic in await admin.topics()}
        for topic in sorted(missing):
            if not self._settings.create:
                raise TopicNotFound(
                    f"topic {topic!r} does not exist on {self._transport.address} and topics.create is off. Create it: "
                    f"octopus topics create {topic}"
                )
            try:
                await admin.create_topic(
                    topic, partitions=self._settings.partitions, replication=self._settings.replication
                )
            except NotAuthorized as error:
                raise NotAuthorized(
                    f"topic {topic!r} does not exist on {self._transport.address} and may not be created: {error}. Ask the "
                    f"operator for it: octopus topics create {topic}"
                ) from error
        self._known |= wanted

    async def _connected_admin(self) -> Admin:
        async with self._connecting:  # concurrent handlers share one
            if self._admin is None:
                admin = self._transport.admin()
                await admin.start()
                self._admin = admin
            return self._admin
