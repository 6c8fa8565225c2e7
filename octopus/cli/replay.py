"""`octopus replay`: read a range of a topic again."""

import asyncio
import time
from typing import Annotated

from cyclopts import App, Parameter

from octopus.cli.asking import confirm
from octopus.cli.groups import move_group
from octopus.cli.options import DEFAULTS, Options
from octopus.cli.patterns import read_pattern
from octopus.cli.progress import progress
from octopus.cli.reaching import reaching, run_async
from octopus.cli.screen import document, note, say
from octopus.errors import ConfigurationError
from octopus.operations.moments import Moment, read_moment
from octopus.operations.replay import copy_range, plan_copy
from octopus.operations.spelling import spell_count
from octopus.patterns import Pattern
from octopus.transports.opening import administering
from octopus.transports.topic_creation import check_topic_names

verb = App(name="replay", help_epilogue="")


@verb.default
def replay(
    topic: str,
    /,
    *,
    start: Annotated[str, Parameter(name="--from", allow_leading_hyphen=True)],
    end: Annotated[str | None, Parameter(name="--to", allow_leading_hyphen=True)] = None,
    group: str | None = None,
    into: str | None = None,
    filter: str | None = None,
    dry_run: bool = False,
    yes: Annotated[bool, Parameter(name=("--yes", "-y"))] = False,
    options: Options = DEFAULTS,
) -> None:
    """Read a range of a topic again: by one handler, or into another topic.

    With --group, one handler's group goes back to --from and reads on from there
    when it runs again; no other group notices, and nothing is copied. With --into,
    the events between --from and --to are published again, with their keys,
    values and headers, for every reader of that topic.

        octopus replay readings --from -2h --group beamline.store
        octopus replay readings --from 2026-01-31T08:00 --to 2026-01-31T09:00 --into readings-again

    Args:
        topic: What to read again.
        start: Where to begin: earliest, an offset, a time (2026-01-31T12:00) or that long ago (-2h).
        end: Where to stop, in the same words. The default is now. Only with --into.
        group: The group that reads again: <app>.<handler>. Its workers must be stopped.
        into: The topic to publish to; it may be the same.
        filter: Only events that match this event pattern: JSON, or @FILE. Only with --into.
        dry_run: Only show what would happen.
        yes: Do not ask.
    """
    if (group is None) == (into is None):
        raise ConfigurationError("Who reads again? --group for one handler's group, or --into for another topic.")
    if group is not None and (end or filter):
        raise ConfigurationError(
            "--to and --filter go with --into: a group that goes back reads everything from there on."
        )
    now = time.time()
    begin = read_moment(start, now, "--from")
    if group is not None:
        run_async(options, move_group(group, begin, (topic,), (), dry_run=dry_run, yes=yes, options=options))
    else:
        assert into is not None
        check_topic_names([into])
        until = read_moment(end or "latest", now, "--to")
        run_async(
            options,
            _copy(topic, begin, until, into, read_pattern(filter), dry_run=dry_run, yes=yes, options=options),
        )


async def _copy(
    topic: str,
    start: Moment,
    end: Moment,
    into: str,
    pattern: Pattern | None,
    *,
    dry_run: bool,
    yes: bool,
    options: Options,
) -> None:
    settings = options.settings()
    async with reaching(settings) as transport:
        async with administering(transport) as admin:
            plan = await plan_copy(admin, topic, start, end, address=transport.address)
        if plan.size and not dry_run and not yes:
            await asyncio.to_thread(confirm, f"Publish up to {spell_count(plan.size, 'event')} of {topic} into {into}?")
        with progress(options, f"Copying {topic} into {into}", plan.size) as advance:
            copied = await copy_range(
                transport, settings, plan, into, pattern=pattern, dry_run=dry_run, advance=advance
            )
    if options.json:
        document(copied)
    elif dry_run:
        note(f"Would publish {spell_count(copied.events, 'event')} of {topic} into {into}.")
    else:
        say(f"Published {spell_count(copied.events, 'event')} of {topic} into {into}.", "green")
