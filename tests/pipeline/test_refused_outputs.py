"""A run fails once, whatever was refused of what it has published, and nobody waits for what is never concluded."""

import asyncio
from typing import Any

import pytest

from octopus import Event, Message, Next, Octopus, Record, RetryPolicy
from octopus.errors import ConnectionFailed, NotAuthorized, RecordTooLarge
from octopus.outcomes import Outcome, Retry
from octopus.testing import VirtualTime
from tests.pipeline.aloft import Make
from tests.staged import P1, turns

TWICE = RetryPolicy(attempts=2, backoff=0.1, jitter=0)


@pytest.mark.parametrize("is_shared", [False, True], ids=["alone", "in a shared group"])
async def test_a_run_whose_outputs_are_refused_in_several_publications_fails_once(aloft: Make, is_shared: bool) -> None:
    app, seen = Octopus("app"), []

    @app.on("t", to="out", group="g", retry=TWICE)
    async def many(event: Event[int]) -> list[int]:
        seen.append(event.attempt)
        return [*range(1200)]

    if is_shared:

        @app.on("t", group="g", retry=TWICE)
        async def other(value: int) -> None:
            return

    group = aloft(app)
    assignment = await group.begin(1)
    await group.settle(1, 600, 1100)
    assert seen == [1, 2]
    assert [each.topic for each in group.producer.sent] == ["t.dead-letter"]
    assert (assignment.retried, assignment.dead_lettered, assignment.ledger.committable) == (1, 1, 1)


@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_batch_fails_once_where_what_it_publishes_soon_and_what_it_returns_are_refused(
    aloft: Make, attempts: int
) -> None:
    app, seen = Octopus("app"), []

    @app.on("t", to="out", batch=3, retry=RetryPolicy(attempts=attempts, backoff=0.1, jitter=0))
    async def total(batch: list[int]) -> int:
        seen.append(batch)
        app.publish_soon("side", 1000)
        return 2000

    group = aloft(app)
    assignment = await group.begin(1, 2, 3)
    await group.settle(1000, 2000)
    assert seen == [[1, 2, 3]] * attempts + [[1], [2], [3]]
    assert [each.value for each in group.producer.sent] == [b"1", b"2", b"3"]
    assert assignment.ledger.committable == 3


async def test_what_a_batch_publishes_soon_is_not_of_its_records_that_cannot_be_read(aloft: Make) -> None:
    app, seen = Octopus("app"), []

    @app.on("t", batch=3, retry=TWICE)
    async def handle(batch: list[int]) -> None:
        seen.append(batch)
        app.publish_soon("side", 1000)

    group = aloft(app)
    assignment = await group.begin(1, "two", 3)
    await group.settle(1000)
    assert seen == [[1, 3], [1, 3], [1], [3]]
    assert sorted(each.value or b"" for each in group.producer.sent) == [b'"two"', b"1", b"3"]
    assert assignment.ledger.committable == 3


@pytest.mark.parametrize("options", [{}, {"timeout": 100.0}, {"batch": 1}], ids=["bare", "timeout", "batch"])
async def test_an_output_of_a_run_that_middleware_repeats_is_no_failure_of_the_next(
    aloft: Make, options: dict[str, Any]
) -> None:
    app, seen = Octopus("app"), []

    @app.middleware
    async def twice(record: Record, call_next: Next) -> Outcome:
        outcome = await call_next(record)
        return Retry(0.1) if call_next.attempt == 1 else outcome

    @app.on("t", to="out", retry=TWICE, **options)
    async def handle(value: Any) -> int:
        seen.append(value)
        return len(seen)

    group = aloft(app)
    assignment = await group.begin(5)
    await group.settle(1)
    assert len(seen) == 2
    assert not group.producer.sent
    assert assignment.ledger.committable == 1


@pytest.mark.parametrize("has_gone_on", [False, True], ids=["before the next record", "during the next record"])
async def test_a_task_that_outlives_its_handler_publishes_for_itself(aloft: Make, has_gone_on: bool) -> None:
    app, tasks = Octopus("app"), []

    async def publish_later() -> "asyncio.Future[Any]":
        await asyncio.sleep(5)
        return app.publish_soon("side", 99)

    @app.on("t", retry=TWICE)
    async def handle(value: int) -> None:
        if value == 1:
            tasks.append(asyncio.create_task(publish_later()))
        else:
            await asyncio.sleep(10)

    group = aloft(app)
    await group.begin(1)
    after = await group.begin(*([2] if has_gone_on else []), partition=P1)
    await asyncio.sleep(6)
    await group.producer.fail(RecordTooLarge("large"))
    assert isinstance(tasks[0].result().exception(), RecordTooLarge)
    await group.settle()
    assert not group.producer.sent
    assert after.ledger.committable == int(has_gone_on)


async def test_a_message_that_has_no_size_is_its_records_failure_and_nobody_elses(aloft: Make) -> None:
    app = Octopus("app")

    @app.on("t", to="out", retry=RetryPolicy(attempts=1))
    async def handle(value: int) -> Any:
        return Message(value, key=5) if value == 1 else value  # type: ignore[arg-type]

    group = aloft(app)
    assignment = await group.begin(0, 1, 2)
    await group.settle()
    assert [each.value for each in group.producer.sent] == [b"1"]
    assert [each.value for each in group.producer.stored] == [b"0", b"2"]
    assert assignment.ledger.committable == 3


async def test_headers_count_as_bytes_on_their_way(aloft: Make) -> None:
    app, seen = Octopus("app"), []

    @app.on("t", to="out")
    async def handle(value: int) -> Message[int]:
        seen.append(value)
        return Message(value, headers={"large": b"x" * 1000})

    group = aloft(app, limit=2000)
    await group.begin(*range(50))
    assert len(seen) == 2


async def test_a_drain_does_not_wait_for_refusals_that_are_not_concluded_any_more(
    aloft: Make, virtual_time: VirtualTime
) -> None:
    app = Octopus("app")

    @app.on("t", to="out", retry=RetryPolicy(attempts=1), dead_letter=False)
    async def handle(value: int) -> int:
        return value

    group = aloft(app)
    assignment = await group.begin(0, 1, 2)
    await group.producer.fail(NotAuthorized("no"), 0, 1)
    while group.producer.airborne:
        await group.producer.fail(NotAuthorized("no"))
    assert group.runner.stopped.done()
    began = virtual_time.time()
    assert await group.runner.drain([assignment], 30)
    assert virtual_time.time() == began
    assert assignment.ledger.unsettled() == [0, 1]


async def test_a_drain_does_not_wait_for_what_is_lost_meanwhile(aloft: Make) -> None:
    app = Octopus("app")

    @app.on("t", to="out")
    async def handle(value: int) -> int:
        return value

    group = aloft(app)
    assignment = await group.begin(0)
    drain = asyncio.ensure_future(group.runner.drain([assignment], 30))
    await turns()
    group.runner.revoke([assignment])
    await turns()
    assert await drain
    assert assignment.ledger.committable == 0


async def test_what_fails_for_now_beside_what_is_refused_is_not_sent_again_without_a_wait(aloft: Make) -> None:
    app = Octopus("app")

    @app.on("t", to="out", retry=RetryPolicy(attempts=1))
    async def handle(value: int) -> int:
        return value

    group = aloft(app)
    assignment = await group.begin(0, 1)
    await group.producer.fail(RecordTooLarge("one of them"))
    assert group.producer.airborne == [[0], [1]]
    await group.producer.fail(RecordTooLarge("this one"))
    await group.producer.fail(ConnectionFailed("gone"))
    await turns()
    assert not group.producer.airborne
    await group.settle()
    assert [each.value for each in group.producer.sent] == [b"0"]
    assert assignment.ledger.committable == 2


async def test_who_waits_for_what_was_published_soon_is_told_when_its_partition_is_gone(aloft: Make) -> None:
    app, published = Octopus("app"), []

    @app.on("t")
    async def handle(value: int) -> None:
        published.append(app.publish_soon("side", value))

    group = aloft(app)
    gone = await group.begin(0)
    group.runner.revoke([gone])
    await group.producer.fail(ConnectionFailed("gone"))
    await turns()
    assert published[0].cancelled()
    assert not group.producer.airborne
