"""Where groups stand: how far behind, and whether that is of this log at all."""

from collections.abc import Collection

import pytest

from octopus.errors import TransportError
from octopus.events import TopicPartition
from octopus.operations.standing import Location, Misplaced, Standing, lag_of, misplaced, standing, standings_of
from octopus.runner.commit_metadata import with_topic_id
from octopus.transports.base import Commit, TopicInfo
from octopus.worker.known_topics import Recreated

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


@pytest.mark.parametrize(
    ("commit", "start", "end", "expected"),
    [
        pytest.param(Commit(5), 0, 7, Standing(2, Location.INSIDE, False), id="in the log"),
        pytest.param(Commit(7), 0, 7, Standing(0, Location.INSIDE, False), id="at its end"),
        pytest.param(Commit(5), 5, 7, Standing(2, Location.INSIDE, False), id="at its start"),
        pytest.param(
            Commit(0), 5, 7, Standing(2, Location.BEFORE, False), id="before it: deleted events are not counted"
        ),
        pytest.param(Commit(9), 0, 7, Standing(0, Location.BEHIND, False), id="behind it"),
        pytest.param(Commit(5, with_topic_id("", "now")), 0, 7, Standing(2, Location.INSIDE, True), id="of this topic"),
        pytest.param(
            Commit(5, with_topic_id("", "then")), 1, 7, Standing(6, Location.ANOTHER_TOPIC, True), id="of another"
        ),
        pytest.param(
            Commit(5, with_topic_id("", "then")), 1, None, Standing(None, Location.ANOTHER_TOPIC, True), id="no end"
        ),
        pytest.param(Commit(5), None, 7, Standing(None, Location.INSIDE, False), id="no start"),
    ],
)
def test_a_commit_is_compared_with_the_log(
    commit: Commit, start: int | None, end: int | None, expected: Standing
) -> None:
    assert standing(commit, "now", start, end) == expected


def test_a_broker_without_topic_ids_is_believed() -> None:
    assert standing(Commit(5, with_topic_id("", "then")), None, 0, 7) == Standing(2, Location.INSIDE, True)


@pytest.mark.parametrize(
    ("group", "recreated", "is_ours", "told"),
    [
        pytest.param("app.h", "stop", False, [(Location.ANOTHER_TOPIC, [T0])], id="what says that it is ours"),
        pytest.param(
            "app.h", "stop", True, [(Location.ANOTHER_TOPIC, [T0]), (Location.BEFORE, [T1])], id="all of ours"
        ),
        pytest.param("app.h", "earliest", True, [(Location.BEFORE, [T1])], id="a new topic is begun anew"),
        pytest.param("app.h.retry", "stop", True, [(Location.BEFORE, [T1])], id="a new retry topic is begun anew"),
    ],
)
def test_a_group_is_told_of_where_it_cannot_go_on(
    group: str, recreated: Recreated, is_ours: bool, told: list[tuple[Location, list[TopicPartition]]]
) -> None:
    standings = {T0: Standing(6, Location.ANOTHER_TOPIC, True), T1: Standing(2, Location.BEFORE, False)}
    found = [*misplaced(group, standings, recreated, is_ours=is_ours)]
    assert found == [Misplaced(group, *each) for each in told]


class HalfACluster:
    """An admin client of a cluster in which partition 1 of topic `t` has no leader."""

    async def topics(self) -> list[TopicInfo]:
        return [TopicInfo("t", 2, 1)]

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str | None]:
        return dict.fromkeys(topics)

    async def offsets(self, partitions: Collection[TopicPartition], start: str) -> dict[TopicPartition, int]:
        if any(place.partition == 1 for place in partitions):
            raise TransportError("no leader for t[1]", retryable=True)
        return dict.fromkeys(partitions, 7 if start == "latest" else 0)


async def test_the_lag_of_a_partition_without_a_leader_is_unknown_and_so_is_the_groups() -> None:
    committed = {T0: Commit(5), T1: Commit(5), TopicPartition("gone", 0): Commit(3)}
    standings = await standings_of(HalfACluster(), committed)  # type: ignore[arg-type]
    assert {place: each.lag for place, each in standings.items()} == {T0: 2, T1: None}
    assert lag_of(standings) is None
    assert lag_of({T0: standings[T0]}) == 2
