"""The function under the runtime client that Lambda itself runs."""

import asyncio
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from octopus.broker.settings import BrokerSettings
from octopus.broker.thread import BrokerThread
from octopus.events import TopicPartition
from octopus.testing import records
from octopus.transports.opening import open_transport
from tests.support.runtime_api import RuntimeApi, start_runtime
from tests.triggers.lambda_events import encode, failures

pytest.importorskip("awslambdaric", reason="the Lambda runtime client is not installed")
pytestmark = pytest.mark.process

FUNCTION = """
import asyncio, contextlib, os, pathlib
from octopus import Octopus, Event
from octopus.triggers.aws import handler

@contextlib.asynccontextmanager
async def lifespan(app):
    yield
    await asyncio.sleep(0)
    pathlib.Path("left").write_text("in time")

app = Octopus("beamline", lifespan=lifespan)
loops, last = set(), set()

@app.on("files", ordering="key", concurrency=2)
async def look(event: Event[dict]) -> None:
    loop = asyncio.get_running_loop()
    loops.add(id(loop))
    await asyncio.sleep(event.value.get("seconds", 0))
    if event.value.get("fail"):
        raise ValueError("no")

def inspected(event, context):
    answer = function(event, context)
    return answer | {"loops": len(loops), "pending": len(asyncio.all_tasks(function._loop))}

publisher = Octopus("publisher")

@publisher.on("files", to="out")
async def copy(value: dict) -> dict:
    return value

publishing = handler(publisher)
function = handler(app)
whole = handler(app, report_failures=False)
"""


@pytest.fixture
def api() -> Iterator[RuntimeApi]:
    with RuntimeApi() as api:
        yield api


Start = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def start(api: RuntimeApi, tmp_path: Path) -> Iterator[Start]:
    (tmp_path / "function.py").write_text(FUNCTION)
    processes = []

    def start(name: str) -> "subprocess.Popen[bytes]":
        processes.append(start_runtime(api, tmp_path, f"function.{name}"))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_a_hundred_invocations_share_a_loop_and_leave_nothing_pending(api: RuntimeApi, start: Start) -> None:
    start("inspected")
    for number in range(100):
        values = [{"n": number}, {"fail": number % 10 == 0}, {"n": number, "seconds": 0.001}]
        answer = api.invoke(encode(records(*values, topic="files", first=number)))
        expected = failures(number + 1) if number % 10 == 0 else []
        assert answer == ("response", {"batchItemFailures": expected, "loops": 1, "pending": 0}, "")


def test_exceptions_reach_the_service_with_their_type(api: RuntimeApi, start: Start) -> None:
    start("whole")
    answer = api.invoke({"eventSource": "aws:sqs", "Records": []})
    assert (answer.kind, answer.body["errorType"]) == ("error", "ConfigurationError")
    assert "eventSource is 'aws:sqs'" in answer.body["errorMessage"]
    answer = api.invoke(encode(records({}, {"fail": True}, topic="files")))
    assert (answer.kind, answer.body["errorType"]) == ("error", "HandlerStopped")
    assert answer.body["errorMessage"].startswith("1 of 2 records are to be delivered again, the first is files[0]@1")
    assert api.invoke(encode(records({}, topic="files"))).kind == "response"


def test_the_deadline_of_the_service_is_kept(api: RuntimeApi, start: Start) -> None:
    start("function")
    assert api.invoke(encode(records({}, topic="files"))).body == {"batchItemFailures": []}
    assert api.invoke(encode(records({}, {}, topic="files")), timeout=0.2).body == {"batchItemFailures": failures(0, 1)}
    began = time.monotonic()
    answer = api.invoke(encode(records({}, {"seconds": 60}, {}, topic="files")), timeout=1.4)
    assert answer.body == {"batchItemFailures": failures(1)}
    assert time.monotonic() - began < 1.4


def test_sigterm_leaves_the_lifespan_in_time(api: RuntimeApi, start: Start, tmp_path: Path) -> None:
    process = start("function")
    assert api.invoke(encode(records({}, topic="files"))).kind == "response"
    assert [wanted for _, wanted in api.extensions] == [{"events": []}] * 3  # one for each function of the module
    assert api.ready.wait(5)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0
    assert time.monotonic() - began < 0.3
    assert (tmp_path / "left").read_text() == "in time"


def test_a_frozen_function_publishes_again_when_it_thaws(api: RuntimeApi, start: Start, tmp_path: Path) -> None:
    process = start("publishing")
    with BrokerThread(tmp_path / "broker") as broker:
        event = encode(records({}, {}, topic="files"), servers=broker.address)
        assert api.invoke(event).body == {"batchItemFailures": []}
        assert asyncio.run(_stored(broker.address, "out")) == 2
        port = int(broker.address.rpartition(":")[2])
        assert api.polling.wait(5)
        process.send_signal(signal.SIGSTOP)
    with BrokerThread(tmp_path / "broker", BrokerSettings(port=port)) as broker:  # every connection is gone meanwhile
        process.send_signal(signal.SIGCONT)
        assert api.invoke(event).body == {"batchItemFailures": []}
        assert asyncio.run(_stored(broker.address, "out")) == 4
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0


async def _stored(address: str, topic: str) -> int:
    admin = open_transport(address).admin()
    await admin.start()
    try:
        partitions = [
            TopicPartition(info.name, number)
            for info in await admin.topics()
            if info.name == topic
            for number in range(info.partitions)
        ]
        return sum((await admin.offsets(partitions, "latest")).values())
    finally:
        await admin.stop()


def test_where_extensions_are_not_served_the_function_works_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "function.py").write_text(FUNCTION)
    with RuntimeApi(with_extensions=False) as api:
        process = start_runtime(api, tmp_path, "function.function")
        try:
            assert api.invoke(encode(records({}, topic="files"))).body == {"batchItemFailures": []}
        finally:
            process.kill()
            process.wait()


def test_a_module_that_does_not_import_says_why(api: RuntimeApi, start: Start) -> None:
    process = start("missing")
    assert process.wait(20) == 1
    assert api.init_error is not None
    assert api.init_error.error_type == "Runtime.HandlerNotFound"
