"""`octopus consume`: the events of topics on the screen or in a pipe."""

import contextlib
import os
import stat
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from octopus.cli.options import DEFAULTS, Options
from octopus.cli.patterns import read_pattern
from octopus.cli.progress import progress
from octopus.cli.reaching import reaching, run_async
from octopus.cli.screen import is_terminal, note
from octopus.config import Settings
from octopus.errors import ConfigurationError
from octopus.events import StoredRecord, TopicPartition
from octopus.operations.consumption import Selection, consume_events, plan_consumption
from octopus.operations.moments import Moment, read_moment
from octopus.operations.progress import Advance
from octopus.operations.reading import Reader
from octopus.operations.records import readable
from octopus.operations.spelling import spell_count
from octopus.text import printable_json, visible, visible_lines
from octopus.transports.opening import administering

verb = App(name="consume", help_epilogue="")


@verb.default
def consume(
    topics: Annotated[tuple[str, ...], Parameter(name="TOPIC", consume_multiple=True)],
    /,
    *,
    start: Annotated[str | None, Parameter(name="--from", allow_leading_hyphen=True)] = None,
    end: Annotated[str | None, Parameter(name="--to", allow_leading_hyphen=True)] = None,
    count: Annotated[int | None, Parameter(name=("--count", "-n"))] = None,
    filter: str | None = None,
    partition: tuple[int, ...] = (),
    keys: bool = False,
    headers: bool = False,
    raw: bool = False,
    group: str | None = None,
    options: Options = DEFAULTS,
) -> None:
    """Show the events of topics, as they come or from a time or offset.

    Without --from, only new events; without --to, until Ctrl-C. Both take
    earliest, latest, an offset (-10 is the last ten of each partition), a time
    (2026-01-31T12:00), or that long ago (-5m, -2h, -7d).

        octopus consume files --from -1h --filter '{"event": ["created"]}'
        octopus consume readings --from earliest --to latest --json > all.jsonl

    Args:
        topics: The topics to read.
        start: Where to begin.
        end: Where to stop.
        count: Stop after so many events.
        filter: Only events that match this event pattern: JSON, or @FILE.
        partition: Only this partition. May be repeated.
        keys: Show keys, too.
        headers: Show headers, too.
        raw: Write the bytes of the values, one a line, and nothing else.
        group: Read as this consumer group: begin where it stands, and commit what was shown.
    """
    if not topics:
        raise ConfigurationError("Which topic? See octopus topics.")
    if raw and options.json:
        raise ConfigurationError("--raw and --json exclude each other.")
    if count is not None and count < 1:
        raise ConfigurationError(f"--count {count} shows nothing: at least 1.")
    now = time.time()
    begin = read_moment(start or ("earliest" if group else "latest"), now, "--from")
    until = read_moment(end, now, "--to") if end else None
    selection = Selection(read_pattern(filter), count)
    printer = _Printer(keys=keys, headers=headers, raw=raw, json=options.json)
    try:
        run_async(options, _consume(options, topics, partition, begin, until, group, selection, printer))
    finally:
        if not options.quiet and is_terminal() and not options.json:
            left_out = f", {selection.count.left_out:,} did not match" if filter is not None else ""
            note(f"{spell_count(selection.count.shown, 'event')}{left_out}.")


async def _consume(
    options: Options,
    topics: tuple[str, ...],
    only: tuple[int, ...],
    start: Moment,
    end: Moment | None,
    group: str | None,
    selection: Selection,
    printer: "_Printer",
) -> None:
    settings: Settings = options.settings()
    async with reaching(settings) as transport:
        async with administering(transport) as admin:
            partitions = await plan_consumption(admin, topics, only, start, address=transport.address)
        async with Reader(transport, settings, partitions, start, end, group) as reader:
            if not options.quiet and is_terminal() and end is None and start.start == "latest":
                note(f"Waiting for events of {', '.join(topics)} on {transport.address}; Ctrl-C ends.")
            with _progress(options, topics, reader) as advance:
                await consume_events(reader, selection, printer.print, commits=group is not None, advance=advance)


def _progress(options: Options, topics: Sequence[str], reader: Reader) -> contextlib.AbstractContextManager[Advance]:
    """Show how far reading into a file has come. On a terminal a bar would be in the way of events, or of a pipe's reader."""
    if not stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode):
        return contextlib.nullcontext(lambda _: None)
    return progress(options, f"Reading {', '.join(topics)}", reader.range)


class _Printer:
    """Writes records, a run at a time."""

    def __init__(self, *, keys: bool, headers: bool, raw: bool, json: bool) -> None:
        self._keys = keys
        self._headers = headers
        self._raw = raw
        self._json = json
        self._has_colour = is_terminal()

    def print(self, partition: TopicPartition, records: Sequence[StoredRecord]) -> None:
        """Write records of one partition."""
        lines = [self._line(partition, record) for record in records]
        sys.stdout.buffer.write(b"\n".join(lines) + b"\n")
        sys.stdout.buffer.flush()

    def _line(self, partition: TopicPartition, record: StoredRecord) -> bytes:
        if self._raw:  # for a file or a program; a terminal would obey what is in there
            value = record.value or b""
            return visible_lines(value.decode("utf-8", "backslashreplace")).encode() if is_terminal() else value
        if self._json:
            return printable_json(msgspec.json.encode(readable(partition, record)).decode()).encode()
        moment = datetime.fromtimestamp(record.timestamp / 1000).astimezone()
        head = f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03} {partition}@{record.offset}"
        parts = [self._dim(head)]
        if self._keys:
            parts.append(f"{self._dim('key')} {visible(record.key)}")
        if self._headers:
            parts += [f"{self._dim(visible(name) + '=')}{visible(value)}" for name, value in record.headers]
        parts.append(visible(record.value) if record.value is not None else self._dim("tombstone"))
        return "  ".join(parts).encode()

    def _dim(self, text: str) -> str:
        return f"\x1b[2m{text}\x1b[0m" if self._has_colour else text
