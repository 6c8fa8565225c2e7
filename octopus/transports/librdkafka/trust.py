"""A broker that is not trusted: librdkafka has one error for its certificate and for a handshake that was cut off.

Only the words of that error differ, and they are OpenSSL's. So Python's `ssl` is asked, whose errors have types.
"""

import asyncio
import concurrent.futures
import ssl
from collections.abc import Callable
from functools import partial

from confluent_kafka import KafkaError

from octopus.errors import ConfigurationError
from octopus.transports.kafka.errors import translated
from octopus.transports.kafka.settings import KafkaSettings
from octopus.transports.librdkafka.errors import ours
from octopus.transports.librdkafka.looking import Looking

DOUBTS = 3
"""How often librdkafka may fail where Python succeeds, and go on: a broker that starts or stops cuts off handshakes."""

WITHIN = 30.0
"""Seconds in which that has to happen to end a consumer."""


class Trust:
    """Looks whether a broker's certificate is the reason why no TLS connection was made; ends a consumer if so.

    Args:
        settings: Where the cluster is.
        fail: Ends the consumer.
    """

    def __init__(self, settings: KafkaSettings, fail: Callable[[BaseException], None]) -> None:
        self._settings = settings
        self._fail = fail
        self._looking = Looking()
        self._doubts: list[float] = []

    def look(self, home: asyncio.AbstractEventLoop, error: KafkaError) -> concurrent.futures.Future[None]:
        """Look in that loop, unless a look is under way; return a future that is done when it ends."""
        return self._looking.begin(partial(self._look, error), home)

    def close(self) -> None:
        """Look no more."""
        self._looking.close()

    async def _look(self, error: KafkaError) -> None:
        now = asyncio.get_running_loop().time()
        try:
            context = self._settings.client_options()["ssl_context"]
            for broker in self._settings.brokers.split(","):
                await self._shake_hands(broker.strip(), context)
        except ssl.SSLCertVerificationError as refused:
            self._fail(translated(refused, "connecting", self._settings.brokers))
        except (OSError, TimeoutError, ConfigurationError):
            return  # away, or files that are being replaced: librdkafka tries again, and so do we
        else:
            self._doubts = [*(before for before in self._doubts if before > now - WITHIN), now]
            if len(self._doubts) >= DOUBTS:
                self._fail(ours(error, "connecting", self._settings.brokers))

    async def _shake_hands(self, broker: str, context: ssl.SSLContext) -> None:
        host, _, port = broker.rpartition(":")
        async with asyncio.timeout(self._settings.request_timeout):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context)
            writer.transport.abort()
