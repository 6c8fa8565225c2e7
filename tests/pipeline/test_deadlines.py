"""Time limits: who is cancelled, when, and what it costs those who end in time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from octopus.pipeline.deadlines import Deadlines
from octopus.testing import VirtualTime


@pytest.fixture(autouse=True)
async def virtual_time() -> AsyncIterator[VirtualTime]:
    loop = asyncio.get_running_loop()
    with VirtualTime(loop.time()).installed(loop) as clock:
        yield clock


async def nap(seconds: float, result: object = None) -> object:
    await asyncio.sleep(seconds)
    return result


async def test_what_ends_in_time_gives_its_result() -> None:
    assert await Deadlines(5).limit(nap(4, "done")) == "done"


async def test_what_takes_longer_is_cancelled_and_has_timed_out(virtual_time: VirtualTime) -> None:
    began = virtual_time.time()
    with pytest.raises(TimeoutError, match="took longer than 5 s"):
        await Deadlines(5).limit(nap(3600))
    assert virtual_time.time() - began == pytest.approx(5)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_each_of_many_has_its_own_time(virtual_time: VirtualTime) -> None:
    deadlines, ended = Deadlines(5), []

    async def one(start: float, length: float) -> None:
        await asyncio.sleep(start)
        try:
            await deadlines.limit(nap(length))
            ended.append((start, "done"))
        except TimeoutError:
            ended.append((start, virtual_time.time() - began))

    began = virtual_time.time()
    await asyncio.gather(one(0, 60), one(1, 1), one(2, 60), one(3, 4.5), one(20, 60))
    assert ended == [(1, "done"), (0, 5.0), (2, 7.0), (3, "done"), (20, 25.0)]
    assert not deadlines._watches


async def test_a_long_limit_does_not_collect_those_that_have_ended() -> None:
    deadlines = Deadlines(3600)
    stuck = asyncio.create_task(deadlines.limit(nap(3000)))
    for _ in range(1000):
        await deadlines.limit(nap(0))
    assert len(deadlines._watches) == 1
    stuck.cancel()


async def test_somebody_elses_cancellation_goes_through() -> None:
    task = asyncio.create_task(Deadlines(5).limit(nap(3600)))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_cancellation_at_the_very_deadline_is_not_mistaken_for_a_time_out() -> None:
    task = asyncio.create_task(Deadlines(5).limit(nap(3600)))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_at(asyncio.get_running_loop().time() + 5, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_old_request_to_cancel_that_nobody_took_back_does_not_hide_a_time_out() -> None:
    async def lane() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):  # as libraries do that know nothing of uncancel()
            await asyncio.sleep(1)
        try:
            await Deadlines(5).limit(nap(3600))
        except TimeoutError:
            return "timed out"
        return "ended"

    assert await asyncio.create_task(lane()) == "timed out"


async def test_a_handler_that_swallows_its_time_out_has_timed_out_and_leaves_no_trace_of_it() -> None:
    async def swallow() -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "late"
        return "never"

    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(TimeoutError, match="took longer than 5 s"):
        await Deadlines(5).limit(swallow())
    assert task.cancelling() == 0
