"""Stops that come before a process listens for them: while it imports what it needs, and its app."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from octopus.early_stop import EarlyStop, replace_handler

pytestmark = pytest.mark.process

SLOW = "import pathlib, time\npathlib.Path('ready').touch()\ntime.sleep(60)\n"
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the command line, and returns when it has come to a module that takes its time."""
    processes: list[subprocess.Popen[str]] = []

    def begin(slow: str, *arguments: str) -> "subprocess.Popen[str]":
        (tmp_path / f"{slow}.py").write_text(SLOW)
        places = os.pathsep.join([str(tmp_path), str(Path(__file__).resolve().parents[1])])
        process = subprocess.Popen(
            [sys.executable, "-m", "octopus", *arguments],
            env={**os.environ, "PYTHONPATH": places, "OCTOPUS_BROKER__DIRECTORY": str(tmp_path / "state")},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        deadline = time.monotonic() + 60
        while not (tmp_path / "ready").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


OURS = ("cyclopts", "run", "slow")
"""A module that is imported before the command line is there."""

APPS = ("slow", "run", "slow")


@pytest.mark.parametrize(
    ("what", "number", "code"),
    [
        (OURS, signal.SIGTERM, 0),
        (OURS, signal.SIGINT, 0),
        (APPS, signal.SIGTERM, 0),
        (APPS, signal.SIGINT, 0),
        ((*APPS, "--workers", "2"), signal.SIGTERM, 0),
        (("cyclopts", "topics", "list"), signal.SIGINT, 130),
        (("cyclopts", "topics", "list"), signal.SIGTERM, -signal.SIGTERM),
    ],
    ids=[
        "run, SIGTERM",
        "run, Ctrl-C",
        "the app's import, SIGTERM",
        "the app's import, Ctrl-C",
        "a supervisor",
        "another verb, Ctrl-C",
        "another verb, SIGTERM",
    ],
)
def test_a_stop_in_the_midst_of_an_import_ends_the_process_without_a_word(
    start: Start, what: tuple[str, ...], number: signal.Signals, code: int
) -> None:
    process = start(*what)
    process.send_signal(number)
    said, _ = process.communicate(timeout=30)
    assert (process.returncode, said) == (code, "")


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_whoever_listens_next_learns_what_a_signal_meant_before(handlers: None) -> None:
    def meant(*_: Any) -> None: ...

    signal.signal(signal.SIGTERM, meant)
    EarlyStop({signal.SIGTERM: 0}).listen()
    assert replace_handler(signal.SIGTERM, signal.SIG_IGN) is meant
    assert replace_handler(signal.SIGTERM, signal.SIG_DFL) == signal.SIG_IGN


def test_once_it_is_called_off_signals_mean_what_they_did(handlers: None) -> None:
    before = signal.getsignal(signal.SIGINT)
    early_stop = EarlyStop({signal.SIGINT: 130})
    early_stop.listen()
    early_stop.call_off()
    assert signal.getsignal(signal.SIGINT) is before
