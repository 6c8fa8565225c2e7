"""Patience: sends again what is not there yet, for as long as it may be, and says so once."""

import logging
from collections.abc import Sequence

import pytest

from octopus.errors import ConnectionFailed, RecordTooLarge, TransportError
from octopus.events import Published
from octopus.patience import Patience
from octopus.testing import VirtualTime
from tests.worker.conftest import virtual_time as virtual_time

logger = logging.getLogger("octopus.test")


def partly(*stored: bool) -> TransportError:
    """Return a failure that says which messages are stored all the same."""
    error = ConnectionFailed("away")
    error.published = [Published("t", 0, number) if each else None for number, each in enumerate(stored)]
    return error


class Broker:
    """Fails as it is told, then stores everything.

    Attributes:
        asked: The messages of each attempt.
        waits: Seconds between the attempts.
    """

    def __init__(self, time: VirtualTime, *failures: TransportError) -> None:
        self.asked: list[list[str]] = []
        self.waits: list[float] = []
        self._failures = [*failures]
        self._time = time
        self._last = time.time()

    async def send(self, messages: Sequence[str]) -> None:
        self.asked.append([*messages])
        self.waits.append(round(self._time.time() - self._last, 3))
        self._last = self._time.time()
        if self._failures:
            raise self._failures.pop(0)


async def test_it_waits_longer_from_attempt_to_attempt_up_to_a_limit_and_logs_twice(
    virtual_time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    broker = Broker(virtual_time, *[ConnectionFailed("away") for _ in range(5)])
    await Patience(logger, "app.store", "results", (1.0, 4.0)).until_all_sent(broker.send, ["a"])
    assert broker.waits == [0, 1, 2, 4, 4, 4]
    assert [each.message.partition(", after")[0] for each in caplog.records] == [
        "app.store: results wait to be published: away",
        "app.store: results are published again",
    ]


@pytest.mark.parametrize("first_is_made", [False, True], ids=["from the beginning", "after a first attempt"])
async def test_what_is_stored_is_not_sent_again(first_is_made: bool, virtual_time: VirtualTime) -> None:
    failures = [partly(True, False, False), partly(False, True)]
    failed = failures.pop(0) if first_is_made else None
    broker = Broker(virtual_time, *failures)
    await Patience(logger, "app.store", "results").until_all_sent(broker.send, ["a", "b", "c"], failed)
    assert broker.asked[-2:] == [["b", "c"], ["b"]]


async def test_what_fails_for_good_is_raised_at_once(virtual_time: VirtualTime) -> None:
    broker = Broker(virtual_time, ConnectionFailed("away"), RecordTooLarge("too large"))
    with pytest.raises(RecordTooLarge):
        await Patience(logger, "app.store", "results").until_all_sent(broker.send, ["a"])
    assert len(broker.asked) == 2
