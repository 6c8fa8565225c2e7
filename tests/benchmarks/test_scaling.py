"""The tables of docs/scaling.md are what the script makes of the lines that are kept beside it."""

import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.address import for_librdkafka, for_octopus
from benchmarks.markdown import error, number, table
from benchmarks.page import found, put
from benchmarks.simulation.__main__ import main
from benchmarks.simulation.calibration import Uncalibrated, calibrate, calibrates
from benchmarks.simulation.costs import Cost
from benchmarks.simulation.tables import TABLES
from benchmarks.suites import paper
from octopus import config

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "scaling.md"
LINES = sorted((ROOT / "benchmarks" / "results").glob("paper-*.jsonl"))

SIMULATED = {"check", "latency", "at scale", "saturation", "distance"}
"""These take seconds each."""


def lines() -> list[dict[str, Any]]:
    return [line for file in LINES for line in report.read(file)]


@pytest.mark.parametrize("name", [name for name in TABLES if name not in SIMULATED])
def test_a_table_of_the_page_is_what_the_lines_say(name: str) -> None:
    assert found(PAGE.read_text(encoding="utf-8"))[name] == TABLES[name](lines()), MEND


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SIMULATED))
def test_a_simulated_table_of_the_page_is_what_the_lines_say(name: str) -> None:
    assert found(PAGE.read_text(encoding="utf-8"))[name] == TABLES[name](lines()), MEND


MEND = "docs/scaling.md is out of date: scripts/bench scaling benchmarks/results/paper-*.jsonl --write docs/scaling.md"


def test_the_page_has_every_table_once() -> None:
    assert sorted(found(PAGE.read_text(encoding="utf-8"))) == sorted(TABLES)


def test_tables_are_put_between_their_marks_and_found_again() -> None:
    page = "a\n\n<!-- table: one core -->\nold\n<!-- end -->\n\nb\n\n<!-- table: plan -->\nkept\n<!-- end -->\n"
    changed = put({"one core": table(("x", "y"), [("n", "1")])}, page)
    assert found(changed) == {"one core": "| x | y |\n| --- | --: |\n| n | 1 |\n", "plan": "kept\n"}
    assert put({"one core": found(changed)["one core"]}, changed) == changed


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567, "1,230,000"), (123.4, "123"), (12.34, "12.3"), (0.01234, "0.0123"), (0, "0"), (math.nan, "–")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_errors_have_a_sign() -> None:
    assert [error(110, 100), error(90, 100), error(1, 0)] == ["+10 %", "−10 %", "–"]


# calibration

PRODUCE, CONSUME = Cost(40e-6, 1e-6, 0.5e-9), Cost(20e-6, 2e-6, 0.1e-9)
APPEND, COPY, FETCH = Cost(150e-6, 0.5e-6, 1e-9), Cost(100e-6, 0.0, 2e-9), Cost(80e-6, 0.2e-6, 0.3e-9)
IDLE = 0.002


def measured(point: paper.Point) -> dict[str, Any]:
    """What a machine with exactly these costs would measure."""
    client, size, acks, partitions, copies, clients = point
    bytes_ = paper.SIZES[size]
    produced, fetched = {32: 900, 1024: 300, 4096: 90}[bytes_] * (1 + partitions / 10), 2e6 / bytes_
    seconds, records = 4.0, 100_000
    rested = 3 * IDLE * seconds / records
    append = APPEND.of(1, bytes_, 1 / produced) + (copies - 1) * COPY.of(1, bytes_, 1 / produced)
    return {
        "suite": "paper",
        "group": "sweep",
        "broker": "Apache Kafka 4, 3 brokers",
        "round_trip_ms": 0.0,
        "value_bytes": bytes_,
        "partitions": partitions,
        "copies": copies,
        "records": records,
        "warm_up": 0,
        "options": {"client": client.partition(",")[0], "acks": acks, "clients": clients},
        "figures": {
            "producer_cpu_us": 1e6 * PRODUCE.of(1, bytes_, 1 / produced),
            "consumer_cpu_us": 1e6 * CONSUME.of(1, bytes_, 1 / fetched),
            "produce_broker_cpu_us": 1e6 * (append + rested),
            "consume_broker_cpu_us": 1e6 * (FETCH.of(1, bytes_, 1 / fetched) + rested),
            "produce_broker_seconds": seconds,
            "consume_broker_seconds": seconds,
            "records_per_produce": produced,
            "records_per_fetch": fetched,
        },
    }


def test_calibration_finds_the_costs_that_lines_were_made_with() -> None:
    made = [measured(point) for point in dict.fromkeys(paper.SWEEP)]
    idle = {"suite": "paper", "group": "idle", "broker": "Apache Kafka 4, 3 brokers"}
    found_costs = calibrate([*made, {**idle, "figures": {"broker_idle_percent": 300 * IDLE}}])
    assert found_costs.broker.idle == pytest.approx(IDLE)
    for line in made:
        bytes_, each = line["value_bytes"], 1 / line["figures"]["records_per_produce"]
        client = found_costs.clients[line["options"]["client"]]
        assert client.produce.of(1, bytes_, each) == pytest.approx(PRODUCE.of(1, bytes_, each), rel=0.02)
        assert found_costs.broker.append.of(1, bytes_, each) == pytest.approx(APPEND.of(1, bytes_, each), rel=0.02)
        assert found_costs.broker.copy.of(1, bytes_, each) == pytest.approx(COPY.of(1, bytes_, each), rel=0.02)


def test_some_points_are_left_for_the_check() -> None:
    points = [measured(point) for point in dict.fromkeys(paper.SWEEP)]
    for client in ("librdkafka", "octopus"):
        mine = [calibrates(line) for line in points if line["options"]["client"] == client]
        assert sum(mine) >= 5, "three unknowns and more"
        assert mine.count(False) >= 2


def test_lines_without_brokers_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Uncalibrated, match="paper --broker kafka"):
        calibrate([])
    (tmp_path / "none.jsonl").write_text("")
    assert main([str(tmp_path / "none.jsonl")]) == 2
    assert "--nodes 3" in capsys.readouterr().err


# the sweep


def test_an_address_says_to_librdkafka_what_it_says_to_octopus() -> None:
    assert for_librdkafka("127.0.0.1:9092,127.0.0.1:9093") == {"bootstrap.servers": "127.0.0.1:9092,127.0.0.1:9093"}
    secured = "kafka://b:9094?security_protocol=SASL_SSL&sasl_mechanism=PLAIN&username=alice&password=x&ca_file=ca.pem"
    assert for_librdkafka(secured) == {
        "bootstrap.servers": "b:9094",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "alice",
        "sasl.password": "x",
        "ssl.ca.location": "ca.pem",
    }
    assert config.load(for_octopus(secured)).security.username == "alice"
    with pytest.raises(ValueError, match="cannot carry passwort"):
        for_octopus("kafka://b:9094?passwort=x")
