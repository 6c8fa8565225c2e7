"""Dead letters are counted, read with their causes, and put back as they were."""

import msgspec
import pytest

from octopus.config import Settings
from octopus.errors import ConfigurationError, OperationFailed, TopicNotFound
from octopus.events import TopicPartition
from octopus.operations.dead_letters import (
    DeadLetter,
    DeadLetterCount,
    count_dead_letters,
    find_waiting,
    read_dead_letters,
    read_place,
    show_dead_letter,
)
from octopus.operations.putting_back import ALL, Choice, PutBack, put_back
from octopus.operations.reading import Offsets, Reader
from octopus.patterns import Pattern
from octopus.pipeline.dead_letters import PREFIX, SUFFIX
from octopus.transports.base import Admin, Transport

from .conftest import Publish


def caused_by(handler: str, topic: str | None, offset: int) -> list[tuple[str, bytes | None]]:
    """Return the headers of a dead letter, and one that the event had."""
    cause = {"reason": "is too large", "handler": handler, "partition": "0", "offset": str(offset)}
    cause |= {} if topic is None else {"topic": topic}
    return [("from", b"here"), *((f"{PREFIX}{name}", value.encode()) for name, value in cause.items())]


@pytest.fixture
async def topic(admin: Admin, publish: Publish, fresh: str) -> str:
    """A topic with three dead letters: two of `picky`, one of `fussy`."""
    await admin.create_topic(fresh)
    await admin.create_topic(fresh + SUFFIX)
    for n, handler in enumerate(["picky", "fussy", "picky"]):
        headers = caused_by(handler, fresh, n)
        await publish(fresh + SUFFIX, b'{"n": %d}' % n, key=b"k%d" % n, headers=headers)
    return fresh


async def all_dead_letters(transport: Transport, admin: Admin, settings: Settings, topic: str) -> list[DeadLetter]:
    """Return what waits."""
    span = await find_waiting(admin, topic, address="here")
    return [each async for _, dead_letters in read_dead_letters(transport, settings, span) for each in dead_letters]


async def values_of(transport: Transport, admin: Admin, settings: Settings, topic: str) -> list[bytes | None]:
    """Return everything in a topic of one partition."""
    place = TopicPartition(topic, 0)
    end = await admin.offsets([place], "latest")
    async with Reader(transport, settings, [place], Offsets({place: 0}), Offsets(end)) as reader:
        return [record.value for _, records in [run async for run in reader] for record in records]


async def test_they_are_counted_by_topic(admin: Admin, topic: str) -> None:
    assert DeadLetterCount(topic + SUFFIX, waiting=3, stored=3) in await count_dead_letters(admin)


@pytest.mark.parametrize("suffix", ["", SUFFIX])
async def test_they_are_found_by_either_topic_and_read_with_their_causes(
    transport: Transport, admin: Admin, settings: Settings, topic: str, suffix: str
) -> None:
    found = await all_dead_letters(transport, admin, settings, topic + suffix)
    assert [(each.origin, each.cause["handler"]) for each in found] == [
        (f"{topic}[0]@0", "picky"),
        (f"{topic}[0]@1", "fussy"),
        (f"{topic}[0]@2", "picky"),
    ]
    assert found[1].coordinates == f"{topic}{SUFFIX}[0]@1"


async def test_the_newest_of_them_are_those_at_the_end(admin: Admin, topic: str) -> None:
    place = TopicPartition(topic + SUFFIX, 0)
    span = await find_waiting(admin, topic, address="here")
    assert span.newest(2).first == {place: 1}
    assert span.newest(9).first == {place: 0}


async def test_a_topic_without_dead_letters_has_none_and_one_that_is_not_there_is_named(
    admin: Admin, fresh: str
) -> None:
    with pytest.raises(TopicNotFound, match=f"There is no topic '{fresh}' on here"):
        await find_waiting(admin, fresh, address="here")
    await admin.create_topic(fresh)
    assert (await find_waiting(admin, fresh, address="here")).counts.total() == 0


async def test_one_is_shown_by_its_place(transport: Transport, settings: Settings, topic: str) -> None:
    found = await show_dead_letter(transport, settings, *read_place(f"{topic}{SUFFIX}[0]@1"))
    assert (found.record.value, found.cause["handler"]) == (b'{"n": 1}', "fussy")


async def test_where_nothing_is_the_sentence_says_what_is_there(
    transport: Transport, settings: Settings, topic: str
) -> None:
    place = TopicPartition(topic + SUFFIX, 0)
    with pytest.raises(OperationFailed) as caught:
        await show_dead_letter(transport, settings, place, 3)
    assert str(caught.value) == f"There is nothing at {place}@3; {place} holds 0 to 2."


@pytest.mark.parametrize("text", ["", "t", "t[0]", "t@0", "t[x]@0", "t[0]@-1"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is no place of an event: write topic\[partition\]@offset"):
        read_place(text)


async def test_they_are_put_back_once_as_they_were(
    transport: Transport, admin: Admin, settings: Settings, topic: str
) -> None:
    span = await find_waiting(admin, topic, address="here")
    steps: list[int] = []
    done = await put_back(transport, settings, topic, span, advance=steps.append)
    assert (done, sum(steps)) == (PutBack(topic, dry_run=False, put_back={topic: 3}, without_origin=0), 3)
    place = TopicPartition(topic, 0)
    end = await admin.offsets([place], "latest")
    async with Reader(transport, settings, [place], Offsets({place: 0}), Offsets(end)) as reader:
        records = [record for _, found in [run async for run in reader] for record in found]
    assert [(each.key, each.value, [*each.headers]) for each in records] == [
        (b"k%d" % n, b'{"n": %d}' % n, [("from", b"here")]) for n in range(3)
    ]
    assert (await find_waiting(admin, topic, address="here")).counts.total() == 0
    assert (await find_waiting(admin, topic, stored=True, address="here")).counts.total() == 3


async def test_what_is_only_tried_changes_nothing(
    transport: Transport, admin: Admin, settings: Settings, topic: str
) -> None:
    span = await find_waiting(admin, topic, address="here")
    done = await put_back(transport, settings, topic, span, dry_run=True)
    assert done == PutBack(topic, dry_run=True, put_back={topic: 3}, without_origin=0)
    assert await values_of(transport, admin, settings, topic) == []
    assert (await find_waiting(admin, topic, address="here")).counts.total() == 3


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        pytest.param(ALL, [0, 1, 2], id="all"),
        pytest.param(Choice(handler="picky"), [0, 2], id="of a handler"),
        pytest.param(Choice(pattern=Pattern.compile('{"n": [1, 2]}')), [1, 2], id="that match"),
        pytest.param(Choice(handler="picky", pattern=Pattern.compile('{"n": [1, 2]}')), [2], id="both"),
    ],
)
async def test_a_choice_is_put_back_and_only_without_one_they_are_remembered(
    transport: Transport, admin: Admin, settings: Settings, topic: str, choice: Choice, chosen: list[int]
) -> None:
    span = await find_waiting(admin, topic, address="here")
    await put_back(transport, settings, topic, span, choice=choice)
    assert await values_of(transport, admin, settings, topic) == [b'{"n": %d}' % n for n in chosen]
    assert (await find_waiting(admin, topic, address="here")).counts.total() == (3 if choice else 0)


async def test_those_at_places_are_put_back(transport: Transport, admin: Admin, settings: Settings, topic: str) -> None:
    span = await find_waiting(admin, topic, address="here")
    choice = Choice(frozenset({(TopicPartition(topic + SUFFIX, 0), 1)}))
    assert (await put_back(transport, settings, topic, span, choice=choice)).put_back == {topic: 1}


async def test_what_says_nothing_of_where_it_was_is_passed_over_unless_it_is_told_where_to_go(
    transport: Transport, admin: Admin, settings: Settings, publish: Publish, fresh: str
) -> None:
    await admin.create_topic(fresh)
    await admin.create_topic(fresh + SUFFIX)
    await publish(fresh + SUFFIX, b"x", headers=caused_by("picky", None, 0))
    span = await find_waiting(admin, fresh, address="here")
    assert await put_back(transport, settings, fresh, span, dry_run=True) == PutBack(fresh, True, {}, without_origin=1)
    assert (await put_back(transport, settings, fresh, span, to=fresh)).put_back == {fresh: 1}


async def test_results_are_the_json_of_the_command_line(transport: Transport, settings: Settings, topic: str) -> None:
    found = await show_dead_letter(transport, settings, TopicPartition(topic + SUFFIX, 0), 1)
    decoded = msgspec.json.decode(msgspec.json.encode(found.readable))
    assert [*decoded] == [
        *("topic", "partition", "offset", "timestamp", "key", "headers", "encoding", "value", "cause"),
    ]
    assert (decoded["value"], decoded["headers"], decoded["cause"]["handler"]) == (
        {"n": 1},
        [["from", "here"]],
        "fussy",
    )
    assert msgspec.json.encode(PutBack("t", False, {"t": 2}, 1)) == (
        b'{"topic":"t","dry_run":false,"put_back":{"t":2},"without_origin":1}'
    )
    assert msgspec.json.encode(DeadLetterCount("t", 1, 2)) == b'{"topic":"t","waiting":1,"stored":2}'
