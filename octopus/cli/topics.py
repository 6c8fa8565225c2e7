"""`octopus topics`: list, show, create, alter and delete."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

from cyclopts import App, Parameter

from octopus.cli.asking import confirm
from octopus.cli.options import DEFAULTS, Options
from octopus.cli.progress import progress
from octopus.cli.reaching import reaching, run_async
from octopus.cli.screen import document, note, say, table, warn
from octopus.errors import ConfigurationError, OperationFailed
from octopus.operations import topics as operations
from octopus.operations.spelling import spell_count
from octopus.operations.topics import TopicCreation
from octopus.transports.opening import administering
from octopus.transports.topic_creation import check_topic_names

Setting = Annotated[tuple[str, ...], Parameter(name=("--setting", "-s"))]

verb = App(name="topics", help="List, show, create, change and delete topics.", help_epilogue="")


@verb.default
def default(*, all: bool = False, options: Options = DEFAULTS) -> None:
    """List, show, create, change and delete topics.

    Args:
        all: Include the cluster's own topics.
    """
    list_topics(all=all, options=options)


@verb.command(name="list")
def list_topics(*, all: bool = False, options: Options = DEFAULTS) -> None:
    """List topics with the number of events in them.

    Args:
        all: Include the cluster's own topics.
    """
    run_async(options, _list(all, options))


async def _list(all: bool, options: Options) -> None:
    async with reaching(options.settings()) as transport, administering(transport) as admin:
        topics = await operations.list_topics(admin, with_internal=all)
        address = transport.address
    if options.json:
        document(topics)
        return
    if not topics:
        say(f"No topics on {address}. They are created when something is published: octopus publish TOPIC '{{}}'")
        return
    rows = [(topic.name, topic.partitions, topic.replication, topic.events) for topic in topics]
    table(("topic", ">partitions", ">copies", ">events"), rows, styles=("cyan",))


@verb.command(name=("show", "describe"))
def show(topic: str, /, *, options: Options = DEFAULTS) -> None:
    """Show a topic: its id, its partitions, what is in them, and its settings.

    Args:
        topic: The name of the topic.
    """
    run_async(options, _show(topic, options))


async def _show(topic: str, options: Options) -> None:
    async with reaching(options.settings()) as transport, administering(transport) as admin:
        found = await operations.describe_topic(admin, topic, address=transport.address)
    if options.json:
        document(found)
        return
    if found.id:
        note(f"{topic} has the topic id {found.id}.", "dim")
    rows = [(each.partition, each.first, each.end, each.end - each.first) for each in found.partitions]
    table((">partition", ">first", ">end", ">events"), rows)
    if found.config:
        say("")
        table(("setting", "value"), sorted(found.config.items()), styles=("cyan",))


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
    """Create a topic. A topic that exists is left as it is; the exit code is 1 if it differs from the request.

    Args:
        topic: The name of the topic.
        partitions: How many workers can share it. The default is the setting topics.partitions.
        replication: Copies of each partition. The default is the setting topics.replication.
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
    async with reaching(settings) as transport, administering(transport) as admin:
        creation = await operations.create_topic(
            admin, topic, settings.topics, partitions=partitions, replication=replication, config=config
        )
    if options.json:
        document(creation)
    if creation.different:
        spelled = "; ".join(f"{name} is {each.found}, not {each.asked}" for name, each in creation.different.items())
        raise OperationFailed(
            f"{topic} was there already, and is another: {spelled}. Nothing is changed.{_how_to_alter(creation)}"
        )
    if creation.created and not options.json:
        say(f"Created {topic} with {spell_count(number, 'partition')}.", "green")
    elif not options.json:
        note(f"{topic} was there already; nothing is changed.")


def _how_to_alter(creation: TopicCreation) -> str:
    """Return the command that makes an existing topic what was asked for, as far as one can."""
    count = creation.different.get("partitions")
    arguments = [f"--partitions {count.asked}"] if count is not None and count.asked > count.found else []
    arguments += [
        f"-s {name}={each.asked}"
        for name, each in creation.different.items()
        if name not in ("partitions", "replication")
    ]
    return f" Change it: octopus topics alter {creation.name} {' '.join(arguments)}" if arguments else ""


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

    Partitions can be added, never taken away. Their number decides where the
    events of a key go: those from before the change and those from after it are
    in order among themselves only.

    Args:
        topic: The name of the topic.
        partitions: How many partitions it has afterwards, in all.
        setting: A setting under Kafka's own name: retention.ms=86400000. May be repeated.
        yes: Do not ask before partitions are added.
    """
    if partitions is None and not setting:
        raise ConfigurationError("What is to change? --partitions N or --setting NAME=VALUE.")
    run_async(options, _alter(topic, partitions, _read_pairs(setting), yes, options))


async def _alter(topic: str, partitions: int | None, config: dict[str, str], yes: bool, options: Options) -> None:
    async with reaching(options.settings()) as transport, administering(transport) as admin:
        plan = await operations.plan_alteration(
            admin, topic, partitions=partitions, config=config, address=transport.address
        )
        if plan.partitions is not None and not yes:
            more, fewer = plan.partitions.after, plan.partitions.before
            await asyncio.to_thread(confirm, f"Give {topic} {more} partitions instead of {fewer}, for good?")
        await operations.alter_topic(admin, plan)
    if options.json:
        document(plan)
        return
    if not plan.changed:
        note(f"{topic} is so already; nothing is changed.")
        return
    spelled = "; ".join(f"{name} is {change.after}, was {change.before}" for name, change in plan.changed.items())
    say(f"Changed {topic}: {spelled}.", "green")
    if plan.partitions is not None:
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
        topics: The names of the topics.
        yes: Do not ask.
    """
    run_async(options, _delete(topics, yes, options))


async def _delete(topics: Sequence[str], yes: bool, options: Options) -> None:
    async with reaching(options.settings()) as transport, administering(transport) as admin:
        plan = await operations.plan_deletion(admin, topics, address=transport.address)
        what = f"{', '.join(topics)} with {spell_count(plan.events, 'event')}"
        if not yes:
            await asyncio.to_thread(confirm, f"Delete {what}?")
        with progress(options, "Deleting topics", len(topics)) as advance:
            await operations.delete_topics(admin, plan, advance)
    if options.json:
        document(plan)
    else:
        say(f"Deleted {what}.")
