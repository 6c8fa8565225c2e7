"""`octopus groups`: consumer groups, their lag, and moving them."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from cyclopts import App, Parameter

from octopus.cli.asking import confirm
from octopus.cli.moments import Moment, read_moment
from octopus.cli.options import DEFAULTS, Options
from octopus.cli.reaching import reaching, run_async
from octopus.cli.reading import partitions_of
from octopus.cli.screen import document, note, say, spell_count, table, warn
from octopus.cli.standing import Standing, lag_of, misplaced, standings_of
from octopus.config import Settings
from octopus.config.loading import suggestion
from octopus.errors import ConfigurationError, TopicNotFound
from octopus.events import TopicPartition
from octopus.transports.base import Admin, Commit, GroupInfo
from octopus.transports.opening import administering
from octopus.worker.absence import REBALANCING, spell_members

verb = App(name="groups", help="List consumer groups and their lag; move or delete one.", help_epilogue="")

Yes = Annotated[bool, Parameter(name=("--yes", "-y"), help="Do not ask.")]


@verb.default
def default(*, options: Options = DEFAULTS) -> None:
    """List consumer groups and their lag; move or delete one."""
    list_groups(options=options)


@verb.command(name="list")
def list_groups(*, options: Options = DEFAULTS) -> None:
    """List groups with their members and their lag."""
    run_async(options, _list(options))


async def _list(options: Options) -> None:
    settings = options.settings()
    async with reaching(settings) as transport, administering(transport) as admin:
        groups = await admin.groups()
        standings = {g.name: await standings_of(admin, await admin.group_offsets(g.name)) for g in groups}
        address = transport.address
    if options.json:
        document(
            [
                {"name": g.name, "state": g.state, "members": len(g.members), "lag": lag_of(standings[g.name])}
                for g in groups
            ]
        )
    elif not groups:
        say(f"No groups on {address}. A handler makes one when it runs: octopus run")
    else:
        rows = [(g.name, g.state, len(g.members), _shown(lag_of(standings[g.name]))) for g in groups]
        table(("group", "state", ">members", ">lag"), rows, styles=("cyan", "dim"))
        for group in groups:
            _warn_of(group.name, standings[group.name], settings)


@verb.command(name=("describe", "show"))
def describe(group: str, /, *, options: Options = DEFAULTS) -> None:
    """Show where a group stands in each partition, and who reads it.

    Args:
        group: Which: <app>.<handler>.
    """
    run_async(options, _describe(group, options))


async def _describe(name: str, options: Options) -> None:
    settings = options.settings()
    async with reaching(settings) as transport, administering(transport) as admin:
        group = await find_group(admin, name, transport.address)
        committed = await admin.group_offsets(name)
        standings = await standings_of(admin, committed)
    readers = {place: member for member in group.members for place in member.partitions}
    places = sorted({*committed, *readers})
    rows: list[dict[str, Any]] = [
        {
            "topic": place.topic,
            "partition": place.partition,
            "committed": committed[place].offset if place in committed else None,
            "lag": standings[place].lag if place in standings else None,
            "stands": standings[place].place if place in standings else None,
            "member": readers[place].client_id if place in readers else None,
            "host": readers[place].host if place in readers else None,
        }
        for place in places
    ]
    if options.json:
        document({"name": name, "state": group.state, "members": len(group.members), "partitions": rows})
        return
    total = lag_of(standings)
    lag = "?" if total is None else f"{total:,}"
    say(f"{name}: {group.state}, {spell_count(len(group.members), 'member')}, lag {lag}")
    if group.state in REBALANCING:
        note(f"Nobody reads until all of these have joined again: {spell_members(group)}.", "yellow")
    if rows:
        columns = ("topic", ">partition", ">committed", ">lag", "stands", "member", "host")
        unknown = [place in standings and standings[place].lag is None for place in places]
        shown = [row | {"lag": "?"} if is_unknown else row for row, is_unknown in zip(rows, unknown, strict=True)]
        table(columns, [tuple(row.values()) for row in shown], styles=("cyan",))
    _warn_of(name, standings, settings)


def _warn_of(group: str, standings: Mapping[TopicPartition, Standing], settings: Settings) -> None:
    for each in misplaced(group, standings, settings.consumer.recreated_topics):
        warn(f"{each.sentence}. {each.mend}")


@verb.command
def reset(
    group: str,
    /,
    *,
    to: Annotated[str, Parameter(allow_leading_hyphen=True)],
    topic: tuple[str, ...] = (),
    partition: tuple[int, ...] = (),
    dry_run: bool = False,
    yes: Yes = False,
    options: Options = DEFAULTS,
) -> None:
    """Move a group, so that it reads again or skips. Its workers must be stopped.

    Args:
        group: Which: <app>.<handler>.
        to: Where: earliest, latest, an offset, a time (2026-01-31T12:00) or that long ago (-2h).
        topic: Only in this topic; also one it has not read yet. May be repeated.
        partition: Only this partition. May be repeated.
        dry_run: Only show what would change.
    """
    moment = read_moment(to, time.time(), "--to")
    run_async(options, move_group(group, moment, topic, partition, dry_run=dry_run, yes=yes, options=options))


async def move_group(
    name: str,
    moment: Moment,
    topics: Sequence[str],
    only: Sequence[int],
    *,
    dry_run: bool,
    yes: bool,
    options: Options,
) -> None:
    """Show how a group's offsets change, ask, and change them."""
    async with reaching(options.settings()) as transport, administering(transport) as admin:
        if not topics:
            await find_group(admin, name, transport.address)
        committed = await admin.group_offsets(name)
        wanted = topics or sorted({place.topic for place in committed})
        if not wanted:
            raise ConfigurationError(f"Group {name!r} has committed nothing yet; say which --topic.")
        places = await partitions_of(admin, wanted, only, transport.address)
        await moment.refuse_beyond(admin, places)
        offsets = await moment.resolve(admin, places)
        changes = [
            {
                "topic": place.topic,
                "partition": place.partition,
                "from": committed[place].offset if place in committed else None,
                "to": offsets[place],
            }
            for place in places
        ]
        if not options.json:
            table(("topic", ">partition", ">from", ">to", ">again"), _moves(changes), styles=("cyan",))
        if not dry_run:
            if not yes:
                await asyncio.to_thread(confirm, f"Move {name}?")
            await admin.set_group_offsets(name, {place: Commit(offset) for place, offset in offsets.items()})
    if options.json:
        document({"group": name, "dry_run": dry_run, "partitions": changes})
    else:
        note("Nothing was changed: --dry-run." if dry_run else f"Moved {name}.", "dim" if dry_run else "green")


def _moves(changes: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (c["topic"], c["partition"], c["from"], c["to"], None if c["from"] is None else c["from"] - c["to"])
        for c in changes
    ]


@verb.command
def delete(
    groups: Annotated[tuple[str, ...], Parameter(name="GROUP", consume_multiple=True)],
    /,
    *,
    yes: Yes = False,
    options: Options = DEFAULTS,
) -> None:
    """Forget groups and where they stood. Their workers must be stopped.

    Args:
        groups: Which.
    """
    run_async(options, _delete(groups, yes, options))


async def _delete(names: Sequence[str], yes: bool, options: Options) -> None:
    async with reaching(options.settings()) as transport, administering(transport) as admin:
        for name in names:
            await find_group(admin, name, transport.address)
        if not yes:
            await asyncio.to_thread(confirm, f"Forget {', '.join(names)}?")
        for name in names:
            await admin.delete_group(name)
    if options.json:
        document({"deleted": list(names)})
    else:
        say(f"Forgot {', '.join(names)}.")


async def find_group(admin: Admin, name: str, address: str) -> GroupInfo:
    """Return a group by name.

    Raises:
        TopicNotFound: There is none; the sentence suggests one.
    """
    groups = {group.name: group for group in await admin.groups()}
    if name not in groups:
        raise TopicNotFound(f"There is no group {name!r} on {address}.{suggestion(name, groups)} See octopus groups.")
    return groups[name]


def _shown(lag: int | None) -> int | str:
    return "?" if lag is None else lag
