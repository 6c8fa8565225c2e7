"""The live status of several workers: what is drawn, and what a terminal shows when one of them is killed."""

import contextlib
import fcntl
import io
import os
import pty
import re
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from octopus.cli.live_workers import SILENT_AFTER, Board, Lines, draw_workers
from octopus.cli.logs import line_of_worker
from octopus.events import TopicPartition
from octopus.worker import GroupStatus, WorkerStatus
from octopus.worker.reports import Report
from octopus.worker.supervisor import ProcessState
from tests.cli.conftest import Octopus, Running, Start

Write = Callable[..., Path]

HERE = (TopicPartition("t", 0),)


def report(pid: int, *, is_ending: bool = False, outage: str | None = None, **group: Any) -> Report:
    options = {"partitions": HERE, "since_join": 60.0, "lag": 4, "lags": {"t[0]": 4}, "settled": 9} | group
    groups = (GroupStatus(group="app.g", handlers=("g",), **options),)
    status = WorkerStatus(app="app", broker="b:1", uptime=1.0, groups=groups, outage=outage)
    return Report(pid=pid, status=status, is_ending=is_ending)


def board(state: ProcessState, *reports: Report, at: float = 10.0) -> Board:
    made = Board("app", "somewhere", 0.0)
    made.processes = [state]
    for each in reports:
        made.note(each, at)
    return made


RUNS = ProcessState(number=2, pid=7)
REPLACED = ProcessState(number=2, pid=7, code=-9, restarts=1)


@pytest.mark.parametrize(
    ("state", "reports", "text"),
    [
        pytest.param(RUNS, [], "starting", id="it has said nothing yet"),
        pytest.param(RUNS, [report(6)], "starting", id="its predecessor has"),
        pytest.param(RUNS, [report(7, partitions=(), since_join=None)], "joining", id="not a member yet"),
        pytest.param(RUNS, [report(7, partitions=(), since_join=1.0)], "joining", id="a member without partitions"),
        pytest.param(RUNS, [report(7, partitions=(), waits_for="another")], "joining", id="it waits for a member"),
        pytest.param(RUNS, [report(7, partitions=())], "running", id="a spare one"),
        pytest.param(RUNS, [report(7)], "running", id="it runs"),
        pytest.param(RUNS, [report(7, is_ending=True)], "stopping", id="it drains"),
        pytest.param(RUNS, [report(7, stopped="no")], "a group has stopped", id="a group has stopped"),
        pytest.param(RUNS, [report(7, outage="no")], "waiting for the broker", id="an outage"),
        pytest.param(
            REPLACED,
            [report(7)],
            "running, replaced once: signal SIGKILL",
            id="one that was killed is replaced",
        ),
        pytest.param(
            ProcessState(number=2, code=1, restart_at=13.0),
            [],
            "restarting in 3 s, ended with exit code 1",
            id="crashed",
        ),
        pytest.param(ProcessState(number=2, code=4), [report(7)], "ended with exit code 4", id="it meant to end"),
    ],
)
def test_a_worker_is_shown_as_it_is(state: ProcessState, reports: list[Report], text: str) -> None:
    (row,) = board(state, *reports).rows(10.0)
    assert row.state == text
    assert row.is_calm is (text.startswith("running"))


def test_a_worker_that_says_nothing_for_a_while_is_silent() -> None:
    made = board(RUNS, report(7), at=10.0)
    assert made.rows(10.0 + SILENT_AFTER)[0].state == "running"
    assert made.rows(40.0)[0].state == "silent for 30 s"


def test_what_a_killed_worker_did_stays_counted_and_its_partitions_go() -> None:
    made = board(REPLACED, report(6), report(7, settled=1, lags={"t[0]": 2}))
    for _ in range(2):
        (group,) = made.status(10.0).groups
        assert (group.settled, group.lag) == (10, 2)
        made.end(6)  # the same, when nothing more comes from it


def drawn(made: Board, width: int, height: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(draw_workers(made.rows(10.0), width, height))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (120, "2 7 running, replaced once: signal SIGKILL 1 4 9"),
        (60, "2 7 running, replaced once: signal SIGK… 4 9"),
    ],
    ids=["a wide terminal", "a narrow one"],
)
def test_a_row_fits_the_terminal(width: int, line: str) -> None:
    lines = drawn(board(REPLACED, report(7)), width)
    assert " ".join(lines[-1].split()) == line
    assert max(map(len, lines)) <= width


def test_of_many_workers_those_in_trouble_are_shown_and_the_others_counted() -> None:
    made = Board("app", "b", 0.0)
    made.processes = [ProcessState(number=number, pid=number) for number in range(1, 31)]
    for number in range(1, 31):
        if number != 20:
            made.note(report(number), 10.0)
    lines = drawn(made, 100, height=5)
    assert [line.split()[0] for line in lines[2:]] == ["1", "2", "3", "20", "and"]
    assert lines[-1].split() == ["and", "26", "more"]


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"one\ntwo\n"], [b"one", b"two"]),
        ([b"o", b"ne\r\ntw", b"o\n"], [b"one", b"two"]),
        ([b"no end"], [b"no end"]),
        ([b"x" * 25], [b"x" * 10, b"x" * 10, b"x" * 5]),
        ([b"\n\n"], [b"", b""]),
    ],
    ids=["whole", "in pieces", "without an end", "too long", "empty"],
)
def test_what_comes_from_a_pipe_is_cut_into_lines(pieces: list[bytes], lines: list[bytes]) -> None:
    cutter = Lines(10)
    assert [line for piece in pieces for line in cutter.feed(piece)] + cutter.end() == lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "[2] plain"),
        ("\x1b[31mred\x1b[0m \x07\u202e", "[2] \\x1b[31mred\\x1b[0m \\x07\\u202e"),
        ("12:00:01 error   it \x1b[2J failed", "[2] 12:00:01 error   it \\x1b[2J failed"),
        ("10%\r20%", "[2] 10%\\r20%"),
        ("a\tb", "[2] a   b"),
    ],
    ids=["plain", "escape codes", "in a log line", "a progress bar", "a tab"],
)
def test_what_a_worker_prints_is_harmless(text: str, shown: str) -> None:
    assert line_of_worker(2, text).plain == shown


APP = """
import os, sys, time
from octopus import Octopus
app = Octopus({topic!r})
if "MARKS" in os.environ and "OCTOPUS_WORKER" in os.environ:
    open(f"{{os.environ['MARKS']}}/began-{{os.getpid()}}", "x").close()
@app.on({topic!r}, retry=1)
async def handle(value: dict) -> None:
    if value.get("block"):
        print("blocks", os.getpid(), flush=True)
        time.sleep(2.5)
        print("printed late")
        return
    print(value["text"], os.getpid())
    sys.stdout.write("half of ")
    print("on stderr", file=sys.stderr)
    sys.stdout.write("a line\\n")
"""


class Terminal:
    """A command at a terminal."""

    def __init__(self, start: Start, size: tuple[int, int], *arguments: str, **variables: str) -> None:
        self._terminal, side = pty.openpty()
        self.resize(*size)
        options = {"TERM": "xterm-256color", "COLUMNS": "", "LINES": ""} | variables  # the size is the terminal's
        self.running: Running = start(*arguments, stdout=side, stderr=side, variables=options)
        os.close(side)
        self.shown = ""

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def until(self, is_shown: Callable[[str], Any], since: int = 0) -> str:
        """Read until something is shown."""
        while not is_shown(self.shown[since:]):
            self.shown += os.read(self._terminal, 65536).decode(errors="replace")
            assert time.monotonic() < self.running.deadline, self.shown
        return self.shown[since:]

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something that is not shown."""
        while not is_so():
            assert time.monotonic() < self.running.deadline
            time.sleep(0.05)

    def pids(self, text: str) -> list[str]:
        return re.findall(rf"{text} (\\d+)".replace("\\\\", "\\"), self.shown)

    def hold_up(self) -> None:
        """Take nothing any more, as Ctrl-S does, and a connection to somebody far away whose computer sleeps."""
        os.write(self._terminal, b"\x13")

    def end(self) -> int:
        with contextlib.suppress(OSError):  # the end of a terminal is an error of its reader
            while more := os.read(self._terminal, 65536):
                self.shown += more.decode(errors="replace")
        return self.running.process.wait(30)

    def close(self) -> None:
        os.close(self._terminal)


@pytest.fixture
def terminal(start: Start, octopus: Octopus, topic: str, write_app: Write) -> Iterator[Callable[..., Terminal]]:
    write_app(APP.format(topic=topic))
    octopus("topics", "create", topic, "--partitions", "6")
    made: list[Terminal] = []

    def begin(width: int = 120, **variables: str) -> Terminal:
        made.append(Terminal(start, (width, 40), "run", "--workers", "3", **variables))
        made[-1].running.deadline = time.monotonic() + 90
        return made[-1]

    yield begin
    for each in made:
        each.close()


def plain(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)


def rows(shown: str, text: str) -> set[str]:
    """Return the numbers of the workers that were shown like this."""
    return set(re.findall(rf"(?m)^ +(\d) +[\d-]+ +{text}", plain(shown).replace("\r", "")))


@pytest.mark.process
def test_a_terminal_shows_each_worker_what_they_print_and_one_that_is_killed(
    terminal: Callable[..., Terminal], octopus: Octopus, topic: str
) -> None:
    screen = terminal()
    screen.until(lambda shown: rows(shown, "running +2 ") == {"1", "2", "3"})
    text = '{"text": "got \\u001b[2J\\u001b]0;owned\\u0007"}'
    for partition in range(6):
        octopus("publish", topic, text, "--partition", str(partition))
    screen.until(
        lambda shown: plain(shown).count("half of a line") == 6 and re.search(r"handle .* 6 +0 +0 +0", plain(shown))
    )
    for line in (r"got \\x1b\[2J\\x1b\]0;owned\\x07 \d+", "half of a line", "on stderr"):
        assert len(re.findall(rf"(?m)\[\d\] {line}\r*$", plain(screen.shown))) == 6, line
    assert not any(raw in screen.shown for raw in ("\x1b[2J", "\x1b]0;", "\x07"))
    number, pid = re.findall(r"\[(\d)\] got \S+ (\d+)", plain(screen.shown))[0]
    before = len(screen.shown)
    os.kill(int(pid), signal.SIGKILL)
    since = screen.until(lambda shown: rows(shown, "running, replaced once: signal SIGKILL +2 "), before)
    assert f"worker process {number} ended with signal SIGKILL" in plain(since)
    screen.resize(60, 24)
    screen.until(lambda shown: re.search(r"events/s +lag +done +dead", plain(shown)), len(screen.shown))
    assert re.search(r"handle +[\d.]+ +0 +6 +0", plain(screen.shown[before:])), "what the killed one did stays counted"
    screen.running.process.send_signal(signal.SIGINT)
    assert screen.end() == 0
    end = plain(screen.shown).replace("\r", "")
    assert all(
        f"[{each}] " in line
        for each, line in zip("123", sorted(re.findall(r"\[\d\] \S+ info +ended: .*", end)), strict=True)
    )
    assert end.rstrip().endswith("its processes have ended, exit code 0")
    assert screen.shown.rindex("\x1b[?25h") > screen.shown.rindex("\x1b[?25l"), "the cursor is shown again"


@pytest.mark.process
def test_a_terminal_that_is_held_up_holds_up_neither_a_replacement_nor_the_end(
    terminal: Callable[..., Terminal], octopus: Octopus, topic: str, tmp_path: Path
) -> None:
    screen = terminal(MARKS=str(tmp_path))
    screen.until(lambda shown: rows(shown, "running +2 ") == {"1", "2", "3"})
    screen.hold_up()
    before = {each.name for each in tmp_path.glob("began-*")}
    os.kill(int(min(before).removeprefix("began-")), signal.SIGKILL)
    screen.wait_until(lambda: len({*tmp_path.glob("began-*")}) > len(before))
    screen.running.process.send_signal(signal.SIGTERM)
    assert screen.running.process.wait(60) == 0


@pytest.mark.process
def test_what_workers_print_after_their_supervisor_was_killed_fails_no_handler(
    terminal: Callable[..., Terminal], octopus: Octopus, topic: str
) -> None:
    screen = terminal()
    screen.until(lambda shown: rows(shown, "running +2 ") == {"1", "2", "3"})
    octopus("publish", topic, '{"block": true}')
    screen.until(lambda shown: re.search(r"blocks \d+", plain(shown)))
    screen.running.process.kill()
    screen.end()
    end = plain(screen.shown)
    assert "printed late" in end
    assert end.count("ended: ") == 3
    assert "dead" not in end[end.rindex("printed late") :]


@pytest.mark.process
def test_a_terminal_that_cannot_draw_has_lines_with_numbers(
    terminal: Callable[..., Terminal], octopus: Octopus, topic: str
) -> None:
    screen = terminal(TERM="dumb")
    screen.until(lambda shown: all(f"[{number}]" in shown for number in (1, 2, 3)))
    screen.running.process.send_signal(signal.SIGINT)
    assert screen.end() == 0
    assert "events/s" not in screen.shown
    assert "\x1b[" not in screen.shown
