"""The observer times real clients by their output topics, and does not take a client's word for them."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from benchmarks import observer
from benchmarks.task import Task

pytestmark = pytest.mark.process

KEYS = 20

TASK = Task(
    brokers="",
    topic="",
    partitions=3,
    records=190,
    warm_up=10,
    value_bytes=150,
    seed=1,
    options={
        "durability": "os",
        "broker_cores": "",
        "client_cores": "",
        "environment": "",
        "keys": KEYS,
        "whole": True,
    },
)

FORGETFUL = '''
"""Produces all outputs but one."""
import confluent_kafka
from benchmarks.observer import workload_of
from benchmarks.records import contents


def run(task):
    producer = confluent_kafka.Producer({"bootstrap.servers": task.brokers})
    values = [value for _, value in contents(workload_of(task), task.seed)]
    for value in values[: LAST] + values[:FIRST]:
        producer.produce(task.options["to"], value)
    producer.flush()
    while True:
        producer.poll(1.0)
'''


def task(module: str, **options: Any) -> Task:
    return dataclasses.replace(TASK, options=TASK.options | {"module": module} | options)


@pytest.mark.parametrize(
    "options",
    [{}, {"ordering": "key", "concurrency": 64}, {"delivery": "exactly_once"}, {"batch": 50}],
    ids=["as first written", "64 key lanes", "exactly once", "batches"],
)
def test_an_app_has_an_output_for_every_record(options: dict[str, Any]) -> None:
    figures = observer.run(task("benchmarks.clients.octopus_transform", **options))
    assert figures["records_per_second"] > 0
    assert figures["duplicates"] == 0


def test_a_loop_around_confluent_has_an_output_for_every_record() -> None:
    assert observer.run(task("benchmarks.clients.confluent_transform", typed=True))["duplicates"] == 0


@pytest.mark.parametrize(
    ("last", "first", "complaint"),
    [
        (199, 0, r"1?\d?\d of 200 outputs came, then none for 0.5 s"),
        (199, 1, "1 of 200 records have no output"),
    ],
    ids=["fewer outputs", "another output twice in its place"],
)
def test_a_record_without_its_output_fails_the_case(
    last: int, first: int, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "forgetful.py").write_text(FORGETFUL.replace("LAST", str(last)).replace("FIRST", str(first)))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    if not first:
        monkeypatch.setattr(observer, "PATIENCE", 0.5)
    with pytest.raises(observer.OutputsMissing, match=complaint):
        observer.run(task("forgetful"))


def test_a_client_that_ends_fails_the_case_with_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("def run(task):\n    raise RuntimeError('out of ink')\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    with pytest.raises(observer.OutputsMissing, match="RuntimeError: out of ink"):
        observer.run(task("broken"))
