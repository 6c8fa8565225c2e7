"""The inputs and outputs of a log."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

TransactionalCheck: TypeAlias = Callable[[int, int], None]
"""Called with (producer id, epoch) of a transactional batch; raises `BrokerError` if the partition is not in a transaction."""

Waiter: TypeAlias = Callable[[], None]


class Appended(NamedTuple):
    """The result of an append.

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
    """The result of a fetch.

    Attributes:
        parts: Whole batches, to be written one after the other; never joined here.
        high: High watermark: the end of the records that consumers may see.
        stable: End of the records that `read_committed` consumers may see.
        start: The log's first offset.
        aborted: (producer id, first offset) of aborted transactions among the records; only for `committed` reads.
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
    """The settings of one log; Kafka's names in snake case, times in ms, sizes in bytes, -1 for no limit.

    Attributes:
        codec: Of stored batches (see `codecs.py`); None leaves batches as they were sent.
        codec_level: How much to compress; None for the codec's usual level.
    """

    max_message_bytes: int = 1_048_588
    codec: int | None = None
    codec_level: int | None = None
    log_append_time: bool = False
    compact: bool = False
    delete: bool = True
    retention_ms: int = 7 * 24 * 3600 * 1000
    retention_bytes: int = -1
    segment_bytes: int = 64 * 2**20
    segment_ms: int = 7 * 24 * 3600 * 1000
    delete_retention_ms: int = 24 * 3600 * 1000
    timestamp_before_max_ms: int = 2**63 - 1
    timestamp_after_max_ms: int = 2**63 - 1
