"""An app of several files: readings of two sites go into a database, those that are too hot to a topic of alarms.

    octopus publish north.readings '{"sensor": "s1", "kelvin": 90.5}'
    octopus publish south.readings 's2,4.2' --header content-type=text/csv
    octopus run examples/station/app.py:app --workers 3 --drain

Lifespan and state are here, the handlers in `sensors.py`, a format of the station's own in `formats.py`, tests in `test_station.py`.
"""

import os
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field

from formats import CommaSeparated
from sensors import router

from octopus import SKIPPED, Batch, Next, Octopus, Outcome, Record


@dataclass
class State:
    """What handlers share, in one process."""

    database: sqlite3.Connection
    stored: int = 0
    seen: Counter[str] = field(default_factory=Counter)


@asynccontextmanager
async def lifespan(app: Octopus) -> AsyncIterator[State]:
    """Open the database before the first event, close it after the last."""
    with closing(sqlite3.connect(os.environ.get("STATION_DATABASE", "station.sqlite"), timeout=30)) as database:
        database.execute("BEGIN IMMEDIATE")  # several processes begin at once: one makes the table, others wait for it
        database.execute(
            "CREATE TABLE IF NOT EXISTS reading (topic, part, place, sensor, kelvin, PRIMARY KEY (topic, part, place))"
        )
        database.commit()
        database.execute("PRAGMA busy_timeout = 100")  # ms: a handler that finds it locked comes again by its policy
        yield State(database)


app = Octopus("station", lifespan=lifespan, codecs=[CommaSeparated()])
app.include(router, prefix="north.")
app.include(router, prefix="south.")


@app.middleware
async def count(record: Record | Batch, call_next: Next) -> Outcome:
    """Count the events that each handler has handled."""
    outcome = await call_next(record)
    if outcome is not SKIPPED:  # by its filter
        app.state.seen[call_next.handler] += len(record) if isinstance(record, Batch) else 1
    return outcome


@app.every(60)
async def report() -> None:
    """Say once a minute how it goes, each process for itself."""
    await app.publish("reports", {"process": os.getpid(), "stored": app.state.stored, "seen": dict(app.state.seen)})
