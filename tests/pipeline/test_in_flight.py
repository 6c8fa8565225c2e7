"""Handlers do not wait for what they publish, their records do."""

import asyncio
import logging
import random
from collections import defaultdict
from typing import Any

import pytest

from octopus import Event, Next, Octopus, Record, Reject, RetryPolicy
from octopus.errors import ConnectionFailed, HandlerStopped, NotAuthorized, RecordTooLarge, TransportError
from octopus.outcomes import Outcome
from tests.pipeline.aloft import Make, values
from tests.staged import P1, turns

QUICK = RetryPolicy(attempts=3, backoff=0.1, jitter=0)


def doubling(**options: Any) -> tuple[Octopus, list[tuple[int, int]]]:
    """An app that doubles numbers, and the values and attempts that its handler has seen."""
    app, seen = Octopus("app"), []

    @app.on("t", to="out", **({"retry": QUICK} | options))
    async def double(event: Event[int]) -> int:
        seen.append((event.value, event.attempt))
        return 2 * event.value

    return app, seen


# ── what settles when ─────────────────────────────────────────────────────────────────────────────────────────────────


FORMS: dict[str, dict[str, Any]] = {
    "partition": {},
    "key": {"ordering": "key"},
    "none": {"ordering": "none"},
    "timeout": {"timeout": 60.0},
}


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("has_middleware", [False, True], ids=["bare", "middleware"])
async def test_a_lane_goes_on_before_outputs_are_acknowledged_and_their_records_settle_after(
    aloft: Make, options: dict[str, Any], has_middleware: bool
) -> None:
    app, seen = doubling(**options)
    if has_middleware:
        app.middleware(passing)
    group = aloft(app)
    assignment = await group.begin(0, 1, 2, keys=[b"k"] * 3)
    assert [value for value, _ in seen] == [0, 1, 2]
    assert group.producer.outputs == [0, 2, 4]
    assert assignment.ledger.unsettled() == [0, 1, 2]
    await group.producer.store(3)
    assert assignment.ledger.committable == 3


async def passing(record: Record, call_next: Next) -> Outcome:
    return await call_next(record)


async def test_records_without_outputs_settle_at_once_where_nothing_is_on_its_way(aloft: Make) -> None:
    app = Octopus("app")

    @app.on("t", to="out")
    async def odd(value: int) -> int | None:
        return value if value % 2 else None

    group = aloft(app)
    assignment = await group.begin(0, 2, 4)
    assert assignment.ledger.committable == 3
    assert not group.producer.queued
    await group.submit(assignment, 5, 6)
    assert assignment.ledger.committable == 3
    await group.producer.store()
    assert assignment.ledger.committable == 5


async def test_records_settle_in_the_order_of_publications_however_those_are_acknowledged(aloft: Make) -> None:
    app, _ = doubling()
    group = aloft(app)
    assignment = await group.begin(0)
    await group.submit(assignment, 1)
    (first, held), (second, early) = group.producer.queued
    assert (values(first), values(second)) == ([0], [2])
    early.set_result([])
    await turns()
    assert assignment.ledger.unsettled() == [0, 1]
    held.set_result([])
    await turns()
    assert assignment.ledger.committable == 2


async def test_outputs_of_partitions_share_a_publication(aloft: Make) -> None:
    app, _ = doubling()
    group = aloft(app)
    first = group.runner.open(P1, 0)
    second = await group.begin(10, 11)
    await group.submit(first, 20)
    assert [sorted(each) for each in group.producer.airborne] in ([[20, 22], [40]], [[20, 22, 40]])
    await group.producer.store(2)
    assert (first.ledger.committable, second.ledger.committable) == (1, 2)


async def test_many_outputs_go_out_without_the_turn_of_the_loop(aloft: Make) -> None:
    app = Octopus("app")

    @app.on("t", to="out")
    async def many(value: int) -> list[int]:
        return [*range(value)]

    group = aloft(app)
    assignment = await group.begin(1200)
    assert [len(each) for each in group.producer.airborne] == [500, 500, 200]
    await group.producer.store(2)
    assert assignment.ledger.unsettled() == [0]
    await group.producer.store()
    assert assignment.ledger.committable == 1


async def test_a_handler_that_waits_lets_the_outputs_before_it_go(aloft: Make) -> None:
    app, release = Octopus("app"), asyncio.Event()

    @app.on("t", to="out")
    async def handle(value: int) -> int:
        if value == 2:
            await release.wait()
        return value

    group = aloft(app)
    assignment = await group.begin(0, 1, 2, 3)
    await group.producer.store()
    assert assignment.ledger.committable == 2
    release.set()
    await turns()
    await group.producer.store()
    assert assignment.ledger.committable == 4


async def test_a_record_of_several_handlers_waits_for_the_outputs_of_all(aloft: Make) -> None:
    app = Octopus("app")

    @app.on("t", to="one", group="g")
    async def first(value: int) -> int:
        return value

    @app.on("t", to="two", group="g")
    async def second(value: int) -> int:
        await asyncio.sleep(1)
        return -value

    group = aloft(app)
    assignment = await group.begin(1)
    await group.producer.store()
    assert assignment.ledger.unsettled() == [0]
    await asyncio.sleep(2)
    assert assignment.ledger.unsettled() == [0]
    await group.producer.store()
    assert assignment.ledger.committable == 1


async def test_a_batch_settles_when_its_outputs_are_acknowledged_and_the_next_one_does_not_wait(aloft: Make) -> None:
    app = Octopus("app")

    @app.on("t", to="out", batch=2)
    async def total(batch: list[int]) -> int:
        return sum(batch)

    group = aloft(app)
    assignment = await group.begin(1, 2, 3, 4)
    assert group.producer.outputs == [3, 7]
    assert assignment.ledger.in_flight == 4
    await group.producer.store(2)
    assert assignment.ledger.committable == 4


# ── what cannot be stored for now ─────────────────────────────────────────────────────────────────────────────────────


async def test_what_failed_is_sent_again_in_order_before_anything_newer(
    aloft: Make, caplog: pytest.LogCaptureFixture
) -> None:
    app, seen = doubling()
    group = aloft(app)
    assignment = await group.begin(0, 1)
    await group.submit(assignment, 2)
    with caplog.at_level(logging.INFO, "octopus.handlers"):
        await group.producer.fail(ConnectionFailed("gone"), 2)
        await group.submit(assignment, 3)
        assert not group.producer.airborne
        for _ in range(3):
            await asyncio.sleep(6)
            assert group.producer.airborne == [[2, 4]]
            await group.producer.fail(ConnectionFailed("gone"))
        await asyncio.sleep(6)
        await group.producer.store()
        assert group.producer.airborne == [[6]]
        await group.producer.store()
    assert values(group.producer.stored) == [0, 2, 4, 6]
    assert assignment.ledger.committable == 4
    assert [value for value, _ in seen] == [0, 1, 2, 3]
    assert len([each for each in caplog.records if "results wait to be published" in each.getMessage()]) == 1


async def test_handlers_wait_where_too_much_is_on_its_way(aloft: Make) -> None:
    app, seen = doubling()
    group = aloft(app, limit=4)
    assignment = await group.begin(*range(100, 120))
    assert len(seen) == 2  # of three bytes each
    assert group.outputs.is_full
    await group.producer.store()
    await group.producer.store()
    assert len(seen) > 2
    while group.producer.airborne:
        await group.producer.store()
    assert assignment.ledger.committable == 20
    assert not group.outputs.size_bytes


# ── what is refused for good ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
async def test_a_refused_output_brings_its_record_back_and_later_ones_have_gone_on(
    aloft: Make, options: dict[str, Any]
) -> None:
    app, seen = doubling(**options)
    group = aloft(app)
    assignment = await group.begin(0, 1, 2)
    for _ in range(len(group.producer.airborne)):
        if 2 in group.producer.airborne[0]:
            await group.producer.fail(RecordTooLarge("large"), 2)
        else:
            await group.producer.store()
    assert assignment.ledger.unsettled() == [1]
    assert assignment.ledger.ahead == 1
    await asyncio.sleep(0.2)
    assert seen == [(0, 1), (1, 1), (2, 1), (1, 2)]
    await group.producer.store()
    assert assignment.ledger.committable == 3


async def test_an_output_that_is_always_refused_ends_in_a_dead_letter(
    aloft: Make, caplog: pytest.LogCaptureFixture
) -> None:
    app, seen = doubling()
    group = aloft(app)
    assignment = await group.begin(7)
    for attempt in (1, 2, 3):
        assert seen[-1] == (7, attempt)
        assert assignment.ledger.unsettled() == [0]
        await group.producer.fail(RecordTooLarge("large"))
        await asyncio.sleep(1)
    [dead] = group.producer.sent
    assert (dead.topic, dead.value) == ("t.dead-letter", b"7")
    assert assignment.ledger.committable == 1
    assert (assignment.dead_lettered, assignment.retried) == (1, 2)


async def test_which_of_several_outputs_are_refused_is_found_one_by_one(aloft: Make) -> None:
    app, seen = doubling()
    group = aloft(app)
    assignment = await group.begin(0, 1, 2, 3)
    await group.producer.fail(RecordTooLarge("one of them"), 2, 4)
    assert group.producer.airborne == [[2], [4]]
    await group.producer.store()
    await group.producer.fail(RecordTooLarge("this one"))
    assert assignment.ledger.unsettled() == [2]
    await asyncio.sleep(0.2)
    assert seen[-1] == (2, 2)
    await group.producer.store()
    assert assignment.ledger.committable == 4


async def test_a_refused_record_waits_for_its_lane(aloft: Make) -> None:
    app, running, most = Octopus("app"), [], []
    release = asyncio.Event()

    @app.on("t", to="out", retry=QUICK)
    async def handle(value: int) -> int:
        running.append(value)
        most.append([*running])
        if value == 1:
            await release.wait()
        running.remove(value)
        return value

    group = aloft(app)
    assignment = await group.begin(0, 1, 2)
    await group.producer.fail(RecordTooLarge("large"))
    await asyncio.sleep(5)
    assert most == [[0], [1]]
    release.set()
    await turns()
    assert most == [[0], [1], [2], [0]]  # behind the claim that had the lane
    while group.producer.airborne:
        await group.producer.store()
    assert assignment.ledger.committable == 3


@pytest.mark.parametrize("ordering", ["partition", "key", "none"])
async def test_only_the_handler_whose_output_was_refused_runs_again(aloft: Make, ordering: Any) -> None:
    app, seen = Octopus("app"), []

    @app.on("t", to="one", group="g", retry=QUICK, ordering=ordering)
    async def first(event: Event[int]) -> int:
        seen.append(("first", event.attempt))
        return 1

    @app.on("t", to="two", group="g", retry=QUICK, ordering=ordering)
    async def second(event: Event[int]) -> int:
        seen.append(("second", event.attempt))
        return 2

    group = aloft(app)
    assignment = await group.begin(0)
    await group.producer.fail(RecordTooLarge("large"), 2)
    await asyncio.sleep(0.2)
    assert seen == [("first", 1), ("second", 1), ("second", 2)]
    await group.producer.fail(RecordTooLarge("large"), 2)
    await asyncio.sleep(0.3)
    assert seen[-1] == ("second", 3)
    await group.producer.store()
    assert assignment.ledger.committable == 1


async def test_a_batch_whose_output_is_refused_runs_again_together_and_at_last_one_by_one(aloft: Make) -> None:
    app, seen = Octopus("app"), []

    @app.on("t", to="out", batch=3, retry=RetryPolicy(attempts=2, backoff=0.1, jitter=0))
    async def total(batch: list[int]) -> int:
        seen.append(batch)
        return sum(batch)

    group = aloft(app)
    assignment = await group.begin(1, 2, 3)
    await group.producer.fail(RecordTooLarge("large"))
    await asyncio.sleep(0.2)
    await group.producer.fail(RecordTooLarge("large"))
    assert seen == [[1, 2, 3], [1, 2, 3], [1], [2], [3]]
    assert group.producer.outputs == [1, 2, 3]
    while group.producer.airborne:
        if [2] in group.producer.airborne or 2 in group.producer.airborne[0]:
            await group.producer.fail(RecordTooLarge("large"), 2)
        else:
            await group.producer.store()
    await asyncio.sleep(0.2)
    assert [each.value for each in group.producer.sent] == [b"2"]
    assert assignment.ledger.committable == 3


async def test_a_dead_letter_that_nobody_takes_stops_processing(aloft: Make) -> None:
    app, _ = doubling(dead_letter=False, retry=RetryPolicy(attempts=1))
    group = aloft(app)
    assignment = await group.begin(1)
    await group.producer.fail(NotAuthorized("no"))
    await turns()
    assert isinstance(group.runner.stopped.result(), HandlerStopped)
    assert assignment.ledger.unsettled() == [0]


async def test_a_name_that_is_no_topic_is_the_handlers_mistake_and_never_retried(aloft: Make) -> None:
    from octopus.errors import ConfigurationError

    app, seen = doubling()
    group = aloft(app)
    assignment = await group.begin(1)
    group.producer.queued[0][1].set_exception(ConfigurationError("'!' is not a topic name"))
    await turns()
    assert (len(seen), len(group.producer.sent)) == (1, 1)
    assert assignment.ledger.committable == 1


async def test_where_retries_are_somebody_elses_a_refused_record_stays_open(aloft: Make) -> None:
    app, seen = doubling()
    group = aloft(app, reschedule=False)
    assignment = await group.begin(0, 1)
    await group.producer.fail(RecordTooLarge("large"), 0)
    await group.runner.quiet()
    assert assignment.ledger.unsettled() == [0]
    assert len(seen) == 2


# ── ends ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_drain_waits_for_acknowledgements(aloft: Make) -> None:
    app, _ = doubling()
    group = aloft(app)
    assignment = await group.begin(0, 1)
    drain = asyncio.ensure_future(group.runner.drain([assignment], 10))
    await asyncio.sleep(5)
    assert not drain.done()
    await group.producer.store()
    assert await drain
    assert assignment.ledger.committable == 2


async def test_a_drain_gives_up_on_acknowledgements_in_time_and_nothing_settles(aloft: Make) -> None:
    app, _ = doubling()
    group = aloft(app)
    assignment = await group.begin(0, 1)
    assert not await group.runner.drain([assignment], 10)
    group.runner.revoke([assignment])
    await group.producer.store()
    assert assignment.ledger.committable == 0


async def test_what_failed_of_a_closed_assignment_is_not_sent_again(aloft: Make) -> None:
    app, _ = doubling()
    group = aloft(app)
    gone, kept = await group.begin(0), await group.begin(10, partition=P1)
    group.runner.revoke([gone])
    while group.producer.airborne:
        await group.producer.fail(ConnectionFailed("gone"))
    await asyncio.sleep(6)
    assert group.producer.airborne == [[20]]
    await group.producer.store()
    assert (gone.ledger.committable, kept.ledger.committable) == (0, 1)


async def test_a_refusal_during_a_drain_leaves_the_record_to_the_next_owner(aloft: Make) -> None:
    app, seen = doubling()
    group = aloft(app)
    assignment = await group.begin(0, 1)
    drain = asyncio.ensure_future(group.runner.drain([assignment], 10))
    await group.producer.fail(RecordTooLarge("large"), 0)
    assert await drain
    await asyncio.sleep(5)
    assert assignment.ledger.unsettled() == [0]
    assert len(seen) == 2


# ── what a handler publishes soon ─────────────────────────────────────────────────────────────────────────────────────


async def test_what_a_handler_publishes_soon_goes_out_before_what_it_returns(aloft: Make) -> None:
    app, stored = Octopus("app"), []

    @app.on("t", to="out")
    async def handle(value: int) -> int:
        stored.append(app.publish_soon("side", value))
        return 10 * value

    group = aloft(app)
    assignment = await group.begin(1, 2)
    assert group.producer.outputs == [1, 10, 2, 20]
    await group.producer.store(2)
    assert [each.result().topic for each in stored] == ["side", "side"]
    assert assignment.ledger.committable == 2


@pytest.mark.parametrize("is_early", [True, False], ids=["before it returns", "after"])
async def test_what_was_published_soon_and_is_refused_is_the_records_failure(aloft: Make, is_early: bool) -> None:
    app, seen, release = Octopus("app"), [], asyncio.Event()

    @app.on("t", retry=QUICK)
    async def handle(event: Event[int]) -> None:
        seen.append(event.attempt)
        app.publish_soon("side", event.value)
        if is_early:
            await release.wait()

    group = aloft(app)
    assignment = await group.begin(1)
    await group.producer.fail(RecordTooLarge("large"))
    release.set()
    await asyncio.sleep(0.2)
    assert seen == [1, 2]
    assert assignment.ledger.unsettled() == [0]
    await group.producer.store()
    assert assignment.ledger.committable == 1


async def test_what_a_failed_attempt_published_soon_is_nobodys_when_it_is_refused(aloft: Make) -> None:
    app, seen = Octopus("app"), []

    @app.on("t", retry=QUICK)
    async def handle(event: Event[int]) -> None:
        seen.append(event.attempt)
        if event.attempt == 1:
            app.publish_soon("side", event.value)
            raise ValueError("after that")

    group = aloft(app)
    assignment = await group.begin(1)
    await asyncio.sleep(0.2)
    assert seen == [1, 2]
    await group.producer.fail(RecordTooLarge("large"))
    await turns()
    assert assignment.ledger.committable == 1
    await asyncio.sleep(5)
    assert seen == [1, 2]


async def test_a_handler_that_publishes_soon_without_end_is_told_to_wait(aloft: Make) -> None:
    app, raised = Octopus("app"), []

    @app.on("t")
    async def handle(value: int) -> None:
        try:
            for _ in range(100):
                app.publish_soon("side", value)
        except TransportError as error:
            raised.append(error)
            raise Reject("enough") from error

    group = aloft(app, limit=10)
    await group.begin(1)
    assert "await the result" in str(raised[0])


# ── any order of events ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(60))
async def test_in_any_order_of_events_nothing_settles_unstored_and_outputs_keep_their_order(
    aloft: Make, seed: int
) -> None:
    chance = random.Random(seed)
    ordering = chance.choice(["partition", "key", "none"])
    app, runs = Octopus("app"), defaultdict(int)
    refused = {value for value in range(60) if chance.random() < 0.1}
    was_refused = frozenset(refused)

    @app.on("t", to="out", ordering=ordering, retry=RetryPolicy(attempts=0, backoff=0.01, jitter=0))
    async def handle(value: int) -> Any:
        runs[value] += 1
        if chance.random() < 0.2:
            await asyncio.sleep(chance.random())
        return value if value % 7 else None

    group = aloft(app)
    keys = [chance.choice([b"a", b"b", b"c"]) for _ in range(60)]
    assignment = await group.begin()
    producer, submitted = group.producer, 0

    def check() -> None:
        stored = {*values(producer.stored)}
        unsettled = {*assignment.ledger.unsettled()}
        for offset in range(submitted):
            assert offset in unsettled or offset in stored or not offset % 7

    for _ in range(2000):
        if submitted < 60 and chance.random() < 0.3:
            count = min(chance.randint(1, 9), 60 - submitted)
            span = slice(submitted, submitted + count)
            submitted += count
            await group.submit(assignment, *range(60)[span], keys=keys[span])
        elif producer.airborne:
            first = producer.airborne[0]
            bad = [value for value in first if value in refused]
            if chance.random() < 0.2:
                await producer.fail(ConnectionFailed("gone"), *first[chance.randrange(len(first)) :])
            elif bad:
                await producer.fail(RecordTooLarge("large"), *bad)
                if len(first) == 1:
                    refused -= {*bad}
            else:
                await producer.store()
        else:
            await asyncio.sleep(chance.choice([0, 0.05, 6]))
        check()
        if submitted == 60 and not assignment.ledger.in_flight:
            break
    assert assignment.ledger.committable == 60
    order = values(producer.stored)
    assert sorted({*order}) == [value for value in range(60) if value % 7]
    again = was_refused | {value for value, count in runs.items() if count > 1}
    for key in {*keys} if ordering == "key" else {None}:
        lane = [value for value in order if (key is None or keys[value] == key) and value not in again]
        if ordering != "none":
            assert lane == sorted(lane)


async def test_what_a_handler_awaits_waits_for_outputs_that_are_sent_again(aloft: Make) -> None:
    app = Octopus("app")

    @app.on("t", to="out", ordering="none", concurrency=9)
    async def handle(value: int) -> int | None:
        if not value:
            return value
        await app.publish("out", value)
        return None

    group = aloft(app)
    assignment = await group.begin(0)
    await group.producer.fail(ConnectionFailed("gone"))
    await group.submit(assignment, 1)
    await asyncio.sleep(6)
    assert not group.producer.sent
    await group.producer.store()
    assert values(group.producer.sent) == [1]
    assert assignment.ledger.committable == 2
