"""What the process tests run: an app on an in-process broker that writes down its effects and commits.

python program.py MODE LOG
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from octopus import Octopus, config
from octopus.errors import NotAuthorized
from octopus.transports.base import Outgoing
from octopus.transports.memory import memory_transport
from octopus.worker import run_process

mode, log = sys.argv[1], os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
broker = memory_transport("program", {}).broker
transport = memory_transport("program", {})


def note(line: str) -> None:
    """Write a line that survives whatever happens next."""
    os.write(log, f"{line}\n".encode())
    os.fsync(log)


store = broker.commit


def commit(group: str, member: Any, offsets: Any) -> None:
    if mode == "broken":
        raise ZeroDivisionError
    store(group, member, offsets)
    for stored in offsets.values():
        note(f"committed {stored.offset}")


broker.commit = commit  # type: ignore[method-assign]


@asynccontextmanager
async def lifespan(_app: Octopus) -> AsyncIterator[None]:
    if mode == "starting":
        note("ready")
        await asyncio.sleep(60)
    yield
    note("left")


app = Octopus("app", brokers="memory://program", settings={"topics": {"partitions": 1}}, lifespan=lifespan)


@app.on("t", ordering="none", concurrency=5, retry=1, dead_letter=False)
async def handle(value: int) -> None:
    note("ready")
    match mode:
        case "slow":
            await asyncio.sleep(0.4)
        case "stuck":
            await asyncio.sleep(3600)
        case "blocked":
            time.sleep(60)
        case "exits":
            raise SystemExit(7)
        case "stops":
            raise ValueError("cannot")
    note(f"done {value}")


broker.append([Outgoing("t", b"%d" % number) for number in range(20)])
if mode == "refused":
    broker.faults.fail_next("fetch", NotAuthorized("not yours"))
logging.basicConfig(level="INFO")
if mode == "run":
    app.run(worker={"commit_interval": 0.05})
elif mode == "mistaken":
    app.run(worker={"comit_interval": 0.05})
else:
    settings = config.load(config.merge(app.settings, {"worker": {"commit_interval": 0.05, "drain_timeout": 5}}))
    sys.exit(run_process(app, settings, until_caught_up=mode == "quick"))
