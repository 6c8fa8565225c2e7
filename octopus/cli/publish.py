"""`octopus publish`: arguments, a file, or lines from standard input."""

import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from octopus.cli.lines import read_lines
from octopus.cli.options import DEFAULTS, Options
from octopus.cli.reaching import reaching, run_async
from octopus.cli.screen import document, notices, say
from octopus.config import Settings
from octopus.errors import ConfigurationError, OperationFailed
from octopus.events import Headers, Published
from octopus.operations.spelling import spell_bytes, spell_count, spell_rate
from octopus.text import visible
from octopus.transports.base import Outgoing
from octopus.transports.opening import producing

BATCH = 2000
FLUSH_WITHIN = 0.1

verb = App(name="publish", help_epilogue="")


@verb.default
def publish(
    topic: str,
    /,
    *values: Annotated[str, Parameter(allow_leading_hyphen=True)],
    file: Annotated[str | None, Parameter(name=("--file", "-f"))] = None,
    key: Annotated[str | None, Parameter(name=("--key", "-k"))] = None,
    key_field: str | None = None,
    header: Annotated[tuple[str, ...], Parameter(name=("--header", "-H"))] = (),
    partition: int | None = None,
    count: int = 1,
    raw: bool = False,
    options: Options = DEFAULTS,
) -> None:
    """Publish events: arguments, a file, or lines from standard input.

    JSON is sent as it is written, character for character. Lines are sent in batches as they come, so the input may be
    endless. An event counts as published once all in-sync replicas have it.

        octopus publish files '{"event": "created", "path": "/data/run-7.h5"}'
        tail -f readings.jsonl | octopus publish readings --key-field detector

    Args:
        topic: Where to.
        values: The events; without any, lines of standard input. Anything that does not look like JSON is sent as text.
        file: Take the lines of this file; - is standard input.
        key: Key of every event: equal keys keep their order.
        key_field: Take each event's key from this field of it.
        header: A header of every event, as NAME=VALUE. May be repeated.
        partition: A fixed partition.
        count: Publish every argument this many times.
        raw: Send lines and values as they are, JSON or not.
    """
    given = _Given(topic, _headers(header), key, key_field, partition, raw)
    if values and file:
        raise ConfigurationError("Both values and --file are given; one of them, please.")
    if count < 1:
        raise ConfigurationError(f"--count {count} publishes nothing: at least 1.")
    if not values and count != 1:
        raise ConfigurationError("--count repeats arguments; lines are published once each.")
    if raw and key_field:
        raise ConfigurationError("--key-field needs JSON, so it does not go with --raw.")
    source = None if values else _source(file)
    messages = [given.argument(value) for value in values]
    tally = run_async(options, _publish(options.settings(), given, messages, count, source, quiet=options.quiet))
    if options.json:
        document(tally.report(topic))
    elif not options.quiet:
        say(tally.sentence(topic), "green")


async def _publish(
    settings: Settings,
    given: "_Given",
    messages: Sequence[Outgoing],
    count: int,
    source: Path | int | None,
    *,
    quiet: bool,
) -> "_Tally":
    batches = _repeated(messages, count) if source is None else given.lines(source)
    total = count * len(messages) if source is None else None
    tally = _Tally()
    async with reaching(settings) as transport, producing(transport, settings) as producer:
        with _progress(source, total, quiet=quiet) as advance:
            async for batch in batches:
                tally.note(batch, await producer.send_many(batch))
                advance(tally)
    tally.seconds = time.monotonic() - tally.began
    return tally


async def _repeated(messages: Sequence[Outgoing], count: int) -> AsyncIterator[list[Outgoing]]:
    waiting: list[Outgoing] = []
    for _ in range(count):
        waiting += messages
        if len(waiting) >= BATCH:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


@dataclass(frozen=True)
class _Given:
    """What goes for every event."""

    topic: str
    headers: Headers
    key: str | None
    key_field: str | None
    partition: int | None
    raw: bool

    def argument(self, text: str) -> Outgoing:
        data = os.fsencode(text)
        if not self.raw and text.lstrip()[:1] in ("{", "[", '"'):
            try:
                msgspec.json.decode(data, type=msgspec.Raw)
            except msgspec.DecodeError as error:
                raise ConfigurationError(
                    f"{visible(text[:80])} begins like JSON but is none: {error}. With --raw it is sent as it is."
                ) from error
        return self._outgoing(data, lambda reason: ConfigurationError(f"{visible(text[:80])} {reason}."))

    async def lines(self, source: Path | int) -> AsyncIterator[list[Outgoing]]:
        name = str(source) if isinstance(source, Path) else "standard input"
        number = 0
        async for batch in read_lines(source, most=BATCH, within=FLUSH_WITHIN):
            messages: list[Outgoing] = []
            wrong: OperationFailed | None = None
            for line in batch:
                number += 1
                if self.raw:
                    messages.append(self._outgoing(line, OperationFailed))
                elif line.strip():
                    try:
                        messages.append(self._line(line, name, number))
                    except OperationFailed as error:
                        wrong = error
                        break
            if messages:
                yield messages  # what stands before a bad line is published
            if wrong is not None:
                raise wrong

    def _line(self, line: bytes, name: str, number: int) -> Outgoing:
        before = f"The {spell_count(number - 1, 'line')} before it {'was' if number == 2 else 'were'} published. "

        def fail(reason: str) -> OperationFailed:
            return OperationFailed(f"Line {number} of {name} {reason}. {before if number > 1 else ''}See --raw.")

        try:
            msgspec.json.decode(line, type=msgspec.Raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise fail(f"is not JSON ({error}): {visible(line[:60])}") from error
        return self._outgoing(line, fail)

    def _outgoing(self, data: bytes, fail: Any) -> Outgoing:
        key = self.key.encode() if self.key is not None else None
        if self.key_field is not None:
            key = self._key_of(data, fail)
        return Outgoing(self.topic, data, key, self.headers, self.partition)

    def _key_of(self, data: bytes, fail: Any) -> bytes:
        try:
            value = msgspec.json.decode(data)
        except msgspec.DecodeError:
            value = None
        found = value.get(self.key_field) if isinstance(value, dict) else None
        if found is None:
            raise fail(f"has no field {self.key_field!r} to take the key from")
        return found.encode() if isinstance(found, str) else msgspec.json.encode(found)


@dataclass
class _Tally:
    """What has been published."""

    count: int = 0
    size: int = 0
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    partitions: dict[int, list[int]] = field(default_factory=dict)

    def note(self, batch: Sequence[Outgoing], published: Sequence[Published]) -> None:
        self.count += len(batch)
        self.size += sum(len(message.value or b"") for message in batch)
        for place in published:
            span = self.partitions.setdefault(place.partition, [place.offset, place.offset])
            span[0], span[1] = min(span[0], place.offset), max(span[1], place.offset)

    def sentence(self, topic: str) -> str:
        if self.count == 1:
            ((partition, (offset, _)),) = self.partitions.items()
            return f"Published to {topic}[{partition}]@{offset} ({spell_bytes(self.size)})."
        return (
            f"Published {spell_count(self.count, 'event')} ({spell_bytes(self.size)}) to {topic} in {self.seconds:.2f} s"
            f"{spell_rate(self.count, self.seconds)}."
        )

    def report(self, topic: str) -> dict[str, Any]:
        offsets = {str(partition): {"first": a, "last": b} for partition, (a, b) in sorted(self.partitions.items())}
        return {
            "topic": topic,
            "count": self.count,
            "bytes": self.size,
            "seconds": round(self.seconds, 6),
            "offsets": offsets,
        }


@contextlib.contextmanager
def _progress(source: Path | int | None, total: int | None, *, quiet: bool) -> Iterator[Any]:
    """Draw a bar on the terminal, unless the whole is over in a moment."""
    if quiet or not notices().is_terminal or (total is not None and total <= BATCH):
        yield lambda tally: None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    in_bytes = source.stat().st_size if isinstance(source, Path) and source.is_file() else None
    columns = [SpinnerColumn(), TextColumn("publishing"), BarColumn(), TextColumn("{task.fields[done]}")]
    if total or in_bytes:
        columns.append(TimeRemainingColumn())
    with Progress(*columns, console=notices(), transient=True) as progress:
        task = progress.add_task("", total=total or in_bytes, done="")

        def advance(tally: _Tally) -> None:
            done = f"{spell_count(tally.count, 'event')}{spell_rate(tally.count, time.monotonic() - tally.began)}"
            progress.update(task, completed=tally.size + tally.count if in_bytes else tally.count, done=done)

        yield advance


def _source(file: str | None) -> Path | int:
    if file is None or file == "-":
        if file is None and sys.stdin.isatty():
            raise ConfigurationError(
                "Nothing to publish: give values as arguments, a file with --file, or pipe lines in. To type them, use --file -."
            )
        return sys.stdin.fileno()
    path = Path(file)
    if not path.exists():
        raise ConfigurationError(f"There is no file {file!r}.")
    if path.is_dir():
        raise ConfigurationError(
            f"{file!r} is a directory; to publish what happens in it: octopus watch {file} --to TOPIC."
        )
    return path


def _headers(texts: Sequence[str]) -> Headers:
    headers: list[tuple[str, bytes | None]] = []
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise ConfigurationError(f"--header {text!r} is not NAME=VALUE.")
        headers.append((name, os.fsencode(value)))
    return headers
