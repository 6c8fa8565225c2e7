"""What the publishing cases publish: keys and values, made before the clock starts."""

import random
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from benchmarks.records import HEADERS, values
from benchmarks.stopwatch import rates
from benchmarks.task import Task

CHUNK = 5000
"""Records handed over at once, where there is such a thing."""

T = TypeVar("T")

Pair = tuple[bytes | None, bytes]


def pairs(task: Task) -> list[Pair]:
    """Return key and value of every record, warm-up included."""
    distinct = values(task.value_bytes, min(task.total, 1000), task.seed)
    keys, draw = task.options["keys"], random.Random(task.seed)
    return [
        (b"key-%06d" % draw.randrange(keys) if keys else None, distinct[number % len(distinct)])
        for number in range(task.total)
    ]


def headers(task: Task) -> list[tuple[str, bytes]]:
    """Return the headers of every record."""
    return list(HEADERS) if task.options["headers"] else []


def chunks(records: Sequence[T], value_bytes: int) -> Iterator[Sequence[T]]:
    """Yield the records in parts of `CHUNK`; of large ones, in parts of 16 MiB."""
    size = max(1, min(CHUNK, 2**24 // value_bytes))
    for start in range(0, len(records), size):
        yield records[start : start + size]


class Clock:
    """Wall and CPU time of a claim of code."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def figures(self, count: int) -> dict[str, float]:
        """Return the figures of `count` records that were published since."""
        return rates(count, time.perf_counter() - self._wall, time.process_time() - self._cpu)
