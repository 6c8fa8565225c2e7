"""Batches: a detector's readings go into a database, hundreds at a time, each exactly once in effect.

    octopus publish readings --file readings.jsonl
    octopus run examples/readings.py:app --drain

Delivery is at least once, so what a handler does should be repeatable. Here the event's coordinates are the primary key:
writing a batch a second time changes nothing.
"""

import os
import sqlite3
from contextlib import closing

import msgspec

from octopus import Event, Octopus

DATABASE = os.environ.get("READINGS_DATABASE", "readings.sqlite")


class Reading(msgspec.Struct):
    """One value of one sensor."""

    sensor: str
    kelvin: float


app = Octopus("cryostat")


@app.on("readings", batch=500, within=0.5)
def store(readings: list[Event[Reading]]) -> None:
    """Write a batch; a plain function, so it runs in a thread and may block."""
    rows = [(event.topic, event.partition, event.offset, event.value.sensor, event.value.kelvin) for event in readings]
    with closing(sqlite3.connect(DATABASE)) as database, database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS reading (topic, part, place, sensor, kelvin, PRIMARY KEY (topic, part, place))"
        )
        database.executemany("INSERT OR REPLACE INTO reading VALUES (?, ?, ?, ?, ?)", rows)


@app.on("readings", filter={"kelvin": [{"numeric": [">", 80]}]}, to="alarms", name="alarm")
async def warn(event: Event[Reading]) -> dict[str, object]:
    """Another handler of the same topic has a place of its own: a slow database does not delay an alarm."""
    return {"sensor": event.value.sensor, "kelvin": event.value.kelvin, "at": event.timestamp}
