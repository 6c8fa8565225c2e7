"""The live status and its numbers."""

import io
from typing import Any

import msgspec
import pytest
from rich.console import Console
from rich.live import Live

from octopus.cli.live import Rates, draw
from octopus.worker import GroupStatus, WorkerStatus
from octopus.worker.status import spell_seconds, summary


def status(uptime: float, settled: int, **group: object) -> WorkerStatus:
    one = GroupStatus(group="app.store", handlers=("store",), settled=settled, **group)  # type: ignore[arg-type]
    return WorkerStatus(app="app", broker="127.0.0.1:9092", uptime=uptime, groups=(one,), slowest=("app.store", 2.5))


def test_rates_are_those_of_the_last_seconds() -> None:
    rates = Rates()
    assert rates.note(status(0.0, 0)) == {"app.store": 0.0}
    assert rates.note(status(1.0, 500)) == {"app.store": 500.0}
    for second in range(2, 30):
        found = rates.note(status(float(second), 500 + 10 * second))
    assert found["app.store"] == pytest.approx(10.0)


def test_the_picture_has_rate_lag_outcomes_troubles_and_the_slowest() -> None:
    console = Console(file=io.StringIO(), width=120)
    picture = status(75, 1200, skipped=100, retried=3, dead=2, lag=7, running=1, stopped="it hurts", commit_error="no")
    console.print(draw(picture, {"app.store": 12.34}, {"app.store": "readings"}))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "app on 127.0.0.1:9092, up 1 min 15 s, slowest now: app.store for 2.5 s" in text
    (row,) = [line.split() for line in text.splitlines() if line.startswith("store")]
    assert row == ["store", "readings", "12.3", "7", "1", "1,098", "100", "3", "2"]
    assert "app.store stopped: it hurts" in text
    assert "app.store cannot commit: no" in text


def test_what_to_do_about_trouble_is_readable_to_its_end_however_narrow_the_terminal() -> None:
    console = Console(file=io.StringIO(), width=80, soft_wrap=True, force_terminal=True, color_system=None)
    to_do = "octopus groups reset app.store --topic files --partition 0 --to earliest"
    picture = draw(
        status(75, 12, unreadable={"files[0]": f"{'it is far from simple, ' * 10}but do: {to_do}"}), {}, {}, 80
    )
    with Live(picture, console=console, auto_refresh=False) as live:
        live.refresh()
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert to_do in " ".join(text.split())


@pytest.mark.parametrize(
    ("told", "said"),
    [
        pytest.param(
            {"outage": "connection refused", "away": 75.0},
            "127.0.0.1:9092 has not answered for 1 min 15 s: connection refused",
            id="the broker is away",
        ),
        pytest.param({}, "app.store hears nothing of t[1]: no leader", id="a partition has no leader"),
    ],
)
def test_what_nobody_can_know_is_a_question_mark_in_red(told: dict[str, Any], said: str) -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system="standard")
    silent = {} if told else {"t[1]": "no leader"}
    console.print(draw(msgspec.structs.replace(status(75, 12, silent=silent), **told), {}, {"app.store": "t"}))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    red = "\x1b[31m"
    (row,) = [line for line in text.splitlines() if "store" in line and "?" in line]
    assert f"{red}?" in row.replace(" ", "")
    (trouble,) = [line for line in text.splitlines() if said in line]
    assert "31m" in trouble
    assert ("\x1b[1;31m● " in text) is bool(told)


def test_the_end_is_one_line() -> None:
    assert summary(status(9.96, 12, skipped=2, dead=1)) == "9 done, 2 skipped, 1 dead in 10.0 s"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (61, "1 min 01 s"), (7384, "2 h 03 min")]
)
def test_durations_are_spelled(seconds: float, text: str) -> None:
    assert spell_seconds(seconds) == text
