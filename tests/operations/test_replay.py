"""A range of a topic is published again."""

import msgspec
import pytest

from octopus.config import Settings
from octopus.errors import ConfigurationError
from octopus.events import TopicPartition
from octopus.operations.moments import read_moment
from octopus.operations.reading import Offsets, Reader
from octopus.operations.replay import Copied, Range, copy_range, plan_copy
from octopus.patterns import Pattern
from octopus.transports.base import Admin, Outgoing, Transport

from .conftest import Publish

EARLIEST, LATEST = read_moment("earliest", 0.0, "--from"), read_moment("latest", 0.0, "--to")


@pytest.fixture
async def topic(admin: Admin, publish: Publish, fresh: str) -> str:
    """A topic with three events and one that is no JSON."""
    await admin.create_topic(fresh)
    await publish(fresh, b'{"n": 1}', b'{"n": 2}', b'{"n": 3}', b"no json", key=b"k", headers=[("a", b"b")])
    return fresh


async def read_all(
    transport: Transport, admin: Admin, settings: Settings, topic: str
) -> list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]]:
    """Return keys, values and headers of a topic with one partition."""
    place = TopicPartition(topic, 0)
    end = await admin.offsets([place], "latest")
    async with Reader(transport, settings, [place], Offsets({place: 0}), Offsets(end)) as reader:
        runs = [run async for run in reader]
    return [(each.key, each.value, [*each.headers]) for _, records in runs for each in records]


async def test_a_range_is_copied_with_keys_and_headers(
    transport: Transport, admin: Admin, settings: Settings, topic: str
) -> None:
    plan = await plan_copy(admin, topic, read_moment("1", 0.0, "--from"), LATEST, address="here")
    steps: list[int] = []
    into = f"{topic}-again"
    pattern = Pattern.compile('{"n": [2, 3]}')
    done = await copy_range(transport, settings, plan, into, pattern=pattern, advance=steps.append)
    assert (done, sum(steps)) == (Copied(topic, into, dry_run=False, events=2, range=3), 3)
    assert await read_all(transport, admin, settings, into) == [
        (b"k", b'{"n": 2}', [("a", b"b")]),
        (b"k", b'{"n": 3}', [("a", b"b")]),
    ]


async def test_progress_is_told_as_it_is_made(
    transport: Transport, admin: Admin, settings: Settings, publish: Publish, fresh: str
) -> None:
    await admin.create_topic(fresh, partitions=2)
    for partition in range(2):
        await publish(fresh, b"x", b"y", partition=partition)
    plan = await plan_copy(admin, fresh, EARLIEST, LATEST, address="here")
    steps: list[int] = []
    await copy_range(transport, settings, plan, f"{fresh}-again", advance=steps.append)
    assert len(steps) >= 2
    assert sum(steps) == plan.size == 4


async def test_what_is_only_tried_is_counted_and_published_nowhere(
    transport: Transport, admin: Admin, settings: Settings, topic: str
) -> None:
    plan = await plan_copy(admin, topic, EARLIEST, LATEST, address="here")
    done = await copy_range(transport, settings, plan, f"{topic}-again", dry_run=True)
    assert done == Copied(topic, f"{topic}-again", dry_run=True, events=4, range=4)
    assert f"{topic}-again" not in [each.name for each in await admin.topics()]


async def test_a_copy_into_the_same_topic_ends(
    transport: Transport, admin: Admin, settings: Settings, topic: str
) -> None:
    plan = await plan_copy(admin, topic, EARLIEST, LATEST, address="here")
    assert (await copy_range(transport, settings, plan, topic)).events == 4
    assert len(await read_all(transport, admin, settings, topic)) == 8


async def test_a_range_in_which_nothing_was_committed_is_copied_as_nothing(
    transport: Transport, admin: Admin, settings: Settings, fresh: str
) -> None:
    await admin.create_topic(fresh)
    producer = transport.transactional_producer(f"{fresh}-id")
    await producer.start()
    await producer.begin()
    await producer.send(Outgoing(fresh, b"taken back"))
    await producer.abort()
    await producer.stop()
    plan = await plan_copy(admin, fresh, EARLIEST, LATEST, address="here")
    assert plan.size > 0
    assert (await copy_range(transport, settings, plan, f"{fresh}-again")).events == 0


async def test_a_range_without_anything_is_not_read(transport: Transport, settings: Settings) -> None:
    place = TopicPartition("not-there", 0)
    assert await copy_range(transport, settings, Range("not-there", {place: 3}, {place: 3}), "into") == Copied(
        "not-there", "into", dry_run=False, events=0, range=0
    )


async def test_a_number_that_may_be_a_date_is_refused(admin: Admin, topic: str) -> None:
    with pytest.raises(ConfigurationError, match="If that time is meant, write 2020-01-01"):
        await plan_copy(admin, topic, read_moment("20200101", 0.0, "--from"), LATEST, address="here")


def test_a_result_is_the_json_of_the_command_line() -> None:
    assert msgspec.json.encode(Copied("t", "u", dry_run=True, events=1, range=2)) == (
        b'{"topic":"t","into":"u","dry_run":true,"events":1,"range":2}'
    )
