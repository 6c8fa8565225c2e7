"""The long run by itself: that it replays, and that its reports share a file."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from octopus.events import TopicPartition
from octopus.testing.history import Began, Event, Finished, Offered, Stored
from tests.faults.soak import Outcome, Plan, replay, soak, write_history, write_report

AT = TopicPartition("jobs", 0)


def a_history(path: Path, *, finished: Sequence[int] = (0, 1), **plan: str) -> Path:
    events: list[Event] = []
    for offset in range(2):
        name = str(offset)
        events += [Offered(time=0.0, id=name, topic="jobs"), Stored(time=1.0, id=name, at=AT, offset=offset)]
        events.append(Began(time=2.0 + offset, worker="one", at=AT, offset=offset, id=name, run=offset))
        if offset in finished:
            events.append(Finished(time=2.5 + offset, worker="one", at=AT, offset=offset, id=name, run=offset))
    outcome = Outcome(plan=Plan(seed=7, seconds=60.0, **plan), seconds=61.0, excused=0)
    write_history(path, events, outcome)
    return path


def test_a_history_replays_with_what_it_was(tmp_path: Path) -> None:
    outcome, report = replay(a_history(tmp_path / "good.history", ordering="partition"))
    assert (outcome.plan.seed, outcome.plan.ordering, report.records, report.anomalies) == (7, "partition", 2, [])
    _, report = replay(a_history(tmp_path / "bad.history", finished=[0]))
    assert [anomaly.kind for anomaly in report.anomalies] == ["lost-write"]


def test_what_is_no_history_of_a_soak_is_refused(tmp_path: Path) -> None:
    path = a_history(tmp_path / "torn.history")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match="is not the history of a soak"):
        replay(path)


def test_a_file_holds_one_report_of_each_kind_the_latest(tmp_path: Path) -> None:
    report = tmp_path / "soak.md"
    for number, plan in enumerate([{}, {"broker": "kafka"}, {"delivery": "exactly_once"}, {"broker": "kafka"}]):
        write_report(report, replay(a_history(tmp_path / f"{number}.history", **plan)))
    lines = report.read_text().splitlines()
    assert [line for line in lines if line.startswith("#")] == [
        "# Soaks",
        "## Embedded broker, exactly once, ordering key",
        "## Embedded broker, at least once, ordering key",
        "## Apache Kafka, three nodes, at least once, ordering key",
    ]
    assert lines.count("| **lost** | **0** |") == 3
    before = report.read_text()
    write_report(report, replay(tmp_path / "3.history"))
    assert report.read_text() == before


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(300)
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_a_short_soak_loses_nothing_and_replays(delivery: str, tmp_path: Path) -> None:
    plan = Plan(seed=11, delivery=delivery, seconds=15.0)
    (tmp_path / "run").mkdir()
    outcome, report = await soak(plan, tmp_path / "run", tmp_path / "history", lambda *_: None)
    assert report.anomalies == []
    assert outcome.plan == plan
    assert replay(tmp_path / "history") == (outcome, report)
