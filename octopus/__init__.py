"""Octopus: the hybrid cloud-to-edge event fabric for distributed science.

Names are loaded when they are first asked for: a script that only wants `Pattern` does not pay for asyncio, and
`import octopus` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the one place: type checkers cannot follow __getattr__
    from octopus.app import Octopus
    from octopus.config import Settings
    from octopus.events import Event, Message, Published, Record
    from octopus.outcomes import Reject, RetryLater
    from octopus.patterns import Pattern
    from octopus.publishing import SynchronousPublisher
    from octopus.retries import RetryPolicy
    from octopus.routing import Router

__version__ = "0.1.0"

_HOMES = {
    "Event": "octopus.events",
    "Message": "octopus.events",
    "Octopus": "octopus.app",
    "Pattern": "octopus.patterns",
    "Published": "octopus.events",
    "Record": "octopus.events",
    "Reject": "octopus.outcomes",
    "RetryLater": "octopus.outcomes",
    "RetryPolicy": "octopus.retries",
    "Router": "octopus.routing",
    "Settings": "octopus.config",
    "SynchronousPublisher": "octopus.publishing",
}

__all__ = [
    "Event",
    "Message",
    "Octopus",
    "Pattern",
    "Published",
    "Record",
    "Reject",
    "RetryLater",
    "RetryPolicy",
    "Router",
    "Settings",
    "SynchronousPublisher",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'octopus' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
