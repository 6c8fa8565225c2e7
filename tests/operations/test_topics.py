"""Topics are listed, described, created, changed and deleted, whoever asks."""

import msgspec
import pytest

from octopus.config import Settings, TopicSettings
from octopus.errors import ConfigurationError, TopicNotFound
from octopus.operations.topics import (
    Change,
    Difference,
    PartitionSpan,
    TopicAlteration,
    TopicCreation,
    TopicDeletion,
    TopicSummary,
    alter_topic,
    create_topic,
    delete_topics,
    describe_topic,
    list_topics,
    plan_alteration,
    plan_deletion,
)
from octopus.transports.base import Admin

from .conftest import Publish

DEFAULTS = TopicSettings(partitions=2)


async def test_topics_are_listed_with_the_events_of_all_their_partitions(
    admin: Admin, publish: Publish, fresh: str
) -> None:
    await admin.create_topic(fresh, partitions=3)
    for partition, values in enumerate([(b"a",), (b"b", b"c")]):
        await publish(fresh, *values, partition=partition)
    (found,) = [topic for topic in await list_topics(admin) if topic.name == fresh]
    assert found == TopicSummary(fresh, partitions=3, replication=found.replication, internal=False, events=3)


async def test_topics_of_the_cluster_itself_are_listed_when_asked_for(admin: Admin, fresh: str) -> None:
    await admin.create_topic(f"__{fresh}")
    assert f"__{fresh}" not in [topic.name for topic in await list_topics(admin)]
    assert f"__{fresh}" in [topic.name for topic in await list_topics(admin, with_internal=True)]
    await admin.delete_topic(f"__{fresh}")


async def test_a_topic_is_described_by_its_id_its_partitions_and_its_settings(
    admin: Admin, publish: Publish, fresh: str
) -> None:
    await admin.create_topic(fresh, partitions=2, config={"retention.ms": "5000"})
    await publish(fresh, b"a", b"b", partition=1)
    found = await describe_topic(admin, fresh, address="here")
    assert found.name == fresh
    assert {fresh: found.id} == await admin.topic_ids([fresh])
    assert found.partitions == (PartitionSpan(0, 0, 0), PartitionSpan(1, 0, 2))
    assert found.config["retention.ms"] == "5000"


async def test_a_topic_that_is_not_there_is_named_with_where_and_with_one_that_is(admin: Admin, fresh: str) -> None:
    await admin.create_topic(fresh)
    with pytest.raises(TopicNotFound, match=rf"There is no topic '{fresh}x' on here\. Did you mean {fresh}\?"):
        await describe_topic(admin, f"{fresh}x", address="here")


async def test_a_topic_is_created_with_what_is_asked_for_and_defaults_for_the_rest(admin: Admin, fresh: str) -> None:
    assert await create_topic(admin, fresh, DEFAULTS, config={"retention.ms": "7"}) == TopicCreation(
        fresh, created=True
    )
    found = await describe_topic(admin, fresh, address="here")
    assert (len(found.partitions), found.config["retention.ms"]) == (2, "7")


@pytest.mark.parametrize(
    ("asked", "different"),
    [
        pytest.param({}, {}, id="nothing is asked for"),
        pytest.param({"replication": -1}, {}, id="any number of copies is right"),
        pytest.param({"partitions": 3}, {"partitions": Difference(2, 3)}, id="partitions"),
        pytest.param({"config": {"retention.ms": "9"}}, {"retention.ms": Difference("7", "9")}, id="a setting"),
    ],
)
async def test_a_topic_that_is_there_is_left_as_it_is_and_compared_with_what_was_asked_for(
    admin: Admin, fresh: str, asked: dict[str, object], different: dict[str, Difference]
) -> None:
    await create_topic(admin, fresh, DEFAULTS, config={"retention.ms": "7"})
    before = await describe_topic(admin, fresh, address="here")
    found = await create_topic(admin, fresh, DEFAULTS, **asked)  # type: ignore[arg-type]
    assert found == TopicCreation(fresh, created=False, different=different)
    assert await describe_topic(admin, fresh, address="here") == before


async def test_a_name_that_no_topic_can_have_is_refused_before_the_broker_does(admin: Admin) -> None:
    with pytest.raises(ConfigurationError, match="'no name' is not a topic name"):
        await create_topic(admin, "no name", DEFAULTS)


async def test_a_topic_is_altered_as_planned_and_the_plan_says_only_what_changes(admin: Admin, fresh: str) -> None:
    await create_topic(admin, fresh, DEFAULTS, config={"retention.ms": "7"})
    plan = await plan_alteration(admin, fresh, partitions=3, config={"retention.ms": "7"}, address="here")
    assert plan == TopicAlteration(fresh, {"partitions": Change(2, 3)})
    assert len((await describe_topic(admin, fresh, address="here")).partitions) == 2
    await alter_topic(admin, plan)
    assert len((await describe_topic(admin, fresh, address="here")).partitions) == 3
    assert (await plan_alteration(admin, fresh, partitions=3, address="here")).changed == {}


async def test_partitions_are_never_taken_away(admin: Admin, fresh: str) -> None:
    await create_topic(admin, fresh, DEFAULTS)
    with pytest.raises(ConfigurationError, match="has 2, and none can be taken away"):
        await plan_alteration(admin, fresh, partitions=1, address="here")


async def test_topics_are_deleted_as_planned_and_progress_counts_them(
    admin: Admin, publish: Publish, settings: Settings, fresh: str
) -> None:
    names = (fresh, f"{fresh}-b")
    for name in names:
        await create_topic(admin, name, settings.topics)
    await publish(fresh, b"a", b"b")
    plan = await plan_deletion(admin, names, address="here")
    assert plan == TopicDeletion(names, events=2)
    steps: list[int] = []
    await delete_topics(admin, plan, steps.append)
    assert steps == [1, 1]
    assert not {*names} & {topic.name for topic in await list_topics(admin)}


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (TopicCreation("t", created=True), b'{"name":"t","created":true}'),
        (
            TopicCreation("t", created=False, different={"partitions": Difference(1, 2)}),
            b'{"name":"t","created":false,"different":{"partitions":{"is":1,"asked":2}}}',
        ),
        (TopicAlteration("t", {"a": Change("1", "2")}), b'{"name":"t","changed":{"a":{"from":"1","to":"2"}}}'),
        (TopicDeletion(("t",), 3), b'{"deleted":["t"],"events":3}'),
    ],
    ids=["created", "there already", "altered", "deleted"],
)
def test_results_are_the_json_of_the_command_line(value: object, encoded: bytes) -> None:
    assert msgspec.json.encode(value) == encoded
