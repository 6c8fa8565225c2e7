"""Event patterns."""

import json

from benchmarks.clients.timing import nanoseconds
from benchmarks.records import values
from benchmarks.task import Task
from octopus import Pattern

CALLS = 5000


def run(task: Task) -> dict[str, float]:
    """Match one event against one pattern, again and again."""
    stored = values(463, 1, task.seed)[0]
    pattern = Pattern.compile(task.options["pattern"])
    match task.options["form"]:
        case "bytes":
            return {"nanoseconds": nanoseconds(lambda: pattern.matches(stored), CALLS)}
        case "loads":
            return {"nanoseconds": nanoseconds(lambda: json.loads(stored), CALLS)}
        case _:
            value = json.loads(stored)
            return {"nanoseconds": nanoseconds(lambda: pattern.matches(value), CALLS)}
