"""The test cluster itself: it can be hurt and healed, and its logins let the right people in."""

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.abc import AbstractTokenProvider
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support.kafka_cluster import KafkaCluster
from tests.support.kafka_probe import brokers_in_metadata

pytestmark = [pytest.mark.kafka, pytest.mark.process, pytest.mark.slow]

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "kafka"


@pytest.fixture(scope="module")
def secured() -> Iterator[KafkaCluster]:
    with KafkaCluster(secure="sasl+tls", properties={"auto.create.topics.enable": "true"}) as cluster:
        yield cluster


class Token(AbstractTokenProvider):
    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self) -> str:
        return self._token


def login(cluster: KafkaCluster, mechanism: str) -> dict[str, Any]:
    common: dict[str, Any] = {
        "bootstrap_servers": cluster.bootstrap,
        "security_protocol": "SASL_SSL",
        "ssl_context": ssl.create_default_context(cafile=str(cluster.certificate)),
        "sasl_mechanism": mechanism,
    }
    if mechanism == "OAUTHBEARER":
        return common | {"sasl_oauth_token_provider": Token(cluster.token())}
    return common | {"sasl_plain_username": "alice", "sasl_plain_password": "alice-secret"}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"])
async def test_a_login_lets_a_user_produce_and_consume_over_tls(secured: KafkaCluster, mechanism: str) -> None:
    topic = f"login-{mechanism}"
    async with AIOKafkaProducer(**login(secured, mechanism)) as producer:
        await producer.send_and_wait(topic, b"hello")
    consumer = AIOKafkaConsumer(topic, auto_offset_reset="earliest", **login(secured, mechanism))
    async with consumer:
        assert (await asyncio.wait_for(consumer.getone(), 20)).value == b"hello"


@pytest.mark.parametrize(
    "spoilt",
    [{"aud": "somebody-else"}, {"iss": "https://elsewhere.test"}, {"exp": 1}],
    ids=["audience", "issuer", "expiry"],
)
def test_a_spoilt_token_is_refused(secured: KafkaCluster, spoilt: dict[str, object]) -> None:
    token = secured.token(claims=spoilt)
    settings: dict[str, Any] = {
        "bootstrap.servers": secured.bootstrap,
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(secured.certificate),
        "sasl.mechanism": "OAUTHBEARER",
        "oauth_cb": lambda _: (token, time.time() + 300),
        "log_level": 0,
    }
    admin = AdminClient(settings)
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=3)


def test_the_internal_address_needs_no_login(secured: KafkaCluster) -> None:
    assert AdminClient({"bootstrap.servers": secured.internal}).list_topics(timeout=10).brokers


def test_a_killed_node_leaves_the_cluster_and_a_restarted_one_comes_back(kafka_cluster_of_three: KafkaCluster) -> None:
    cluster = kafka_cluster_of_three
    first = cluster.bootstrap.split(",")[0]
    cluster.kill(2)
    deadline = time.monotonic() + 20
    while 2 in brokers_in_metadata(first):
        assert time.monotonic() < deadline, "node 2 is still listed 20 s after its death"
        time.sleep(0.2)
    cluster.restart(2)
    assert brokers_in_metadata(first) == {1, 2, 3}


def test_a_paused_node_is_silent_until_it_is_resumed(kafka_cluster_of_three: KafkaCluster) -> None:
    third = kafka_cluster_of_three.bootstrap.split(",")[2]
    kafka_cluster_of_three.pause(3)
    with pytest.raises(TimeoutError):
        brokers_in_metadata(third, timeout=0.5)
    kafka_cluster_of_three.resume(3)
    assert 3 in brokers_in_metadata(third, timeout=5)


def test_a_cluster_in_the_foreground_ends_with_its_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(["sleep", "60"])
    keeper = subprocess.Popen(
        [sys.executable, SCRIPT, "run", "--json", "--dir", tmp_path, "--parent", str(parent.pid)],
        stdout=subprocess.PIPE,
    )
    assert keeper.stdout is not None
    cluster = json.loads(keeper.stdout.readline())
    (node,) = cluster["nodes"]
    parent.kill()
    parent.wait()
    assert keeper.wait(20) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(node["pid"], 0)
    assert not (tmp_path / "data-1").exists()


def test_a_killed_keeper_takes_its_node_with_it(tmp_path: Path) -> None:
    keeper = subprocess.Popen([sys.executable, SCRIPT, "run", "--json", "--dir", tmp_path], stdout=subprocess.PIPE)
    assert keeper.stdout is not None
    (node,) = json.loads(keeper.stdout.readline())["nodes"]
    keeper.send_signal(signal.SIGKILL)
    keeper.wait()
    deadline = time.monotonic() + 10
    while KafkaCluster.load(tmp_path).is_running(1):
        assert time.monotonic() < deadline, f"node {node['pid']} outlived its keeper"
        time.sleep(0.05)
    stopped = subprocess.run(
        [sys.executable, SCRIPT, "stop", "--dir", tmp_path], capture_output=True, text=True, check=True
    )
    assert stopped.stdout == "Stopped.\n"
