"""The queue of a synchronous publisher keeps its invariants, whichever thread looks; each is noticed when it is broken."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from octopus.events import Published
from octopus.send_queue import PART_BYTES, SendQueue, Undelivered
from octopus.transports.base import Outgoing
from octopus.transports.queueing import Queued


def queue_on(loop: asyncio.AbstractEventLoop, store: Callable[[Sequence[Outgoing]], Queued]) -> SendQueue:
    """A queue of this thread's loop."""
    return SendQueue(8 * PART_BYTES, loop, store, None, threading.get_ident(), "app")


def _counted_twice(queue: SendQueue) -> None:
    queue._size *= 2


def _two_parts_of_one_number(queue: SendQueue) -> None:
    queue._filling.number = queue._full[0].number


def _never_taken(queue: SendQueue) -> None:
    queue._is_woken = False


def _failed_without_an_error(queue: SendQueue) -> None:
    queue._failed = 1


def _an_error_of_none(queue: SendQueue) -> None:
    queue._first = Undelivered("t", b"", None, (), OSError())


BROKEN = {
    "bytes are counted twice": _counted_twice,
    "two parts have one number": _two_parts_of_one_number,
    "no call takes what waits": _never_taken,
    "an event failed and no error is known": _failed_without_an_error,
    "an error is known and no event failed": _an_error_of_none,
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_a_broken_invariant_is_noticed(switched_off: None, broken: Callable[[SendQueue], None]) -> None:
    loop = asyncio.get_running_loop()
    queue = queue_on(loop, lambda messages: loop.create_future())
    queue.put(Outgoing("t", b"x" * PART_BYTES), None)
    queue.put(Outgoing("t", b"x"), None)
    queue.check()
    broken(queue)
    with pytest.raises(AssertionError):
        queue.check()


async def test_invariants_hold_while_several_threads_put_and_the_loop_takes() -> None:
    loop = asyncio.get_running_loop()

    def store(messages: Sequence[Outgoing]) -> Queued:
        future: Queued = loop.create_future()
        loop.call_soon(future.set_result, [Published(each.topic, 0, 0) for each in messages])
        return future

    queue = queue_on(loop, store)

    def put_many() -> None:
        for _ in range(50):
            queue.put(Outgoing("t", b"x" * (PART_BYTES // 3)), None)

    await asyncio.gather(*(asyncio.to_thread(put_many) for _ in range(3)))
    assert await asyncio.to_thread(queue.wait, None)
    assert not queue.open


async def test_what_is_answered_in_the_turn_in_which_the_rest_is_given_up_counts_as_delivered() -> None:
    loop = asyncio.get_running_loop()
    futures: list[Queued] = []

    def store(messages: Sequence[Outgoing]) -> Queued:
        futures.append(loop.create_future())
        return futures[-1]

    queue = queue_on(loop, store)
    for number in range(2):
        queue.put(Outgoing("t", b"%d" % number), None)
        await asyncio.sleep(0)
    answered, _ = futures
    answered.set_result([Published("t", 0, 0)])
    failures: list[object] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    await queue.give_up(1.0)
    await asyncio.sleep(0)
    assert failures == []
    assert queue.open == 0
    assert str(queue.failure()).startswith("1 event is not delivered")
