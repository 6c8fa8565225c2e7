"""The examples do what they say."""

import base64
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
BROKER = ".local/state/octopus/broker"  # of whoever's home it is in, also for a program that reads no settings

pytestmark = pytest.mark.process


def run(directory: Path, *command: str) -> str:
    """Run a command in a directory, on an embedded broker of its own; return what it says."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OCTOPUS_")},
        "PYTHONPATH": os.pathsep.join((str(EXAMPLES.parent), str(EXAMPLES))),
        "HOME": str(directory),
        "READINGS_DATABASE": str(directory / "readings.sqlite"),
        "STATION_DATABASE": str(directory / "station.sqlite"),
    }
    result = subprocess.run(
        [sys.executable, *command],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory whose broker, if there is one, ends with the test."""
    yield tmp_path
    stop = [sys.executable, "-m", "octopus", "broker", "stop", "--dir", str(tmp_path / BROKER)]
    subprocess.run(stop, capture_output=True, timeout=60, check=False)


def test_file_events_shows_an_event_at_once(directory: Path) -> None:
    said = run(directory, "-m", "octopus", "run", str(EXAMPLES / "file_events.py") + ":app", "--drain")
    assert "created   /example/run-7.h5" in said
    assert "transfer  /example/run-7.h5 (2,400,000 bytes)" in said


def test_readings_are_stored_once_and_alarms_raised(directory: Path) -> None:
    lines = "".join(json.dumps({"sensor": f"s{n % 7}", "kelvin": n}) + "\n" for n in range(100))
    (directory / "readings.jsonl").write_text(lines)
    run(directory, "-m", "octopus", "publish", "readings", "--file", "readings.jsonl")
    app = str(EXAMPLES / "readings.py") + ":app"
    run(directory, "-m", "octopus", "run", app, "--drain")
    with closing(sqlite3.connect(directory / "readings.sqlite")) as database:
        assert database.execute("SELECT count(*), sum(kelvin) FROM reading").fetchone() == (100, 4950)
    alarms = run(directory, "-m", "octopus", "consume", "alarms", "--from", "earliest", "--count", "19", "--json")
    assert len(alarms.splitlines()) == 19


def test_a_control_program_runs_its_handlers(directory: Path) -> None:
    assert run(directory, str(EXAMPLES / "lab_control.py")).count("analysed") == 3


def test_the_same_handler_is_a_lambda_function(directory: Path) -> None:
    value = json.dumps({"sensor": "s1", "kelvin": 4.2}).encode()
    record = {
        "topic": "readings",
        "partition": 0,
        "offset": 3,
        "timestamp": 0,
        "timestampType": "CREATE_TIME",
        "value": base64.b64encode(value).decode(),
        "headers": [],
    }
    event = {"eventSource": "SelfManagedKafka", "bootstrapServers": "", "records": {"readings-0": [record]}}
    code = f"import json, lambda_function; print(json.dumps(lambda_function.alarm({event!r}, None)))"
    assert json.loads(run(directory, "-c", code).splitlines()[-1]) == {"batchItemFailures": []}


STATION = EXAMPLES / "station"


@pytest.mark.timeout(400)
def test_a_station_of_several_files_runs_in_three_processes(directory: Path) -> None:
    lines = "".join(json.dumps({"sensor": f"s{n % 7}", "kelvin": n}) + "\n" for n in range(100))
    (directory / "readings.jsonl").write_text(lines)
    run(directory, "-m", "octopus", "publish", "north.readings", "--file", "readings.jsonl")
    line = ("publish", "south.readings", "s1,90.5", "--header", "content-type=text/csv")
    run(directory, "-m", "octopus", *line)
    run(directory, "-m", "octopus", "run", f"{STATION / 'app.py'}:app", "--workers", "3", "--drain")
    with closing(sqlite3.connect(directory / "station.sqlite")) as database:
        stored = database.execute("SELECT topic, count(*), sum(kelvin) FROM reading GROUP BY topic ORDER BY topic")
        assert stored.fetchall() == [("north.readings", 100, 4950), ("south.readings", 1, 90.5)]
    for topic, count in (("north.alarms", 19), ("south.alarms", 1)):
        consume = ("consume", topic, "--from", "earliest", "--to", "latest", "--json")
        assert len(run(directory, "-m", "octopus", *consume).splitlines()) == count


def test_the_tests_of_the_station_pass(directory: Path) -> None:
    shutil.copytree(STATION, directory / "station", ignore=shutil.ignore_patterns("__pycache__"))
    run(directory / "station", "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_station.py")


def test_a_strict_type_checker_finds_nothing_in_the_station() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", EXAMPLES.parent / ".mypy_cache", "."],
        cwd=STATION,
        env={**os.environ, "MYPYPATH": str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert result.returncode == 0, result.stdout
