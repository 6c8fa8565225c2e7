"""The garbage collector of a process that is a worker and nothing else."""

import contextlib
import gc
from collections.abc import Iterator

YOUNG = 50_000
"""New objects before the collector looks at them (Python's default: 700).

Records in flight are thousands of objects that die by themselves, none of them part of a cycle. Looked at every 700
objects, each is visited several times in its short life: a quarter of what a record costs (`scripts/bench
"consume:463 B:octopus typed*"`). Handlers that make cycles of garbage hold some megabytes of it longer."""


@contextlib.contextmanager
def patient_collector() -> Iterator[None]:
    """Let the collector look rarely, and never again at what was there before: modules, classes, the app."""
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        if not frozen:  # or the program has reasons of its own
            gc.unfreeze()
