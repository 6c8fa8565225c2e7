"""An app whose retries wait in a topic, as a process of its own, and what its handler wrote down.

python -m tests.worker.retrying PLAN
"""

import logging
import os
import secrets
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from octopus import Event, Octopus, RetryLater, RetryPolicy, config
from octopus.testing.faults import end_with_parent
from octopus.worker import run_process

QUICK: dict[str, Any] = {
    "consumer": {"session_timeout": 6, "rebalance_timeout": 12, "metadata_max_age": 2},
    "worker": {"transaction_interval": 0.05, "commit_interval": 0.1, "revoke_budget": 1},
    "topics": {"partitions": 2},
}
PARTITIONS = 2


class Plan(msgspec.Struct):
    """What a worker is told.

    Attributes:
        brokers: `host:port`.
        diary: Where the handler writes: value, attempt, time, topic and offset of every run.
        name: Of the run; topics and groups begin with it.
        wait: Seconds before each retry.
        asks: Whether the handler asks for its retries (`RetryLater`) instead of failing.
        delivery: As of a handler.
        settings: Over those of `QUICK`.
    """

    brokers: str
    diary: str
    name: str = msgspec.field(default_factory=lambda: f"retry-{secrets.token_hex(4)}")
    wait: float = 3.0
    asks: bool = False
    delivery: Literal["at_least_once", "exactly_once"] = "at_least_once"
    settings: dict[str, Any] = {}


class Ran(NamedTuple):
    """A run of the handler."""

    attempt: int
    at: float
    topic: str
    offset: int


def app_of(plan: Plan) -> Octopus:
    """Return the app: every event needs three runs."""
    app = Octopus(plan.name)
    diary = os.open(plan.diary, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    policy = RetryPolicy(attempts=4, backoff=plan.wait, factor=1, jitter=0, defer_beyond=0.1)

    @app.on(plan.name, to=f"{plan.name}.out", retry=policy, retry_topic=True, delivery=plan.delivery)
    async def handle(event: Event[int]) -> int:
        line = f"{event.value} {event.attempt} {time.time()} {event.topic} {event.offset}\n"
        os.write(diary, line.encode())
        if plan.asks:
            if sum(entry.startswith(f"{event.value} ") for entry in Path(plan.diary).read_text().splitlines()) < 3:
                raise RetryLater(plan.wait)
        elif event.attempt < 3:
            raise OSError("not yet")
        return event.value

    return app


def runs(plan: Plan) -> dict[int, list[Ran]]:
    """Return what the handler wrote down, by value."""
    found: defaultdict[int, list[Ran]] = defaultdict(list)
    for line in Path(plan.diary).read_text().splitlines() if Path(plan.diary).exists() else ():
        value, attempt, at, topic, offset = line.split()
        found[int(value)].append(Ran(int(attempt), float(at), topic, int(offset)))
    return found


if __name__ == "__main__":
    end_with_parent()
    logging.basicConfig(level="INFO")
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    settings = config.load(config.merge({"brokers": [plan.brokers]}, QUICK, plan.settings))
    sys.exit(run_process(app_of(plan), settings))
