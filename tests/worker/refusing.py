"""An app that refuses every event, as a process of its own.

python -m tests.worker.refusing PLAN
"""

import logging
import secrets
import sys
from typing import Any

import msgspec

from octopus import Octopus, config
from octopus.routing import Delivery
from octopus.testing.faults import end_with_parent
from octopus.worker import run_process

QUICK: dict[str, Any] = {
    "consumer": {"metadata_max_age": 1},
    "worker": {"transaction_interval": 0.05, "commit_interval": 0.1},
    "topics": {"partitions": 1},
}


class Plan(msgspec.Struct):
    """What a worker is told.

    Attributes:
        brokers: `host:port`.
        delivery: As of a handler.
        name: Of the topic; the dead-letter topic and the group begin with it.
        create: Whether it may make topics, and raise their limits.
    """

    brokers: str
    delivery: Delivery
    name: str = msgspec.field(default_factory=lambda: f"refusing-{secrets.token_hex(4)}")
    create: bool = True


def app_of(plan: Plan) -> Octopus:
    """Return the app."""
    app = Octopus(plan.name)

    @app.on(plan.name, name="handle", retry=1, delivery=plan.delivery)
    async def handle(value: str) -> None:
        raise ValueError("no")

    return app


if __name__ == "__main__":
    end_with_parent()
    logging.basicConfig(level="INFO")
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    given = {"brokers": [plan.brokers], "topics": {"create": plan.create}}
    sys.exit(run_process(app_of(plan), config.load(config.merge(QUICK, given))))
