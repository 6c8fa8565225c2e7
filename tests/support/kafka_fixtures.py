"""The fixtures that lend tests a genuine Apache Kafka, and the loud line when there is none.

One cluster serves all workers of a pytest-xdist run: whoever asks first starts it, in a process of its own that ends
with the controlling pytest process, however that ends.
"""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.kafka_cluster import STATE_FILE, KafkaCluster
from tests.support.kafka_jars import KafkaUnavailable, fetch_jars, require_java

ADDRESS_VARIABLE = "OCTOPUS_TEST_KAFKA"
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "kafka"


@pytest.fixture(scope="session")
def kafka_cluster(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of one genuine broker, shared by the whole run: use fresh topic and group names.

    The environment variable OCTOPUS_TEST_KAFKA names a cluster that already runs instead.
    """
    given = os.environ.get(ADDRESS_VARIABLE)
    if given:
        return given
    directory = _shared_directory(tmp_path_factory) / "kafka-1"
    with _locked(directory):
        return _started(directory, brokers=1).bootstrap


@pytest.fixture
def kafka_cluster_of_three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """Three genuine brokers for one test alone, which may kill, pause and restart them; healed afterwards."""
    directory = _shared_directory(tmp_path_factory) / "kafka-3"
    with _locked(directory):
        cluster = _started(directory, brokers=3)
        cluster.heal()
        yield cluster
        cluster.heal()


def why_kafka_is_missing() -> str | None:
    """Say in a sentence why Apache Kafka cannot run here, or None when it can."""
    if os.environ.get(ADDRESS_VARIABLE):
        return None
    try:
        require_java()
        fetch_jars()
    except KafkaUnavailable as error:
        return str(error)
    return None


def _started(directory: Path, brokers: int) -> KafkaCluster:
    if not (directory / STATE_FILE).exists():
        # The controlling process: with pytest-xdist the parent of every worker, without it ourselves.
        owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
        command = [sys.executable, str(SCRIPT), "start", "--dir", str(directory)]
        command += ["--brokers", str(brokers), "--parent", str(owner)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"Apache Kafka did not start: {done.stderr}"
    return KafkaCluster.load(directory)


def _shared_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with directory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
