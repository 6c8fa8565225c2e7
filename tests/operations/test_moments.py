"""Where to read from and to, as people write it."""

import pytest

from octopus.errors import ConfigurationError
from octopus.events import TopicPartition
from octopus.operations.moments import Moment, read_moment
from octopus.transports.base import Admin

from .conftest import Publish


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("earliest", Moment("earliest", "earliest")),
        ("now", Moment("now", "latest")),
        ("120", Moment("120", offset=120)),
        ("-10", Moment("-10", offset=-10)),
        ("-5m", Moment("-5m", 700.0)),
        ("-0.5h", Moment("-0.5h", -800.0)),
        ("1970-01-01T00:01:00+00:00", Moment("1970-01-01T00:01:00+00:00", 60.0)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_places_are_understood(text: str, moment: Moment) -> None:
    assert read_moment(text, 1000.0, "--from") == moment


@pytest.mark.parametrize("text", ["", "soon", "-5x", "5m", "2026-13-01", "-"])
def test_what_is_no_place_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--from .* is no place in a topic: earliest, latest"):
        read_moment(text, 1000.0, "--from")


@pytest.mark.parametrize(
    ("text", "offsets"),
    [("earliest", (0, 0)), ("latest", (3, 1)), ("2", (2, 1)), ("-2", (1, 0)), ("9", (3, 1))],
)
async def test_a_moment_is_an_offset_of_each_partition_and_never_outside_of_what_is_stored(
    admin: Admin, publish: Publish, fresh: str, text: str, offsets: tuple[int, int]
) -> None:
    await admin.create_topic(fresh, partitions=2)
    await publish(fresh, b"a", b"b", b"c", partition=0)
    await publish(fresh, b"d", partition=1)
    places = [TopicPartition(fresh, number) for number in range(2)]
    found = await read_moment(text, 0.0, "--from").resolve(admin, places)
    assert tuple(found[place] for place in places) == offsets


async def test_a_time_is_the_first_event_that_is_not_older(admin: Admin, publish: Publish, fresh: str) -> None:
    await admin.create_topic(fresh)
    for milliseconds in (1000, 2000, 3000):
        await publish(fresh, b"x", timestamp=milliseconds)
    place = TopicPartition(fresh, 0)
    assert await read_moment("-8s", 10.0, "--from").resolve(admin, [place]) == {place: 1}


@pytest.mark.parametrize(
    ("text", "hint"),
    [("2", "A time is written"), ("20200101", "If that time is meant, write 2020-01-01")],
)
async def test_an_offset_that_is_yet_to_come_is_refused_with_what_may_be_meant(
    admin: Admin, publish: Publish, fresh: str, text: str, hint: str
) -> None:
    await admin.create_topic(fresh)
    await publish(fresh, b"x")
    place = TopicPartition(fresh, 0)
    await read_moment("1", 0.0, "--to").refuse_beyond(admin, [place])
    with pytest.raises(ConfigurationError, match=rf"--to {text} is an offset, and {fresh}\[0\] ends at 1\. {hint}"):
        await read_moment(text, 0.0, "--to").refuse_beyond(admin, [place])
