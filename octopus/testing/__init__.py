"""Test your app without a broker: publish in, look at what came out, in virtual time.

    def test_transfers_large_files():
        with TestClient(app) as client:
            outcomes = client.publish("files", {"event": "created", "path": "/data/a", "size": 2_000_000})
        assert outcomes == {"start_transfer": DONE}
        assert [message.value for message in client.published("transfers")] == [{"source": "/data/a"}]

`async with TestClient(app) as client: await client.publish(…)` does the same inside the event loop of an async test.

Names are loaded when they are first asked for: a broker or a worker that a test starts does not pay for the client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # type checkers cannot follow __getattr__
    from octopus.outcomes import DONE, SKIPPED, DeadLetter, Done, Outcome, Retry, Skipped
    from octopus.testing.builders import event, record, records
    from octopus.testing.client import SynchronousTestClient, TestClient
    from octopus.testing.journal import DeadLettered, Failure
    from octopus.testing.virtual_time import VirtualTime, VirtualTimeLoop

_HOMES = {
    "DONE": "octopus.outcomes",
    "DeadLetter": "octopus.outcomes",
    "DeadLettered": "octopus.testing.journal",
    "Done": "octopus.outcomes",
    "Failure": "octopus.testing.journal",
    "Outcome": "octopus.outcomes",
    "Retry": "octopus.outcomes",
    "SKIPPED": "octopus.outcomes",
    "Skipped": "octopus.outcomes",
    "SynchronousTestClient": "octopus.testing.client",
    "TestClient": "octopus.testing.client",
    "VirtualTime": "octopus.testing.virtual_time",
    "VirtualTimeLoop": "octopus.testing.virtual_time",
    "event": "octopus.testing.builders",
    "record": "octopus.testing.builders",
    "records": "octopus.testing.builders",
}

__all__ = [
    "DONE",
    "SKIPPED",
    "DeadLetter",
    "DeadLettered",
    "Done",
    "Failure",
    "Outcome",
    "Retry",
    "Skipped",
    "SynchronousTestClient",
    "TestClient",
    "VirtualTime",
    "VirtualTimeLoop",
    "event",
    "record",
    "records",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'octopus.testing' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
