"""Times what passes a handler: from the end of the warm-up to the last record. Standard library only."""

import resource
import sys
import time
from pathlib import Path

NEVER = sys.maxsize


class Stopwatch:
    """Wall and CPU time of a claim of records.

    A handler counts by itself, because a call per record would be part of what is measured:

        seen += 1
        if seen >= stop:
            stop = watch.mark(seen)

    Args:
        warm_up: Records that pass before the clock starts.
        records: Records that are timed.

    Attributes:
        first_stop: The count at which to call `mark` for the first time.
        is_done: Whether the last record has passed.
    """

    def __init__(self, warm_up: int, records: int) -> None:
        self.first_stop = max(warm_up, 1)
        self.is_done = False
        self._records = records
        self._first = -1

    def mark(self, seen: int) -> int:
        """Start, then stop the clock; return the count at which to call it again."""
        if self._first < 0:
            self._first = seen
            self._wall, self._cpu = time.perf_counter(), time.process_time()
            return self.first_stop + self._records
        if not self.is_done:
            self._wall = time.perf_counter() - self._wall
            self._cpu = time.process_time() - self._cpu
            self._count = seen - self._first
            self.is_done = True
        return NEVER

    def figures(self) -> dict[str, float]:
        """Return records per second, microseconds per record of wall and of CPU time, and the most memory used."""
        return rates(self._count, self._wall, self._cpu)


def rates(count: int, wall: float, cpu: float) -> dict[str, float]:
    """Return the figures of `count` records that took so many seconds."""
    return {
        "records_per_second": count / wall,
        "wall_us": 1e6 * wall / count,
        "cpu_us": 1e6 * cpu / count,
        "records": count,
        "seconds": wall,
        "memory_mb": peak_memory(),
    }


def peak_memory() -> float:
    """Return the most memory this process has used, megabytes."""
    try:
        # getrusage would count what the parent used before this process became another program.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
