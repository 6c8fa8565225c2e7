"""Draws docs/live.svg: the live table of a worker that really runs, on an embedded broker, for some seconds.

.venv/bin/python scripts/picture.py
"""

import asyncio
import io
import random
import re
import tempfile
from pathlib import Path

import msgspec
from rich.console import Console

from octopus import Octopus, RetryPolicy, config
from octopus.cli.live import Rates, draw, topics_of
from octopus.worker import Worker

PICTURE = Path(__file__).parent.parent / "docs" / "live.svg"
SECONDS = 6.0
WIDTH = 104

FETCHED_FONT = re.compile(r"\s*@font-face \{.*?\}\n", re.DOTALL)
"""A page fetches nothing from elsewhere: the reader's own font will do."""


class Reading(msgspec.Struct):
    """One value of one sensor."""

    sensor: str
    kelvin: float


app = Octopus("beamline", settings={"topics": {"partitions": 4}})


@app.on("readings", filter={"kelvin": [{"numeric": [">", 80]}]}, to="alarms")
async def warn(reading: Reading) -> dict[str, object]:
    """Publish an alarm."""
    return {"sensor": reading.sensor, "kelvin": reading.kelvin}


@app.on("readings", batch=500, within=0.2)
async def store(readings: list[Reading]) -> None:
    """Take as long as a database would."""
    await asyncio.sleep(0.02)


@app.on("alarms", retry=RetryPolicy(attempts=3, backoff=0.1))
async def call(alarm: dict[str, object]) -> None:
    """Fail now and then."""
    if random.random() < 0.45:
        raise ConnectionError("nobody answers")


async def publish() -> None:
    """Publish readings, a thousand a second."""
    while True:
        values = [Reading(f"cryostat-{number % 8}", random.gauss(77, 2)) for number in range(100)]
        await app.publish_many("readings", values)
        await asyncio.sleep(0.1)


async def main() -> None:
    """Run for some seconds, then draw."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    with tempfile.TemporaryDirectory() as directory:
        settings = config.load(config.merge(app.settings, {"brokers": f"embedded://{directory}"}))
        async with Worker(app, settings) as worker:
            rates, publishing = Rates(), asyncio.create_task(publish())
            for _ in range(round(SECONDS / 0.25)):
                status = worker.status()
                picture = draw(status, rates.note(status), topics_of(app), WIDTH)
                await asyncio.sleep(0.25)
            publishing.cancel()
    console.print(picture)
    drawn = console.export_svg(title="octopus run beamline.py:app")
    PICTURE.write_text(FETCHED_FONT.sub("", drawn), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
