"""A broker for the command line, and two ways to call it: in this process, and as a process of its own."""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from octopus.broker.thread import BrokerThread
from octopus.cli.program import run_program

DEADLINE = 30.0


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """The address of an embedded broker in this process, for the whole run: fresh topic names, please."""
    with BrokerThread() as thread:
        yield thread.address


@pytest.fixture
def topic() -> str:
    """A name that nobody has used."""
    return f"topic-{uuid.uuid4().hex[:8]}"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, and an environment without settings: no test meets somebody's real broker."""
    for name in [name for name in os.environ if name.startswith("OCTOPUS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OCTOPUS_BROKER__DIRECTORY", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass
class Result:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document of the output."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON lines of the output."""
        return [json.loads(line) for line in self.out.splitlines()]


Octopus = Callable[..., Result]


@pytest.fixture
def octopus(capfd: pytest.CaptureFixture[str], broker: str) -> Octopus:
    """Call the command line in this process, on the test broker."""

    def call(*arguments: str, brokers: str | None = broker) -> Result:
        capfd.readouterr()
        given = [*arguments] if brokers is None else [*arguments, "--brokers", brokers]
        code = run_program(given)
        sys.stdout.flush()
        sys.stderr.flush()
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return call


@dataclass
class Running:
    """A command in a process of its own, its output in files."""

    process: subprocess.Popen[bytes]
    directory: Path
    deadline: float = field(default_factory=lambda: time.monotonic() + DEADLINE)

    @property
    def out(self) -> str:
        """What it wrote to standard output so far."""
        return (self.directory / "out").read_text(errors="replace")

    @property
    def err(self) -> str:
        """What it wrote to standard error so far."""
        return (self.directory / "err").read_text(errors="replace")

    def wait_for(self, *texts: str) -> None:
        """Wait until all of these texts were written, to either."""
        while not all(text in self.out + self.err for text in texts):
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.out}{self.err}"
            assert time.monotonic() < self.deadline, f"{texts} did not come:\n{self.out}{self.err}"
            time.sleep(0.02)

    def end(self, signal: int | None = None) -> Result:
        """Send a signal, if one is given, and wait for the end."""
        if signal is not None:
            self.process.send_signal(signal)
        code = self.process.wait(max(1.0, self.deadline - time.monotonic()))
        return Result(code, self.out, self.err)


Start = Callable[..., Running]


@pytest.fixture
def start(broker: str, tmp_path: Path) -> Iterator[Start]:
    """Start the command line as a process on the test broker; what still runs at the end is killed."""
    started: list[Running] = []

    def begin(
        *arguments: str,
        stdin: Any = subprocess.DEVNULL,
        stdout: Any = None,
        stderr: Any = None,
        brokers: str | None = broker,
        variables: Mapping[str, str] = MappingProxyType({}),
        program: Sequence[str] = (sys.executable, "-m", "octopus"),
    ) -> Running:
        directory = tmp_path / f"process-{len(started)}"
        directory.mkdir()
        given: Sequence[str] = arguments if brokers is None else (*arguments, "--brokers", brokers)
        with (directory / "out").open("wb") as out, (directory / "err").open("wb") as err:
            process = subprocess.Popen(
                [*program, *given],
                stdin=stdin,
                stdout=stdout or out,
                stderr=stderr or err,
                env=os.environ | dict(variables),
            )
        running = Running(process, directory)
        started.append(running)
        return running

    yield begin
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait()


@pytest.fixture
def write_app(nowhere: Path) -> Callable[..., Path]:
    """Write a file with an app into the current directory."""

    def write(body: str, name: str = "app.py") -> Path:
        path = nowhere / name
        path.write_text(body)
        return path

    return write
