"""Check-ups: what is wrong is a finding, never an exception, and nothing is started."""

from pathlib import Path

import msgspec
import pytest

from octopus import config
from octopus.operations.checkups import Checkup, Finding, Origin, State, examine


def origin(**settings: object) -> Origin:
    """Return settings that somebody gives."""
    return Origin("the test", None, lambda: [config.in_code(settings)])


def by_subject(checkup: Checkup) -> dict[str, Finding]:
    """Return the findings by what was looked at."""
    return {finding.subject: finding for finding in checkup.checks}


async def test_a_broker_that_runs_is_asked_for_topics_groups_and_dead_letters(embedded: str) -> None:
    found = by_subject(await examine(None, origin(brokers=embedded), client_id="test"))
    assert found["broker"].text.startswith(f"{embedded} (Kafka), connects in ")
    assert found.keys() >= {"python", "event loop", "kafka client", "settings", "topics", "groups", "dead letters"}


async def test_an_embedded_broker_that_does_not_run_is_not_started(tmp_path: Path) -> None:
    settings = origin(broker={"directory": str(tmp_path / "records")})
    found = by_subject(await examine(None, settings, client_id="test"))
    assert "starts when it is needed" in found["broker"].text
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize(
    ("target", "settings", "subject"),
    [
        pytest.param("missing.py", {}, "app", id="an app that is not there"),
        pytest.param(None, {"wroker": 1}, "settings", id="a setting that is none"),
        pytest.param(None, {"brokers": "127.0.0.1:1"}, "broker", id="a broker that is not there"),
    ],
)
async def test_what_is_wrong_is_a_finding(target: str | None, settings: dict[str, object], subject: str) -> None:
    checkup = await examine(target, origin(**settings), client_id="test")
    assert [finding.subject for finding in checkup.checks if finding.state is State.WRONG] == [subject]
    assert not checkup.ok


def test_a_checkup_is_the_json_of_the_command_line() -> None:
    checkup = Checkup.of([Finding("app", State.WRONG, "no", "mend it"), Finding("python", State.GOOD, "3")])
    assert msgspec.json.encode(checkup) == (
        b'{"ok":false,"checks":[{"check":"app","state":"wrong","text":"no","mend":"mend it"},'
        b'{"check":"python","state":"good","text":"3","mend":""}]}'
    )
