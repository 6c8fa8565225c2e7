"""`octopus topics`: list, show, create and delete."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

from cyclopts import App, Parameter

from octopus.cli.asking import confirm
from octopus.cli.options import DEFAULTS, Options
from octopus.cli.reaching import reaching, run_async
from octopus.cli.reading import partitions_of
from octopus.cli.screen import document, note, say, spell_count, table
from octopus.errors import ConfigurationError
from octopus.events import TopicPartition
from octopus.transports.base import Admin
from octopus.transports.opening import administering

verb = App(name="topics", help="List, show, create and delete topics.", help_epilogue="")


@verb.default
def default(*, all: bool = False, options: Options = DEFAULTS) -> None:
    """List, show, create and delete topics.

    Args:
        all: Also those that belong to the cluster itself.
    """
    list_topics(all=all, options=options)


@verb.command(name="list")
def list_topics(*, all: bool = False, options: Options = DEFAULTS) -> None:
    """List topics with the number of events in them.

    Args:
        all: Also those that belong to the cluster itself.
    """
    run_async(options, _list(all, options))


async def _list(all: bool, options: Options) -> None:
    async with reaching(options.settings()) as transport, administering(transport) as admin:
        topics = [topic for topic in await admin.topics() if all or not (topic.internal or topic.name.startswith("__"))]
        places = [TopicPartition(topic.name, number) for topic in topics for number in range(topic.partitions)]
        counts = await count_events(admin, places)
        address = transport.address
    if options.json:
        document(
            [
                {
                    "name": topic.name,
                    "partitions": topic.partitions,
                    "replication": topic.replication,
                    "internal": topic.internal,
                    "events": sum(count for place, count in counts.items() if place.topic == topic.name),
                }
                for topic in topics
            ]
        )
        return
    if not topics:
        say(f"No topics on {address}. They are created when something is published: octopus publish TOPIC '{{}}'")
        return
    rows = [
        (
            topic.name,
            topic.partitions,
            topic.replication,
            sum(count for place, count in counts.items() if place.topic == topic.name),
        )
        for topic in topics
    ]
    table(("topic", ">partitions", ">copies", ">events"), rows, styles=("cyan",))


@verb.command
def show(topic: str, /, *, options: Options = DEFAULTS) -> None:
    """Show a topic: its id, its partitions, what is in them, and its settings.

    Args:
        topic: Which.
    """
    run_async(options, _show(topic, options))


async def _show(topic: str, options: Options) -> None:
    async with reaching(options.settings()) as transport, administering(transport) as admin:
        places = await partitions_of(admin, (topic,), address=transport.address)
        first, last = await admin.offsets(places, "earliest"), await admin.offsets(places, "latest")
        settings = await admin.topic_config(topic)
        topic_id = (await admin.topic_ids([topic])).get(topic)
    if options.json:
        document(
            {
                "name": topic,
                "id": topic_id,
                "partitions": [
                    {"partition": place.partition, "first": first[place], "end": last[place]} for place in places
                ],
                "config": settings,
            }
        )
        return
    if topic_id:
        note(f"{topic} has the topic id {topic_id}.", "dim")
    rows = [(place.partition, first[place], last[place], last[place] - first[place]) for place in places]
    table((">partition", ">first", ">end", ">events"), rows)
    if settings:
        say("")
        table(("setting", "value"), sorted(settings.items()), styles=("cyan",))


@verb.command
def create(
    topic: str,
    /,
    *,
    partitions: int | None = None,
    replication: int | None = None,
    setting: Annotated[tuple[str, ...], Parameter(name=("--setting", "-s"))] = (),
    options: Options = DEFAULTS,
) -> None:
    """Create a topic.

    Args:
        topic: Its name.
        partitions: How many workers can share it; topics.partitions of the settings without.
        replication: Copies; topics.replication of the settings without.
        setting: A setting under Kafka's own name: retention.ms=86400000. May be repeated.
    """
    pairs = [text.partition("=") for text in setting]
    if wrong := next((name for name, separator, _ in pairs if not separator), None):
        raise ConfigurationError(f"--setting {wrong!r} is not NAME=VALUE.")
    run_async(options, _create(topic, partitions, replication, {name: value for name, _, value in pairs}, options))


async def _create(
    topic: str, partitions: int | None, replication: int | None, config: dict[str, str], options: Options
) -> None:
    settings = options.settings()
    number = settings.topics.partitions if partitions is None else partitions
    copies = settings.topics.replication if replication is None else replication
    async with reaching(settings) as transport, administering(transport) as admin:
        was_created = await admin.create_topic(topic, partitions=number, replication=copies, config=config or None)
    if options.json:
        document({"name": topic, "created": was_created})
    elif was_created:
        say(f"Created {topic} with {spell_count(number, 'partition')}.", "green")
    else:
        note(f"{topic} was there already; nothing is changed.")


@verb.command
def delete(
    topics: Annotated[tuple[str, ...], Parameter(name="TOPIC", consume_multiple=True)],
    /,
    *,
    yes: Annotated[bool, Parameter(name=("--yes", "-y"))] = False,
    options: Options = DEFAULTS,
) -> None:
    """Delete topics and every event in them.

    Args:
        topics: Which.
        yes: Do not ask.
    """
    run_async(options, _delete(topics, yes, options))


async def _delete(topics: Sequence[str], yes: bool, options: Options) -> None:
    async with reaching(options.settings()) as transport, administering(transport) as admin:
        places = await partitions_of(admin, topics, address=transport.address)
        events = sum((await count_events(admin, places)).values())
        if not yes:
            await asyncio.to_thread(confirm, f"Delete {', '.join(topics)} with {spell_count(events, 'event')}?")
        for topic in topics:
            await admin.delete_topic(topic)
    if options.json:
        document({"deleted": list(topics), "events": events})
    else:
        say(f"Deleted {', '.join(topics)} with {spell_count(events, 'event')}.")


async def count_events(admin: Admin, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """Return how many offsets each partition holds; of compacted topics that is more than there are events."""
    if not places:
        return {}
    first, last = await admin.offsets(places, "earliest"), await admin.offsets(places, "latest")
    return {place: last[place] - first[place] for place in places}
