"""LocalStack's event patterns, from its imitation of EventBridge."""

import json

from localstack.services.events.event_rule_engine import EventPatternCompiler, EventRuleEngine

from benchmarks.clients.timing import nanoseconds
from benchmarks.records import values
from benchmarks.task import Task


def run(task: Task) -> dict[str, float]:
    """Match one event against one pattern, again and again."""
    event = json.loads(values(463, 1, task.seed)[0])
    pattern = EventPatternCompiler().compile_event_pattern(json.dumps(task.options["pattern"]))
    engine = EventRuleEngine()
    return {"nanoseconds": nanoseconds(lambda: engine.evaluate_pattern_on_event(pattern, event), 2000)}
