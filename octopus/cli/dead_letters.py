"""`octopus dead-letters`: what was given up and why, and putting it back."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from octopus.cli.asking import confirm
from octopus.cli.options import DEFAULTS, Options
from octopus.cli.patterns import read_pattern
from octopus.cli.progress import progress
from octopus.cli.reaching import reaching, run_async
from octopus.cli.screen import document, note, output, say, table, warn
from octopus.errors import ConfigurationError
from octopus.operations.dead_letters import (
    DeadLetter,
    count_dead_letters,
    find_waiting,
    read_dead_letters,
    read_place,
    show_dead_letter,
)
from octopus.operations.putting_back import Choice, put_back
from octopus.operations.spelling import spell_count
from octopus.pipeline.dead_letters import SUFFIX, original_headers
from octopus.text import visible
from octopus.transports.opening import administering
from octopus.transports.topic_creation import check_topic_names
from octopus.worker.log_lines import timestamp

verb = App(name="dead-letters", help="List, show and put back the events that were given up.", help_epilogue="")


@verb.default
def default(*, options: Options = DEFAULTS) -> None:
    """List, show and put back the events that were given up."""
    list_dead_letters(options=options)


@verb.command(name="list")
def list_dead_letters(
    topic: str | None = None,
    /,
    *,
    all: bool = False,
    most: Annotated[int, Parameter(name=("--count", "-n"))] = 50,
    options: Options = DEFAULTS,
) -> None:
    """List the dead letters of a topic, or how many each topic has.

    Args:
        topic: The topic they were in, or the dead-letter topic itself.
        all: Include those that were put back already.
        most: How many of each partition: the newest.
    """
    run_async(options, _list_topics(all, options) if topic is None else _list_dead_letters(topic, all, most, options))


async def _list_topics(all: bool, options: Options) -> None:
    async with reaching(options.settings()) as transport, administering(transport) as admin:
        counts = await count_dead_letters(admin, stored=all)
    if options.json:
        document(counts)
    elif not any(each.stored for each in counts):
        say("No dead letters.", "green")
    else:
        rows = [(each.topic, each.waiting, each.stored) for each in counts]
        table(("dead-letter topic", ">waiting", ">stored"), rows, styles=("cyan", "red", "dim"))
        note("See them: octopus dead-letters list TOPIC. Put them back: octopus dead-letters replay TOPIC")


async def _list_dead_letters(topic: str, all: bool, most: int, options: Options) -> None:
    settings = options.settings()
    dead_letters: list[DeadLetter] = []
    async with reaching(settings) as transport:
        async with administering(transport) as admin:
            span = await find_waiting(admin, topic, stored=all, address=transport.address)
        async for _, run in read_dead_letters(transport, settings, span.newest(most)):
            dead_letters += run
    dead_letters.sort(key=lambda dead_letter: dead_letter.record.timestamp)
    if options.json:
        for dead_letter in dead_letters:
            output().out(msgspec.json.encode(dead_letter.readable).decode(), highlight=False)
        return
    if not dead_letters:
        say(f"No dead letters of {topic} wait.", "green")
        return
    rows = [
        (
            dead_letter.coordinates,
            timestamp(dead_letter.record.timestamp / 1000)[:19].replace("T", " "),
            dead_letter.cause.get("handler"),
            dead_letter.record.key,
            dead_letter.cause.get("reason"),
        )
        for dead_letter in dead_letters
    ]
    table(("dead letter", "time (UTC)", "handler", "key", "reason…"), rows, styles=("cyan", "dim", "", "dim", "red"))
    kinds = Counter(dead_letter.cause.get("traceback", "") for dead_letter in dead_letters)
    note(
        f"{spell_count(len(dead_letters), 'letter')}, {spell_count(len(kinds), 'cause')}. One of them: octopus dead-letters show PLACE"
    )


@verb.command(name=("show", "describe"))
def show(place: str, /, *, options: Options = DEFAULTS) -> None:
    """Show one dead letter with its cause, headers and value.

    Args:
        place: The dead letter, as list shows it: files.dead-letter[0]@12
    """
    run_async(options, _show(place, options))


async def _show(text: str, options: Options) -> None:
    place, offset = read_place(text)
    settings = options.settings()
    async with reaching(settings) as transport:
        dead_letter = await show_dead_letter(transport, settings, place, offset)
    if options.json:
        document(dead_letter.readable)
        return
    record, cause = dead_letter.record, dead_letter.cause
    rows = [("was", dead_letter.origin)]
    rows += [(name, value) for name, value in cause.items() if name not in ("topic", "partition", "offset")]
    rows = [
        (name, timestamp(int(value) / 1000) if name == "timestamp" and value.isdigit() else value)
        for name, value in rows
    ]
    rows.append(("key", visible(record.key)))
    rows += [(f"header {visible(name)}", visible(value)) for name, value in original_headers(record.headers)]
    _print_pairs(rows)
    say(_pretty(record.value))


@verb.command
def replay(
    topic: str,
    /,
    *,
    at: Annotated[tuple[str, ...], Parameter(name="--at")] = (),
    handler: str | None = None,
    filter: str | None = None,
    to: str | None = None,
    again: bool = False,
    dry_run: bool = False,
    yes: Annotated[bool, Parameter(name=("--yes", "-y"))] = False,
    options: Options = DEFAULTS,
) -> None:
    """Put dead letters back where they were.

    Key, value and headers are those of the original; the headers that the dead letter
    added are taken off. All groups that read the topic see the events again.
    What was put back is remembered, so the next replay goes on behind it; a
    choice (--at, --handler, --filter) is not.

    Args:
        topic: The topic they were in, or the dead-letter topic itself.
        at: Only this one, as list shows it. May be repeated.
        handler: Only those that this handler gave up.
        filter: Only those whose value matches this event pattern: JSON, or @FILE.
        to: Another topic to put them into.
        again: Include those that were put back already.
        dry_run: Only show what would be put back.
        yes: Do not ask.
    """
    places = [read_place(text) for text in at]
    if wrong := next((place for place, _ in places if place.topic not in (topic, topic + SUFFIX)), None):
        raise ConfigurationError(f"--at names {wrong}, which is not of {topic!r}.")
    choice = Choice(frozenset(places), handler, read_pattern(filter))
    check_topic_names([to] if to is not None else [])
    run_async(
        options,
        _replay(topic, choice, to, again=again or bool(places), dry_run=dry_run, yes=yes, options=options),
    )


async def _replay(
    topic: str, choice: Choice, to: str | None, *, again: bool, dry_run: bool, yes: bool, options: Options
) -> None:
    settings = options.settings()
    async with reaching(settings) as transport:
        async with administering(transport) as admin:
            span = await find_waiting(admin, topic, stored=again, address=transport.address)
        total = span.counts.total()
        if total and not dry_run and not yes:
            some = "those that match of " if choice else ""
            await asyncio.to_thread(confirm, f"Put back {some}{spell_count(total, 'dead letter')} of {topic}?")
        with progress(options, f"Putting back dead letters of {topic}", total) as advance:
            done = await put_back(
                transport, settings, topic, span, choice=choice, to=to, dry_run=dry_run, advance=advance
            )
    if options.json:
        document(done)
        return
    if done.without_origin:
        count = f"{done.without_origin:,}"
        warn(f"Passed over, since nothing says where they were: {count}. Put them somewhere: --again --to TOPIC")
    if not done.put_back:
        say(f"No dead letters of {topic} wait.")
    for target, number in done.put_back.items():
        how, style = ("Would put", "") if dry_run else ("Put", "green")
        say(f"{how} {spell_count(number, 'event')} back into {target}.", style)


def _print_pairs(rows: Sequence[tuple[str, str]]) -> None:
    from rich.text import Text

    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        output().print(Text.assemble((name.ljust(width), "dim"), f"  {visible(value)}"))


def _pretty(value: bytes | None) -> str:
    if value is None:
        return "(tombstone)"
    try:
        text = msgspec.json.format(bytes(value), indent=2).decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return visible(value)
    return "\n".join(visible(line) for line in text.split("\n"))
