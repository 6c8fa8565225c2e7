"""How far a verb has come is seen by who looks at a terminal, and by nobody else."""

import contextlib
import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from octopus.pipeline.dead_letters import SUFFIX
from tests.cli.conftest import Octopus, Result, Start

BAR = "━"


def patient_for(seconds: float) -> list[str]:
    """Return a program that is called as the command line is, and shows how far it has come after so many seconds."""
    code = (
        f"import sys; from octopus.cli import progress; progress.PATIENCE = {seconds!r};"
        "from octopus.cli.program import run_program; sys.exit(run_program(sys.argv[1:]))"
    )
    return [sys.executable, "-c", code]


Watch = Callable[..., tuple[str, Result]]


@pytest.fixture
def watch(start: Start, nowhere: Path) -> Watch:
    """Run a command that writes to a file and to a terminal beside it; return what the terminal showed, and how it ended."""

    def run(*arguments: str, patience: float = 0.0) -> tuple[str, Result]:
        terminal, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
        running = start(*arguments, stderr=side, program=patient_for(patience), variables={"TERM": "xterm"})
        os.close(side)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal is an error of its reader
            while more := os.read(terminal, 4096):
                shown += more
        os.close(terminal)
        return shown.decode(), running.end()

    return run


VERBS = {
    "copy": (
        ("replay", "TOPIC", "--from", "earliest", "--into", "TOPIC-copy", "--yes"),
        "Copying TOPIC into TOPIC-copy",
    ),
    "consume": (("consume", "TOPIC", "--from", "earliest", "--to", "latest"), "Reading TOPIC"),
    "dead letters": (
        ("dead-letters", "replay", "TOPIC", "--again", "--to", "TOPIC-copy", "--yes"),
        "Putting back dead letters of TOPIC",
    ),
    "delete": (("topics", "delete", "TOPIC", "--yes"), "Deleting topics"),
}


@pytest.fixture(params=VERBS.values(), ids=VERBS.keys())
def verb(request: pytest.FixtureRequest, octopus: Octopus, topic: str) -> tuple[list[str], str]:
    """A verb that has something to do, and what it says that it does."""
    for name in (topic, f"{topic}{SUFFIX}"):
        octopus("publish", name, '{"n": 1}', "--count", "30")
    octopus("topics", "create", f"{topic}-copy")
    arguments, says = request.param
    return [argument.replace("TOPIC", topic) for argument in arguments], says.replace("TOPIC", topic)


def test_it_is_shown_on_a_terminal_while_results_go_into_a_file_and_nothing_of_it_stays(
    watch: Watch, verb: tuple[list[str], str]
) -> None:
    arguments, says = verb
    shown, result = watch(*arguments)
    assert result.code == 0, shown
    assert says in shown
    assert BAR in shown
    assert BAR not in result.out
    assert shown.rindex("\x1b[2K") > shown.rindex(BAR), "the line is cleared"
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is shown again"


@pytest.mark.parametrize("option", ["--json", "--quiet"])
def test_it_is_not_shown_to_programs(watch: Watch, verb: tuple[list[str], str], option: str) -> None:
    arguments, _ = verb
    shown, result = watch(*arguments, option)
    assert result.code == 0, shown
    assert BAR not in shown + result.out


def test_it_is_not_shown_by_what_is_over_soon(watch: Watch, verb: tuple[list[str], str]) -> None:
    arguments, _ = verb
    shown, result = watch(*arguments, patience=3600.0)
    assert result.code == 0, shown
    assert BAR not in shown + result.out


def test_it_is_not_shown_where_there_is_no_terminal(start: Start, verb: tuple[list[str], str]) -> None:
    arguments, _ = verb
    result = start(*arguments, program=patient_for(0.0)).end()
    assert result.code == 0, result.err
    assert BAR not in result.out + result.err
