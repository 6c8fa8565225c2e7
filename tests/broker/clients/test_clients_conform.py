"""What five clients and the bare wire expect of a broker: of the embedded one, and of a genuine Apache Kafka.

Each check runs in a process group of its own with a hard limit, because clients written in C hang or abort.
By hand: `python -m tests.broker.clients.run librdkafka txn_fencing 127.0.0.1:9092`.
Set OCTOPUS_TEST_REPEATS=20 to run the checks that depend on who comes first twenty times.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker.clients.checking import Check, checks_in
from tests.broker.clients.older_kafka_python import python_with_older_kafka_python
from tests.broker.clients.run import CLIENTS
from tests.support.kafka_cluster import KafkaCluster
from tests.support.kafka_jars import KafkaUnavailable, fetch_jars, require_java
from tests.support.loud_skips import skip_loudly

ROOT = Path(__file__).resolve().parents[3]
REPEATS = int(os.environ.get("OCTOPUS_TEST_REPEATS", "1"))
# Apache Kafka answers more slowly and shares two cores with four test processes.
LIMIT_FACTOR = {"embedded": 1.0, "kafka": 1.5}


def cases() -> Iterator[object]:
    """Yield every check of every client, for both targets."""
    for kind in ("embedded", "kafka"):
        for client, modules in CLIENTS.items():
            for module in modules:
                for check in checks_in(Path(__file__).with_name(f"{module}.py")):
                    if check.only in (None, client):
                        yield from _repeated(kind, client, check)


def _repeated(kind: str, client: str, check: Check) -> Iterator[object]:
    marks = [pytest.mark.process, pytest.mark.timeout(check.limit * LIMIT_FACTOR[kind] + 60)]
    if kind == "kafka":
        marks += [pytest.mark.kafka] if check.quick_on_kafka else [pytest.mark.kafka, pytest.mark.slow]
    repeats = REPEATS if check.races else 1
    for repeat in range(1, repeats + 1):
        case = f"{kind}-{client}-{check.name}" + (f"-{repeat}" if repeats > 1 else "")
        yield pytest.param(kind, client, check, marks=marks, id=case)


@pytest.mark.parametrize(("kind", "client", "check"), list(cases()))
def test_a_client_finds(kind: str, client: str, check: Check, request: pytest.FixtureRequest) -> None:
    with _broker(kind, check, request) as bootstrap:
        command = [_python(client), "-m", "tests.broker.clients.run", "--kind", kind, client, check.name, bootstrap]
        limit = check.limit * LIMIT_FACTOR[kind]
        status, output = run_in_a_group(command, limit)
    assert status != "hung", f"the check did not end within {limit:.0f} s:\n{output}"
    assert status == 0, f"exit status {status}:\n{output}"


def run_in_a_group(command: list[str], limit: float) -> tuple[int | str, str]:
    """Run a command in a process group of its own; whatever it left behind is killed at the end or the limit."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
        return process.returncode, output[-6000:]
    except subprocess.TimeoutExpired:
        # Where was it? faulthandler is on in the check's process.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=2)
        _kill_group(process.pid)
        output, _ = process.communicate()
        return "hung", output[-6000:]
    finally:
        _kill_group(process.pid)


@contextlib.contextmanager
def _broker(kind: str, check: Check, request: pytest.FixtureRequest) -> Iterator[str]:
    if kind == "embedded":
        yield request.getfixturevalue("embedded_broker")
    elif check.auto_create:
        with KafkaCluster(properties={"auto.create.topics.enable": "true"}) as cluster:
            yield cluster.bootstrap
    else:
        yield request.getfixturevalue("kafka_cluster")


def _python(client: str) -> str:
    if client == "kafka-python-2":
        return python_with_older_kafka_python()
    if client == "kcat" and shutil.which("kcat") is None:
        skip_loudly("the kcat checks", "kcat is missing: install it (kcat on Debian).")
    if client == "java":
        try:
            require_java()
            fetch_jars()
        except KafkaUnavailable as error:
            skip_loudly("the checks of the Java client", str(error))
    return sys.executable


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
