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
from octopus.operations.moments import Moment, read_moment
from octopus.operations.partitions import partitions_of
from octopus.operations.progress import Advance
from octopus.operations.reading import Reader
from octopus.operations.records import is_match, readable
from octopus.operations.spelling import spell_count
from octopus.patterns import Pattern
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
        topics: What to read; several if you like.
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
    printer = _Printer(pattern=read_pattern(filter), keys=keys, headers=headers, raw=raw, json=options.json, most=count)
    try:
        run_async(options, _consume(options, topics, partition, begin, until, group, printer))
    finally:
        if not options.quiet and is_terminal() and not options.json:
            note(printer.sentence())


async def _consume(
    options: Options,
    topics: tuple[str, ...],
    only: tuple[int, ...],
    start: Moment,
    end: Moment | None,
    group: str | None,
    printer: "_Printer",
) -> None:
    settings: Settings = options.settings()
    async with reaching(settings) as transport:
        async with administering(transport) as admin:
            partitions = await partitions_of(admin, topics, only, address=transport.address)
            await start.refuse_beyond(admin, partitions, reads=True)
        async with Reader(transport, settings, partitions, start, end, group) as reader:
            if not options.quiet and is_terminal() and end is None and start.start == "latest":
                note(f"Waiting for events of {', '.join(topics)} on {transport.address}; Ctrl-C ends.")
            with _progress(options, topics, reader) as advance:
                committed = time.monotonic()
                async for place, records in reader:
                    shown = printer.print(place, records)
                    advance(shown)
                    if printer.has_enough:
                        reader.note(place, records[shown - 1].offset + 1)
                        return
                    if group is not None and time.monotonic() - committed > 1:
                        await reader.commit()
                        committed = time.monotonic()


def _progress(options: Options, topics: Sequence[str], reader: Reader) -> contextlib.AbstractContextManager[Advance]:
    """Show how far reading into a file has come. On a terminal a bar would be in the way of events, or of whoever reads a pipe."""
    if not stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode):
        return contextlib.nullcontext(lambda _: None)
    return progress(options, f"Reading {', '.join(topics)}", reader.range)


class _Printer:
    """Chooses records and writes them, a run at a time."""

    def __init__(
        self, *, pattern: Pattern | None, keys: bool, headers: bool, raw: bool, json: bool, most: int | None
    ) -> None:
        self._pattern = pattern
        self._keys = keys
        self._headers = headers
        self._raw = raw
        self._json = json
        self._most = most
        self._has_colour = is_terminal()
        self.shown = 0
        self.left_out = 0

    @property
    def has_enough(self) -> bool:
        """Whether as many were shown as are wanted."""
        return self.shown == self._most

    def print(self, partition: TopicPartition, records: Sequence[StoredRecord]) -> int:
        """Write those that match, as many as are wanted; return how many were looked at."""
        parts = []
        looked = 0
        for record in records:
            looked += 1
            if not is_match(self._pattern, record.value):
                self.left_out += 1
                continue
            parts.append(self._line(partition, record))
            self.shown += 1
            if self.has_enough:
                break
        if parts:
            sys.stdout.buffer.write(b"\n".join(parts) + b"\n")
            sys.stdout.buffer.flush()
        return looked

    def sentence(self) -> str:
        left_out = f", {self.left_out:,} did not match" if self._pattern is not None else ""
        return f"{spell_count(self.shown, 'event')}{left_out}."

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
