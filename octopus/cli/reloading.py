"""`octopus run --reload`: start again when the code changes."""

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import watchfiles

from octopus.logs import get_logger
from octopus.worker.exit_codes import ExitCode, spell
from octopus.worker.parent import environment_of_child
from octopus.worker.signals import STOP_SIGNALS, StopSignals

logger = get_logger("octopus.reload")

CODE = (".py", ".toml")


def run_reloading(command: Sequence[str], directory: Path, *, grace: float) -> int:
    """Run `command`, and again whenever a Python or TOML file below `directory` changes.

    A stop signal is passed on. A command that ends by itself is started again at the next change, unless it ended well.

    Args:
        command: What to run.
        directory: Where the code is.
        grace: Seconds from asking it to stop to SIGKILL.

    Returns:
        The exit code of the last run, 128 + n when signal n ended it; 0 when a stop came before it listened for one.
    """
    return _Reloader(command, directory, grace).run()


class _Reloader:
    def __init__(self, command: Sequence[str], directory: Path, grace: float) -> None:
        self._command = [*command]
        self._directory = directory
        self._grace = grace
        self._stop = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._last = int(ExitCode.OK)  # how the last run ended, while none runs

    def run(self) -> int:
        with StopSignals(self._stop_child, self._pass_on):
            return self._run()

    def _run(self) -> int:
        try:
            self._start()
            logger.info("watching %s for changes", self._directory)
            for changes in watchfiles.watch(
                self._directory,
                watch_filter=_is_code,
                stop_event=self._stop,
                rust_timeout=300,
                yield_on_timeout=True,
                raise_interrupt=False,
                debounce=300,
            ):
                if changes:
                    self._end()
                    # Afterwards, or the live status of the one that ends would wipe the line away.
                    names = sorted({os.path.relpath(path, self._directory) for _, path in changes})
                    logger.info("%s changed; starting again", ", ".join(names[:3]))
                    if not self._stop.is_set():
                        self._start()
                elif self._child is not None and (code := self._child.poll()) is not None:
                    if code == ExitCode.OK:
                        return code
                    logger.warning("it ended with %s; starting again at the next change", spell(code))
                    self._child, self._last = None, code if code >= 0 else 128 - code
            return self._end()
        finally:
            self._end()

    def _start(self) -> None:
        # A session of its own: a Ctrl-C reaches it once, through us.
        environment = environment_of_child()
        self._child = subprocess.Popen(self._command, env=environment, start_new_session=True)  # noqa: S603 - our own command line
        if self._stop.is_set():
            self._child.terminate()  # the signal came in between, and did not reach this one

    def _end(self) -> int:
        child = self._child
        if child is None:
            return self._last
        if not self._stop.is_set():
            child.terminate()
        try:
            code = child.wait(self._grace)
        except subprocess.TimeoutExpired:
            logger.warning("it did not end within %.0f s and is killed", self._grace)
            child.kill()
            code = child.wait()
        # Where it was asked before it was so far as to listen, it had nothing to finish.
        self._last = ExitCode.OK if -code in STOP_SIGNALS else code if code >= 0 else 128 - code
        self._child = None
        return self._last

    def _stop_child(self, _number: int) -> None:
        self._stop.set()
        # Not SIGINT: a child that does not listen yet would take that for an exception in the midst of an import.
        self._pass_on(signal.SIGTERM)

    def _pass_on(self, number: int) -> None:
        if self._child is not None:
            self._child.send_signal(number)


def _is_code(_change: watchfiles.Change, path: str) -> bool:
    return path.endswith(CODE) and "/." not in path and "__pycache__" not in path
