"""The live status of several workers: a row per handler, a row per worker, and above them what the workers print."""

import contextlib
import logging
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from octopus.cli.live import REFRESH, Rates, draw, drawing
from octopus.cli.logs import line_of_worker
from octopus.logs import prints
from octopus.worker import GroupStatus, WorkerStatus
from octopus.worker.exit_codes import spell
from octopus.worker.gathering import gathered
from octopus.worker.health import JOIN_TIME
from octopus.worker.reports import REPORT_EVERY, STDERR, STDOUT, Report, Wiring, read_report
from octopus.worker.supervisor import ProcessState

LONGEST_LINE = 64 * 1024
"""Bytes of a line that is printed in one piece; reports may be longer."""

LONGEST_REPORT = 16 * 1024 * 1024

SILENT_AFTER = 5 * REPORT_EVERY
"""Seconds without a report after which a worker's row says so: something blocks its event loop."""

LAST_WORDS = 2.0
"""Seconds for what is still in the pipes of processes that have ended."""

HEAD_LINES = 8
"""Lines of a terminal that are not for rows."""


class Lines:
    """Cuts what comes from a pipe into lines.

    Args:
        longest: Bytes after which a line of any kind is cut.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take what came and return the lines that are complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > self._longest:
            lines.append(self._rest[: self._longest])
            self._rest = self._rest[self._longest :]
        return [line.removesuffix(b"\r") for line in lines]

    def end(self) -> list[bytes]:
        """Return what has no end of its own, at the end of all."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


class Seen(NamedTuple):
    """A report, and when it came, in monotonic seconds."""

    at: float
    report: Report


class Board:
    """What is known of a few workers. Pure: time is an argument, in monotonic seconds.

    Args:
        app: Name of the app.
        broker: What it is connected to, until a worker says more.
        began: When it all began.

    Attributes:
        processes: How the supervisor sees them.
    """

    def __init__(self, app: str, broker: str, began: float) -> None:
        self._began = began
        self._nothing = WorkerStatus(app=app, broker=broker, uptime=0.0, groups=())
        self._seen: dict[int, Seen] = {}  # by process
        self._gone = self._nothing
        self.processes: Sequence[ProcessState] = ()

    def note(self, report: Report, now: float) -> None:
        """Take in a report."""
        self._seen[report.pid] = Seen(now, report)

    def end(self, pid: int) -> None:
        """Take it that no report of a process comes any more: only what it did counts."""
        if (seen := self._seen.pop(pid, None)) is not None:
            self._gone = gathered([], [self._gone, seen.report.status], self._nothing)

    def status(self, now: float) -> WorkerStatus:
        """Return what all do together."""
        running = {process.pid for process in self.processes}
        newest_first = sorted(self._seen.items(), key=lambda item: -item[1].at)
        return gathered(
            [seen.report.status for pid, seen in newest_first if pid in running],
            [self._gone, *(seen.report.status for pid, seen in newest_first if pid not in running)],
            msgspec.structs.replace(self._nothing, uptime=now - self._began),
        )

    def rows(self, now: float) -> list["Row"]:
        """Return a row for each worker."""
        return [self._row(process, now) for process in self.processes]

    def _row(self, process: ProcessState, now: float) -> "Row":
        seen = self._seen.get(process.pid) if process.pid is not None else None
        text, style = _state(process, seen, now)
        if process.code is not None and process.restarts and process.pid is not None:
            text += f", replaced {_times(process.restarts)}: {spell(process.code)}"
        groups = seen.report.status.groups if seen is not None else ()
        lags = [group.lag for group in groups if group.partitions]
        return Row(
            process.number,
            process.pid,
            text,
            style,
            sum(len(group.partitions) for group in groups),
            None if None in lags else sum(lag for lag in lags if lag is not None),
            sum(group.done for group in groups),
            is_calm=style == CALM,
        )


CALM = "green"


class Row(NamedTuple):
    """A worker, as it is shown."""

    number: int
    pid: int | None
    state: str
    style: str
    partitions: int
    lag: int | None
    done: int
    is_calm: bool


def _state(process: ProcessState, seen: Seen | None, now: float) -> tuple[str, str]:
    """Return how a worker is, and the style of that."""
    if process.pid is None:
        ended = f"ended with {spell(process.code or 0)}"
        if process.restart_at is None:
            return ended, "dim" if process.code == 0 else "red"
        return f"restarting in {max(0.0, process.restart_at - now):.0f} s, {ended}", "yellow"
    if seen is None:
        return "starting", "yellow"
    status = seen.report.status
    if seen.report.is_ending:
        return "stopping", "yellow"
    if now - seen.at > SILENT_AFTER:
        return f"silent for {now - seen.at:.0f} s", "red"
    if status.outage is not None:
        return "waiting for the broker", "red"
    if any(group.stopped or group.failure for group in status.groups):
        return "a group has stopped", "red"
    if any(_is_joining(group) for group in status.groups) or not status.groups:
        return "joining", "yellow"
    return "running", CALM


def _is_joining(group: GroupStatus) -> bool:
    """Tell whether a member waits for partitions; after a while one without is a spare one."""
    return not group.partitions and (
        group.since_join is None or group.since_join < JOIN_TIME or group.waits_for is not None
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def draw_workers(rows: Sequence[Row], width: int, height: int) -> Table:
    """Return the table of workers.

    Args:
        rows: All of them.
        width: Columns of the terminal.
        height: Lines that there are for them: of more the calm ones are left out, and counted.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold", show_edge=False)
    table.add_column("worker", justify="right", no_wrap=True, style="cyan")
    table.add_column("pid", justify="right", no_wrap=True, style="dim")
    table.add_column("state")
    columns = [width >= least for least in (64, 0, 0)]
    for name in compress(("partitions", "lag", "done"), columns):
        table.add_column(name, justify="right", no_wrap=True)
    shown = [*rows]
    if len(rows) > height:
        first = sorted(rows, key=lambda row: (row.is_calm, row.number))[: max(1, height - 1)]
        shown = sorted(first, key=lambda row: row.number)
    for row in shown:
        numbers = [
            Text(f"{row.partitions:,}", "" if row.partitions else "dim"),
            Text(
                "?" if row.lag is None else f"{row.lag:,}", "red" if row.lag is None else "yellow" if row.lag else "dim"
            ),
            Text(f"{row.done:,}", CALM if row.done else "dim"),
        ]
        state = Text(row.state, row.style, no_wrap=True, overflow="ellipsis")
        pid = "-" if row.pid is None else str(row.pid)
        table.add_row(str(row.number), pid, state, *compress(numbers, columns))
    if len(shown) < len(rows):
        table.add_row("", "", Text(f"and {len(rows) - len(shown):,} more", "dim"))
    return table


class LiveWorkers:
    """Draws what several workers do, and prints what they print, as long as a block lasts. An `Audience` of their supervisor.

    In a thread: a terminal may be held up, and that must not hold up the task that keeps the processes. So what this
    process logs meanwhile is printed there, too.

    Args:
        console: Where; log lines go through the same one.
        app: Name of the app.
        broker: What it is connected to.
        topics: What each group reads.
    """

    def __init__(self, console: Console, app: str, broker: str, topics: dict[str, str]) -> None:
        self._console = console
        self._topics = topics
        self._board = Board(app, broker, time.monotonic())
        self._rates = Rates()
        self._new: deque[tuple[int, Wiring]] = deque()
        self._logged: deque[tuple[logging.Handler, logging.LogRecord]] = deque()
        self._selector = selectors.DefaultSelector()
        # Copies, since a process has its pipes under the numbers of the originals.
        self._terminals = os.dup(STDOUT), os.dup(STDERR)
        self._ended_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="octopus live status", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended_at = time.monotonic()
        self._thread.join(LAST_WORDS + 1)
        for descriptor in self._terminals:
            os.close(descriptor)

    @property
    def is_held_up(self) -> bool:
        """Whether the terminal takes nothing, after the block; who prints there then waits for ever."""
        return self._thread.is_alive()

    @contextlib.contextmanager
    def starting(self, number: int, environment: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        """Give a process pipes of its own; what comes out of them is read from now on."""
        wiring = Wiring.made()
        try:
            yield wiring.options(environment, self._terminals)
        finally:
            wiring.started()
            self._new.append((number, wiring))

    def see(self, processes: Sequence[ProcessState]) -> None:
        """Take note of how the processes are."""
        self._board.processes = processes

    # ── in its thread ─────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        with drawing(self._console) as live, self._logging_later():
            drawn_at = 0.0
            while not self._is_over():
                self._take_new()
                self._print_logged()
                printed = [line for key, _ in self._wait() for line in self._read(key)]
                now = time.monotonic()
                # A terminal that is gone must not keep the workers from printing: their pipes are read all the same.
                with contextlib.suppress(OSError):
                    if printed:
                        self._console.print(Text("\n").join(printed), soft_wrap=True)
                    if now - drawn_at >= REFRESH:
                        drawn_at = now
                        live.update(self._picture(now), refresh=True)

    @contextlib.contextmanager
    def _logging_later(self) -> Iterator[None]:
        """Let what is logged to a console wait for this thread; the logging thread goes on."""
        root = logging.getLogger()
        kept = [*root.handlers]
        root.handlers[:] = [_Later(each, self._logged) if prints(each) else each for each in kept]
        try:
            yield
        finally:
            root.handlers[:] = kept
            self._print_logged()

    def _print_logged(self) -> None:
        while self._logged:
            handler, record = self._logged.popleft()
            handler.handle(record)

    def _is_over(self) -> bool:
        if self._ended_at is None:
            return False
        is_empty = not self._new and not self._selector.get_map()
        return is_empty or time.monotonic() > self._ended_at + LAST_WORDS

    def _take_new(self) -> None:
        while self._new:
            number, wiring = self._new.popleft()
            for (source, _), stream in (
                (wiring.reports, _ReportStream(self._board)),
                (wiring.out, _PrintStream(number)),
                (wiring.error, _PrintStream(number)),
            ):
                self._selector.register(source, selectors.EVENT_READ, stream)

    def _wait(self) -> list[tuple[selectors.SelectorKey, int]]:
        if not self._selector.get_map():
            time.sleep(REFRESH / 2)
            return []
        return self._selector.select(REFRESH / 2)

    def _read(self, key: selectors.SelectorKey) -> list[Text]:
        stream: _ReportStream | _PrintStream = key.data
        data = os.read(key.fd, 65536)
        if data:
            return stream.feed(data)
        self._selector.unregister(key.fd)
        os.close(key.fd)
        return stream.end()

    def _picture(self, now: float) -> Group:
        status, rows = self._board.status(now), self._board.rows(now)
        width, height = self._console.size
        room = max(3, height - HEAD_LINES - len(status.groups))
        return Group(
            draw(status, self._rates.note(status), self._topics, width), Text(), draw_workers(rows, width, room)
        )


class _Later(logging.Handler):
    """Keeps records for the thread that hands them to their handler."""

    def __init__(self, handler: logging.Handler, records: deque[tuple[logging.Handler, logging.LogRecord]]) -> None:
        super().__init__(handler.level)
        self._handler = handler
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append((self._handler, record))


class _PrintStream:
    """What a worker prints."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._lines = Lines(LONGEST_LINE)

    def feed(self, data: bytes) -> list[Text]:
        return self._shown(self._lines.feed(data))

    def end(self) -> list[Text]:
        return self._shown(self._lines.end())

    def _shown(self, lines: Sequence[bytes]) -> list[Text]:
        return [line_of_worker(self._number, line.decode("utf-8", "backslashreplace")) for line in lines]


class _ReportStream:
    """What a worker reports."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._lines = Lines(LONGEST_REPORT)
        self._pid: int | None = None

    def feed(self, data: bytes) -> list[Text]:
        for line in self._lines.feed(data):
            if (report := read_report(line)) is not None:
                self._pid = report.pid
                self._board.note(report, time.monotonic())
        return []

    def end(self) -> list[Text]:
        if self._pid is not None:
            self._board.end(self._pid)
        return []
