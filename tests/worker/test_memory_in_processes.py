"""What a compressed topic becomes in memory is bounded, whatever its shape: measured as the largest size of a process."""

import re
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from octopus.testing.faults import ChildProcess, EmbeddedBroker, python_module
from octopus.transports.base import Outgoing
from octopus.transports.kafka import KafkaSettings, KafkaTransport

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the largest size"),
]

MEBIBYTE = 1024 * 1024
IN_FLIGHT = 64 * MEBIBYTE
BOUND = 2 * IN_FLIGHT + 150_000_000
"""What the guide promises, the interpreter and everything in it included."""

HUGE = bytes(32 * MEBIBYTE)

APP = """
import asyncio
from octopus import Event, Octopus

app = Octopus("app")

@app.on("{topic}", {options})
async def handle(event: {event}) -> None:
    {body}
"""


class Shape(NamedTuple):
    """A topic.

    Attributes:
        messages: What is in it, by its name: batches.
        records: How many.
        codec: Compression.
        partitions: How many.
    """

    messages: Callable[[str], list[list[Outgoing]]]
    records: int
    codec: str = "zstd"
    partitions: int = 1


def bombs(topic: str) -> list[list[Outgoing]]:
    """More than 700 MB in batches of one record."""
    return [[Outgoing(topic, HUGE, partition=0)] for _ in range(24)]


def bombs_everywhere(topic: str) -> list[list[Outgoing]]:
    """The same in as many partitions."""
    return [[Outgoing(topic, HUGE, partition=number)] for number in range(24)]


def small(topic: str) -> list[list[Outgoing]]:
    """A few batches of a hundred thousand records each: more as objects than as bytes."""
    return [[Outgoing(topic, b"", partition=number % 3)] * 100_000 for number in range(9)]


def long_batches(topic: str) -> list[list[Outgoing]]:
    """Batches of 20 MB in many partitions, of which each is read in many parts."""
    return [[Outgoing(topic, bytes(10_000), partition=number)] * 2_000 for number in range(24)]


def with_headers(topic: str) -> list[list[Outgoing]]:
    """Records of 12 kB that are mostly objects: 2,000 headers each."""
    headers = [("abc", b"vv")] * 2_000
    return [[Outgoing(topic, b"", headers=headers, partition=0)] * 500 for _ in range(6)]


SHAPES = {
    **{f"bombs, {codec}": Shape(bombs, 24, codec) for codec in ("gzip", "snappy", "lz4", "zstd")},
    "bombs in many partitions": Shape(bombs_everywhere, 24, partitions=24),
    "many small records": Shape(small, 900_000, partitions=3),
    "long batches in many partitions": Shape(long_batches, 48_000, partitions=24),
    "headers": Shape(with_headers, 3_000),
}


@pytest.fixture
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedBroker]:
    async with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def topic_of(broker: EmbeddedBroker) -> Callable[[Shape], Awaitable[str]]:
    """Make a topic of a shape."""

    async def make(shape: Shape) -> str:
        topic = f"t-{secrets.token_hex(4)}"
        transport = KafkaTransport(KafkaSettings(brokers=broker.address))
        admin, producer = transport.admin(), transport.producer(compression=shape.codec, max_batch_bytes=len(HUGE) * 2)
        await admin.start()
        await admin.create_topic(topic, partitions=shape.partitions, config={"max.message.bytes": str(len(HUGE) * 2)})
        await admin.stop()
        await producer.start()
        for messages in shape.messages(topic):
            await producer.send_many(messages)
        await producer.stop()
        return topic

    return make


async def most_memory(*arguments: str, directory: Path) -> tuple[int, str]:
    """Run the command line to its end; return its largest size, and what it wrote."""
    with ChildProcess(python_module("tests.worker.devouring", *arguments), log=directory / "log") as process:
        assert await process.ended(180) == 0, process.written()[-2_000:]
        written = process.written()
    found = re.search(r"most memory: (\d+)", written)
    assert found is not None
    return int(found[1]), written


def app_in(directory: Path, topic: str, *, options: str = "", event: str = "Event[bytes]", body: str = "pass") -> str:
    path = directory / "app.py"
    path.write_text(APP.format(topic=topic, options=options, event=event, body=body))
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
async def test_a_worker_keeps_its_size_whatever_a_compressed_topic_becomes(
    shape: Shape, topic_of: Any, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    app = app_in(tmp_path, await topic_of(shape), body="await asyncio.sleep(0)")
    size, written = await most_memory("run", app, "--drain", "--brokers", broker.address, directory=tmp_path)
    assert f"{shape.records:,} done" in written
    assert size < BOUND


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "event"),
    [
        ('delivery="exactly_once"', "Event[bytes]"),
        ("batch=10, within=0.1", "list[Event[bytes]]"),
        ('ordering="key", concurrency=8', "Event[bytes]"),
    ],
    ids=["exactly once", "batches", "by key"],
)
async def test_so_does_one_of_any_kind(
    options: str, event: str, topic_of: Any, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    app = app_in(tmp_path, await topic_of(SHAPES["bombs, zstd"]), options=options, event=event)
    size, written = await most_memory("run", app, "--drain", "--brokers", broker.address, directory=tmp_path)
    assert "24 done" in written
    assert size < BOUND


@pytest.mark.slow
async def test_so_does_the_command_line_that_shows_events(
    topic_of: Any, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    topic = await topic_of(SHAPES["bombs, zstd"])
    show = ("consume", topic, "--from", "earliest", "--to", "latest", "--raw")
    size, _ = await most_memory(*show, "--brokers", broker.address, directory=tmp_path)
    assert size < BOUND
