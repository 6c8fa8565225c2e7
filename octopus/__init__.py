"""Octopus: the hybrid cloud-to-edge event fabric for distributed science.

Names are loaded when they are first asked for: a script that only wants `Pattern` does not pay for asyncio, and
`import octopus` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # type checkers cannot follow __getattr__
    from octopus.app import Octopus
    from octopus.config import Settings
    from octopus.events import Batch, Event, Message, Published, Record
    from octopus.outcomes import DONE, SKIPPED, DeadLetter, Deferred, Done, Outcome, Reject, Retry, RetryLater, Skipped
    from octopus.patterns import Pattern
    from octopus.retries import RetryPolicy
    from octopus.routing import Router
    from octopus.send_queue import Undelivered
    from octopus.serde import JSON, MESSAGE_PACK, Codec
    from octopus.synchronous import SynchronousPublisher
    from octopus.types import Middleware, Next

__version__ = "0.1.0"

_HOMES = {
    "Batch": "octopus.events",
    "Codec": "octopus.serde",
    "DONE": "octopus.outcomes",
    "DeadLetter": "octopus.outcomes",
    "Deferred": "octopus.outcomes",
    "Done": "octopus.outcomes",
    "Event": "octopus.events",
    "JSON": "octopus.serde",
    "MESSAGE_PACK": "octopus.serde",
    "Message": "octopus.events",
    "Middleware": "octopus.types",
    "Next": "octopus.types",
    "Octopus": "octopus.app",
    "Outcome": "octopus.outcomes",
    "Pattern": "octopus.patterns",
    "Published": "octopus.events",
    "Record": "octopus.events",
    "Reject": "octopus.outcomes",
    "Retry": "octopus.outcomes",
    "RetryLater": "octopus.outcomes",
    "RetryPolicy": "octopus.retries",
    "Router": "octopus.routing",
    "SKIPPED": "octopus.outcomes",
    "Settings": "octopus.config",
    "Skipped": "octopus.outcomes",
    "SynchronousPublisher": "octopus.synchronous",
    "Undelivered": "octopus.send_queue",
}

__all__ = [
    "DONE",
    "JSON",
    "MESSAGE_PACK",
    "SKIPPED",
    "Batch",
    "Codec",
    "DeadLetter",
    "Deferred",
    "Done",
    "Event",
    "Message",
    "Middleware",
    "Next",
    "Octopus",
    "Outcome",
    "Pattern",
    "Published",
    "Record",
    "Reject",
    "Retry",
    "RetryLater",
    "RetryPolicy",
    "Router",
    "Settings",
    "Skipped",
    "SynchronousPublisher",
    "Undelivered",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'octopus' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
