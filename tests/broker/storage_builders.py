"""Batches and logs for the tests of the broker's storage."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

from octopus.broker.batch import TRANSACTIONAL, Record, decode_records, encode_batch, read_header
from octopus.broker.environment import Environment
from octopus.broker.faults import Faults
from octopus.broker.log import Log, LogConfig, Read
from octopus.broker.settings import StorageSettings
from octopus.broker.storage import Storage

TEMPORARY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
NOW = 1_700_000_000_000


def batch(
    *values: bytes | None,
    key: bytes | None = None,
    timestamp: int = NOW,
    producer: int = -1,
    epoch: int = 0,
    sequence: int = 0,
    transactional: bool = False,
    attributes: int = 0,
) -> bytes:
    """A client's batch; `producer` makes it idempotent."""
    records = [Record(number, timestamp + number, key, value) for number, value in enumerate(values or (b"value",))]
    return encode_batch(
        records,
        attributes=attributes | (TRANSACTIONAL if transactional else 0),
        producer_id=producer,
        producer_epoch=epoch if producer >= 0 else -1,
        base_sequence=sequence if producer >= 0 else -1,
    )


def keyed(records: dict[bytes, bytes | None], timestamp: int = NOW, attributes: int = 0) -> bytes:
    """A batch of records with different keys."""
    return encode_batch(
        [Record(number, timestamp, key, value) for number, (key, value) in enumerate(records.items())],
        attributes=attributes,
    )


def records_of(read: Read, offset: int = 0) -> list[Record]:
    """The data records of what was read, from `offset` on, as a client that sees everything."""
    return [record for part in read.parts for record in _records(part) if record.offset >= offset]


def committed_records(log: Log, offset: int | None = None) -> list[Record]:
    """All records a `read_committed` client sees, filtered the way clients do."""
    offset = log.start_offset if offset is None else offset
    seen: list[Record] = []
    while offset < log.stable_offset:
        read = log.read(offset, 2**20, committed=True)
        aborted = sorted(read.aborted, key=lambda each: each[1])
        ongoing: set[int] = set()
        for part in read.parts:
            for data in batches_of(part):
                header = read_header(data)
                while aborted and aborted[0][1] <= header.base_offset:
                    ongoing.add(aborted.pop(0)[0])
                if header.is_control:
                    ongoing.discard(header.producer_id)
                elif not (header.is_transactional and header.producer_id in ongoing):
                    seen += [record for record in decode_records(data) if record.offset >= offset]
                following = header.next_offset
        if not read.parts:
            break
        offset = following
    return seen


def all_records(log: Log) -> list[Record]:
    """All data records of a log, read in small steps."""
    offset, seen = log.start_offset, []
    while offset < log.end_offset:
        read = log.read(offset, 300)
        if not read.parts:
            break
        seen += records_of(read, offset)
        offset = max(read_header(data).next_offset for part in read.parts for data in batches_of(part))
    return seen


def batches_of(part: bytes | memoryview) -> Iterator[bytes]:
    """The whole batches in a part; fails when the last is not whole."""
    position = 0
    while position < len(part):
        size = read_header(part, position).size
        assert position + size <= len(part)
        yield bytes(part[position : position + size])
        position += size


def _records(part: bytes | memoryview) -> Iterator[Record]:
    for data in batches_of(part):
        if not read_header(data).is_control:
            yield from decode_records(data)


def disk_log(directory: Path, faults: Faults | None = None, *, clean: bool = False, **config: object) -> Log:
    """A log on disk whose appends are visible after `flush`."""
    environment = Environment(faults=faults or Faults())
    return Log(directory, LogConfig(**config), environment=environment, now=NOW, clean=clean)  # type: ignore[arg-type]


def open_storage(path: Path | None, **settings: object) -> Storage:
    """A storage as the broker opens it."""
    return Storage.open(path, StorageSettings(**settings), now=NOW)  # type: ignore[arg-type]


def append(log: Log, data: bytes, now: int = NOW) -> int:
    """Append and make durable; return the base offset."""
    offset = log.append(data, now).base_offset
    log.flush()
    return offset


async def settle() -> None:
    """Let everything that is ready in the event loop run."""
    for _ in range(5):
        await asyncio.sleep(0)
