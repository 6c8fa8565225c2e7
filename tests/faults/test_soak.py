"""The long run by itself: that it replays, that its reports share a file, and that it says how it ended."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from octopus.events import TopicPartition
from octopus.testing.history import Began, Event, Finished, Note, Offered, Stored, write_line
from tests.faults.journal import Histories
from tests.faults.soak import Outcome, Plan, describe, replay, soak, write_history, write_report
from tests.faults.soak.surroundings import to_its_end
from tests.faults.trial import Trial

ROOT = Path(__file__).resolve().parents[2]
AT = TopicPartition("jobs", 0)


def a_history(
    path: Path, *, finished: Sequence[int] = (0, 1), ended: dict[str, Any] | None = None, **plan: Any
) -> Path:
    events: list[Event] = []
    for offset in range(2):
        name = str(offset)
        events += [Offered(time=0.0, id=name, topic="jobs"), Stored(time=1.0, id=name, at=AT, offset=offset)]
        events.append(Began(time=2.0 + offset, worker="one", at=AT, offset=offset, id=name, run=offset))
        if offset in finished:
            events.append(Finished(time=2.5 + offset, worker="one", at=AT, offset=offset, id=name, run=offset))
    outcome = Outcome(plan=Plan(seed=7, seconds=60.0, **plan), seconds=61.0, excused=0, **(ended or {}))
    write_history(path, events, outcome)
    return path


def test_a_history_replays_with_what_it_was(tmp_path: Path) -> None:
    outcome, report = replay(a_history(tmp_path / "good.history", ordering="partition"))
    assert (outcome.plan.seed, outcome.plan.ordering, report.records, report.anomalies) == (7, "partition", 2, [])
    _, report = replay(a_history(tmp_path / "bad.history", finished=[0]))
    assert [anomaly.kind for anomaly in report.anomalies] == ["lost-write"]


@pytest.mark.parametrize(
    ("ended", "words", "code"),
    [
        pytest.param({"interrupted": True}, "**interrupted** (planned: 1 minutes)", 2, id="interrupted"),
        pytest.param({"failure": "stuck\n## and more"}, "    stuck\n    ## and more", 1, id="stuck"),
    ],
)
def test_a_run_that_ended_early_says_so_and_calls_nothing_lost(
    ended: dict[str, Any], words: str, code: int, tmp_path: Path
) -> None:
    verdict = replay(a_history(tmp_path / "early.history", finished=[0], ended=ended))
    assert verdict.report.anomalies == []
    assert verdict.exit_code == code
    assert "**ended early**" in (report := describe(verdict))
    assert words in report
    assert "| **lost** | unknown" in report
    write_report(tmp_path / "soak.md", verdict)
    write_report(tmp_path / "soak.md", replay(a_history(tmp_path / "later.history")))
    assert "early" not in (tmp_path / "soak.md").read_text()


def test_what_was_found_before_an_interruption_is_found(tmp_path: Path) -> None:
    path = a_history(tmp_path / "early.history", ended={"interrupted": True})
    path.write_text(path.read_text().replace('"run":1', '"run":0').replace('"offset":1', '"offset":0'))
    verdict = replay(path)
    assert "inconsistent-offsets" in {anomaly.kind for anomaly in verdict.report.anomalies}
    assert verdict.exit_code == 1


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


class Disturber:
    """Does something once, at the first fault of a soak."""

    def __init__(self, act: Any) -> None:
        self._act = act

    def __call__(self, what: str, published: int, committed: int) -> None:
        if published and self._act is not None:
            act, self._act = self._act, None
            act()


def pids_of(words: str) -> list[int]:
    found = subprocess.run(["pgrep", "-f", words], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(300)
async def test_the_death_of_a_broker_that_nobody_killed_ends_a_soak_with_that_sentence(tmp_path: Path) -> None:
    (directory := tmp_path / "run").mkdir()

    def kill_broker() -> None:
        (pid,) = pids_of(str(directory / "broker"))
        os.kill(pid, signal.SIGKILL)

    plan = Plan(seed=9, seconds=3600.0)  # begins with calm
    verdict = await soak(plan, directory, tmp_path / "history", Disturber(kill_broker))
    assert verdict.outcome.failure.startswith("the broker ended by itself with -9")
    assert verdict.exit_code == 1
    assert replay(tmp_path / "history") == verdict


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(300)
async def test_a_publisher_that_fails_ends_a_soak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("of the publisher")

    monkeypatch.setattr(Trial, "publish", fail)
    (tmp_path / "run").mkdir()
    with pytest.raises(ZeroDivisionError):
        await soak(Plan(seed=9, seconds=3600.0), tmp_path / "run", tmp_path / "history", lambda *_: None)
    assert "of the publisher" in replay(tmp_path / "history").outcome.failure


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(300)
def test_ctrl_c_ends_a_soak_in_order_and_leaves_a_history_that_says_so(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "scripts" / "soak", "--minutes", "60", "--seed", "9"]
    report = ["--history", tmp_path / "history", "--report", tmp_path / "soak.md"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OCTOPUS_VENV": sys.prefix}
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen([*command, *report], stdout=output, start_new_session=True, env=environment)
    try:
        deadline = time.monotonic() + 120
        while not any(b"finished" in file.read_bytes() for file in tmp_path.glob("octopus-soak-*/*-*.history")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everybody of its session
        assert process.wait(150) == 2
    finally:
        process.kill()
        process.wait()
    said = (tmp_path / "output").read_text()
    assert "Interrupted; everything that was started is stopped." in said
    assert "ended early" in said
    assert pids_of(str(tmp_path / "octopus-soak-")) == []
    assert [*tmp_path.glob("octopus-soak-*")] == []
    assert not (tmp_path / "soak.md").exists()
    replayed = subprocess.run([*command[:2], "--replay", tmp_path / "history"], env=environment, capture_output=True)
    assert replayed.returncode == 2


async def test_work_that_was_begun_in_a_thread_is_awaited_also_when_nobody_wants_it_any_more() -> None:
    begun, free, done = asyncio.Event(), asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def work(result: str) -> None:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(free.wait(), loop).result()
        done.append(result)

    working = asyncio.create_task(to_its_end(work, "done"))
    await begun.wait()
    for _ in range(2):
        working.cancel()
        await asyncio.sleep(0)
        assert not working.done()
    free.set()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert done == ["done"]


def test_news_of_histories_are_told_once_and_torn_lines_when_they_are_whole(tmp_path: Path) -> None:
    histories, line = Histories(tmp_path), write_line(Note(time=1.0, what="kill worker"))
    (tmp_path / "one.history").write_bytes(line + line[:9])
    assert len([*histories.news()]) == 1
    assert [*histories.news()] == []
    with (tmp_path / "one.history").open("ab") as file:
        file.write(line[9:])
    (tmp_path / "two.history").write_bytes(line)
    assert len([*histories.news()]) == 2
    assert len([*histories.events()]) == 3
