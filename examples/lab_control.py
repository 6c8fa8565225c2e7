"""Embedding: handlers inside a control program that has a loop of its own, and an instrument that is not async.

    python examples/lab_control.py

The embedded broker serves; `app.running(brokers="host:9092")` would use another. A program that embeds an app decides for
itself where its settings come from: environment variables are read by `octopus run`.
"""

import asyncio
import threading

from octopus import Octopus

app = Octopus("lab-control")
SCANS = 3
finished = asyncio.Semaphore(0)


@app.on("scans", ordering="key", concurrency=10)
async def analyse(scan: dict[str, object]) -> None:
    """Scans of one sample in order, ten samples at once."""
    await asyncio.sleep(0.01)
    print("analysed", scan)
    finished.release()


def instrument() -> None:
    """What a vendor's driver calls, in a thread that knows nothing of asyncio."""
    with app.synchronous_publisher() as publisher:
        for number in range(SCANS):
            publisher.publish("scans", {"sample": f"s{number}", "counts": number * 1000}, key=f"s{number}")


async def control() -> None:
    """The program: its own loop, its own signal handlers; the app is a guest."""
    async with app.running():
        threading.Thread(target=instrument).start()
        async with asyncio.timeout(60):
            for _ in range(SCANS):
                await finished.acquire()


if __name__ == "__main__":
    asyncio.run(control())
