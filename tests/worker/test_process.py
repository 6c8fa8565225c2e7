"""Workers as processes: signals, exit codes, and several of them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from octopus.worker.signals import SAME_STOP

pytestmark = pytest.mark.process

PROGRAM = Path(__file__).with_name("program.py")


class Program:
    """A running program and what it wrote down."""

    def __init__(self, mode: str, directory: Path) -> None:
        self.log = directory / "log"
        self.errors = directory / "errors"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), mode, str(self.log)], stderr=errors, cwd=directory
            )

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def wait_for(self, line: str) -> None:
        wait_until(lambda: line in self.lines() or self.process.poll() is not None)
        assert line in self.lines(), self.errors.read_text()

    def end(self, timeout: float = 60) -> int:
        return self.process.wait(timeout)

    @property
    def done(self) -> int:
        return sum(line.startswith("done") for line in self.lines())

    @property
    def committed(self) -> int:
        return max((int(line.split()[1]) for line in self.lines() if line.startswith("committed")), default=0)


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.02)


def signalled(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether a process has ended, and else send it a signal, once more: signals that arrive together are one."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    return process.poll() is not None


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended and its parent knows."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    programs = []

    def begin(mode: str) -> Program:
        programs.append(Program(mode, tmp_path))
        return programs[-1]

    yield begin
    for program in programs:
        if program.process.poll() is None:
            program.process.kill()
        program.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_the_first_signal_lets_handlers_finish_commits_and_ends_well(
    start: Callable[[str], Program], number: signal.Signals
) -> None:
    program = start("slow")
    program.wait_for("ready")
    program.process.send_signal(number)
    assert program.end() == 0
    assert 0 < program.done < 20
    assert program.committed == program.done, "what finished is committed, and nothing else"
    assert program.lines()[-1] == "left"


@pytest.mark.parametrize("mode", ["stuck", "blocked"], ids=["a handler that waits", "a handler that blocks the loop"])
def test_the_second_signal_ends_at_once_and_commits_nothing_early(start: Callable[[str], Program], mode: str) -> None:
    program = start(mode)
    program.wait_for("ready")
    program.process.send_signal(signal.SIGTERM)
    if mode == "stuck":
        wait_until(lambda: "stopping" in program.errors.read_text())
    assert program.process.poll() is None
    wait_until(lambda: signalled(program.process))  # those of the first second are the first one
    assert program.end(0) == 128 + signal.SIGTERM
    assert (program.done, program.committed) == (0, 0)
    assert program.errors.read_text().splitlines()[-1] == (
        "ended at once: stopped a second time, by SIGTERM; what was not finished will be delivered again"
    )


def test_a_signal_during_the_start_does_not_wait_for_its_end(start: Callable[[str], Program]) -> None:
    program = start("starting")
    program.wait_for("ready")
    program.process.send_signal(signal.SIGTERM)
    assert program.end(3) == 0
    assert program.committed == 0


@pytest.mark.parametrize(
    ("mode", "code", "said"),
    [
        ("quick", 0, ""),
        ("broken", 1, "ZeroDivisionError"),
        ("mistaken", 2, "comit_interval"),
        ("refused", 3, "app.handle ends: not yours"),
        ("stops", 4, "has no dead-letter topic"),
        ("exits", 7, ""),
    ],
)
def test_the_exit_code_tells_how_it_ended(start: Callable[[str], Program], mode: str, code: int, said: str) -> None:
    program = start(mode)
    assert program.end() == code, program.errors.read_text()
    assert said in program.errors.read_text()
    if mode in ("mistaken", "refused"):
        assert "Traceback" not in program.errors.read_text()
    assert program.committed == (20 if mode == "quick" else 0)


WRONG = """
from octopus import Octopus
app = Octopus("app", settings={"log": {"format": "json"}, "worker": {"drain_timeout": "soon"}})
app.run()
"""


def test_an_app_that_is_run_with_settings_that_cannot_be_says_so_in_the_log_that_was_asked_for(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.resolve().parents[2])}
    ended = subprocess.run(
        [sys.executable, "-c", WRONG], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    last = json.loads(ended.stderr)
    assert (last["exit_code"], last["reason"], ended.returncode) == (2, "configuration", 2)


AWAY = """
import logging, sys
from octopus import Octopus, config
from octopus.worker import run_process
logging.basicConfig(level="INFO")
app = Octopus("app", brokers="127.0.0.1:PORT")
@app.on("t")
async def handle(value: int) -> None: ...
app.run() if sys.argv[1] == "app.run" else sys.exit(run_process(app, config.load(app.settings)))
"""


@pytest.mark.parametrize("way", ["app.run", "run_process"])
def test_a_worker_that_starts_while_the_broker_is_away_ends_with_a_sentence(tmp_path: Path, way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.resolve().parents[2])}
    command = [sys.executable, "-c", AWAY.replace("PORT", str(port)), way]
    ended = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 3, ended.stderr
    assert f"app does not start: Kafka at 127.0.0.1:{port} failed while connecting" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_app_that_runs_itself_writes_json_where_the_settings_say_so(tmp_path: Path) -> None:
    program = AWAY.replace('logging.basicConfig(level="INFO")', "").replace("PORT", "1")
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.resolve().parents[2]), "OCTOPUS_LOG__FORMAT": "json"}
    command = [sys.executable, "-c", program, "app.run"]
    ended = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    last = json.loads(ended.stderr.splitlines()[-1])
    assert (last["exit_code"], last["reason"]) == (ended.returncode, "unreachable") == (3, "unreachable")


def test_an_app_runs_itself(start: Callable[[str], Program]) -> None:
    program = start("run")
    program.wait_for("committed 20")
    program.process.send_signal(signal.SIGINT)
    assert program.end() == 0


FAMILY = """
import sys
sys.path.insert(0, {root!r})
from octopus.worker import Supervisor
{prelude}
sys.exit(Supervisor([sys.executable, "-c", {child!r}], {count}, grace={grace}).run())
"""
CHILD = """
import os, pathlib, signal, sys, time
log = pathlib.Path("children")
def say(what):
    with log.open("a") as file:
        file.write(f"{what} {os.getpid()}\\n")
def stop(number, frame):
    say(f"got {number}")
    sys.exit(0)
def slow(number, frame):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(0.3)
    say("ended")
    sys.exit(0)
signal.signal(signal.SIGTERM, HANDLER)
say("began")
LIFE
"""


class Family:
    """Processes that are kept."""

    def __init__(
        self,
        directory: Path,
        *,
        life: str,
        handler: str = "stop",
        count: int = 2,
        grace: float = 5,
        prelude: str = "",
    ) -> None:
        self.log = directory / "children"
        child = CHILD.replace("LIFE", life).replace("HANDLER", handler)
        root = str(PROGRAM.resolve().parents[2])
        text = FAMILY.format(root=root, child=child, count=count, grace=grace, prelude=prelude)
        self.process = subprocess.Popen([sys.executable, "-c", text], cwd=directory)

    def pids(self, what: str) -> list[int]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [int(line.split()[-1]) for line in lines if line.startswith(what)]


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Callable[..., Family]]:
    families = []

    def begin(**options: object) -> Family:
        families.append(Family(tmp_path, **options))  # type: ignore[arg-type]
        return families[-1]

    yield begin
    for each in families:
        if each.process.poll() is None:  # a test failed; its children would be left behind
            each.process.kill()
            each.process.wait()
            for pid in each.pids("began"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def test_a_child_that_is_killed_is_replaced_and_a_stop_reaches_all(family: Callable[..., Family]) -> None:
    parent = family(life="time.sleep(60)")
    wait_until(lambda: len(parent.pids("began")) == 2)
    os.kill(parent.pids("began")[0], signal.SIGKILL)
    wait_until(lambda: len(parent.pids("began")) == 3)
    parent.process.send_signal(signal.SIGTERM)
    assert parent.process.wait(5) == 0
    assert sorted(parent.pids("got 15")) == sorted(parent.pids("began")[1:])


NO_ROOM = """
import errno, os, pathlib, subprocess
class Popen(subprocess.Popen):
    def __init__(self, *arguments, **options):
        if pathlib.Path("full").exists():
            pathlib.Path("refused").touch()
            raise OSError(errno.EAGAIN, "no room for another process")
        super().__init__(*arguments, **options)
subprocess.Popen = Popen
"""


def test_a_replacement_that_cannot_be_started_is_tried_again_and_ends_no_other(
    family: Callable[..., Family], tmp_path: Path
) -> None:
    parent = family(life="time.sleep(60)", prelude=NO_ROOM)
    wait_until(lambda: len(parent.pids("began")) == 2)
    (tmp_path / "full").touch()
    os.kill(parent.pids("began")[0], signal.SIGKILL)
    wait_until((tmp_path / "refused").exists)
    (tmp_path / "full").unlink()
    wait_until(lambda: len(parent.pids("began")) == 3)
    parent.process.send_signal(signal.SIGTERM)
    assert parent.process.wait(5) == 0
    assert sorted(parent.pids("got 15")) == sorted(parent.pids("began")[1:])


def test_a_stop_ends_a_family_that_waits_for_room_for_a_replacement(
    family: Callable[..., Family], tmp_path: Path
) -> None:
    parent = family(life="time.sleep(60)", prelude=NO_ROOM)
    wait_until(lambda: len(parent.pids("began")) == 2)
    (tmp_path / "full").touch()
    os.kill(parent.pids("began")[0], signal.SIGKILL)
    wait_until((tmp_path / "refused").exists)
    parent.process.send_signal(signal.SIGTERM)
    assert parent.process.wait(5) == 0
    assert parent.pids("got 15") == parent.pids("began")[1:]


def test_children_that_mean_to_end_are_not_replaced(family: Callable[..., Family]) -> None:
    parent = family(life="sys.exit(4 if os.environ['OCTOPUS_WORKER'] == '1' else 0)")
    assert parent.process.wait(5) == 4
    assert len(parent.pids("began")) == 2


def test_a_stop_while_a_crashed_child_waits_for_its_replacement_starts_none(family: Callable[..., Family]) -> None:
    parent = family(life="sys.exit(1)", count=1)
    wait_until(lambda: len(parent.pids("began")) == 1)
    wait_until(lambda: is_gone(parent.pids("began")[0]))
    parent.process.send_signal(signal.SIGTERM)
    assert parent.process.wait(2) == 0
    assert len(parent.pids("began")) == 1


@pytest.mark.parametrize("again", [True, False], ids=["a second signal", "the end of the grace"])
def test_children_that_do_not_stop_are_killed(family: Callable[..., Family], again: bool) -> None:
    deaf = "lambda number, frame: say(f'got {number}')"
    parent = family(life="time.sleep(60)", handler=deaf, count=1, grace=60 if again else 0.3)
    wait_until(lambda: len(parent.pids("began")) == 1)
    parent.process.send_signal(signal.SIGTERM)
    if again:
        wait_until(lambda: parent.pids("got 15"))
        time.sleep(SAME_STOP)  # until then it is the first one
        parent.process.send_signal(signal.SIGTERM)
    assert parent.process.wait(15) == 128 + (signal.SIGTERM if again else signal.SIGKILL)


def test_a_stop_that_comes_twice_at_once_reaches_the_children_as_one(family: Callable[..., Family]) -> None:
    parent = family(life="time.sleep(60)", handler="slow")
    wait_until(lambda: len(parent.pids("began")) == 2)
    for pid in parent.pids("began"):
        os.kill(pid, signal.SIGTERM)  # as systemd does, and then the parent passes it on
    parent.process.send_signal(signal.SIGTERM)
    assert parent.process.wait(15) == 0
    assert sorted(parent.pids("ended")) == sorted(parent.pids("began"))


@pytest.mark.parametrize(
    ("handler", "code"),
    [("lambda *_: sys.exit(4)", 4), ("lambda *_: os.kill(os.getpid(), 9)", 137), ("lambda *_: sys.exit(0)", 0)],
    ids=["processing stopped", "killed by somebody else", "well"],
)
def test_the_exit_code_of_the_parent_tells_what_became_of_its_children(
    family: Callable[..., Family], handler: str, code: int
) -> None:
    parent = family(life="time.sleep(60)", handler=handler)
    wait_until(lambda: len(parent.pids("began")) == 2)
    parent.process.send_signal(signal.SIGTERM)
    assert parent.process.wait(15) == code
