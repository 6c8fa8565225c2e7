"""Keeps several equal worker processes, and does nothing else."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import msgspec

from octopus.logs import get_logger
from octopus.worker.exit_codes import ExitCode, spell
from octopus.worker.parent import WORKER_VARIABLE, Parent, environment_of_child
from octopus.worker.places import PLACE_VARIABLE, Places
from octopus.worker.signals import STOP_SIGNALS, StopSignals

logger = get_logger("octopus.worker")


class ProcessState(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor knows of one of its processes.

    Attributes:
        number: Which, from 1; a replacement has that of its predecessor.
        pid: While it runs.
        code: How its predecessor ended, or it itself if it does not run; negative for a signal, None before any has ended.
        restarts: How often it was replaced.
        restart_at: When its replacement is started, in monotonic seconds, while it waits for that.
    """

    number: int
    pid: int | None = None
    code: int | None = None
    restarts: int = 0
    restart_at: float | None = None


class Audience(Protocol):
    """Looks at the processes of a supervisor."""

    def starting(self, number: int, environment: Mapping[str, str]) -> AbstractContextManager[Mapping[str, Any]]:
        """Return what `Popen` takes for a process that is started inside the block."""

    def see(self, processes: Sequence[ProcessState]) -> None:
        """Take note of how they are."""


class Supervisor:
    """A few equal processes and their end: one that dies is replaced, a stop is passed on to all.

    Args:
        command: What each process runs.
        count: How many.
        grace: Seconds from the first stop signal to SIGKILL.
        places: What they are called in their groups, so that a replacement is not a newcomer there.
        audience: Has what they print and report; without one they print where this process does.
    """

    CRASH_WAIT = 1.0

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        *,
        grace: float,
        places: Places | None = None,
        audience: Audience | None = None,
    ) -> None:
        self._command = [*command]
        self._count = count
        self._grace = grace
        self._places = places
        self._audience = audience
        self._states = {number: ProcessState(number=number) for number in range(1, count + 1)}
        self._signals = StopSignals(self._pass_on, self._kill)
        self._parent = Parent(os.environ)
        self._children: dict[int, tuple[subprocess.Popen[bytes], float]] = {}
        self._numbers: dict[int, int] = {}  # pid → 1 to count
        self._restarts: list[tuple[float, int]] = []  # when to start another, monotonic; which number it has
        self._refused: set[int] = set()  # those that could not be started, as last tried
        self._killed: set[int] = set()  # those that ended in a stop without giving up their places
        self._is_late = False
        self._worst = 0
        self._interrupted = 0

    @property
    def was_stopped(self) -> bool:
        """Whether the end was asked for."""
        return self._signals.stopped_at is not None

    def run(self) -> int:
        """Run them until all have ended.

        Returns:
            The highest exit code of those that meant to end, or that ended in a stop; 128 + n where signal n ended one (137:
            it had to be killed), or where a second signal n ended all. 0 when all ended well.
        """
        with self._signals:
            try:
                for number in range(1, self._count + 1):
                    self._start(number)
                while self._children or self._restarts:
                    self._look()
            finally:
                for child, _ in self._children.values():
                    child.kill()
                if self._places is not None:
                    self._places.end(self._killed)
        return self._interrupted or self._worst

    def _start(self, number: int) -> None:
        # A replacement takes the number of the one it replaces: its place in the groups, and what log lines begin with.
        environment = {**environment_of_child(), WORKER_VARIABLE: str(number)}
        if self._places is not None:
            environment[PLACE_VARIABLE] = self._places.name(number)
        with self._wiring(number, environment) as options:
            child = subprocess.Popen(self._command, start_new_session=True, **options)  # noqa: S603 - our own command line
        self._children[child.pid] = child, time.monotonic()
        before = self._states[number]
        restarts = before.restarts + (before.code is not None)
        self._states[number] = ProcessState(number=number, pid=child.pid, code=before.code, restarts=restarts)
        self._numbers[child.pid] = number
        if self.was_stopped:
            child.terminate()  # the signal came in between, and did not reach this one

    def _replace(self, number: int) -> None:
        try:
            self._start(number)
        except OSError as error:  # no room for another process now; the others must not end for that
            if number not in self._refused:  # which may last
                logger.warning("worker process %d cannot be started and is tried again every second: %s", number, error)
            self._refused.add(number)
            self._restart_in(number, self.CRASH_WAIT)
        else:
            self._refused.discard(number)

    def _restart_in(self, number: int, wait: float) -> None:
        moment = time.monotonic() + wait
        self._restarts.append((moment, number))
        self._states[number] = msgspec.structs.replace(self._states[number], restart_at=moment)

    def _wiring(self, number: int, environment: Mapping[str, str]) -> AbstractContextManager[Mapping[str, Any]]:
        if self._audience is None:
            return nullcontext({"env": environment})
        return self._audience.starting(number, environment)

    def _look(self) -> None:
        # Looks every 0.1 s: waitpid(-1) would also reap the children of a program that embeds this.
        for pid, (child, began) in [*self._children.items()]:
            code = child.poll()
            if code is None:
                continue
            del self._children[pid]
            self._ended(self._numbers.pop(pid), code, time.monotonic() - began)
        now = time.monotonic()
        stopped_at = self._signals.stopped_at
        if stopped_at is not None:
            self._killed.update(number for _, number in self._restarts)
            for _, number in self._restarts:
                self._states[number] = msgspec.structs.replace(self._states[number], restart_at=None)
            self._restarts.clear()
            if now > stopped_at + self._grace:
                self._kill_late()
        for moment, number in [each for each in self._restarts if each[0] <= now]:
            self._restarts.remove((moment, number))
            self._replace(number)
        self._parent.check()
        if self._audience is not None:
            self._audience.see([*self._states.values()])
        time.sleep(0.1)

    def _ended(self, number: int, code: int, lived: float) -> None:
        self._states[number] = ProcessState(number=number, code=code, restarts=self._states[number].restarts)
        if self.was_stopped:
            if code != ExitCode.OK:
                self._killed.add(number)
            if -code in STOP_SIGNALS:
                return  # asked before it was so far as to listen: it had nothing to finish
            self._worst = max(self._worst, code if code >= 0 else 128 - code)
            if code != ExitCode.OK and not (self._is_late or self._interrupted):  # that is said once
                logger.error("worker process %d ended with %s although it was asked to stop", number, spell(code))
            return
        if code in (ExitCode.OK, ExitCode.CONFIGURATION, ExitCode.UNREACHABLE, ExitCode.PROCESSING_STOPPED):
            self._worst = max(self._worst, code)  # it meant to end: starting it again would end the same way
            if self._places is not None and code in (ExitCode.OK, ExitCode.PROCESSING_STOPPED):
                self._places.left(number)
            return
        logger.warning("worker process %d ended with %s after %.0f s; starting another", number, spell(code), lived)
        self._restart_in(number, self.CRASH_WAIT if lived < self.CRASH_WAIT else 0.0)

    def _pass_on(self, _number: int) -> None:
        # SIGTERM also for SIGINT: one that does not listen yet would take that for an exception in the midst of an import.
        for child, _ in self._children.values():
            child.terminate()

    def _kill(self, number: int) -> None:
        self._interrupted = 128 + number
        for child, _ in self._children.values():
            child.kill()

    def _kill_late(self) -> None:
        if self._children and not self._is_late:
            self._is_late = True
            logger.error(
                "%d of %d processes did not end within %.0f s and are killed; what they had not finished will be delivered again",
                len(self._children),
                self._count,
                self._grace,
            )
            for child, _ in self._children.values():
                child.kill()
