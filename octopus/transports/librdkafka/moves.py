"""A broker that may come back elsewhere: librdkafka knows no other place than the one it was given."""

import asyncio
from collections.abc import Callable

from confluent_kafka import KafkaError

from octopus.errors import ConnectionFailed, OctopusError
from octopus.transports.kafka.settings import KafkaSettings
from octopus.transports.librdkafka.looking import Looking

AWAY = (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT)
"""librdkafka's errors when it cannot connect."""

LOOK_AGAIN = 0.5
"""Seconds until a broker that is not found is looked for again."""


class Moves:
    """Looks for a broker that went away, and ends a consumer whose broker has moved: the next consumer gets the new address.

    Args:
        settings: With `locate`, or there is nothing to look for.
        fail: Ends the consumer.
    """

    def __init__(self, settings: KafkaSettings, fail: Callable[[BaseException], None]) -> None:
        self._settings = settings
        self._fail = fail
        self._looking = Looking()

    def look(self, home: asyncio.AbstractEventLoop) -> None:
        """Look in that loop until the broker is found, unless a look is under way."""
        if self._settings.locate is not None:
            self._looking.begin(self._look, home)

    def close(self) -> None:
        """Look no more."""
        self._looking.close()

    async def _look(self) -> None:
        while True:
            try:
                address = await self._settings.locate()
            except OctopusError:
                await asyncio.sleep(LOOK_AGAIN)
                continue
            if address != self._settings.brokers:
                self._fail(ConnectionFailed(f"The broker at {self._settings.brokers} runs at {address} now."))
            return
