"""The engine of a producer: another one takes its place when the broker no longer takes its sequence numbers."""

import asyncio
import contextlib
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import aiokafka.errors as kafka

from octopus.errors import OctopusError, PartitionLost, TransportError
from octopus.transports.kafka import missing
from octopus.transports.kafka.client_name import ClientName
from octopus.transports.kafka.clients import Producer
from octopus.transports.kafka.errors import FOREIGN, mapped, translated
from octopus.transports.kafka.outage import Outage
from octopus.transports.kafka.packing import Batch
from octopus.transports.kafka.producer_engine import Renewing
from octopus.transports.kafka.settings import KafkaSettings

NUMBERS_LOST = (
    kafka.OutOfOrderSequenceNumber,
    kafka.UnknownProducerId,
    kafka.ProducerFenced,
    kafka.InvalidProducerEpoch,
    kafka.InvalidProducerIdMapping,
    kafka.InvalidTxnState,
)
"""What a broker says that takes nothing more under this producer id and epoch."""

RENEW_EVERY = 0.1
"""Seconds between two engines, for a broker that refuses the sequence numbers of each."""

FAREWELL = 1.0
"""Seconds for closing a client when nothing is waited for any more."""

_PLACE = attrgetter("place")


class RenewableEngine:
    """The engine of one producer, of which there may be several, one after the other.

    An engine with a transactional id is not renewed: when its numbers are lost, another producer has its id.

    Invariant: while a renewal is due, an engine has nothing but what is on its way, and gets nothing more. What comes meanwhile is
    kept, and goes to the next engine before anything newer.

    Args:
        settings: Where the cluster is.
        options: Of aiokafka's producer.
        send_again: Gives a batch that was kept to a new engine.
        outage: Is told whether brokers answer; None where others ask them.

    Attributes:
        current: The engine; None while the producer does not run.
        is_lost: Whether the broker takes nothing more under the current engine's numbers.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        options: dict[str, Any],
        send_again: Callable[[Producer, Batch], None],
        outage: Outage | None = None,
    ) -> None:
        self.current: Producer | None = None
        self.is_lost = False
        self._settings = settings
        self._options = options
        self._transactional_id: str | None = options["transactional_id"]
        self._send_again = send_again
        self._outage = outage
        self._renewed_at = 0.0
        self._kept: list[Batch] = []

    async def start(self) -> None:
        """Connect."""
        self.current = await self._connect()

    async def _connect(self) -> Producer:
        options = self._settings.client_options() | self._options
        options["client_id"].outage = self._outage
        with mapped("connecting", self._settings.brokers, options["client_id"]):
            engine = Producer(**options)
            try:
                await engine.start()
            except BaseException:
                await engine.stop()
                raise
        missing.pace(engine.accumulator)
        engine.sender_task.add_done_callback(lambda task: self._sender_ended(engine, task))
        return engine

    def _sender_ended(self, engine: Producer, task: "asyncio.Task[Any]") -> None:
        """Fail what waits: aiokafka would let it wait for ever."""
        if not engine.is_closed:
            error = None if task.cancelled() else task.exception()
            self.is_lost = True
            engine.look_at_transaction_error()
            engine.accumulator.fail_all(error or kafka.KafkaError("the producer's background task ended"))

    async def stop(self) -> None:
        """Fail what waits, and close."""
        engine, self.current = self.current, None
        if engine is not None:
            engine.accumulator.fail_all(kafka.ProducerClosed())
            await self._close(engine)

    async def _close(self, engine: Producer) -> None:
        try:
            async with asyncio.timeout(FAREWELL):
                await engine.stop()
        except FOREIGN:
            with contextlib.suppress(*FOREIGN):
                await engine.client.close()

    # renewal

    @property
    def is_renewable(self) -> bool:
        """Whether another engine may take the place of one whose numbers are lost."""
        return self._transactional_id is None

    @property
    def is_renewal_due(self) -> bool:
        """Whether the next engine must come before anything else is sent."""
        return self.is_lost and self.is_renewable

    def lose(self, engine: Producer) -> None:
        """Note that an engine's numbers are lost; take back what it has queued.

        The broker may take that with any numbers, and what comes back to be sent again goes to the next engine: what is queued
        behind it must not leave before.
        """
        self.is_lost = True
        if self.is_renewable:
            engine.take_back_queued(Renewing())

    def keep(self, batch: Batch) -> None:
        """Keep a batch for the next engine."""
        self._kept.append(batch)

    def take_kept(self) -> list[Batch]:
        """Return the batches that are kept, in the order in which they were first given to an engine, and keep them no longer.

        Those that were on their way come back behind what was queued behind them.
        """
        kept, self._kept = sorted(self._kept, key=_PLACE), []
        return kept

    async def ready(self) -> Producer:
        """Return the engine, a new one when a renewal is due."""
        if self.current is None:
            raise TransportError("The producer is not running.")
        if self.is_renewal_due:
            await self._renew(self.current)
        client = self.current.client
        if isinstance(ClientName.of(client).failure, kafka.SaslAuthenticationFailed):
            # the engine would go on trying without a word; one more attempt may have a better credential
            if client.metadata_update is not None:
                await client.force_metadata_update()  # joins the attempt that is under way, with the old one
            if ClientName.of(client).failure is not None:
                await client.force_metadata_update()
            if (failure := ClientName.of(client).failure) is not None:
                raise translated(failure, "publishing", self._settings.brokers) from failure
        return self.current

    async def _renew(self, old: Producer) -> None:
        """Go on with a new engine: what the old one has not sent, or was refused for its sequence number, goes first.

        Nothing else is sent meanwhile, so that nothing overtakes anything.
        """
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._renewed_at + RENEW_EVERY - loop.time())
        self._renewed_at = loop.time()
        await old.hold(Renewing())
        await asyncio.sleep(0)  # now all of them have settled
        self.current = await self._connect()
        self.is_lost = False
        for batch in self.take_kept():
            self._send_again(self.current, batch)
        await self._close(old)

    # errors

    def translated(self, error: BaseException, doing: str, engine: Producer) -> OctopusError:
        """Return our error for one of an engine's. `doing` reads as in `mapped`."""
        if not self.is_renewable and isinstance(error, NUMBERS_LOST):
            ours: OctopusError = self.fenced(doing)
        else:
            ours = translated(error, doing, self._settings.brokers, ClientName.of(engine.client))
            if isinstance(error, NUMBERS_LOST) and isinstance(ours, TransportError):
                ours.retryable = True  # the next message goes out with new sequence numbers
        ours.__cause__ = error
        return ours

    def fenced(self, doing: str) -> PartitionLost:
        """Return why nothing is possible any more under a transactional id."""
        return PartitionLost(
            f"Kafka at {self._settings.brokers} refused {doing}: another producer has the transactional id "
            f"{self._transactional_id!r} now, or this one's transaction took too long."
        )
