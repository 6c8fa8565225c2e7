"""Topics: which there are, what is in them, and making, changing and deleting them."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from octopus.config import TopicSettings
from octopus.errors import ConfigurationError
from octopus.events import TopicPartition
from octopus.operations.partitions import count_events, partitions_of
from octopus.operations.progress import Advance, unseen
from octopus.transports.base import Admin
from octopus.transports.topic_creation import check_topic_names

ANY = -1
"""Copies of a topic: as many as the cluster thinks right."""


class TopicSummary(msgspec.Struct, frozen=True):
    """A topic, as a list shows it.

    Attributes:
        name: Its name.
        partitions: How many it has.
        replication: Copies of each.
        internal: Whether it belongs to the cluster itself.
        events: Offsets between start and end of all partitions; of a compacted topic that is more than there are events.
    """

    name: str
    partitions: int
    replication: int
    internal: bool
    events: int


class PartitionSpan(msgspec.Struct, frozen=True):
    """What a partition holds.

    Attributes:
        partition: Its number.
        first: The first offset that is stored.
        end: The offset behind the last.
    """

    partition: int
    first: int
    end: int


class TopicDescription(msgspec.Struct, frozen=True):
    """Everything that is known of a topic.

    Attributes:
        name: Its name.
        id: What tells it from others that had or will have its name; None where the broker has no ids.
        partitions: What each holds, by number.
        config: Its settings under Kafka's own names.
    """

    name: str
    id: str | None
    partitions: tuple[PartitionSpan, ...]
    config: Mapping[str, str]


class Difference(msgspec.Struct, frozen=True):
    """What is so, and what was asked for: counts (`partitions`, `replication`) as numbers, settings as text."""

    found: Any = msgspec.field(name="is")
    asked: Any


class TopicCreation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of the wish for a topic.

    Attributes:
        name: Its name.
        created: False when it was there already; then nothing is changed.
        different: How the one that was there differs from what was asked for: `partitions`, `replication`, settings by name.
    """

    name: str
    created: bool
    different: dict[str, Difference] = {}


class Change(msgspec.Struct, frozen=True):
    """What something is, and what it becomes."""

    before: Any = msgspec.field(name="from")
    after: Any = msgspec.field(name="to")


class TopicAlteration(msgspec.Struct, frozen=True):
    """How a topic changes.

    Attributes:
        name: Its name.
        changed: What becomes of `partitions` and of settings by name; without what is so already.
    """

    name: str
    changed: dict[str, Change]

    @property
    def partitions(self) -> Change | None:
        """The number of partitions, if it changes. Then events with keys go elsewhere than before."""
        return self.changed.get("partitions")


class TopicDeletion(msgspec.Struct, frozen=True):
    """Topics that go.

    Attributes:
        deleted: Their names.
        events: How many events go with them.
    """

    deleted: tuple[str, ...]
    events: int


async def list_topics(admin: Admin, *, with_internal: bool = False) -> list[TopicSummary]:
    """Return the topics with the number of events in them, by name.

    Args:
        admin: Whom to ask.
        with_internal: Also those that belong to the cluster itself.

    Raises:
        TransportError: The broker does not answer, or refuses.
    """
    topics = [
        topic for topic in await admin.topics() if with_internal or not (topic.internal or topic.name.startswith("__"))
    ]
    counts = await count_events(
        admin, [TopicPartition(topic.name, number) for topic in topics for number in range(topic.partitions)]
    )
    return [
        TopicSummary(topic.name, topic.partitions, topic.replication, topic.internal, counts[topic.name])
        for topic in topics
    ]


async def describe_topic(admin: Admin, topic: str, *, address: str) -> TopicDescription:
    """Return everything that is known of a topic.

    Args:
        admin: Whom to ask.
        topic: Its name.
        address: Of the broker, for the sentence of an error.

    Raises:
        TopicNotFound: It is not there; the sentence suggests one that is.
    """
    places = await partitions_of(admin, (topic,), address=address)
    first, end = await admin.offsets(places, "earliest"), await admin.offsets(places, "latest")
    config = await admin.topic_config(topic)
    return TopicDescription(
        name=topic,
        id=(await admin.topic_ids([topic])).get(topic),
        partitions=tuple(PartitionSpan(place.partition, first[place], end[place]) for place in places),
        config=config,
    )


async def create_topic(
    admin: Admin,
    topic: str,
    defaults: TopicSettings,
    *,
    partitions: int | None = None,
    replication: int | None = None,
    config: Mapping[str, str] | None = None,
) -> TopicCreation:
    """Create a topic. One that is there is left as it is, and compared with what was asked for.

    Args:
        admin: Whom to ask.
        topic: Its name.
        defaults: The settings of a new topic that are not asked for.
        partitions: How many; None asks for none in particular.
        replication: Copies; `ANY` leaves them to the cluster, None asks for none in particular.
        config: Settings under Kafka's own names.

    Raises:
        ConfigurationError: No topic can be called that.
        TransportError: The broker refuses.
    """
    check_topic_names([topic])
    was_created = await admin.create_topic(
        topic,
        partitions=defaults.partitions if partitions is None else partitions,
        replication=defaults.replication if replication is None else replication,
        config=config or None,
    )
    if was_created:
        return TopicCreation(topic, created=True)
    asked = {"partitions": partitions, "replication": replication, **(config or {})}
    return TopicCreation(topic, created=False, different=await _differences(admin, topic, asked))


async def plan_alteration(
    admin: Admin, topic: str, *, partitions: int | None = None, config: Mapping[str, str] | None = None, address: str
) -> TopicAlteration:
    """Return how a topic would change. `alter_topic` changes it.

    Args:
        admin: Whom to ask.
        topic: Its name.
        partitions: How many it has then, in all; None for as many as it has.
        config: Settings under Kafka's own names; those that are not named stay.
        address: Of the broker, for the sentence of an error.

    Raises:
        ConfigurationError: It has more partitions than that; none can be taken away.
        TopicNotFound: It is not there; the sentence suggests one that is.
    """
    has = len(await partitions_of(admin, (topic,), address=address))
    if partitions is not None and partitions < has:
        raise ConfigurationError(
            f"--partitions {partitions}: {topic} has {has}, and none can be taken away. Create another topic and copy what "
            f"is in this one: octopus replay {topic} --from earliest --into OTHER"
        )
    found = await _differences(admin, topic, {"partitions": partitions, **(config or {})})
    return TopicAlteration(topic, {name: Change(each.found, each.asked) for name, each in found.items()})


async def alter_topic(admin: Admin, plan: TopicAlteration) -> None:
    """Change a topic as planned. Events stay where they are.

    Raises:
        TransportError: The broker refuses, or knows no such setting.
    """
    if not plan.changed:
        return
    config = {name: change.after for name, change in plan.changed.items() if name != "partitions"}
    partitions = None if plan.partitions is None else plan.partitions.after
    await admin.alter_topic(plan.name, config=config or None, partitions=partitions)


async def plan_deletion(admin: Admin, topics: Sequence[str], *, address: str) -> TopicDeletion:
    """Return what would go. `delete_topics` deletes it.

    Args:
        admin: Whom to ask.
        topics: Names.
        address: Of the broker, for the sentence of an error.

    Raises:
        TopicNotFound: One is not there; the sentence suggests one that is.
    """
    places = await partitions_of(admin, topics, address=address)
    return TopicDeletion(tuple(topics), (await count_events(admin, places)).total())


async def delete_topics(admin: Admin, plan: TopicDeletion, advance: Advance = unseen) -> None:
    """Delete topics and every event in them.

    Args:
        admin: Whom to ask.
        plan: Which.
        advance: Told after each topic.

    Raises:
        TransportError: The broker refuses one; those before it are gone.
    """
    for topic in plan.deleted:
        await admin.delete_topic(topic)
        advance(1)


async def _differences(admin: Admin, topic: str, asked: Mapping[str, Any]) -> dict[str, Difference]:
    """Return where a topic that is there is not what was asked for; None asks for nothing."""
    info = next((known for known in await admin.topics() if known.name == topic), None)
    counts = {} if info is None else {"partitions": info.partitions, "replication": info.replication}
    found: dict[str, Any] = {**await admin.topic_config(topic), **counts}
    return {
        name: Difference(found.get(name), value)
        for name, value in asked.items()
        if value is not None and not (name == "replication" and value == ANY) and found.get(name) != value
    }
