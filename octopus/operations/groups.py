"""Consumer groups: which there are, where they stand, and moving and forgetting them."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from octopus.config.loading import suggestion
from octopus.errors import ConfigurationError, TopicNotFound
from octopus.events import TopicPartition
from octopus.operations.moments import Moment
from octopus.operations.partitions import partitions_of
from octopus.operations.standing import Location, Misplaced, lag_of, misplaced, standings_of
from octopus.transports.base import Admin, Commit, GroupInfo
from octopus.worker.known_topics import Recreated


class GroupSummary(msgspec.Struct, frozen=True):
    """A group, as a list shows it.

    Attributes:
        name: Its name: `<app>.<handler>`.
        state: `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Stable` or `Dead`.
        members: How many read for it.
        lag: Events that it has not finished; None where that cannot be known.
    """

    name: str
    state: str
    members: int
    lag: int | None


class ListedGroup(NamedTuple):
    """A group, and what keeps it from reading on.

    Attributes:
        summary: How it is.
        misplaced: Where it cannot go on, and what to do.
    """

    summary: GroupSummary
    misplaced: tuple[Misplaced, ...]


class GroupPartition(msgspec.Struct, frozen=True):
    """Where a group stands in a partition, and who reads it.

    Attributes:
        topic: Of the partition.
        partition: Its number.
        committed: The next offset to process; None where nothing is committed.
        lag: Events that it has not finished; None where nothing is committed or that cannot be known.
        stands: Where the committed offset is; None where nothing is committed or the partition is gone.
        member: Client id of the member that reads it; None for none.
        host: Where that is.
    """

    topic: str
    partition: int
    committed: int | None
    lag: int | None
    stands: Location | None
    member: str | None
    host: str | None

    @property
    def is_lag_unknown(self) -> bool:
        """Whether the group has a lag here that is not known."""
        return self.stands is not None and self.lag is None


class GroupDescription(msgspec.Struct, frozen=True):
    """Where a group stands.

    Attributes:
        name: Its name.
        state: As `GroupSummary` has it.
        members: How many read for it.
        partitions: Each that it has committed or that a member reads, by topic and number.
    """

    name: str
    state: str
    members: int
    partitions: tuple[GroupPartition, ...]


class DescribedGroup(NamedTuple):
    """Where a group stands, and what is to be said of it.

    Attributes:
        description: Where it stands.
        lag: Of all partitions together; None where that cannot be known.
        misplaced: Where it cannot go on, and what to do.
        info: Who its members are.
    """

    description: GroupDescription
    lag: int | None
    misplaced: tuple[Misplaced, ...]
    info: GroupInfo


class OffsetMove(msgspec.Struct, frozen=True):
    """How the committed offset of a partition moves.

    Attributes:
        topic: Of the partition.
        partition: Its number.
        before: What is committed; None for nothing.
        after: What is to be.
    """

    topic: str
    partition: int
    before: int | None = msgspec.field(name="from")
    after: int = msgspec.field(name="to")

    @property
    def again(self) -> int | None:
        """How many offsets are read again; negative for how many are skipped, None where that cannot be known."""
        return None if self.before is None else self.before - self.after


class GroupMove(msgspec.Struct, frozen=True):
    """How a group moves.

    Attributes:
        group: Its name.
        dry_run: Whether this is only planned.
        partitions: How each moves.
    """

    group: str
    dry_run: bool
    partitions: tuple[OffsetMove, ...]


class GroupDeletion(msgspec.Struct, frozen=True):
    """Groups that are forgotten, by name."""

    deleted: tuple[str, ...]


async def list_groups(admin: Admin, recreated: Recreated) -> list[ListedGroup]:
    """Return the groups with their members and their lag, by name.

    Args:
        admin: Whom to ask.
        recreated: What groups do when a topic was made again: `consumer.recreated_topics` of the settings.

    Raises:
        TransportError: The broker does not answer, or refuses.
    """
    found = []
    for group in await admin.groups():
        standings = await standings_of(admin, await admin.group_offsets(group.name))
        summary = GroupSummary(group.name, group.state, len(group.members), lag_of(standings))
        found.append(ListedGroup(summary, tuple(misplaced(group.name, standings, recreated))))
    return found


async def describe_group(admin: Admin, name: str, recreated: Recreated, *, address: str) -> DescribedGroup:
    """Return where a group stands in each partition, and who reads it.

    Args:
        admin: Whom to ask.
        name: Which.
        recreated: What groups do when a topic was made again: `consumer.recreated_topics` of the settings.
        address: Of the broker, for the sentence of an error.

    Raises:
        TopicNotFound: There is no such group; the sentence suggests one.
    """
    group = await find_group(admin, name, address=address)
    committed = await admin.group_offsets(name)
    standings = await standings_of(admin, committed)
    readers = {place: member for member in group.members for place in member.partitions}

    def described(place: TopicPartition) -> GroupPartition:
        commit, standing, reader = committed.get(place), standings.get(place), readers.get(place)
        return GroupPartition(
            topic=place.topic,
            partition=place.partition,
            committed=None if commit is None else commit.offset,
            lag=None if standing is None else standing.lag,
            stands=None if standing is None else standing.location,
            member=None if reader is None else reader.client_id,
            host=None if reader is None else reader.host,
        )

    return DescribedGroup(
        GroupDescription(name, group.state, len(group.members), tuple(map(described, sorted({*committed, *readers})))),
        lag=lag_of(standings),
        misplaced=tuple(misplaced(name, standings, recreated)),
        info=group,
    )


async def plan_move(
    admin: Admin, name: str, moment: Moment, topics: Collection[str] = (), only: Collection[int] = (), *, address: str
) -> GroupMove:
    """Return how a group would move, so that it reads again or skips. `move_group` moves it.

    Args:
        admin: Whom to ask.
        name: Which group; one that does not exist yet may be given a place in topics that are named.
        moment: Where to.
        topics: Only in these; all that it has committed when empty.
        only: Numbers of partitions; all when empty.
        address: Of the broker, for the sentence of an error.

    Raises:
        ConfigurationError: It has committed nothing and no topic is named, or the offset is yet to come.
        TopicNotFound: The group, a topic or a partition does not exist.
    """
    if not topics:
        await find_group(admin, name, address=address)
    committed = await admin.group_offsets(name)
    wanted = topics or sorted({place.topic for place in committed})
    if not wanted:
        raise ConfigurationError(f"Group {name!r} has committed nothing yet; say which --topic.")
    places = await partitions_of(admin, wanted, only, address=address)
    await moment.refuse_beyond(admin, places)
    offsets = await moment.resolve(admin, places)
    return GroupMove(
        name,
        dry_run=True,
        partitions=tuple(
            OffsetMove(*place, committed[place].offset if place in committed else None, offsets[place])
            for place in places
        ),
    )


async def move_group(admin: Admin, plan: GroupMove) -> GroupMove:
    """Move a group as planned, and return what was done.

    Raises:
        TransportError: The broker refuses: its workers must be stopped.
    """
    offsets = {TopicPartition(each.topic, each.partition): Commit(each.after) for each in plan.partitions}
    await admin.set_group_offsets(plan.group, offsets)
    return msgspec.structs.replace(plan, dry_run=False)


async def plan_group_deletion(admin: Admin, names: Sequence[str], *, address: str) -> GroupDeletion:
    """Return which groups would be forgotten. `delete_groups` forgets them.

    Args:
        admin: Whom to ask.
        names: Which.
        address: Of the broker, for the sentence of an error.

    Raises:
        TopicNotFound: One does not exist; the sentence suggests one that does.
    """
    for name in names:
        await find_group(admin, name, address=address)
    return GroupDeletion(tuple(names))


async def delete_groups(admin: Admin, plan: GroupDeletion) -> None:
    """Forget groups and where they stood.

    Raises:
        TransportError: The broker refuses one, since its workers must be stopped; those before it are gone.
    """
    for name in plan.deleted:
        await admin.delete_group(name)


async def find_group(admin: Admin, name: str, *, address: str) -> GroupInfo:
    """Return a group by name.

    Args:
        admin: Whom to ask.
        name: Which.
        address: Of the broker, for the sentence of an error.

    Raises:
        TopicNotFound: There is none; the sentence suggests one.
    """
    groups = {group.name: group for group in await admin.groups()}
    if name not in groups:
        raise TopicNotFound(f"There is no group {name!r} on {address}.{suggestion(name, groups)} See octopus groups.")
    return groups[name]
