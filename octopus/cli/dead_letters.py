"""`octopus dead-letters`: what was given up and why, and putting it back."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from octopus.cli.asking import confirm
from octopus.cli.dead_letter_records import (
    REPLAY_GROUP,
    DeadLetter,
    Waiting,
    dead_letter_topics,
    read_letter,
    read_letters,
    read_place,
    waiting,
)
from octopus.cli.failures import CommandFailed
from octopus.cli.options import DEFAULTS, Options
from octopus.cli.patterns import read_pattern
from octopus.cli.progress import progress
from octopus.cli.reaching import producing, reaching, run_async
from octopus.cli.reading import Reader, Span, partitions_of
from octopus.cli.records import as_json
from octopus.cli.screen import document, note, output, say, spell_count, table, warn
from octopus.errors import ConfigurationError, DecodeError, TopicNotFound
from octopus.events import TopicPartition
from octopus.patterns import Pattern
from octopus.pipeline.dead_letters import SUFFIX, original_headers
from octopus.text import visible
from octopus.transports.base import Commit, Outgoing
from octopus.transports.opening import administering
from octopus.transports.topic_creation import check_topic_names
from octopus.worker.log_lines import timestamp

verb = App(name="dead-letters", help="List, show and put back the events that were given up.", help_epilogue="")


@verb.default
def default(*, options: Options = DEFAULTS) -> None:
    """List, show and put back the events that were given up."""
    list_letters(options=options)


@verb.command(name="list")
def list_letters(
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
        all: Also those that were put back already.
        most: The newest so many of each partition.
    """
    run_async(options, _list_topics(all, options) if topic is None else _list_letters(topic, all, most, options))


async def _list_topics(all: bool, options: Options) -> None:
    async with reaching(options.settings()) as transport, administering(transport) as admin:
        topics = await dead_letter_topics(admin)
        places = [TopicPartition(name, number) for name, partitions in topics.items() for number in range(partitions)]
        counts = (await waiting(admin, places, all=all)).counts
        stored = (await waiting(admin, places, all=True)).counts
    rows = [(name, counts[name], stored[name]) for name in sorted(topics)]
    if options.json:
        document([{"topic": name, "waiting": count, "stored": total} for name, count, total in rows])
    elif not any(total for _, _, total in rows):
        say("No dead letters.", "green")
    else:
        table(("dead-letter topic", ">waiting", ">stored"), rows, styles=("cyan", "red", "dim"))
        note("See them: octopus dead-letters list TOPIC. Put them back: octopus dead-letters replay TOPIC")


async def _list_letters(topic: str, all: bool, most: int, options: Options) -> None:
    settings = options.settings()
    dead_letters: list[DeadLetter] = []
    async with reaching(settings) as transport:
        span = await _span(transport, topic, all=all)
        newest = Waiting({p: max(first, span.end[p] - most) for p, first in span.first.items()}, span.end)
        async for _, run in read_letters(transport, settings, newest):
            dead_letters += run
    dead_letters.sort(key=lambda dead_letter: dead_letter.record.timestamp)
    if options.json:
        for dead_letter in dead_letters:
            output().out(msgspec.json.encode(_json(dead_letter)).decode(), highlight=False)
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
        place: Which, as list shows it: files.dead-letter[0]@12
    """
    run_async(options, _show(place, options))


async def _show(text: str, options: Options) -> None:
    place, offset = read_place(text)
    settings = options.settings()
    async with reaching(settings) as transport:
        async with administering(transport) as admin:
            await partitions_of(admin, (place.topic,), (place.partition,), transport.address)
            last = (await admin.offsets([place], "latest"))[place]
            first = (await admin.offsets([place], "earliest"))[place]
        found = None
        if first <= offset < last:
            async with Reader(transport, settings, [place], Span({place: offset}), Span({place: offset + 1})) as reader:
                async for _, records in reader:
                    found = next((record for record in records if record.offset == offset), None)
    if found is None:
        raise CommandFailed(f"There is nothing at {text}; {place} holds {first} to {last - 1}.")
    dead_letter = read_letter(place, found)
    if options.json:
        document(_json(dead_letter))
        return
    cause = {**dead_letter.cause}
    cause.pop("partition", None)
    cause.pop("offset", None)
    rows = [("was", dead_letter.origin), *((name, value) for name, value in cause.items() if name != "topic")]
    rows = [
        (name, timestamp(int(value) / 1000) if name == "timestamp" and value.isdigit() else value)
        for name, value in rows
    ]
    rows.append(("key", visible(found.key)))
    rows += [(f"header {visible(name)}", visible(value)) for name, value in original_headers(found.headers)]
    _print_pairs(rows)
    say(_pretty(found.value))


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
        again: Also those that were put back already.
        dry_run: Only show what would be put back.
        yes: Do not ask.
    """
    places = [read_place(text) for text in at]
    if wrong := next((place for place, _ in places if place.topic not in (topic, topic + SUFFIX)), None):
        raise ConfigurationError(f"--at names {wrong}, which is not of {topic!r}.")
    choice = _Choice(places, handler, read_pattern(filter))
    check_topic_names([to] if to is not None else [])
    run_async(
        options,
        _replay(topic, choice, to, again=again or bool(places), dry_run=dry_run, yes=yes, options=options),
    )


async def _replay(
    topic: str, choice: "_Choice", to: str | None, *, again: bool, dry_run: bool, yes: bool, options: Options
) -> None:
    settings = options.settings()
    back: Counter[str] = Counter()
    homeless = 0
    async with reaching(settings) as transport:
        span = await _span(transport, topic, all=again)
        total = sum(span.counts.values())
        if total and not dry_run and not yes:
            some = "those that match of " if choice else ""
            await asyncio.to_thread(confirm, f"Put back {some}{spell_count(total, 'dead letter')} of {topic}?")
        async with administering(transport) as admin, producing(transport, settings) as producer:
            with progress(options, f"Putting back dead letters of {topic}", total) as advance:
                async for place, dead_letters in read_letters(transport, settings, span):
                    advance(len(dead_letters))
                    messages = []
                    for dead_letter in filter_letters(dead_letters, choice):
                        target = to or dead_letter.cause.get("topic")
                        if target is None:
                            homeless += 1
                        else:
                            messages.append(_restored(dead_letter, target))
                    back.update(message.topic for message in messages)
                    if dry_run:
                        continue
                    if messages:
                        await producer.send_many(messages)
                    if not choice:
                        # Only behind what was acknowledged: a replay that is cut short puts the rest back next time.
                        await admin.set_group_offsets(REPLAY_GROUP, {place: Commit(dead_letters[-1].record.offset + 1)})
    if options.json:
        document({"topic": topic, "dry_run": dry_run, "put_back": dict(back), "without_origin": homeless})
        return
    if homeless:
        warn(f"Passed over, since nothing says where they were: {homeless:,}. Put them somewhere: --again --to TOPIC")
    if not back:
        say(f"No dead letters of {topic} wait.")
    for target, count in back.items():
        say(
            f"{'Would put' if dry_run else 'Put'} {spell_count(count, 'event')} back into {target}.",
            "" if dry_run else "green",
        )


class _Choice:
    """Which dead letters are meant; false when all are."""

    def __init__(
        self, places: Sequence[tuple[TopicPartition, int]], handler: str | None, pattern: Pattern | None
    ) -> None:
        self._places = {(*place, offset) for place, offset in places}
        self._handler = handler
        self._pattern = pattern

    def __bool__(self) -> bool:
        return bool(self._places or self._handler or self._pattern)

    def __call__(self, dead_letter: DeadLetter) -> bool:
        if self._places and (*dead_letter.place, dead_letter.record.offset) not in self._places:
            return False
        if self._handler is not None and dead_letter.cause.get("handler") != self._handler:
            return False
        return self._pattern is None or _matches(self._pattern, dead_letter.record.value)


def filter_letters(dead_letters: Sequence[DeadLetter], choice: Callable[[DeadLetter], bool]) -> list[DeadLetter]:
    """Return the chosen ones."""
    return [dead_letter for dead_letter in dead_letters if choice(dead_letter)]


def _matches(pattern: Pattern, value: bytes | None) -> bool:
    try:
        return value is not None and pattern.matches(bytes(value))
    except DecodeError:
        return False


def _restored(dead_letter: DeadLetter, topic: str) -> Outgoing:
    record = dead_letter.record
    return Outgoing(topic, record.value, record.key, original_headers(record.headers))


async def _span(transport: Any, topic: str, *, all: bool) -> Waiting:
    async with administering(transport) as admin:
        topics = await dead_letter_topics(admin)
        name = topic if topic in topics else topic + SUFFIX
        known = {known.name for known in await admin.topics()}
        if name not in known:
            if topic in known:
                return Waiting({}, {})
            raise TopicNotFound(f"There is no topic {topic!r} on {transport.address}. See octopus dead-letters list.")
        return await waiting(admin, await partitions_of(admin, (name,), address=transport.address), all=all)


def _json(dead_letter: DeadLetter) -> dict[str, Any]:
    found = as_json(dead_letter.place, dead_letter.record)
    found["headers"] = [
        [name, None if value is None else value.decode("utf-8", "backslashreplace")]
        for name, value in original_headers(dead_letter.record.headers)
    ]
    return {**found, "cause": dict(dead_letter.cause)}


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
