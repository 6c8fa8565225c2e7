"""moto's event patterns, from its imitation of EventBridge."""

import json

from moto.events.models import EventPattern

from benchmarks.clients.timing import nanoseconds
from benchmarks.records import values
from benchmarks.task import Task


def run(task: Task) -> dict[str, float]:
    """Match one event against one pattern, again and again."""
    event = json.loads(values(463, 1, task.seed)[0])
    pattern = EventPattern.load(json.dumps(task.options["pattern"]))
    return {"nanoseconds": nanoseconds(lambda: pattern.matches_event(event), 2000)}
