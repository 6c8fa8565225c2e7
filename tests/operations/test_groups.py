"""Groups are listed, described, moved and forgotten, whoever asks."""

import msgspec
import pytest

from octopus.errors import ConfigurationError, TopicNotFound
from octopus.events import TopicPartition
from octopus.operations.groups import (
    GroupDeletion,
    GroupMove,
    GroupPartition,
    GroupSummary,
    OffsetMove,
    delete_groups,
    describe_group,
    list_groups,
    move_group,
    plan_group_deletion,
    plan_move,
)
from octopus.operations.moments import read_moment
from octopus.operations.standing import Location
from octopus.runner.commit_metadata import with_topic_id
from octopus.transports.base import Admin, Commit

from .conftest import Publish


@pytest.fixture
async def group(admin: Admin, publish: Publish, fresh: str) -> str:
    """A group that has read two of five events of a topic with two partitions."""
    await admin.create_topic(fresh, partitions=2)
    await publish(fresh, b"0", b"1", b"2", b"3", b"4", partition=0)
    await admin.set_group_offsets(f"app.{fresh}", {TopicPartition(fresh, 0): Commit(2)})
    return f"app.{fresh}"


async def test_groups_are_listed_with_their_lag(admin: Admin, group: str) -> None:
    (found,) = [each for each in await list_groups(admin, "stop") if each.summary.name == group]
    assert (found.summary, found.misplaced) == (GroupSummary(group, "Empty", members=0, lag=3), ())


async def test_a_group_is_described_in_each_partition(admin: Admin, group: str, fresh: str) -> None:
    found = await describe_group(admin, group, "stop", address="here")
    assert (found.description.state, found.description.members, found.lag) == ("Empty", 0, 3)
    assert found.description.partitions == (
        GroupPartition(fresh, 0, committed=2, lag=3, stands=Location.INSIDE, member=None, host=None),
    )


async def test_a_group_that_stands_in_an_earlier_topic_is_described_with_what_to_do(
    admin: Admin, group: str, fresh: str
) -> None:
    place = TopicPartition(fresh, 0)
    await admin.set_group_offsets(group, {place: Commit(2, with_topic_id("", "another"))})
    found = await describe_group(admin, group, "stop", address="here")
    (trouble,) = found.misplaced
    assert (trouble.location, trouble.partitions) == (Location.ANOTHER_TOPIC, [place])
    assert f"octopus groups reset {group} --topic {fresh} --to earliest" in trouble.mend
    assert found.description.partitions[0].stands is Location.ANOTHER_TOPIC


async def test_a_plan_moves_nothing_and_is_carried_out_as_it_was_shown(admin: Admin, group: str, fresh: str) -> None:
    earliest = read_moment("earliest", 0.0, "--to")
    plan = await plan_move(admin, group, earliest, [fresh], address="here")
    assert plan == GroupMove(
        group, dry_run=True, partitions=(OffsetMove(fresh, 0, 2, 0), OffsetMove(fresh, 1, None, 0))
    )
    assert [each.again for each in plan.partitions] == [2, None]
    place = TopicPartition(fresh, 0)
    assert (await admin.group_offsets(group))[place].offset == 2
    assert await move_group(admin, plan) == msgspec.structs.replace(plan, dry_run=False)
    assert (await admin.group_offsets(group))[place].offset == 0


async def test_without_topics_a_group_moves_where_it_has_committed(admin: Admin, group: str, fresh: str) -> None:
    plan = await plan_move(admin, group, read_moment("latest", 0.0, "--to"), only=[0], address="here")
    assert plan.partitions == (OffsetMove(fresh, 0, 2, 5),)


async def test_a_new_group_may_be_given_a_place_in_a_topic(admin: Admin, fresh: str) -> None:
    await admin.create_topic(fresh)
    moment = read_moment("earliest", 0.0, "--to")
    await move_group(admin, await plan_move(admin, f"new.{fresh}", moment, [fresh], address="here"))
    assert (await admin.group_offsets(f"new.{fresh}"))[TopicPartition(fresh, 0)].offset == 0


async def test_an_offset_that_is_yet_to_come_moves_nobody(admin: Admin, group: str, fresh: str) -> None:
    with pytest.raises(ConfigurationError, match="--to 6 is an offset"):
        await plan_move(admin, group, read_moment("6", 0.0, "--to"), [fresh], [0], address="here")


async def test_groups_are_forgotten(admin: Admin, group: str) -> None:
    plan = await plan_group_deletion(admin, [group], address="here")
    assert plan == GroupDeletion((group,))
    await delete_groups(admin, plan)
    assert group not in [each.summary.name for each in await list_groups(admin, "stop")]


async def test_a_group_that_is_not_there_is_named_with_where_and_with_one_that_is(admin: Admin, group: str) -> None:
    with pytest.raises(TopicNotFound, match=rf"There is no group '{group}x' on here\. Did you mean {group}\?"):
        await plan_group_deletion(admin, [group, f"{group}x"], address="here")


def test_a_move_is_the_json_of_the_command_line() -> None:
    move = GroupMove("g", dry_run=False, partitions=(OffsetMove("t", 0, None, 4),))
    assert msgspec.json.encode(move) == (
        b'{"group":"g","dry_run":false,"partitions":[{"topic":"t","partition":0,"from":null,"to":4}]}'
    )


def test_a_summary_and_a_description_are_the_json_of_the_command_line() -> None:
    partition = GroupPartition("t", 0, committed=2, lag=None, stands=Location.BEFORE, member=None, host=None)
    assert msgspec.json.encode(GroupSummary("g", "Empty", members=0, lag=None)) == (
        b'{"name":"g","state":"Empty","members":0,"lag":null}'
    )
    assert msgspec.json.encode(partition) == (
        b'{"topic":"t","partition":0,"committed":2,"lag":null,"stands":"before the log","member":null,"host":null}'
    )
    assert partition.is_lag_unknown
