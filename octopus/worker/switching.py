"""How soon a thread of a process that is a worker and nothing else has its turn, while another computes."""

import contextlib
import sys
from collections.abc import Iterator

INTERVAL = 0.0005
"""Seconds that a thread computes before another one that waits has its turn (Python's default: 0.005).

A client in a thread of its own needs several turns for each answer of a broker, and waits for each as long as this while handlers
compute. A turn costs some microseconds, and only when a thread waits for it."""


@contextlib.contextmanager
def prompt_switches() -> Iterator[None]:
    """Let threads take turns sooner, unless the program has them do that already."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, INTERVAL))
    try:
        yield
    finally:
        sys.setswitchinterval(before)
