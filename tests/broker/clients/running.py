"""Run a check in a process group of its own, with a hard limit: clients written in C hang or abort."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.broker.clients.checking import Target

ROOT = Path(__file__).resolve().parents[3]

# Apache Kafka answers more slowly and shares its cores with the test processes.
LIMIT_FACTOR = {"embedded": 1.0, "kafka": 1.5}


def run_check(
    client: str, check: str, target: Target, *arguments: str, limit: float = 40.0, python: str = sys.executable
) -> None:
    """Run a check of a client; whatever it leaves behind is killed at its end.

    Raises:
        AssertionError: It failed, died, or did not end within `limit` seconds (more on Apache Kafka).
    """
    command = [python, "-m", "tests.broker.clients.run", "--kind", target.kind]
    command += [client, check, target.bootstrap, *arguments]
    limit *= LIMIT_FACTOR[target.kind]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        output = _last_words(process)
        raise AssertionError(f"the check did not end within {limit:.0f} s:\n{output[-6000:]}") from None
    finally:
        _kill_group(process.pid)
    assert process.returncode == 0, f"exit status {process.returncode}:\n{output[-6000:]}"


def _last_words(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGABRT)  # faulthandler then says where it was
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.communicate(timeout=2)[0]
    _kill_group(process.pid)
    return process.communicate()[0]


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
