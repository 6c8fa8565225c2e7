"""One status from those of several workers."""

from typing import Any

import pytest

from octopus.events import TopicPartition
from octopus.worker import GroupStatus, WorkerStatus
from octopus.worker.gathering import gathered

NOTHING = WorkerStatus(app="app", broker="somewhere", uptime=7.0, groups=())


def status(lags: dict[int, int | None], *, outage: str | None = None, **numbers: Any) -> WorkerStatus:
    partitions = tuple(TopicPartition("t", number) for number in lags)
    known = {f"t[{number}]": lag for number, lag in lags.items()}
    group = GroupStatus(group="app.g", handlers=("g",), partitions=partitions, lags=known, **numbers)
    return WorkerStatus(app="app", broker="b:1", uptime=1.0, groups=(group,), outage=outage, away=3.0 if outage else 0)


@pytest.mark.parametrize(
    ("now", "gone", "wanted"),
    [
        pytest.param(
            [status({0: 5}, settled=3), status({1: 2}, settled=4)],
            [],
            {"lag": 7, "settled": 7, "partitions": (TopicPartition("t", 0), TopicPartition("t", 1))},
            id="each has partitions of its own",
        ),
        pytest.param(
            [status({0: 5}), status({0: 90, 1: 1})], [], {"lag": 6}, id="a partition that two have counts once"
        ),
        pytest.param([status({0: 5}), status({1: None})], [], {"lag": None}, id="one lag that nobody knows"),
        pytest.param([status({0: 5}), status({})], [], {"lag": 5}, id="a spare worker"),
        pytest.param(
            [status({0: 5}, settled=3, dead=1)],
            [status({1: 50}, settled=10, dead=1, running=3)],
            {"lag": 5, "settled": 13, "dead": 2, "running": 0, "partitions": (TopicPartition("t", 0),)},
            id="what one that is gone did counts, and what it had does not",
        ),
        pytest.param([], [status({0: 5}, settled=3)], {"lag": None, "settled": 3, "partitions": ()}, id="all are gone"),
        pytest.param(
            [
                status({0: 0}, delayed=2, retried=1),
                status({1: 0}, delayed=1, stopped="no", unreadable={"t[1]": "gone"}),
            ],
            [],
            {"delayed": 3, "retried": 1, "stopped": "no", "unreadable": {"t[1]": "gone"}},
            id="retries that wait, and troubles",
        ),
    ],
)
def test_groups_are_added_up(now: list[WorkerStatus], gone: list[WorkerStatus], wanted: dict[str, Any]) -> None:
    (group,) = gathered(now, gone, NOTHING).groups
    assert {name: getattr(group, name) for name in wanted} == wanted


def test_an_outage_that_one_worker_meets_is_told_and_without_workers_nothing_is() -> None:
    together = gathered([status({0: 1}), status({1: 1}, outage="refused")], [], NOTHING)
    assert (together.broker, together.outage, together.away, together.uptime) == ("b:1", "refused", 3.0, 7.0)
    assert gathered([], [], NOTHING) == NOTHING
