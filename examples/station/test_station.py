"""The station's tests: no broker, no waiting."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from app import app
from sensors import Reading

from octopus.testing import DONE, SKIPPED, SynchronousTestClient, TestClient

AS_LINE = {"content-type": "text/csv"}


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "station.sqlite"
    monkeypatch.setenv("STATION_DATABASE", str(path))
    return path


@pytest.fixture
def client(database: Path) -> Iterator[SynchronousTestClient]:
    with TestClient(app, raise_errors=False) as client:
        yield client


def stored(database: Path) -> list[tuple[str, str, float]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT topic, sensor, kelvin FROM reading ORDER BY kelvin").fetchall()


def test_readings_are_stored_and_hot_ones_are_alarms(client: SynchronousTestClient, database: Path) -> None:
    assert client.publish("north.readings", Reading("s1", 4.2)) == {"north.warn": SKIPPED, "north.store": DONE}
    assert client.publish("south.readings", Reading("s2", 90.0)) == {"south.warn": DONE, "south.store": DONE}
    assert stored(database) == [("north.readings", "s1", 4.2), ("south.readings", "s2", 90.0)]
    assert [alarm.value for alarm in client.published("south.alarms")] == [{"sensor": "s2", "kelvin": 90.0}]
    assert client.published("north.alarms") == []


def test_lines_are_read_as_objects_are(client: SynchronousTestClient, database: Path) -> None:
    client.publish("south.readings", b"s3,81.5", headers=AS_LINE)
    assert stored(database) == [("south.readings", "s3", 81.5)]
    assert len(client.published("south.alarms")) == 1


def test_a_line_that_is_none_is_a_dead_letter_of_both_handlers(client: SynchronousTestClient, database: Path) -> None:
    client.publish("south.readings", b"s3", headers=AS_LINE)
    assert {dead_letter.handler for dead_letter in client.dead_letters("south.readings")} == {
        "south.warn",
        "south.store",
    }
    assert stored(database) == []


def test_a_reading_that_comes_again_is_stored_once(client: SynchronousTestClient, database: Path) -> None:
    client.publish("north.readings", Reading("s1", 4.2))
    with closing(sqlite3.connect(database)) as connection:
        keys = connection.execute("SELECT part, place FROM reading").fetchall()
    assert len(keys) == len(set(keys)) == 1


def test_a_locked_database_is_tried_ten_times(client: SynchronousTestClient, database: Path) -> None:
    app.state.database.execute("PRAGMA busy_timeout = 0")
    with closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        client.publish("north.readings", Reading("s1", 4.2))
        other.rollback()
    (dead_letter,) = client.dead_letters("north.readings")
    assert (dead_letter.handler, dead_letter.attempts) == ("north.store", 10)


def test_a_report_comes_every_minute_and_says_who_saw_what(client: SynchronousTestClient) -> None:
    client.publish("north.readings", Reading("s1", 4.2))
    client.advance(180)
    assert [report.value["seen"] for report in client.published("reports")] == [{"north.store": 1}] * 3
