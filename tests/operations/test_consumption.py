"""Events are chosen and shown as they are read, and a group stands behind exactly those."""

import pytest

from octopus.config import Settings
from octopus.errors import TopicNotFound
from octopus.events import StoredRecord, TopicPartition
from octopus.operations.consumption import Chosen, Selection, consume_events, plan_consumption
from octopus.operations.moments import read_moment
from octopus.operations.reading import Reader
from octopus.patterns import Pattern
from octopus.transports.base import Admin, Transport

from .conftest import Publish

EARLIEST, LATEST = read_moment("earliest", 0.0, "--from"), read_moment("latest", 0.0, "--to")
EVENTS = b'{"n":1}', b"no JSON", b'{"n":2}', b'{"n":3}', None
ODD = Pattern.compile({"n": [1, 3]})


@pytest.mark.parametrize(
    ("pattern", "most", "shown", "chosen"),
    [
        (None, None, [*EVENTS], Chosen(5, 0)),
        (None, 2, [*EVENTS[:2]], Chosen(2, 0)),
        (ODD, None, [EVENTS[0], EVENTS[3]], Chosen(2, 3)),
        (ODD, 1, [EVENTS[0]], Chosen(1, 0)),
        (ODD, 2, [EVENTS[0], EVENTS[3]], Chosen(2, 2)),
    ],
    ids=["all", "two", "odd ones", "one odd one", "two odd ones"],
)
async def test_as_many_are_shown_as_match_and_are_wanted(
    transport: Transport,
    settings: Settings,
    admin: Admin,
    publish: Publish,
    fresh: str,
    pattern: Pattern | None,
    most: int | None,
    shown: list[bytes | None],
    chosen: Chosen,
) -> None:
    await publish(fresh, *EVENTS)
    places = await plan_consumption(admin, [fresh], (), EARLIEST, address="here")
    values: list[bytes | None] = []
    selection = Selection(pattern, most)
    async with Reader(transport, settings, places, EARLIEST, LATEST) as reader:
        found = await consume_events(
            reader, selection, lambda _, records: values.extend(record.value for record in records)
        )
    assert (values, found, selection.count) == (shown, chosen, chosen)


async def test_a_group_goes_on_behind_what_was_shown(
    transport: Transport, settings: Settings, admin: Admin, publish: Publish, fresh: str
) -> None:
    await publish(fresh, *EVENTS)
    offsets: list[int] = []

    def show(_: TopicPartition, records: "list[StoredRecord]") -> None:
        offsets.extend(record.offset for record in records)

    for most in (1, None):
        async with Reader(transport, settings, [TopicPartition(fresh, 0)], EARLIEST, LATEST, f"{fresh}.g") as reader:
            await consume_events(reader, Selection(ODD, most), show, commits=True)
    assert offsets == [0, 3]
    committed = await admin.group_offsets(f"{fresh}.g")
    assert {place: commit.offset for place, commit in committed.items()} == {TopicPartition(fresh, 0): 5}


async def test_a_topic_that_is_not_there_is_named(admin: Admin, publish: Publish, fresh: str) -> None:
    await publish(fresh, b"1")
    with pytest.raises(TopicNotFound, match=f"There is no topic '{fresh}x' on here"):
        await plan_consumption(admin, [f"{fresh}x"], (), EARLIEST, address="here")
