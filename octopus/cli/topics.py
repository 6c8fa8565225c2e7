"""`octopus topics`: list, show, create, alter and delete."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from cyclopts import App, Parameter

from octopus.cli.asking import confirm
from octopus.cli.failures import CommandFailed
from octopus.cli.options import DEFAULTS, Options
from octopus.cli.progress import progress
from octopus.cli.reaching import reaching, run_async
from octopus.cli.reading import partitions_of
from octopus.cli.screen import document, note, say, spell_count, table, warn
from octopus.errors import ConfigurationError
from octopus.events import TopicPartition
from octopus.transports.base import Admin
from octopus.transports.opening import administering
from octopus.transports.topic_creation import check_topic_names

Setting = Annotated[tuple[str, ...], Parameter(name=("--setting", "-s"))]

verb = App(name="topics", help="List, show, create, change and delete topics.", help_epilogue="")


@verb.default
def default(*, all: bool = False, options: Options = DEFAULTS) -> None:
    """List, show, create, change and delete topics.

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


@verb.command(name=("show", "describe"))
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
    setting: Setting = (),
    options: Options = DEFAULTS,
) -> None:
    """Create a topic. One that is there already is left as it is; the exit code is 1 when it is another than asked for.

    Args:
        topic: Its name.
        partitions: How many workers can share it; topics.partitions of the settings without.
        replication: Copies; topics.replication of the settings without.
        setting: A setting under Kafka's own name: retention.ms=86400000. May be repeated.
    """
    check_topic_names([topic])
    run_async(options, _create(topic, partitions, replication, _read_pairs(setting), options))


def _read_pairs(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if wrong := next((name for name, separator, _ in pairs if not separator), None):
        raise ConfigurationError(f"--setting {wrong!r} is not NAME=VALUE.")
    return {name: value for name, _, value in pairs}


async def _create(
    topic: str, partitions: int | None, replication: int | None, config: dict[str, str], options: Options
) -> None:
    settings = options.settings()
    number = settings.topics.partitions if partitions is None else partitions
    copies = settings.topics.replication if replication is None else replication
    async with reaching(settings) as transport, administering(transport) as admin:
        was_created = await admin.create_topic(topic, partitions=number, replication=copies, config=config or None)
        asked = {"partitions": partitions, "replication": replication, **config}
        differences = {} if was_created else _differences(await _described(admin, topic), asked)
    if options.json:
        different = {"different": differences} if differences else {}
        document({"name": topic, "created": was_created, **different})
    if differences:
        raise CommandFailed(
            f"{topic} was there already, and is another: {_spell(differences, '{name} is {is}, not {asked}')}. Nothing is changed."
            f"{_how_to_alter(topic, differences)}"
        )
    if was_created and not options.json:
        say(f"Created {topic} with {spell_count(number, 'partition')}.", "green")
    elif not options.json:
        note(f"{topic} was there already; nothing is changed.")


async def _described(admin: Admin, topic: str) -> dict[str, Any]:
    """Return what can be said of a topic: partitions, replication, and settings under Kafka's names."""
    info = next((known for known in await admin.topics() if known.name == topic), None)
    counts = {} if info is None else {"partitions": info.partitions, "replication": info.replication}
    return {**await admin.topic_config(topic), **counts}


def _differences(found: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: {"is": found.get(name), "asked": value}
        for name, value in asked.items()
        if value is not None and not (name == "replication" and value == -1) and found.get(name) != value
    }


def _spell(differences: Mapping[str, Mapping[str, Any]], how: str) -> str:
    return "; ".join(how.format(name=name, **each) for name, each in differences.items())


def _how_to_alter(topic: str, differences: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the command that makes an existing topic what was asked for, as far as one can."""
    grows = "partitions" in differences and differences["partitions"]["asked"] > differences["partitions"]["is"]
    arguments = [f"--partitions {differences['partitions']['asked']}"] if grows else []
    arguments += [
        f"-s {name}={each['asked']}" for name, each in differences.items() if name not in ("partitions", "replication")
    ]
    return f" Change it: octopus topics alter {topic} {' '.join(arguments)}" if arguments else ""


@verb.command
def alter(
    topic: str,
    /,
    *,
    partitions: int | None = None,
    setting: Setting = (),
    yes: Annotated[bool, Parameter(name=("--yes", "-y"))] = False,
    options: Options = DEFAULTS,
) -> None:
    """Give a topic more partitions, or other settings. What is not named stays as it is.

    Partitions can be added, never taken away, and with their number changes where
    events with keys go: those of one key are in order only among those before,
    and among those after.

    Args:
        topic: Which.
        partitions: How many it has then, in all.
        setting: A setting under Kafka's own name: retention.ms=86400000. May be repeated.
        yes: Do not ask before partitions are added.
    """
    if partitions is None and not setting:
        raise ConfigurationError("What is to change? --partitions N or --setting NAME=VALUE.")
    run_async(options, _alter(topic, partitions, _read_pairs(setting), yes, options))


async def _alter(topic: str, partitions: int | None, config: dict[str, str], yes: bool, options: Options) -> None:
    async with reaching(options.settings()) as transport, administering(transport) as admin:
        has = len(await partitions_of(admin, (topic,), address=transport.address))
        if partitions is not None and partitions < has:
            raise ConfigurationError(
                f"--partitions {partitions}: {topic} has {has}, and none can be taken away. Create another topic and copy what "
                f"is in this one: octopus replay {topic} --from earliest --into OTHER"
            )
        differences = _differences(await _described(admin, topic), {"partitions": partitions, **config})
        if "partitions" in differences and not yes:
            await asyncio.to_thread(confirm, f"Give {topic} {partitions} partitions instead of {has}, for good?")
        changed = {name: value for name, value in config.items() if name in differences}
        if differences:
            await admin.alter_topic(
                topic, config=changed or None, partitions=partitions if "partitions" in differences else None
            )
    if options.json:
        changes = {name: {"from": each["is"], "to": each["asked"]} for name, each in differences.items()}
        document({"name": topic, "changed": changes})
        return
    if not differences:
        note(f"{topic} is so already; nothing is changed.")
        return
    say(f"Changed {topic}: {_spell(differences, '{name} is {asked}, was {is}')}.", "green")
    if "partitions" in differences:
        warn(
            "New events of a key may go to another partition than its earlier ones. A worker that runs notices within "
            "consumer.metadata_max_age."
        )


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
        with progress(options, "Deleting topics", len(topics)) as advance:
            for topic in topics:
                await admin.delete_topic(topic)
                advance(1)
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
