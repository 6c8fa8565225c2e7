"""What a new process pays for its imports."""

import resource
import statistics
import subprocess
import sys

from benchmarks.task import Task

REPEATS = 5


def run(task: Task) -> dict[str, float]:
    """Start interpreters that do nothing but import; by CPU time, the median of several."""
    command = [sys.executable, "-c", task.options["statement"]]
    subprocess.run(command, check=True)  # so that compiled files are there

    def milliseconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    return {"milliseconds": statistics.median(milliseconds() for _ in range(REPEATS))}
