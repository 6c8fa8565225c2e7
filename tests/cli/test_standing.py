"""Where groups stand, and that `doctor` and `groups` say when it is not in the log."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition as KafkaPartition

from octopus.events import TopicPartition
from octopus.runner.commit_metadata import with_topic_id
from octopus.transports.base import Commit
from octopus.transports.opening import administering, open_transport
from tests.cli.conftest import Octopus


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
