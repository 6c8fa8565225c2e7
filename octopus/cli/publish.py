"""`octopus publish`: arguments, a file, or lines from standard input."""

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from octopus.cli.options import DEFAULTS, Options
from octopus.cli.reaching import reaching, run_async
from octopus.cli.screen import document, notices, say
from octopus.config import Settings
from octopus.errors import ConfigurationError
from octopus.events import Headers
from octopus.operations.progress import unseen
from octopus.operations.publishing import BATCH, Envelope, PublishedEvents, publish_batches, repeated
from octopus.operations.spelling import spell_bytes, spell_count, spell_rate
from octopus.transports.base import Outgoing

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
        topic: The topic to publish to.
        values: The events; without any, lines of standard input. Anything that does not look like JSON is sent as text.
        file: Take the lines of this file; - is standard input.
        key: Key of every event: equal keys keep their order.
        key_field: Take each event's key from this field of it.
        header: A header of every event, as NAME=VALUE. May be repeated.
        partition: Publish to this partition.
        count: Publish every argument this many times.
        raw: Send lines and values as they are, JSON or not.
    """
    envelope = Envelope(topic, _headers(header), key, key_field, partition, raw)
    if values and file:
        raise ConfigurationError("Both values and --file are given; one of them, please.")
    if count < 1:
        raise ConfigurationError(f"--count {count} publishes nothing: at least 1.")
    if not values and count != 1:
        raise ConfigurationError("--count repeats arguments; lines are published once each.")
    if raw and key_field:
        raise ConfigurationError("--key-field needs JSON, so it does not go with --raw.")
    source = None if values else _source(file)
    if source is None:
        batches, total = repeated([envelope.message_of(value) for value in values], count), count * len(values)
    else:
        batches, total = envelope.messages_of_lines(source), None
    done = run_async(options, _publish(options.settings(), topic, batches, source, total, quiet=options.quiet))
    if options.json:
        document(done)
    elif not options.quiet:
        say(_sentence(done), "green")


async def _publish(
    settings: Settings,
    topic: str,
    batches: AsyncIterator[list[Outgoing]],
    source: Path | int | None,
    total: int | None,
    *,
    quiet: bool,
) -> PublishedEvents:
    async with reaching(settings) as transport:
        with _progress(source, total, quiet=quiet) as advance:
            return await publish_batches(transport, settings, topic, batches, advance=advance)


def _sentence(done: PublishedEvents) -> str:
    if done.count == 1:
        ((partition, span),) = done.offsets.items()
        return f"Published to {done.topic}[{partition}]@{span.first} ({spell_bytes(done.bytes)})."
    return (
        f"Published {spell_count(done.count, 'event')} ({spell_bytes(done.bytes)}) to {done.topic} in {done.seconds:.2f} s"
        f"{spell_rate(done.count, done.seconds)}."
    )


@contextlib.contextmanager
def _progress(
    source: Path | int | None, total: int | None, *, quiet: bool
) -> Iterator[Callable[[PublishedEvents], None]]:
    """Draw a bar on the terminal, unless the whole is over in a moment."""
    if quiet or not notices().is_terminal or (total is not None and total <= BATCH):
        yield unseen
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    in_bytes = source.stat().st_size if isinstance(source, Path) and source.is_file() else None
    columns = [SpinnerColumn(), TextColumn("publishing"), BarColumn(), TextColumn("{task.fields[done]}")]
    if total or in_bytes:
        columns.append(TimeRemainingColumn())
    with Progress(*columns, console=notices(), transient=True) as progress:
        task = progress.add_task("", total=total or in_bytes, done="")

        def advance(done: PublishedEvents) -> None:
            text = f"{spell_count(done.count, 'event')}{spell_rate(done.count, done.seconds)}"
            progress.update(task, completed=done.bytes + done.count if in_bytes else done.count, done=text)

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
