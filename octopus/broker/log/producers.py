"""One partition's memory of its producers: sequence numbers, open and aborted transactions. Pure."""

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from octopus.broker.batch import COORDINATOR_EPOCH, MAXIMUM_SEQUENCE, Header
from octopus.broker.codes import BrokerError, Code

REMEMBERED_BATCHES = 5
"""A client has at most five requests in flight, so a retry repeats one of the last five batches (KIP-98, KIP-185)."""


class Sent(NamedTuple):
    """A batch a producer may send again."""

    first_sequence: int
    last_sequence: int
    offset: int


class Aborted(NamedTuple):
    """An aborted transaction.

    Attributes:
        producer_id: The producer's id.
        first: Offset of its first record in the partition.
        last: Offset of its marker.
        stable: Nothing below this offset was undecided when it ended: transactions that ended later begin at or after it.
    """

    producer_id: int
    first: int
    last: int
    stable: int


@dataclass
class Producer:
    """One producer's place in the partition.

    Attributes:
        epoch: The newest epoch seen; batches of older ones are fenced.
        last_sequence: Sequence number of its last record in this epoch; -1 for none.
        sent: Its last batches in this epoch, oldest first.
        seen: When it was last heard of, ms since the epoch.
        timestamp: Of its newest batch or marker, ms since the epoch; -1 for none.
        coordinator_epoch: Of the coordinator that wrote its last marker; -1 for none.
    """

    epoch: int
    last_sequence: int = -1
    sent: deque[Sent] = field(default_factory=lambda: deque(maxlen=REMEMBERED_BATCHES))
    seen: int = 0
    timestamp: int = -1
    coordinator_epoch: int = -1


class ActiveProducer(NamedTuple):
    """A producer as DescribeProducers tells of it.

    Attributes:
        first: First offset of its open transaction; -1 for none.
    """

    producer_id: int
    epoch: int
    last_sequence: int
    timestamp: int
    coordinator_epoch: int
    first: int


class Producers:
    """The producers of one partition.

    Attributes:
        open: Producer id → first offset of its open transaction, oldest first.
        aborted: Aborted transactions in the order of their markers.
    """

    def __init__(self) -> None:
        self._producers: dict[int, Producer] = {}
        self.open: dict[int, int] = {}
        self.aborted: list[Aborted] = []

    def check(self, header: Header) -> int | None:
        """Judge a batch that wants to be appended.

        Returns:
            None to append it; the original offset when it is a repetition of one of the last five.

        Raises:
            BrokerError: 47 its epoch was superseded, 45 a batch before it is missing, 48 it is outside its producer's transaction.
        """
        producer = self._producers.get(header.producer_id)
        if header.producer_id < 0 or producer is None:
            return None
        if header.producer_epoch < producer.epoch:
            raise BrokerError(
                Code.INVALID_PRODUCER_EPOCH,
                f"Producer {header.producer_id} has epoch {producer.epoch} by now, not {header.producer_epoch}.",
            )
        if header.producer_epoch > producer.epoch:
            expected = 0
        else:
            for sent in producer.sent:
                if sent[:2] == (header.base_sequence, header.last_sequence):
                    return sent.offset
            expected = (producer.last_sequence + 1) & MAXIMUM_SEQUENCE
        if header.base_sequence != expected:
            raise BrokerError(
                Code.OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"Producer {header.producer_id} sent sequence number {header.base_sequence} where {expected} is next.",
            )
        if header.producer_id in self.open and not header.is_transactional:
            raise BrokerError(
                Code.INVALID_TXN_STATE, f"Producer {header.producer_id} has a transaction open; this is outside it."
            )
        return None

    def appended(self, header: Header, now: int) -> None:
        """Record a client's batch, whose header has its offset in the log; `now` in ms."""
        if header.producer_id < 0:
            return
        producer = self._producers.get(header.producer_id)
        if producer is None or producer.epoch != header.producer_epoch:
            producer = self._begin(header)
        producer.last_sequence = header.last_sequence
        producer.timestamp = header.max_timestamp
        producer.sent.append(Sent(header.base_sequence, header.last_sequence, header.base_offset))
        producer.seen = now
        if header.is_transactional:
            self.open.setdefault(header.producer_id, header.base_offset)

    def ended(self, header: Header, commit: bool, now: int) -> int | None:
        """Record a transaction marker; return the first offset of the transaction, if it wrote a record."""
        producer = self._producers.get(header.producer_id)
        if producer is None or producer.epoch < header.producer_epoch:
            # A marker of a newer epoch fences a producer that still writes with the older one.
            producer = self._begin(header)
        producer.seen, producer.timestamp, producer.coordinator_epoch = now, header.max_timestamp, COORDINATOR_EPOCH
        first = self.open.pop(header.producer_id, None)
        if first is not None and not commit:
            stable = self.first_open(header.base_offset + 1)
            self.aborted.append(Aborted(header.producer_id, first, header.base_offset, stable))
        return first

    def _begin(self, header: Header) -> Producer:
        """Begin anew with a producer's next epoch; batches of an earlier epoch no longer count as repetitions."""
        before = self._producers.get(header.producer_id)
        fresh = Producer(header.producer_epoch)
        if before is not None:
            fresh.coordinator_epoch = before.coordinator_epoch
        self._producers[header.producer_id] = fresh
        return fresh

    def first_open(self, end: int) -> int:
        """Return the first offset of the oldest open transaction, or `end`."""
        # Transactions open in the order of their first offsets, and a dict keeps that order.
        return min(next(iter(self.open.values()), end), end)

    def aborted_between(self, offset: int, end: int) -> list[tuple[int, int]]:
        """Return (producer id, first offset) of the aborted transactions that reach into `offset`…`end`."""
        found = []
        for index in range(bisect_left(self.aborted, offset, key=lambda each: each.last), len(self.aborted)):
            each = self.aborted[index]
            if each.first < end:
                found.append((each.producer_id, each.first))
            if each.stable >= end:
                break
        return found

    def is_aborted(self, header: Header) -> bool:
        """Say whether a transactional batch belongs to an aborted transaction."""
        return any(
            producer_id == header.producer_id and first <= header.base_offset
            for producer_id, first in self.aborted_between(header.base_offset, header.next_offset)
        )

    def epoch_of(self, producer_id: int) -> int:
        """Return the newest epoch seen of a producer; 0 for an unknown one."""
        producer = self._producers.get(producer_id)
        return 0 if producer is None else producer.epoch

    def active(self) -> list[ActiveProducer]:
        """Return every producer that is remembered."""
        return [
            ActiveProducer(
                producer_id,
                each.epoch,
                each.last_sequence,
                each.timestamp,
                each.coordinator_epoch,
                self.open.get(producer_id, -1),
            )
            for producer_id, each in self._producers.items()
        ]

    @property
    def largest_id(self) -> int:
        """The largest producer id seen; -1 for none."""
        return max(self._producers, default=-1)

    def forget_before(self, offset: int) -> None:
        """Forget aborted transactions whose records are all gone."""
        self.aborted = self.aborted[bisect_left(self.aborted, offset, key=lambda each: each.last) :]

    def expire(self, before: int) -> None:
        """Forget producers silent since a time in ms, except those in a transaction."""
        for producer_id, producer in list(self._producers.items()):
            if producer.seen < before and producer_id not in self.open:
                del self._producers[producer_id]

    def dump(self) -> dict[str, Any]:
        """Return all of it as values for JSON."""
        return {
            "producers": [
                [
                    producer_id,
                    each.epoch,
                    each.last_sequence,
                    list(each.sent),
                    each.seen,
                    each.timestamp,
                    each.coordinator_epoch,
                ]
                for producer_id, each in self._producers.items()
            ],
            "open": list(self.open.items()),
            "aborted": self.aborted,
        }

    @classmethod
    def load(cls, values: dict[str, Any]) -> "Producers":
        """Return the states that were dumped."""
        self = cls()
        for producer_id, epoch, last_sequence, sent, seen, *rest in values["producers"]:  # older files have no rest
            batches = deque((Sent(*each) for each in sent), maxlen=REMEMBERED_BATCHES)
            self._producers[producer_id] = Producer(epoch, last_sequence, batches, seen, *rest)
        self.open = {producer_id: first for producer_id, first in values["open"]}  # noqa: C416 (pairs are lists)
        self.aborted = [Aborted(*each) for each in values["aborted"]]
        return self
