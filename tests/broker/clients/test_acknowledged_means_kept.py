"""A broker process is stopped or killed, started again on its data, and everything acknowledged is there."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from octopus.broker.lock import read_owner
from octopus.transports.broker_process import __name__ as broker_module
from tests.broker.clients.checking import Target, fresh
from tests.broker.clients.running import run_check
from tests.broker.clients.wire import Connection, batch
from tests.support.kafka_cluster import KafkaCluster
from tests.support.kafka_probe import wait_for_brokers

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]


class Restartable(Protocol):
    """A broker in a process of its own."""

    target: Target

    def end(self, how: signal.Signals) -> None:
        """Send the signal and wait for the end."""

    def start(self) -> None:
        """Start on the data that are there."""


class EmbeddedProcess:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.start()

    def start(self) -> None:
        given = {"directory": str(self._directory), "host": "127.0.0.1", "port": 0, "default_partitions": 1}
        given |= {"storage": {}, "idle_exit": 60.0}
        self._process = subprocess.Popen([sys.executable, "-m", broker_module, json.dumps(given)])
        deadline = time.monotonic() + 20
        while (owner := read_owner(self._directory))[0] != self._process.pid or not owner[1]:
            assert self._process.poll() is None, "the broker ended at its start"
            assert time.monotonic() < deadline, "the broker announced no address"
            time.sleep(0.05)
        self.target = Target(owner[1], "embedded")
        assert wait_for_brokers(self.target.bootstrap, {1}, 10)

    def end(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        self._process.wait(20)


class KafkaNode:
    def __init__(self, cluster: KafkaCluster) -> None:
        self._cluster = cluster.start()
        self.target = Target(cluster.bootstrap, "kafka")

    def start(self) -> None:
        self._cluster.restart(1)

    def end(self, how: signal.Signals) -> None:
        if how == signal.SIGTERM:
            self._cluster.terminate(1, grace=20)
        else:
            self._cluster.kill(1)


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.slow])])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Restartable]:
    if request.param == "embedded":
        process = EmbeddedProcess(tmp_path)
        yield process
        process.end(signal.SIGKILL)
    else:
        cluster = KafkaCluster()
        yield KafkaNode(cluster)
        cluster.stop(grace=0)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_records_commits_and_transactions_outlive_a_broker_that_is(how: signal.Signals, broker: Restartable) -> None:
    name = fresh("kept")
    run_check("librdkafka", "leave", broker.target, name)
    broker.end(how)
    broker.start()
    run_check("librdkafka", "find", broker.target, name, limit=60)


def test_a_batch_repeated_after_a_crash_is_stored_once(broker: Restartable) -> None:
    topic = fresh("repeated")
    with Connection(broker.target) as connection:
        connection.create_topic(topic)
        producer = connection.producer_id()
        first = batch(b"a", b"b", producer_id=producer, epoch=0, sequence=0)
        second = batch(b"c", producer_id=producer, epoch=0, sequence=2)
        assert connection.produce(topic, first) == (0, 0)
        assert connection.produce(topic, second) == (0, 2)
    broker.end(signal.SIGKILL)
    broker.start()
    with Connection(broker.target) as connection:
        assert connection.produce(topic, second) == (0, 2), "not the original offset"
        assert connection.produce(topic, batch(b"d", producer_id=producer, epoch=0, sequence=3)) == (0, 3)
        assert connection.fetch(topic).high_watermark == 4
