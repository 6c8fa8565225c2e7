"""`new`, `doctor`, `broker`: a first day with it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from octopus.operations.brokers import running_brokers
from tests.cli.conftest import Octopus, Start

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.process
def test_a_new_project_has_tests_that_pass_and_an_app_that_runs(octopus: Octopus, start: Start, nowhere: Path) -> None:
    result = octopus("new", "beamline", brokers=None)
    assert result.code == 0
    assert "octopus run --reload" in result.err
    project = nowhere / "beamline"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tests.returncode == 0, tests.stdout
    assert "3 passed" in tests.stdout
    octopus("publish", "readings", '{"sensor": "t1", "kelvin": 312.5}')
    ended = start("run", str(project / "app.py"), "--drain").end()
    assert (ended.code, ended.out) == (0, "t1: 312.5 K is too hot\n")


def test_a_new_project_overwrites_nothing(octopus: Octopus, nowhere: Path) -> None:
    (nowhere / "mine").mkdir()
    (nowhere / "mine" / "app.py").write_text("precious")
    result = octopus("new", "mine", brokers=None)
    assert result.code == 2
    assert "'mine' has app.py already; nothing is overwritten." in result.err
    assert [path.name for path in (nowhere / "mine").iterdir()] == ["app.py"]


@pytest.mark.parametrize("name", ["9lives", "two words", "ümlaut"])
def test_a_name_that_no_app_can_have_is_refused(octopus: Octopus, name: str) -> None:
    result = octopus("new", name, brokers=None)
    assert result.code == 2
    assert f"{name!r} cannot name a project" in result.err


def test_new_says_as_json_what_it_wrote(octopus: Octopus) -> None:
    report = octopus("new", "beamline", "--json", brokers=None).json
    assert report["directory"] == "beamline"
    assert "app.py" in report["files"]


def checks(octopus: Octopus, *arguments: str, brokers: str | None = "default") -> dict[str, dict[str, str]]:
    given = {} if brokers == "default" else {"brokers": brokers}
    result = octopus("doctor", *arguments, "--json", **given)
    report = result.json
    assert result.code == (0 if report["ok"] else 1)
    return {check["check"]: check for check in report["checks"]}


def test_a_doctor_without_complaints_exits_with_0(octopus: Octopus) -> None:
    found = checks(octopus)
    assert {check["state"] for check in found.values()} <= {"good", "doubtful"}
    assert found.keys() >= {
        "python",
        "event loop",
        "kafka client",
        "settings",
        "broker",
        "topics",
        "groups",
        "dead letters",
    }
    assert "(Kafka), connects in" in found["broker"]["text"]
    assert "brokers = 127.0.0.1:" in found["settings"]["text"]


def test_a_broker_that_is_away_is_found_out(octopus: Octopus) -> None:
    found = checks(octopus, brokers="127.0.0.1:1")
    assert found["broker"]["state"] == "wrong"
    result = octopus("doctor", brokers="127.0.0.1:1")
    assert result.code == 1
    assert "✗ broker" in result.out
    assert "1 thing to mend." in result.out


def test_an_embedded_broker_that_does_not_run_is_not_started(octopus: Octopus, nowhere: Path) -> None:
    found = checks(octopus, brokers=None)
    assert "starts when it is needed" in found["broker"]["text"]
    assert not (nowhere / "state").exists()


def test_secrets_are_masked(octopus: Octopus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTOPUS_SECURITY__USERNAME", "alice")
    monkeypatch.setenv("OCTOPUS_SECURITY__PASSWORD", "wonderland")
    result = octopus("doctor", brokers=None)
    assert "security.password = ********" in result.out
    assert "wonderland" not in result.out + result.err


def test_another_aiokafka_than_the_one_whose_inside_is_known_is_wrong(
    octopus: Octopus, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks(octopus)["kafka client"]["state"] == "good"
    monkeypatch.setattr("octopus.operations.checkups.machine.version", lambda name: "0.14.99")
    found = checks(octopus)["kafka client"]
    assert (found["state"], found["mend"]) == ("wrong", "pip install aiokafka==0.14.0")


def test_the_app_is_examined_too(octopus: Octopus, nowhere: Path, topic: str) -> None:
    (nowhere / "app.py").write_text(
        f"from octopus import Octopus\napp = Octopus('{topic}')\n@app.on('{topic}')\ndef h(v: dict): pass\n"
    )
    found = checks(octopus)
    assert found["topics"]["text"] == f"{topic} will be created by octopus run"
    assert f"{topic}.h: has never run" in found["groups"]["text"]
    missing = checks(octopus, "--config", "topics.create=false")
    assert missing["topics"]["state"] == "wrong"
    assert missing["topics"]["mend"] == f"octopus topics create {topic}"


@pytest.mark.parametrize(
    ("file", "text", "check", "sentence"),
    [
        ("octopus.toml", "wroker = 1", "settings", "There is no setting wroker. Did you mean worker?"),
        ("octopus.toml", "nonsense", "settings", "octopus.toml"),
        ("app.py", "import nothing_like_this", "app", "nothing_like_this"),
    ],
)
def test_what_is_wrong_is_named(
    octopus: Octopus, nowhere: Path, file: str, text: str, check: str, sentence: str
) -> None:
    (nowhere / file).write_text(text)
    found = checks(octopus)
    assert found[check]["state"] == "wrong"
    assert sentence in found[check]["text"]


@pytest.mark.process
def test_a_broker_is_started_found_used_and_stopped(octopus: Octopus, start: Start, nowhere: Path) -> None:
    state = str(nowhere / "state")
    started = start("broker", "start", "--json", brokers=None).end()
    assert started.code == 0, started.err
    pid = json.loads(started.out)["pid"]
    try:
        assert octopus("broker", "start", "--json", brokers=None).json["pid"] == pid
        assert pid in [each["pid"] for each in octopus("broker", "status", "--json", brokers=None).json]
        assert octopus("publish", "kept", "{}", brokers=None).code == 0
        elsewhere = octopus("broker", "stop", "--dir", "elsewhere", brokers=None)
        assert elsewhere.code == 1
        assert "No such embedded broker runs." in elsewhere.err
        assert octopus("broker", "stop", "--port", "1", brokers=None).code == 1
        assert pid in [each.pid for each in running_brokers()]
        stopped = octopus("broker", "stop", brokers=None)
        assert (stopped.code, f"process {pid}, records in {state}" in stopped.out) == (0, True)
    finally:
        if pid in [each.pid for each in running_brokers()]:
            os.kill(pid, signal.SIGTERM)
    assert pid not in [each.pid for each in running_brokers()]


@pytest.mark.process
def test_a_broker_in_the_foreground_says_where_it_listens_and_ends_with_ctrl_c(start: Start) -> None:
    running = start("broker", "start", "--foreground", "--dir", "here", brokers=None)
    running.wait_for("listens on 127.0.0.1:")
    assert running.end(signal.SIGINT).code == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--dir", "none"), "A broker in memory on a free port could not be found by any client"),
        (("--host", "0.0.0.0", "--port", "1"), "without authentication"),
        (("--port", "99999"), "broker.port is 99999; expected a whole number, at most 65535."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_broker_that_makes_no_sense_is_refused(octopus: Octopus, arguments: tuple[str, ...], sentence: str) -> None:
    result = octopus("broker", "start", *arguments, brokers=None)
    assert result.code == 2
    assert sentence in result.err
