"""The live status below the log lines of `octopus run`: a row per handler."""

import asyncio
import contextlib
import logging
import sys
from collections import deque
from collections.abc import Iterator
from itertools import compress

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from octopus.application import Application
from octopus.text import visible
from octopus.worker import GroupStatus, Worker, WorkerStatus
from octopus.worker.status import spell_seconds, together

REFRESH = 0.25
"""Seconds between two pictures."""

RATE_OVER = 3.0
"""Seconds over which rates are measured."""


ROOMY = 96
"""Columns of a terminal from which on the topics are shown, too."""


NUMBERS = (
    ("events/s", 0),
    ("lag", 0),
    ("running", 72),
    ("done", 0),
    ("skipped", 80),
    ("retried", 80),
    ("dead", 0),
)
"""Columns of the table, and how wide a terminal must be to have them."""


class Rates:
    """Records per second of each group, over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, dict[str, int]]] = deque()

    def note(self, status: WorkerStatus) -> dict[str, float]:
        """Take a snapshot into account and return the rates."""
        now, settled = status.uptime, {group.group: group.settled for group in status.groups}
        self._seen.append((now, settled))
        while len(self._seen) > 2 and now - self._seen[1][0] > RATE_OVER:
            self._seen.popleft()
        began, before = self._seen[0]
        elapsed = now - began
        return {
            name: max(0, count - before.get(name, 0)) / elapsed if elapsed else 0.0 for name, count in settled.items()
        }


class LiveStatus:
    """A companion of the worker that draws its status until it is cancelled.

    Args:
        console: Where; log lines go through the same one.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rates = Rates()

    async def __call__(self, worker: Worker) -> None:
        """Draw until cancelled."""
        with drawing(self._console) as live:
            while True:
                status, topics = worker.status(), topics_of(worker.app)
                live.update(draw(status, self._rates.note(status), topics, self._console.width), refresh=True)
                await asyncio.sleep(REFRESH)


@contextlib.contextmanager
def drawing(console: Console) -> Iterator[Live]:
    """Keep a picture below what is printed, as long as a block lasts."""
    with Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop") as live:
        # A second Ctrl-C ends the process at once: it must not take the cursor with it.
        console.show_cursor(True)
        with _above(live):
            yield live


@contextlib.contextmanager
def _above(_live: Live) -> Iterator[None]:
    """Let the app's own handlers print above the picture, too: they took hold of the stream before it was redirected."""
    kept = [
        (handler, handler.setStream(getattr(sys, name)))
        for handler in logging.getLogger().handlers
        for name in ("stderr", "stdout")
        if isinstance(handler, logging.StreamHandler) and handler.stream is getattr(sys, f"__{name}__")
    ]
    try:
        yield
    finally:
        for handler, stream in kept:
            handler.setStream(stream)


def draw(status: WorkerStatus, rates: dict[str, float], topics: dict[str, str], width: int = 120) -> Group:
    """Return the picture of a worker.

    Args:
        status: What to draw.
        rates: Records per second, by group.
        topics: What each group reads, by group; left out where there is no room for it.
        width: Columns of the terminal.
    """
    has_room = width >= ROOMY
    heads = "bold" if status.outage is None else "bold red"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style=heads, show_edge=False)
    # Columns that may wrap are those that give way on a narrow terminal; their texts are cut instead (see `_row`).
    table.add_column("handler", style="cyan")
    if has_room:
        table.add_column("reads", style="dim", max_width=30)
    shown = [width >= least for _, least in NUMBERS]
    for name, _ in compress(NUMBERS, shown):
        table.add_column(name, justify="right", no_wrap=True)
    for group in status.groups:
        handler, *numbers = _row(group, rates.get(group.group, 0.0), status.outage is not None)
        reads = Text(visible(topics.get(group.group, "")), no_wrap=True, overflow="ellipsis")
        table.add_row(handler, *([reads] if has_room else []), *compress(numbers, shown))
    return Group(Text(), _headline(status), *_troubles(status), table if status.groups else Text())


def _headline(status: WorkerStatus) -> Text:
    line = Text.assemble(
        ("● ", "green" if status.outage is None else "bold red"),
        (visible(status.app), "bold"),
        (f" on {visible(status.broker)}, up {spell_seconds(status.uptime)}", "dim"),
    )
    if status.slowest is not None and status.slowest[1] >= 1:
        line.append(f", slowest now: {visible(status.slowest[0])} for {status.slowest[1]:.1f} s", style="yellow")
    return line


def _row(group: GroupStatus, rate: float, is_out: bool) -> list[Text]:
    lag = "?" if group.lag is None else f"{group.lag:,}"
    return [
        Text(
            visible(" + ".join(group.handlers)),
            "red" if group.stopped or is_out else "",
            no_wrap=True,
            overflow="ellipsis",
        ),
        Text(f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}", style="bold" if rate else "dim"),
        Text(lag, style="red" if is_out or group.silent else "yellow" if group.lag else "dim"),
        Text(str(group.running + group.delayed), style="" if group.running + group.delayed else "dim"),
        Text(f"{group.done:,}", style="green" if group.done else "dim"),
        Text(f"{group.skipped:,}", style="dim"),
        Text(f"{group.retried:,}", style="yellow" if group.retried else "dim"),
        Text(f"{group.dead:,}", style="red" if group.dead else "dim"),
    ]


def _troubles(status: WorkerStatus) -> list[Text]:
    lines = []
    if status.outage is not None:
        away = f"{status.broker} has not answered for {spell_seconds(status.away)}: {status.outage}"
        lines.append(_line(away, "bold red"))
    for group in status.groups:
        if group.stopped:
            lines.append(_line(f"{group.group} stopped: {group.stopped}", "red"))
        if group.waits_for:
            lines.append(
                _line(f"{group.group} waits for a member that has not joined again: {group.waits_for}", "yellow")
            )
        if group.commit_error:
            lines.append(_line(f"{group.group} cannot commit: {group.commit_error}", "yellow"))
        lines += [
            _line(f"{group.group} cannot read {partitions}: {reason}", "red")
            for partitions, reason in together(group.unreadable)
        ]
        lines += [
            _line(f"{group.group} hears nothing of {partitions}: {reason}", "red")
            for partitions, reason in together(group.silent)
        ]
    return lines


def _line(text: str, style: str) -> Text:
    # The console leaves lines of the log to the terminal. A line of the picture breaks here, since what to do stands at its end.
    return Text(f"  {visible(text)}", style, no_wrap=False, overflow="fold")


def topics_of(app: Application) -> dict[str, str]:
    """Return what each group of an app reads."""
    found: dict[str, list[str]] = {}
    for route in app.routes:
        names = list(route.topics) if isinstance(route.topics, tuple) else [f"/{route.topics.pattern}/"]
        found.setdefault(app.group_of(route), []).extend(names)
        if (topic := app.retry_topic_of(route)) is not None:
            found.setdefault(app.retry_group_of(route), []).append(topic)
    return {group: ", ".join(dict.fromkeys(names)) for group, names in found.items()}
