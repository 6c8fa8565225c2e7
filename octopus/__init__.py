"""Octopus: the hybrid cloud-to-edge event fabric for distributed science."""

from octopus.app import Octopus
from octopus.config import Settings
from octopus.events import Event, Message, Published, Record
from octopus.outcomes import Reject, RetryLater
from octopus.patterns import Pattern
from octopus.retries import RetryPolicy
from octopus.routing import Router

__version__ = "0.1.0"

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
]
