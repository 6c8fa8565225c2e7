"""The inside of aiokafka's producer, under names of ours, as `engine.py` has that of its clients and consumers."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import aiokafka.errors as kafka
import aiokafka.producer.message_accumulator
import aiokafka.producer.producer
import aiokafka.producer.sender
import aiokafka.producer.transaction_manager
from aiokafka.protocol.produce import ProduceRequest, ProduceRequest_v8
from aiokafka.structs import TopicPartition

from octopus.transports.kafka.engine import Client, speaking
from octopus.transports.kafka.engine_log import engine_log
from octopus.transports.kafka.errors import InvalidRecordError
from octopus.transports.kafka.record_batch import Pieces, pieces_of
from octopus.transports.kafka.seeing import inner, module_seeing, seeing

# without types of their own
_sender = module_seeing(aiokafka.producer.sender, log=engine_log)
_producer = module_seeing(aiokafka.producer.producer, log=engine_log)
_Producer: Any = _producer.AIOKafkaProducer
_Accumulator: Any = aiokafka.producer.message_accumulator.MessageAccumulator
_BatchBuilder: Any = aiokafka.producer.message_accumulator.BatchBuilder
_Sender: Any = _sender.Sender
_Numbers: Any = aiokafka.producer.transaction_manager.TransactionManager
_Produce: Any = _sender.SendProduceReqHandler
_OffsetCommit: Any = _sender.TxnOffsetCommitHandler

REQUEST_BYTES = 256 * 1024
"""Bytes of batches from which the next ones go in another request."""

NUMBERS = 2**31
"""How many sequence numbers there are."""


class Producer(_Producer):  # type: ignore[misc]
    """A producer; a subclass says of which class its client is."""

    def __init_subclass__(cls, *, client: type[Client], **options: Any) -> None:
        super().__init_subclass__(**options)
        parts = {"MessageAccumulator": Accumulator, "Sender": Sender, "TransactionManager": Numbers}
        cls.__init__ = seeing(_Producer.__init__, AIOKafkaClient=client, **parts)  # type: ignore[method-assign]

    accumulator: "Accumulator" = inner("_message_accumulator")
    """What it has to send."""

    is_closed: bool = inner("_closed")
    """Whether it was told to stop."""

    sender_task: "asyncio.Task[None]" = inner("_sender.sender_task")
    """What sends."""

    def count_back(self, partition: Any, records: int) -> None:
        """Take back sequence numbers that the broker still expects."""
        self._txn_manager.increment_sequence_number(partition, -records)

    def note_written(self, partitions: Iterable[Any]) -> None:
        """Count partitions as written in the transaction that is open."""
        self._txn_manager._txn_partitions.update(partitions)

    def look_at_transaction_error(self) -> None:
        """Retrieve the error of a transaction without a waiter, or asyncio would complain that it never was."""
        waiter = self._txn_manager._transaction_waiter
        if waiter is not None and waiter.done() and not waiter.cancelled():
            waiter.exception()

    def take_back(self, batch: Any, error: BaseException) -> bool:
        """Fail a batch, unless it is on its way to a broker just now; tell which."""
        accumulator = self._message_accumulator
        queued = accumulator._batches.get(batch.tp, ())
        if batch not in queued:
            return False
        queued.remove(batch)
        if not queued:
            del accumulator._batches[batch.tp]
        self._txn_manager._pending_txn_partitions.discard(batch.tp)
        if batch.retry_count:
            accumulator._pending_batches.add(batch)  # from where its callback takes it
        batch.failure(error)
        if batch._drain_waiter.done():
            batch._drain_waiter.exception()  # retrieved, or asyncio would complain that it never was
        return True

    def take_back_queued(self, error: BaseException, topic: str | None = None, number: int | None = None) -> None:
        """Fail what is queued, in order: of a topic, of one partition of it, or everything."""
        for partition, batches in [*self._message_accumulator._batches.items()]:
            if topic in (None, partition.topic) and number in (None, partition.partition):
                for batch in [*batches]:
                    self.take_back(batch, error)

    async def hold(self, error: BaseException) -> None:
        """Send nothing any more: fail, in order, what is queued, and what comes back; return when all is settled."""
        self._message_accumulator.held_by = error
        self.take_back_queued(error)
        await self._message_accumulator.flush()


class Numbers(_Numbers):  # type: ignore[misc]
    """A producer's id and sequence numbers."""

    def increment_sequence_number(self, partition: Any, records: int) -> None:
        """Count records, or take some back: what follows the greatest number is 0.

        aiokafka goes on below zero, where no broker takes anything: each batch would be refused from the two thousand millionth
        record on.
        """
        self._sequence_numbers[partition] = (self._sequence_numbers[partition] + records) % NUMBERS


class Renewing(Exception):
    """A batch was taken back from a producer that is replaced by another."""


def _parts_of(batches: Mapping[Any, Any]) -> Iterator[dict[Any, Any]]:
    """Yield batches in parts of `REQUEST_BYTES`."""
    part: dict[Any, Any] = {}
    size = 0
    for partition, batch in batches.items():
        part[partition] = batch
        size += sum(map(len, pieces_of(batch.get_data_buffer())))
        if size >= REQUEST_BYTES:
            yield part
            part, size = {}, 0
    if part:
        yield part


class OffsetCommit(_OffsetCommit):  # type: ignore[misc]
    """Fails where a topic is not there: aiokafka asks again until the transaction has taken too long, and is lost."""

    def handle_response(self, reply: Any) -> float | None:
        """Return after how many seconds to ask again; None when that is not needed."""
        unknown = kafka.UnknownTopicOrPartitionError
        gone = [f"{topic}[{n}]" for topic, codes in reply.errors for n, code in codes if code == unknown.errno]
        if not gone:
            wait: float | None = super().handle_response(reply)
            return wait
        manager = self._sender._txn_manager
        manager.error_transaction(unknown(", ".join(gone)))
        # That forgets the group; but the broker has it in the transaction, which has to be ended there, too.
        manager.consumer_group_added(self._group_id)
        return None


TOO_LARGE = (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError)

REFUSED_FOR_A_RECORD: tuple[type[kafka.BrokerResponseError], ...] = (
    *TOO_LARGE,
    InvalidRecordError,
    kafka.InvalidTimestampError,
)
"""Errors by which a broker refuses a batch of which it may take parts."""

_REFUSALS = {kind.errno: kind for kind in REFUSED_FOR_A_RECORD}


@speaking(ProduceRequest_v8)
class NamingRequest(ProduceRequest):
    """Sends batches, and asks the broker, if it can, to name the records for which it refuses them (KIP-467)."""


class Produce(_Produce):  # type: ignore[misc]
    """Lets callbacks see how batches ended, and for which records, before the next ones of their partitions are sent."""

    create_request = seeing(_Produce.create_request, ProduceRequest=NamingRequest)

    def handle_response(self, response: Any) -> None:
        """Take an answer. aiokafka passes over what a broker says of single records."""
        if response.API_VERSION >= ProduceRequest_v8.API_VERSION:
            for topic, partitions in response.topics:
                for number, code, *_, records, reason in partitions:
                    if (kind := _REFUSALS.get(code)) and (batch := self._batches.get(TopicPartition(topic, number))):
                        batch.failure(refusal(kind, reason, records))
        super().handle_response(response)

    async def do(self, node_id: int) -> None:
        """Send batches and take the answer."""
        await super().do(node_id)
        await asyncio.sleep(0)  # callbacks have run


def refusal(
    kind: type[kafka.BrokerResponseError], reason: str | None, records: Iterable[tuple[int, str | None]]
) -> kafka.BrokerResponseError:
    """Return a broker's refusal of a batch; see `named_in`."""
    named = {index: why or reason for index, why in records or ()}
    reasons = [why for why in (*named.values(), reason) if why]
    error = kind(*reasons[:1])
    error.named = named  # type: ignore[attr-defined]
    return error


def named_in(error: BaseException) -> Mapping[int, str | None]:
    """Return the records for which a broker has refused a batch, by their place in it, and why; empty where it does not say."""
    named: Mapping[int, str | None] = getattr(error, "named", {})
    return named


class Sender(_Sender):  # type: ignore[misc]
    """Sends what a producer has to send."""

    async def _send_produce_req(self, node_id: int, batches: Mapping[Any, Any]) -> None:
        """Send batches to a broker, several requests at a time: aiokafka waits for each answer, and the link is idle meanwhile.

        A partition has one batch on its way, so the order is that of its queue.
        """
        self._in_flight.discard(node_id)  # what comes for other partitions of it need not wait
        await asyncio.gather(*[self.send_together(node_id, part) for part in _parts_of(batches)])

    async def send_together(self, node_id: int, batches: Mapping[Any, Any]) -> None:
        """Send batches in one request, and let the next ones of their partitions go."""
        await Produce(self, batches).do(node_id)
        self._muted_partitions.difference_update(batches)
        self._message_accumulator.wake_sender()

    _do_txn_offset_commit = seeing(_Sender._do_txn_offset_commit, TxnOffsetCommitHandler=OffsetCommit)


class Accumulator(_Accumulator):  # type: ignore[misc]
    """What a producer has to send, by partition."""

    @property
    def refusal(self) -> BaseException | None:
        """Why it takes nothing any more; None as long as it does."""
        error: BaseException | None = self._exception
        return error or (kafka.ProducerClosed() if self._closed else None)

    held_by: BaseException | None = None
    """What fails that comes back from a broker; None when it is sent again."""

    def reenqueue(self, batch: Any) -> None:
        """Queue a batch again, before the others of its partition; not one that has failed while it waited."""
        if batch.future.done():
            return  # its callback has taken it from where aiokafka looks for it
        if self.held_by is None:
            super().reenqueue(batch)
        else:
            batch.failure(self.held_by)

    def builder(self, limit: int) -> Any:
        """Return a builder of batches of up to so many bytes, before compression: aiokafka's have those of its producer."""
        is_transactional = self._txn_manager is not None and self._txn_manager.transactional_id is not None
        return _BatchBuilder(limit, self._compression_type, is_transactional=is_transactional)

    def append(self, builder: Any, partition: Any) -> Any:
        """Queue a batch behind the others of its partition, and return it."""
        return self._append_batch(builder, partition)

    def put_last_first(self, partition: Any) -> None:
        """Let what was appended last go before the others of its partition."""
        if queued := self._batches.get(partition):
            queued.rotate(1)

    def wake_sender(self) -> None:
        """Let the sender look again."""
        self._wakeup(self._waiter_future)

    def wake_sender_in(self, seconds: float) -> asyncio.TimerHandle:
        """Let the sender look again after a while."""
        return asyncio.get_running_loop().call_later(seconds, self._wakeup, self._waiter_future)


class Builder:
    """A batch of ours in the place of aiokafka's builder."""

    def __init__(self, batch: Any) -> None:
        self._builder = batch
        self._relative_offset = 0

    def close(self) -> None:
        """Do nothing: `finish` has said how many records there are."""

    def closed(self) -> bool:
        """Tell that it waits for no more."""
        return True

    def record_count(self) -> int:
        """Return how many records there are."""
        return self._relative_offset

    def size(self) -> int:
        """Return its bytes."""
        size: int = self._builder.size
        return size

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._builder.begin_at(producer_id, producer_epoch, base_sequence)

    def _build(self) -> Pieces:
        encoded: Pieces = self._builder.encoded()  # in the place of bytes: `engine.Connection` sends it as it is
        return encoded


def departure(batch: Any) -> "asyncio.Future[None]":
    """Return what is done when a batch leaves the queue."""
    future: asyncio.Future[None] = batch._drain_waiter
    return future


def appender(builder: Any) -> Callable[..., Any]:
    """Return what appends a record to a batch: the compiled builder's, since its wrapper costs as much again."""
    append: Callable[..., Any] = builder._builder.append
    return append


def finish(builder: Any, records: int) -> None:
    """Close a batch to which so many records were appended."""
    builder._relative_offset = records
    builder.close()
