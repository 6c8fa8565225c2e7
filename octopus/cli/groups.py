"""`octopus groups`: consumer groups, their lag, and moving them."""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

from cyclopts import App, Parameter

from octopus.cli.asking import confirm
from octopus.cli.moments import Moment, read_moment
from octopus.cli.options import DEFAULTS, Options
from octopus.cli.reaching import reaching, run_async
from octopus.cli.reading import partitions_of
from octopus.cli.screen import document, note, say, spell_count, table
from octopus.config.loading import suggestion
from octopus.errors import ConfigurationError, TopicNotFound, TransportError
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
    async with reaching(options.settings()) as transport, administering(transport) as admin:
        groups = await admin.groups()
        lags = {group.name: await lag_of(admin, await admin.group_offsets(group.name)) for group in groups}
        address = transport.address
    if options.json:
        document(
            [
                {"name": g.name, "state": g.state, "members": len(g.members), "lag": total_of(lags[g.name])}
                for g in groups
            ]
        )
    elif not groups:
        say(f"No groups on {address}. A handler makes one when it runs: octopus run")
    else:
        rows = [(g.name, g.state, len(g.members), _shown(total_of(lags[g.name]))) for g in groups]
        table(("group", "state", ">members", ">lag"), rows, styles=("cyan", "dim"))


@verb.command(name=("describe", "show"))
def describe(group: str, /, *, options: Options = DEFAULTS) -> None:
    """Show where a group stands in each partition, and who reads it.

    Args:
        group: Which: <app>.<handler>.
    """
    run_async(options, _describe(group, options))


async def _describe(name: str, options: Options) -> None:
    async with reaching(options.settings()) as transport, administering(transport) as admin:
        group = await find_group(admin, name, transport.address)
        committed = await admin.group_offsets(name)
        lags = await lag_of(admin, committed)
    readers = {place: member for member in group.members for place in member.partitions}
    places = sorted({*committed, *readers})
    rows: list[dict[str, Any]] = [
        {
            "topic": place.topic,
            "partition": place.partition,
            "committed": committed[place].offset if place in committed else None,
            "lag": lags.get(place),
            "member": readers[place].client_id if place in readers else None,
            "host": readers[place].host if place in readers else None,
        }
        for place in places
    ]
    if options.json:
        document({"name": name, "state": group.state, "members": len(group.members), "partitions": rows})
        return
    total = total_of(lags)
    lag = "?" if total is None else f"{total:,}"
    say(f"{name}: {group.state}, {spell_count(len(group.members), 'member')}, lag {lag}")
    if group.state in REBALANCING:
        note(f"Nobody reads until all of these have joined again: {spell_members(group)}.", "yellow")
    if rows:
        columns = ("topic", ">partition", ">committed", ">lag", "member", "host")
        unknown = [place in lags and lags[place] is None for place in places]
        shown = [row | {"lag": "?"} if is_unknown else row for row, is_unknown in zip(rows, unknown, strict=True)]
        table(columns, [tuple(row.values()) for row in shown], styles=("cyan",))


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


async def lag_of(admin: Admin, committed: Mapping[TopicPartition, Commit]) -> dict[TopicPartition, int | None]:
    """Return events behind the end, for each partition with a committed offset whose topic still exists.

    None where nobody can know: a partition without a leader, for example.
    """
    topics = {topic.name: topic.partitions for topic in await admin.topics()} if committed else {}
    alive = {place: commit for place, commit in committed.items() if place.partition < topics.get(place.topic, 0)}
    ends = await _ends_of(admin, alive) if alive else {}
    return {
        place: None if (end := ends.get(place)) is None else max(0, end - commit.offset)
        for place, commit in alive.items()
    }


async def _ends_of(admin: Admin, places: Collection[TopicPartition]) -> dict[TopicPartition, int | None]:
    """Return where partitions end, None for those that do not say."""
    try:
        return {**await admin.offsets(places, "latest")}
    except TransportError:
        if len(places) == 1:
            return dict.fromkeys(places)
    each = await asyncio.gather(*[_ends_of(admin, [place]) for place in places])
    return {place: end for ends in each for place, end in ends.items()}


def total_of(lags: Mapping[TopicPartition, int | None]) -> int | None:
    """Return the lag of all partitions together, None when one of them is not known."""
    known = [lag for lag in lags.values() if lag is not None]
    return sum(known) if len(known) == len(lags) else None


def _shown(lag: int | None) -> int | str:
    return "?" if lag is None else lag
