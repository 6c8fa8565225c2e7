"""Where groups stand, and that `doctor` and `groups` say when it is not in the log."""

import asyncio
from collections.abc import Collection, Iterator
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition as KafkaPartition

from octopus.errors import TransportError
from octopus.events import TopicPartition
from octopus.operations.standing import Location, Misplaced, Standing, lag_of, misplaced, standing, standings_of
from octopus.runner.commit_metadata import with_topic_id
from octopus.transports.base import Commit, TopicInfo
from octopus.transports.opening import administering, open_transport
from octopus.worker.known_topics import Recreated
from tests.cli.conftest import Octopus

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


@pytest.fixture
def group(octopus: Octopus, topic: str) -> Iterator[str]:
    """A group that has read two of five events of the topic, and says so with the topic's id."""
    octopus("topics", "create", topic, "--partitions", "1")
    octopus("publish", topic, *"01234")
    octopus("consume", topic, "--group", f"app.{topic}", "--to", "2", "--quiet")
    yield f"app.{topic}"
    octopus("groups", "delete", f"app.{topic}", "--yes")  # other tests want a doctor without complaints


def stand_in_an_earlier_topic(broker: str, topic: str, group: str) -> None:
    async def commit() -> None:
        async with administering(open_transport(broker)) as admin:
            await admin.set_group_offsets(group, {TopicPartition(topic, 0): Commit(2, with_topic_id("", "another"))})

    asyncio.run(commit())


def delete_events(broker: str, topic: str, _group: str) -> None:
    async def delete() -> None:
        client: Any = AIOKafkaAdminClient(bootstrap_servers=broker)
        await client.start()
        try:
            await client.delete_records({KafkaPartition(topic, 0): RecordsToDelete(before_offset=4)})
        finally:
            await client.close()

    asyncio.run(delete())


@pytest.mark.parametrize(
    ("go_wrong", "place", "lag", "why", "which"),
    [
        pytest.param(
            stand_in_an_earlier_topic,
            "in an earlier topic",
            5,
            "the topic was deleted and made again, and what the group has committed was of the old one",
            "",
            id="its topic was made again",
        ),
        pytest.param(
            delete_events,
            "before the log",
            1,
            "the events where it goes on were deleted",
            " --partition 0",
            id="its events were deleted",
        ),
    ],
)
def test_a_group_that_cannot_read_on_is_wrong_and_said_with_the_command_that_decides(
    octopus: Octopus, broker: str, topic: str, group: str, go_wrong: Any, place: str, lag: int, why: str, which: str
) -> None:
    assert octopus("doctor").code == 0
    go_wrong(broker, topic, group)
    said = f"{group} cannot read {topic}[0]: {why}"
    command = f"octopus groups reset {group} --topic {topic}{which} --to earliest"
    result = octopus("doctor", "--json")
    (found,) = [check for check in result.json["checks"] if check["state"] == "wrong"]
    assert result.code == 1
    assert (found["check"], found["text"]) == ("offsets", said)
    assert command in found["mend"]
    (listed,) = [entry for entry in octopus("groups", "--json").json if entry["name"] == group]
    assert listed["lag"] == lag
    described = octopus("groups", "describe", group)
    assert place in described.out
    for told in (octopus("groups").err, described.err):
        assert said in told.replace("\n", " ")
        assert command in told
    assert octopus("groups", "describe", group, "--json").json["partitions"] == [
        {"topic": topic, "partition": 0, "committed": 2, "lag": lag, "stands": place, "member": None, "host": None}
    ]
    octopus(*command.split()[1:], "--yes")
    assert octopus("doctor").code == 0


def test_a_new_topic_that_is_begun_anew_by_itself_is_not_wrong(
    octopus: Octopus, broker: str, topic: str, group: str
) -> None:
    stand_in_an_earlier_topic(broker, topic, group)
    assert octopus("doctor", "--config", "consumer.recreated_topics=earliest").code == 0
    assert octopus("doctor").code == 1
