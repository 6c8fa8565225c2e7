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
OF_TWO_GROUPS = (
    BOUND + 2 * IN_FLIGHT
)  # a handler's, and the one that reads its retries: each may have so much in flight
"""What the guide promises, the interpreter and everything in it included."""

HUGE = bytes(32 * MEBIBYTE)

APP = """
import asyncio
from octopus import Event, Octopus, RetryPolicy

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


ORIGIN = [
    (f"octopus-dead-letter-{name}", value) for name, value in (("topic", b"t"), ("partition", b"0"), ("offset", b"7"))
]


def dead_bombs(topic: str) -> list[list[Outgoing]]:
    """Dead letters of 32 MB, one in each batch."""
    return [[Outgoing(topic, HUGE, headers=ORIGIN, partition=0)] for _ in range(24)]


def dead_letters(topic: str) -> list[list[Outgoing]]:
    """Batches of 20 MB of dead letters."""
    return [[Outgoing(topic, bytes(10_000), headers=ORIGIN, partition=0)] * 2_000 for _ in range(24)]


COMPRESSED = ("--config=producer.compression=zstd", f"--config=producer.max_batch_bytes={len(HUGE) * 2}")

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

    async def fill(shape: Shape, suffix: str = "") -> str:
        topic = f"t-{secrets.token_hex(4)}{suffix}"
        transport = KafkaTransport(KafkaSettings(brokers=broker.address))
        await make(transport, topic, limit=len(HUGE) * 2, partitions=shape.partitions)
        producer = transport.producer(compression=shape.codec, max_batch_bytes=len(HUGE) * 2)
        await producer.start()
        for messages in shape.messages(topic):
            await producer.send_many(messages)
        await producer.stop()
        return topic

    return fill


async def make(transport: KafkaTransport, topic: str, *, limit: int, partitions: int = 1) -> None:
    """Make a topic that takes batches of so many bytes."""
    admin = transport.admin()
    await admin.start()
    await admin.create_topic(topic, partitions=partitions, config={"max.message.bytes": str(limit)})
    await admin.stop()


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
@pytest.mark.parametrize("options", ["", 'delivery="exactly_once"'], ids=["as it comes", "exactly once"])
async def test_so_does_one_that_passes_over_aborted_transactions(
    options: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    topic = f"t-{secrets.token_hex(4)}"
    transport = KafkaTransport(KafkaSettings(brokers=broker.address))
    await make(transport, topic, limit=len(HUGE) * 2)
    owner = transport.transactional_producer(topic, compression="zstd", max_batch_bytes=len(HUGE) * 2)
    await owner.start()
    for number in range(24):
        await owner.begin()
        await owner.send(Outgoing(topic, HUGE, partition=0))
        await (owner.commit() if number % 8 == 7 else owner.abort())
    await owner.stop()
    app = app_in(tmp_path, topic, options=options, body="await asyncio.sleep(0)")
    read = ("--config=consumer.isolation=read_committed",) if not options else ()
    run = ("run", app, "--drain", "--brokers", broker.address, *read)
    size, written = await most_memory(*run, directory=tmp_path)
    assert "3 done" in written
    assert size < BOUND


@pytest.mark.slow
@pytest.mark.parametrize("waits", [0.2, 3600], ids=["that come back", "that wait"])
async def test_so_does_one_whose_retries_wait_in_a_topic(
    waits: float, topic_of: Any, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    topic = await topic_of(SHAPES["bombs, zstd"])
    options = f"retry=RetryPolicy(attempts=2, backoff={waits}, jitter=0, defer_beyond=0), retry_topic=True"
    body = "if event.attempt == 1: raise OSError('not yet')"
    app = app_in(tmp_path, topic, options=options, body=body)
    run = ("run", app, "--drain", "--brokers", broker.address, *COMPRESSED)
    size, written = await most_memory(*run, directory=tmp_path)
    assert "24 deferred" in written
    assert size < OF_TWO_GROUPS
    again, _ = await most_memory(*run, directory=tmp_path)  # it finds them all there at once
    assert again < OF_TWO_GROUPS


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["bombs, zstd", "bombs in many partitions", "long batches in many partitions"])
async def test_so_does_the_command_line_that_publishes_events_again(
    shape: str, topic_of: Any, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    topic = await topic_of(SHAPES[shape])
    await make(KafkaTransport(KafkaSettings(brokers=broker.address)), f"{topic}-again", limit=len(HUGE) * 2)
    replay = ("replay", topic, "--from", "earliest", "--into", f"{topic}-again", "--yes", *COMPRESSED)
    size, written = await most_memory(*replay, "--brokers", broker.address, directory=tmp_path)
    assert f"Published {SHAPES[shape].records:,} events" in written
    assert size < BOUND


@pytest.mark.slow
@pytest.mark.parametrize("shape", [dead_bombs, dead_letters], ids=["bombs", "many in a batch"])
async def test_so_does_the_command_line_that_puts_dead_letters_back(
    shape: Callable[[str], list[list[Outgoing]]], topic_of: Any, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    count = sum(map(len, shape("t")))
    topic = await topic_of(Shape(shape, count), suffix=".dead-letter")
    await make(KafkaTransport(KafkaSettings(brokers=broker.address)), "back", limit=len(HUGE) * 2)
    replay = ("dead-letters", "replay", topic, "--to", "back", "--yes", *COMPRESSED)
    size, written = await most_memory(*replay, "--brokers", broker.address, directory=tmp_path)
    assert f"{count:,}" in written
    assert size < BOUND


@pytest.mark.slow
async def test_so_does_the_command_line_that_shows_events(
    topic_of: Any, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    topic = await topic_of(SHAPES["bombs, zstd"])
    show = ("consume", topic, "--from", "earliest", "--to", "latest", "--raw")
    size, _ = await most_memory(*show, "--brokers", broker.address, directory=tmp_path)
    assert size < BOUND
