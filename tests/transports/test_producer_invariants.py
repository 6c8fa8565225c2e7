"""The invariants of a producer's rounds and closed places: each is noticed when it is broken."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from octopus.errors import ConnectionFailed
from octopus.transports.base import Outgoing
from octopus.transports.kafka.closed import Closed
from octopus.transports.kafka.packing import Round
from octopus.transports.queueing import Call


def call(topic: str) -> Call:
    """A call of one message."""
    return Call([Outgoing(topic, b"x")], asyncio.get_running_loop().create_future())


def _finished_twice(round_: Round) -> None:
    round_.calls[0].open = 0


def _done_too_early(round_: Round) -> None:
    round_.done.set()


@pytest.mark.parametrize("broken", [_finished_twice, _done_too_early])
async def test_a_broken_round_is_noticed(switched_off: None, broken: Callable[[Round], None]) -> None:
    round_ = Round([call("t"), call("t")], lambda round_, call: None)
    round_.check()
    broken(round_)
    with pytest.raises(AssertionError):
        round_.check()


async def test_a_round_that_is_abandoned_has_finished_every_call() -> None:
    round_ = Round([call("t"), call("u")], lambda round_, call: None)
    round_.abandon(ConnectionFailed("gone"))
    assert round_.done.is_set()
    assert [type(each.future.exception()) for each in round_.calls] == [ConnectionFailed] * 2


def _closed_for_ever(closed: Closed) -> Any:
    closed._errors["u", None] = ConnectionFailed("gone")


def _held_by_a_call_for_another_topic(closed: Closed) -> Any:
    closed._open["t", 0].add(call("u"))


@pytest.mark.parametrize("broken", [_closed_for_ever, _held_by_a_call_for_another_topic])
async def test_a_broken_closed_place_is_noticed(switched_off: None, broken: Callable[[Closed], None]) -> None:
    closed = Closed()
    closed.close(("t", 0), ConnectionFailed("gone"), [call("t")])
    closed.check()
    broken(closed)
    with pytest.raises(AssertionError):
        closed.check()
