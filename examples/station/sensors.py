"""The handlers of one kind of instrument. They know no app: it includes them, once for each site."""

import sqlite3

import msgspec

from octopus import Event, RetryPolicy, Router

router = Router()


class Reading(msgspec.Struct):
    """One value of one sensor."""

    sensor: str
    kelvin: float


@router.on("readings", filter={"kelvin": [{"numeric": [">", 80]}]}, to="alarms")
async def warn(reading: Reading) -> dict[str, str | float]:
    """Publish an alarm."""
    return {"sensor": reading.sensor, "kelvin": reading.kelvin}


# Several workers write into one file: who finds it locked comes again.
PATIENT = RetryPolicy(attempts=10, backoff=0.1, maximum=5, on=(sqlite3.OperationalError,))


@router.on("readings", batch=500, within=0.5, retry=PATIENT)
async def store(readings: list[Event[Reading]]) -> None:
    """Write a batch. Its coordinates are the key, so writing it again changes nothing."""
    from app import app  # which has included this router already

    rows = [(event.topic, event.partition, event.offset, event.value.sensor, event.value.kelvin) for event in readings]
    with app.state.database as database:
        database.executemany("INSERT OR REPLACE INTO reading VALUES (?, ?, ?, ?, ?)", rows)
    app.state.stored += len(rows)
