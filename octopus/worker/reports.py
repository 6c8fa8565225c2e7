"""What supervised workers tell their supervisor while a live table is shown: a snapshot a second, and all that they print.

Each has three pipes to it: one for reports, and its standard output and error, so that lines of several workers are not mixed. A
report that does not fit into its pipe is dropped: a worker never waits for its supervisor. What is printed is never dropped;
and if the supervisor is gone, it goes where the supervisor's own output went, so that no handler fails with a broken pipe.
"""

import asyncio
import contextlib
import os
from collections.abc import Mapping
from typing import Any, Self

import msgspec

from octopus.worker.parent import PARENT_VARIABLE
from octopus.worker.status import WorkerStatus
from octopus.worker.worker import Worker

REPORTS_VARIABLE = "OCTOPUS_REPORTS"
"""Tells a worker process the descriptors of its `Reports`."""

REPORT_EVERY = 1.0
"""Seconds between two reports."""

STDOUT, STDERR = 1, 2
"""Descriptors."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker does.

    Attributes:
        pid: Which process it is.
        status: In numbers.
        is_ending: Whether it fetches nothing any more.
    """

    pid: int
    status: WorkerStatus
    is_ending: bool = False


class LineSender:
    """Writes lines into a descriptor that does not block: each as a whole, or not at all."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""  # of a line that did not fit; the next one must not begin inside it

    def send(self, line: bytes) -> bool:
        """Send a line if there is room; return whether at least its beginning is on its way."""
        if self._rest:
            self._push()
        if self._rest:
            return False
        self._rest = line + b"\n"
        if not self._push():
            self._rest = b""
            return False
        return True

    def _push(self) -> int:
        """Write what fits and keep the rest; return how much fitted."""
        try:
            written = os.write(self._descriptor, self._rest)
        except BlockingIOError:
            return 0
        self._rest = self._rest[written:]
        return written


class Reports:
    """A worker's side of the pipes.

    Args:
        reports: Where reports are written.
        outputs: For standard output and error: what the supervisor reads from, and where its own go.
    """

    def __init__(self, reports: int, outputs: Mapping[int, tuple[int, int]]) -> None:
        self._sender = LineSender(reports)
        self._outputs = outputs
        os.set_blocking(reports, False)
        for descriptor in (reports, *(each for pair in outputs.values() for each in pair)):
            os.set_inheritable(descriptor, False)  # they are not for what handlers start

    @classmethod
    def inherited(cls, environ: Mapping[str, str]) -> Self | None:
        """Return those that this process was given, None when no table is shown."""
        if not is_looked_at(environ):
            return None
        reports, *outputs = map(int, environ[REPORTS_VARIABLE].split(","))
        out_source, out, error_source, error = outputs
        return cls(reports, {STDOUT: (out_source, out), STDERR: (error_source, error)})

    async def __call__(self, worker: Worker) -> None:
        """Report what a worker does, until cancelled."""
        try:
            while True:
                self._report(Report(pid=os.getpid(), status=worker.status()))
                await asyncio.sleep(REPORT_EVERY)
        finally:
            self._report(Report(pid=os.getpid(), status=worker.status(), is_ending=True))

    def _report(self, report: Report) -> None:
        with contextlib.suppress(OSError):  # the supervisor no longer reads
            self._sender.send(msgspec.json.encode(report))

    def give_back(self) -> None:
        """Print where the supervisor printed, from now on; it is gone. What it has not read any more comes first."""
        for descriptor, (source, target) in self._outputs.items():
            with contextlib.suppress(OSError):
                os.dup2(target, descriptor)
                os.set_blocking(source, False)
                while unread := os.read(source, 65536):
                    os.write(target, unread)


def is_looked_at(environ: Mapping[str, str]) -> bool:
    """Tell whether this process was given pipes for reports."""
    return REPORTS_VARIABLE in environ and environ.get(PARENT_VARIABLE) == str(os.getppid())


def read_report(line: bytes) -> Report | None:
    """Return a report, None for what is none."""
    try:
        return msgspec.json.decode(line, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class Wiring(msgspec.Struct, frozen=True):
    """The ends of the pipes of one process: what it is started with, and what is read here.

    Attributes:
        reports: Where its reports are read, and written.
        out: The same for its standard output.
        error: For its standard error.
    """

    reports: tuple[int, int]
    out: tuple[int, int]
    error: tuple[int, int]

    @classmethod
    def made(cls) -> "Wiring":
        """Make pipes; all of them or none."""
        with contextlib.ExitStack() as if_it_fails:
            pipes = []
            for _ in range(3):
                pipes.append(os.pipe())
                for descriptor in pipes[-1]:
                    if_it_fails.callback(os.close, descriptor)
            if_it_fails.pop_all()
        reports, out, error = pipes
        return cls(reports, out, error)

    def options(self, environment: Mapping[str, str], terminals: tuple[int, int]) -> dict[str, Any]:
        """Return what `Popen` takes.

        Args:
            environment: Of the process.
            terminals: Where our own standard output and error go.
        """
        passed = (self.reports[1], self.out[0], terminals[0], self.error[0], terminals[1])
        return {
            "env": {**environment, REPORTS_VARIABLE: ",".join(map(str, passed))},
            "stdout": self.out[1],
            "stderr": self.error[1],
            "pass_fds": passed,
        }

    def started(self) -> None:
        """Close the ends that only the process needs."""
        for _, writes in (self.reports, self.out, self.error):
            os.close(writes)
