"""`octopus groups`: consumer groups, their lag, and moving them."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from cyclopts import App, Parameter

from octopus.cli.asking import confirm
from octopus.cli.options import DEFAULTS, Options
from octopus.cli.reaching import reaching, run_async
from octopus.cli.screen import document, note, say, table, warn
from octopus.operations import groups as operations
from octopus.operations.groups import GroupPartition
from octopus.operations.moments import Moment, read_moment
from octopus.operations.spelling import spell_count
from octopus.operations.standing import Misplaced
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
        groups = await operations.list_groups(admin, settings.consumer.recreated_topics)
        address = transport.address
    if options.json:
        document([group.summary for group in groups])
    elif not groups:
        say(f"No groups on {address}. A handler makes one when it runs: octopus run")
    else:
        rows = [(each.name, each.state, each.members, _shown(each.lag)) for each, _ in groups]
        table(("group", "state", ">members", ">lag"), rows, styles=("cyan", "dim"))
        for group in groups:
            _warn_of(group.misplaced)


@verb.command(name=("describe", "show"))
def describe(group: str, /, *, options: Options = DEFAULTS) -> None:
    """Show where a group stands in each partition, and who reads it.

    Args:
        group: The name of the group: <app>.<handler>.
    """
    run_async(options, _describe(group, options))


async def _describe(name: str, options: Options) -> None:
    settings = options.settings()
    async with reaching(settings) as transport, administering(transport) as admin:
        found = await operations.describe_group(
            admin, name, settings.consumer.recreated_topics, address=transport.address
        )
    group = found.description
    if options.json:
        document(group)
        return
    lag = "?" if found.lag is None else f"{found.lag:,}"
    say(f"{name}: {group.state}, {spell_count(group.members, 'member')}, lag {lag}")
    if group.state in REBALANCING:
        note(f"Nobody reads until all of these have joined again: {spell_members(found.info)}.", "yellow")
    if group.partitions:
        columns = ("topic", ">partition", ">committed", ">lag", "stands", "member", "host")
        table(columns, map(_row, group.partitions), styles=("cyan",))
    _warn_of(found.misplaced)


def _row(each: GroupPartition) -> tuple[Any, ...]:
    lag = "?" if each.is_lag_unknown else each.lag
    return each.topic, each.partition, each.committed, lag, each.stands, each.member, each.host


def _warn_of(misplaced: Iterable[Misplaced]) -> None:
    for each in misplaced:
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
        group: The name of the group: <app>.<handler>.
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
        move = await operations.plan_move(admin, name, moment, topics, only, address=transport.address)
        if not options.json:
            rows = [(each.topic, each.partition, each.before, each.after, each.again) for each in move.partitions]
            table(("topic", ">partition", ">from", ">to", ">again"), rows, styles=("cyan",))
        if not dry_run:
            if not yes:
                await asyncio.to_thread(confirm, f"Move {name}?")
            move = await operations.move_group(admin, move)
    if options.json:
        document(move)
    else:
        note("Nothing was changed: --dry-run." if dry_run else f"Moved {name}.", "dim" if dry_run else "green")


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
        groups: The names of the groups.
    """
    run_async(options, _delete(groups, yes, options))


async def _delete(names: Sequence[str], yes: bool, options: Options) -> None:
    async with reaching(options.settings()) as transport, administering(transport) as admin:
        plan = await operations.plan_group_deletion(admin, names, address=transport.address)
        if not yes:
            await asyncio.to_thread(confirm, f"Forget {', '.join(names)}?")
        await operations.delete_groups(admin, plan)
    if options.json:
        document(plan)
    else:
        say(f"Forgot {', '.join(names)}.")


def _shown(lag: int | None) -> int | str:
    return "?" if lag is None else lag
