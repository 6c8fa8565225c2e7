"""The end of a command that is started again when the code changes. `test_run.py` has the changes."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from octopus.cli.reloading import run_reloading

NEWBORN = "pass"
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


def child(directory: Path, first: str) -> list[str]:
    life = f"import pathlib, signal, time\n{first}\npathlib.Path({str(directory / 'began')!r}).touch()\ntime.sleep(60)"
    return [sys.executable, "-c", life]


@pytest.mark.parametrize(("first", "code"), [(NEWBORN, 0), (DEAF, 128 + signal.SIGKILL)], ids=["newborn", "deaf"])
def test_a_stop_ends_a_child_that_does_not_listen(tmp_path: Path, first: str, code: int) -> None:
    def stop() -> None:
        while not (tmp_path / "began").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    stopping = threading.Thread(target=stop)
    stopping.start()
    assert run_reloading(child(tmp_path, first), tmp_path, grace=0.2) == code
    stopping.join()


def test_a_stop_while_it_starts_reaches_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class SlowToReturn(subprocess.Popen[bytes]):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[call-overload]
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", SlowToReturn)
    assert run_reloading(child(tmp_path, NEWBORN), tmp_path, grace=10) == 0
