"""What waits in memory for its time and whose topic is gone is written anew: nobody can read it again."""

import asyncio
from collections.abc import Collection

from octopus.errors import TransportError
from octopus.logs import get_logger
from octopus.pipeline import Pipeline
from octopus.runner import Generation, Runner
from octopus.transports.base import Consumer
from octopus.worker.known_topics import is_another

logger = get_logger("octopus.worker")

LOOK_WAIT = 0.05
"""Seconds between two looks whether everything is written."""


def write_anew(pipeline: Pipeline, runner: Runner, generations: Collection[Generation]) -> list[Generation]:
    """Let what waits go where it is not lost, from now on; return the generations in which something waits so."""
    waiting = [each for each in generations if each.is_open and pipeline.abandon(each.partition)]
    runner.hasten(waiting)
    return waiting


async def rescue(
    pipeline: Pipeline, runner: Runner, consumer: Consumer, generations: Collection[Generation], timeout: float
) -> None:
    """Before generations are given back: if their topic is not there any more, write anew what waits, and wait for that."""
    waiting: list[Generation] = []
    try:
        async with asyncio.timeout(timeout):
            there = await consumer.topic_ids({each.partition.topic for each in generations})
            gone = [
                each
                for each in generations
                if each.partition.topic not in there or is_another(each.topic_id, there[each.partition.topic])
            ]
            waiting = write_anew(pipeline, runner, gone)
            while any(each.is_open and each.ledger.in_flight for each in waiting):  # noqa: ASYNC110 - ledgers tell nobody
                await asyncio.sleep(LOOK_WAIT)
    except (TransportError, TimeoutError) as error:
        if waiting:
            what = f"what waited in memory for {pipeline.group}, whose topic is gone, is not all written anew"
            logger.error("%s: %s", what, str(error) or "it took too long")  # noqa: TRY400 - a sentence says it all
