"""FastStream on aiokafka: no logger, a pydantic argument and result, its publisher. Ends when it is killed."""

import asyncio
import uuid

import pydantic
from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from benchmarks.task import Task


class ShortEvent(pydantic.BaseModel):
    """A file was made."""

    kind: str
    shift: str
    quality: str
    lot: str
    path: str


def run(task: Task) -> None:
    """Transform the topic from its beginning."""
    asyncio.run(transform(task))


async def transform(task: Task) -> None:
    """Run one subscriber and its publisher."""
    broker = KafkaBroker(task.brokers, logger=None, acks="all", enable_idempotence=True)

    @broker.subscriber(
        task.topic,
        group_id=f"bench-{uuid.uuid4().hex}",
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.ACK if task.options.get("policy") == "ack" else AckPolicy.ACK_FIRST,
    )
    @broker.publisher(task.options["to"])
    async def handle(event: ShortEvent) -> ShortEvent:
        event.shift = "seen"
        return event

    await broker.start()
    await asyncio.Event().wait()
