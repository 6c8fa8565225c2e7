"""One partition's log."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from octopus.broker.batch import (
    Header,
    checksum_of,
    control_batch,
    decode_records,
    placed,
    read_header,
)
from octopus.broker.codes import BrokerError, Code

TransactionalCheck: TypeAlias = Callable[[int, int], None]
"""Called with (producer id, epoch) of a transactional batch; raises `BrokerError` if the partition is not in a transaction."""

Waiter: TypeAlias = Callable[[], None]


class Appended(NamedTuple):
    """What became of an append.

    Attributes:
        base_offset: Offset of the first record; the original one for a duplicate.
        append_time: Time of appending in ms under `LogAppendTime`, else -1.
        duplicate: Whether the batch was already there (a producer's retry).
        log_start: The log's first offset.
    """

    base_offset: int
    append_time: int
    duplicate: bool
    log_start: int


class Read(NamedTuple):
    """What a fetch returns.

    Attributes:
        parts: Whole batches, to be written one after the other; never joined here.
        high: High watermark: the end of what consumers may see.
        stable: End of what `read_committed` consumers may see.
        start: The log's first offset.
        aborted: (producer id, first offset) of aborted transactions in what is returned; only for `committed` reads.
    """

    parts: list[bytes | memoryview]
    high: int
    stable: int
    start: int
    aborted: list[tuple[int, int]]

    @property
    def size(self) -> int:
        """Bytes in all parts."""
        return sum(map(len, self.parts))


@dataclass(frozen=True)
class LogConfig:
    """What one log obeys; Kafka's names in snake case, times in ms, sizes in bytes, -1 for no limit."""

    max_message_bytes: int = 1_048_588
    log_append_time: bool = False
    compact: bool = False
    delete: bool = True
    retention_ms: int = 7 * 24 * 3600 * 1000
    retention_bytes: int = -1
    segment_bytes: int = 64 * 2**20
    segment_ms: int = 7 * 24 * 3600 * 1000
    delete_retention_ms: int = 24 * 3600 * 1000


class Log:
    """One partition's records: appended at the end, read anywhere, deleted from the start.

    Attributes:
        config: May be replaced at any time.
    """

    def __init__(self, directory: Path | None = None, config: LogConfig | None = None) -> None:
        self.config = config or LogConfig()
        self._batches: list[tuple[Header, bytes]] = []
        self._waiters: list[Waiter] = []
        self._start = 0

    @property
    def start_offset(self) -> int:
        """The first offset that can be read."""
        return self._start

    @property
    def end_offset(self) -> int:
        """The high watermark: one past the last record consumers may see."""
        return self._batches[-1][0].next_offset if self._batches else self._start

    @property
    def stable_offset(self) -> int:
        """The last stable offset: first offset of the oldest open transaction, else `end_offset`."""
        return self.end_offset

    @property
    def size_bytes(self) -> int:
        """Bytes of all stored batches."""
        return sum(len(data) for _, data in self._batches)

    def append(
        self, batches: bytes | memoryview, now: int, *, transactional_check: TransactionalCheck | None = None
    ) -> Appended:
        """Append the batches of one produce request; all of them or none.

        Durable, and visible to reads, once `await storage.synced([log])` returned; call that in the same step.

        Raises:
            BrokerError: 2 broken batch, 10 too large, 87 not a client's batch, 45 or 47 out of sequence,
                48 no transaction, 56 the disk refused, 3 the log was deleted.
        """
        header = read_header(batches)
        if header.crc != checksum_of(batches):
            raise BrokerError(Code.CORRUPT_MESSAGE, "checksum")
        base = self.end_offset
        data = placed(header, base) + bytes(batches[16:])
        self._batches.append((read_header(data), data))
        self._wake()
        return Appended(base, -1, False, self._start)

    def append_control(self, producer_id: int, producer_epoch: int, commit: bool, now: int) -> int:
        """Append the marker that ends a producer's transaction here; return its offset. Durable after `synced`."""
        marker = control_batch("commit" if commit else "abort", producer_id, producer_epoch, now)
        return self.append(marker, now).base_offset

    def read(self, offset: int, max_bytes: int, *, committed: bool = False, at_least_one: bool = True) -> Read:
        """Read whole batches from the one that contains `offset`.

        Args:
            offset: First offset wanted; the end offset yields nothing.
            max_bytes: Most bytes to return.
            committed: Stop at the stable offset and list aborted transactions.
            at_least_one: Return the first batch even when it alone exceeds `max_bytes`.

        Raises:
            BrokerError: 1 the offset is below the start or past the end; 3 the log was deleted; 56 the disk failed.
        """
        if not self._start <= offset <= self.end_offset:
            raise BrokerError(Code.OFFSET_OUT_OF_RANGE, f"offset {offset}")
        parts: list[bytes | memoryview] = []
        for header, data in self._batches:
            if header.last_offset >= offset:
                if len(data) > max_bytes and not (at_least_one and not parts):
                    break
                parts.append(data)
                max_bytes -= len(data)
        return Read(parts, self.end_offset, self.stable_offset, self._start, [])

    def find_timestamp(self, timestamp: int) -> tuple[int, int] | None:
        """Find the first record at or after a time: its (offset, timestamp in ms), or None."""
        for _, data in self._batches:
            for record in decode_records(data):
                if record.timestamp >= timestamp:
                    return record.offset, record.timestamp
        return None

    def delete_before(self, offset: int) -> int:
        """Make `offset` (-1: the end) the first offset, and return it.

        Raises:
            BrokerError: 1 the offset is past the end.
        """
        self._start = self.end_offset if offset == -1 else offset
        return self._start

    def retain(self, now: int) -> int:
        """Drop whole segments that are too old or too many; return how many bytes went."""
        return 0

    def compact(self, now: int) -> int:
        """Keep the newest record per key in sealed segments; return how many bytes went."""
        return 0

    def add_waiter(self, waiter: Waiter) -> None:
        """Have `waiter` called once when more can be read, or when the log is closed or deleted."""
        self._waiters.append(waiter)

    def remove_waiter(self, waiter: Waiter) -> None:
        """Forget a waiter; harmless when it was called already."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter()
