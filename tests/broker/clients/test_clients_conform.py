"""What five clients and the bare wire expect of a broker: of the embedded one, and of a genuine Apache Kafka.

Each check runs in a process group of its own with a hard limit, because clients written in C hang or abort.
By hand: `python -m tests.broker.clients.run librdkafka txn_fencing 127.0.0.1:9092`.
Set OCTOPUS_TEST_REPEATS=20 to run the checks that depend on who comes first twenty times.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker.clients.checking import Check, Target, checks_in
from tests.broker.clients.older_kafka_python import python_with_older_kafka_python
from tests.broker.clients.run import CLIENTS
from tests.broker.clients.running import LIMIT_FACTOR, run_check
from tests.support.kafka_cluster import KafkaCluster
from tests.support.kafka_jars import KafkaUnavailable, fetch_jars, require_java
from tests.support.loud_skips import skip_loudly

REPEATS = int(os.environ.get("OCTOPUS_TEST_REPEATS", "1"))


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
    python = _python(client)
    with _broker(kind, check, request) as bootstrap:
        run_check(client, check.name, Target(bootstrap, kind), limit=check.limit, python=python)


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
