"""Processes that a test may kill, freeze and thaw."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

LOOK = 0.02
"""Seconds between two looks at whether a process has ended."""


class ChildProcess:
    """A process of our own and what can happen to it.

    It is killed at the end of the `with` block. A program that calls `end_with_parent` first ends also when the test
    itself is killed.

    Args:
        command: Program and arguments; for Python `[sys.executable, "-m", …]` or `python_module(…)`.
        log: File that gets what it writes to stdout and stderr; appended to. None discards it.
        environment: Variables in addition to ours.
        own_session: Whether it is left alone by a Ctrl-C at the terminal, which reaches every process of a session: it is
            ours to end it then, in its turn.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        own_session: bool = False,
    ) -> None:
        self._command = [*command]
        self._log = log
        self._environment = {**os.environ, **(environment or {})}
        self._own_session = own_session
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> Self:
        """Start it; may be called again when it has ended."""
        assert not self.is_running, "it runs already"
        with (self._log or Path(os.devnull)).open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - the test's own command
                self._command,
                stdin=subprocess.PIPE,  # its end tells the child that we are gone
                stdout=output,
                stderr=output,
                env=self._environment,
                start_new_session=self._own_session,
            )
        assert self._process.stdin is not None
        weakref.finalize(self._process, self._process.stdin.close)  # also of one that ended by itself
        return self

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, "it was never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended; a frozen one runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended: an exit code, or minus the number of the signal; None while it runs."""
        return self._process.poll() if self._process is not None else None

    def signal(self, number: int) -> None:
        """Send a signal; one that has ended gets none."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to stop (SIGTERM)."""
        self.signal(signal.SIGTERM)

    def freeze(self) -> None:
        """Stop its clock (SIGSTOP): its connections stay open and nothing answers."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on (SIGCONT)."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL), and wait until it is gone."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()

    async def ended(self, timeout: float) -> int:
        """Wait until it has ended and return its exit code.

        Raises:
            TimeoutError: It runs longer than `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while (code := self.exit_code) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"process {self.pid} ({' '.join(self._command[:4])}…) has not ended in {timeout:g} s"
                )
            await asyncio.sleep(LOOK)
        return code

    def written(self) -> str:
        """Return what it wrote, for the report of a failure."""
        return self._log.read_text(errors="replace") if self._log is not None and self._log.exists() else ""


def python_module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module in this interpreter."""
    return [sys.executable, "-m", name, *arguments]


def end_with_parent() -> None:
    """Make this process end when the process that started it as a `ChildProcess` is gone, for any reason."""

    def watch() -> None:
        with contextlib.suppress(OSError, ValueError):
            while os.read(0, 4096):
                pass
        os._exit(1)

    threading.Thread(target=watch, name="octopus parent", daemon=True).start()
