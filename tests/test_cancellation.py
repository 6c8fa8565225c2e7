"""Handlers that are cancelled, cancel themselves or will not be cancelled: the same end in every driver."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from octopus import Message, Octopus, Record, RetryPolicy
from octopus.cancellation import is_wanted, judge_by, take_back
from octopus.events import Batch
from octopus.outcomes import Outcome
from octopus.routing import Ordering
from octopus.runner.slot import Slot
from octopus.types import Next
from tests.triggers.test_parity import TOPIC, Seen, through_the_client, through_the_function, through_the_worker

Naughty = Callable[[], Awaitable[None]]


def own_task() -> "asyncio.Task[object]":
    task = asyncio.current_task()
    assert task is not None
    return task


async def cancels_its_task() -> None:
    own_task().cancel()
    await asyncio.sleep(0)


async def cancels_its_task_from_a_callback() -> None:
    asyncio.get_running_loop().call_soon(own_task().cancel)
    await asyncio.sleep(3600)


async def cancels_its_task_again_while_it_cleans_up() -> None:
    own_task().cancel()
    try:
        await asyncio.sleep(0)
    finally:
        own_task().cancel()


async def raises_cancelled_error() -> None:
    raise asyncio.CancelledError


async def cleans_up_and_returns() -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(3600)


async def cleans_up_for_a_while_and_returns() -> None:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        await asyncio.sleep(0.02)


FAILURES: dict[str, tuple[Naughty, float | None, str]] = {
    "it cancels its task": (cancels_its_task, None, "because it cancelled the task it runs in"),
    "it cancels its task within its time": (cancels_its_task, 60, "because it cancelled the task it runs in"),
    "a callback of its own does": (cancels_its_task_from_a_callback, None, "because it cancelled the task it runs in"),
    "it does so twice": (cancels_its_task_again_while_it_cleans_up, None, "because it cancelled the task it runs in"),
    "it raises CancelledError": (raises_cancelled_error, None, "although nobody cancelled it"),
    "it returns when its time is up": (cleans_up_and_returns, 0.01, "took longer than 0.01 s"),
    "it cleans up when its time is up": (cleans_up_for_a_while_and_returns, 0.01, "took longer than 0.01 s"),
}


def made(naughty: Naughty, timeout: float | None) -> tuple[Octopus, dict[str, list[tuple[int, str]]]]:
    """Make an app whose handlers misbehave at the value 1, by themselves, in a batch, in company and in middleware."""
    app = Octopus("naughty", settings={"topics": {"partitions": 1}})
    done: dict[str, list[tuple[int, str]]] = defaultdict(list)
    twice = RetryPolicy(attempts=2, backoff=0.001)

    async def work(name: str, value: int) -> None:
        if value == 1:
            await naughty()
            return  # what is noted below would count
        done[name].append((value, "done"))

    @app.on(TOPIC, retry=twice, timeout=timeout)
    async def alone(value: int) -> None:
        await work("alone", value)

    @app.on(TOPIC, retry=twice, timeout=timeout, ordering="none", to="out")
    async def side_by_side(value: int) -> int:
        await work("side_by_side", value)
        return value

    @app.on(TOPIC, retry=twice, timeout=timeout, batch=3, within=0.01)
    async def together(values: list[int]) -> None:
        for value in values:
            if value == 1:
                await naughty()
                return
        for value in values:
            done["together"].append((value, "done"))

    for name in ("shared_first", "shared_second"):

        async def shared(value: int, name: str = name) -> None:
            if name == "shared_first":
                await work(name, value)
            else:
                done[name].append((value, "done"))

        app.on(TOPIC, group="shared", retry=twice, name=name, timeout=timeout)(shared)
    return app, done


def made_with_middleware(naughty: Naughty, timeout: float | None) -> tuple[Octopus, dict[str, list[tuple[int, str]]]]:
    app = Octopus("naughty", settings={"topics": {"partitions": 1}})
    done: dict[str, list[tuple[int, str]]] = defaultdict(list)

    @app.middleware
    async def misbehaving(record: Record | Batch, call_next: Next) -> Outcome:
        outcome = await call_next(record)
        if isinstance(record, Record) and record.value == b"1":
            await naughty()
        return outcome

    @app.on(TOPIC, retry=RetryPolicy(attempts=2, backoff=0.001), timeout=timeout)
    async def alone(value: int) -> None:
        if value != 1:
            done["alone"].append((value, "done"))

    return app, done


def through(driver: str, make: Callable[[], Any]) -> Seen:
    messages: list[Message[Any]] = [Message(value) for value in range(4)]
    match driver:
        case "worker":
            return asyncio.run(through_the_worker(messages, make))
        case "client":
            return asyncio.run(through_the_client(messages, make))
        case _:
            return through_the_function(messages, make, retry_in_process=True)


@pytest.mark.parametrize("driver", ["worker", "client", "function"])
@pytest.mark.parametrize(("naughty", "timeout", "reason"), FAILURES.values(), ids=FAILURES.keys())
def test_a_cancellation_that_nobody_else_wants_is_the_handlers_failure(
    driver: str, naughty: Naughty, timeout: float | None, reason: str
) -> None:
    seen = through(driver, lambda: made(naughty, timeout))
    rest = [(0, "done"), (2, "done"), (3, "done")]
    assert seen.done == {
        "alone": rest,
        "side_by_side": rest,
        "together": rest,
        "shared_first": rest,
        "shared_second": [(0, "done"), (1, "done"), (2, "done"), (3, "done")],
    }
    assert [value for _, value in seen.published["out"]] == [b"0", b"2", b"3"]
    assert {*seen.dead} == {("alone", 1), ("side_by_side", 1), ("together", 1), ("shared_first", 1)}
    for said, attempts, _ in seen.dead.values():
        assert reason in said
        assert attempts == "2"


@pytest.mark.parametrize("driver", ["worker", "client", "function"])
@pytest.mark.parametrize(("naughty", "timeout", "reason"), FAILURES.values(), ids=FAILURES.keys())
def test_what_middleware_makes_of_a_cancellation_is_a_failure_too(
    driver: str, naughty: Naughty, timeout: float | None, reason: str
) -> None:
    seen = through(driver, lambda: made_with_middleware(naughty, timeout))
    assert seen.done == {"alone": [(0, "done"), (2, "done"), (3, "done")]}
    assert reason in seen.dead["alone", 1][0]


@pytest.mark.parametrize("ordering", ["partition", "none"])
@pytest.mark.parametrize("driver", ["worker", "client", "function"])
def test_a_request_that_is_never_taken_back_harms_no_other_event(driver: str, ordering: Ordering) -> None:
    def make() -> tuple[Octopus, dict[str, list[tuple[int, str]]]]:
        app = Octopus("naughty", settings={"topics": {"partitions": 1}})
        done: dict[str, list[tuple[int, str]]] = defaultdict(list)

        @app.on(TOPIC, retry=1, ordering=ordering, concurrency=1)
        async def handle(value: int) -> None:
            await asyncio.sleep(0)
            done["handle"].append((value, "done"))
            if value == 1:
                own_task().cancel()  # and returns before it could arrive
            if value == 2:
                own_task().cancel()
                with contextlib.suppress(asyncio.CancelledError):  # as libraries do that know nothing of uncancel()
                    await asyncio.sleep(1)

        return app, done

    seen = through(driver, make)
    assert [offset for offset, _ in seen.done["handle"]] == [0, 1, 2, 3]
    assert seen.dead == {}


async def test_taking_back_forgets_all_requests_unless_the_end_is_wanted_after_all() -> None:
    left: list[int] = []
    slot = Slot(None)

    async def work() -> None:
        judge_by(slot)
        task = own_task()
        assert not is_wanted()
        task.cancel()
        task.cancel()
        await take_back(task)
        left.append(task.cancelling())
        await asyncio.sleep(0)
        slot.end(task)
        await take_back(task)

    task = asyncio.create_task(work())
    await asyncio.wait([task])
    assert left == [0]
    assert task.cancelled()


async def test_where_nobody_says_how_to_tell_a_cancellation_is_meant() -> None:
    assert is_wanted()
