"""Run one check in this process: `python -m tests.broker.clients.run CLIENT CHECK BOOTSTRAP`.

Exit code 0: passed. The process is expected to be killed from outside when it hangs: C clients do.
"""

import argparse
import faulthandler
import importlib
import inspect
import time
from collections.abc import Callable
from typing import cast

from tests.broker.clients.checking import Target

# Where a client has its name from outside, the module of its checks.
CLIENTS = {
    "librdkafka": (
        "librdkafka_topics",
        "librdkafka_messages",
        "librdkafka_groups",
        "librdkafka_transactions",
        "librdkafka_restarts",
    ),
    "aiokafka": ("aiokafka_client",),
    "kafka-python-3": ("kafka_python",),
    "kafka-python-2": ("kafka_python",),
    "kcat": ("kcat",),
    "java": ("java_client",),
    "wire": ("wire_checks",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("check")
    parser.add_argument("bootstrap")
    parser.add_argument("--kind", default="kafka", choices=("embedded", "kafka"))
    parser.add_argument("arguments", nargs="*")
    given = parser.parse_args()
    faulthandler.enable()
    started = time.monotonic()
    result = find(given.client, given.check)(Target(given.bootstrap, given.kind), *given.arguments)
    if inspect.iscoroutine(result):
        import asyncio

        asyncio.run(result)
    print(f"passed in {time.monotonic() - started:.1f} s")


def find(client: str, name: str) -> Callable[..., object]:
    """Return a check, or a companion of one, by its name."""
    for module in CLIENTS[client]:
        function = getattr(importlib.import_module(f"tests.broker.clients.{module}"), name, None)
        if function is not None:
            return cast("Callable[..., object]", function)
    raise SystemExit(f"{client} has no check {name!r}")


if __name__ == "__main__":
    main()
