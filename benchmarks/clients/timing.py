"""Times small functions by CPU time. Standard library only."""

import gc
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

REPEATS = 7


def nanoseconds(function: Callable[[], Any], calls: int, repeats: int = REPEATS) -> float:
    """Return the CPU nanoseconds of a call, less what calling nothing costs; the median of several rounds."""
    taken = [_round(function, calls) for _ in range(repeats)]
    empty = [_round(_nothing, calls) for _ in range(repeats)]
    return max(statistics.median(taken) - statistics.median(empty), 0.1)


def per_item(function: Callable[[], int], repeats: int = REPEATS) -> float:
    """Return the CPU nanoseconds per item of a function that says how many items it went through."""
    return statistics.median(_items(function) for _ in range(repeats))


def _round(function: Callable[[], Any], calls: int) -> float:
    gc.collect()
    began = time.process_time_ns()
    for _ in itertools.repeat(None, calls):
        function()
    return (time.process_time_ns() - began) / calls


def _items(function: Callable[[], int]) -> float:
    gc.collect()
    began = time.process_time_ns()
    count = function()
    return (time.process_time_ns() - began) / count


def _nothing() -> None:
    return
