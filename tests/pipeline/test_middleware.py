"""The app's own middleware, around both forms of a road."""

from typing import Any

import pytest

from octopus import Event, Next, Octopus, RetryPolicy, config
from octopus.claim import Claim
from octopus.events import Batch, Record, TopicPartition
from octopus.outcomes import DONE, SKIPPED, DeadLetter, Outcome, Retry
from octopus.pipeline import Pipeline
from octopus.pipeline.claims import one_by_one
from octopus.transports.memory import MemoryBroker, MemoryTransport
from octopus.types import Run
from tests.staged import P0, record, records


async def handler(value: Any) -> None: ...


def pipelines(app: Octopus, broker: MemoryBroker | None = None) -> list[Pipeline]:
    return app.pipelines(MemoryTransport(broker).producer(), config.load({}))


@pytest.fixture(autouse=True, params=["fused", "wrapped"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Form, "is_wrapped", request.param == "wrapped")


def stored(offset: int, value: bytes | None) -> Record:
    return Record("t", 0, offset, 0, None, value)


class Form:
    """Which form of the road runs."""

    is_wrapped = False


def run_of(pipeline: Pipeline) -> Run:
    (road,) = pipeline.roads
    return road.wrapped(P0) if Form.is_wrapped else one_by_one(pipeline.bind(P0))


async def run_with(app: Octopus, stored: Any, broker: MemoryBroker | None = None) -> Any:
    (pipeline,) = pipelines(app, broker)
    return await run_of(pipeline)(stored, 1)


async def test_middleware_is_put_together_once_and_not_anew_for_each_record() -> None:
    app, links = Octopus("app"), []

    for _ in range(3):

        @app.middleware
        async def passing(record: Any, call_next: Any) -> Outcome:
            links.append(call_next)
            return await call_next(record)

    @app.on("t")
    async def handle(value: Any) -> None: ...

    (pipeline,) = pipelines(app)
    claim = Claim([stored(number, b"1") for number in range(20)])
    assert await pipeline.bind(P0)(claim) is DONE
    assert len(links) == 60
    assert len({*map(id, links)}) == 3


async def test_middleware_around_a_claim_keeps_attempts_and_counts_what_is_skipped() -> None:
    app, seen = Octopus("app"), []

    @app.middleware
    async def passing(record: Any, call_next: Any) -> Outcome:
        return await call_next(record) if record.offset != 3 else SKIPPED

    @app.on("t", filter={"n": [1]}, retry=RetryPolicy(attempts=9, backoff=7, jitter=0))
    async def handle(event: Event[dict[str, int]]) -> None:
        seen.append((event.offset, event.attempt))
        if event.offset == 5:
            raise ValueError("not yet")

    (pipeline,) = pipelines(app)
    values = [b'{"n":1}', b'{"n":2}', b'{"n":1}', b'{"n":1}', b'{"n":1}', b'{"n":1}', b'{"n":1}']
    claim = Claim([stored(number, value) for number, value in enumerate(values)], 4)
    outcome = await pipeline.bind(P0)(claim)
    assert isinstance(outcome, Retry)
    assert outcome.after == 7
    assert (claim.taken, claim.skipped) == (6, 2)
    assert seen == [(0, 4), (2, 1), (4, 1), (5, 1)]


async def test_the_first_middleware_is_the_outermost_and_sees_records_and_exceptions() -> None:
    app, log = Octopus("app"), []

    @app.middleware
    async def outer(record: Any, call_next: Any) -> Outcome:
        log.append(("outer", record.coordinates))
        try:
            return await call_next(record)
        finally:
            log.append("left")

    @app.middleware
    async def inner(record: Any, call_next: Any) -> Outcome:
        log.append("inner")
        try:
            return await call_next(record)
        except ValueError:
            log.append("seen")
            raise

    @app.on("t", retry=RetryPolicy(attempts=2, backoff=7, jitter=0))
    async def handle(value: Any) -> None:
        raise ValueError("no")

    outcome = await run_with(app, record(3))
    assert log == [("outer", "t[0]@3"), "inner", "seen", "left"]
    assert outcome.after == 7


async def test_middleware_may_skip_or_change_a_record() -> None:
    app, seen = Octopus("app"), []

    @app.middleware
    async def change(given: Any, call_next: Any) -> Outcome:
        if given.offset == 0:
            return SKIPPED
        return await call_next(record(given.offset, value=b"7"))

    @app.on("t")
    async def handle(event: Event[int]) -> None:
        seen.append(event.value)

    assert await run_with(app, record(0)) is SKIPPED
    assert await run_with(app, record(1)) is DONE
    assert seen == [7]


async def test_a_dead_letter_that_middleware_returns_is_published_first() -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.middleware
    async def refuse(given: Any, call_next: Any) -> Outcome:
        return DeadLetter("not today")

    app.on("t")(handler)
    assert await run_with(app, record(0), broker) == DeadLetter("not today", rejected=True)
    assert broker.log(TopicPartition("t.dead-letter", 0)).end == 1


async def test_a_retry_that_middleware_returns_is_taken() -> None:
    app = Octopus("app")

    @app.middleware
    async def later(given: Any, call_next: Any) -> Outcome:
        return Retry(5.0)

    app.on("t")(handler)
    assert await run_with(app, record(0)) == Retry(5.0)


async def passing(given: Any, call_next: Any) -> Outcome:
    return await call_next(given)


async def forgetful(given: Any, call_next: Any) -> None:
    await call_next(given)


async def inventive(given: Any, call_next: Any) -> Any:
    await call_next(given)
    return {"status": "ok"}


def not_async(given: Any, call_next: Any) -> None:
    call_next(given).close()


NO_OUTCOME = {
    "nothing": (forgetful, "middleware 'forgetful' of handler 'handler' returned None, which is no outcome"),
    "something else": (
        inventive,
        "middleware 'inventive' of handler 'handler' returned a value of type dict, which is",
    ),
    "no coroutine": (
        not_async,
        "middleware 'not_async' of handler 'handler' is not async and returned None: write `async",
    ),
}


@pytest.mark.parametrize("chain", ["alone", "inside", "outside"])
@pytest.mark.parametrize(("middleware", "sentence"), NO_OUTCOME.values(), ids=NO_OUTCOME)
async def test_middleware_that_forgets_to_return_is_named_in_a_dead_letter_without_retries(
    middleware: Any, sentence: str, chain: str
) -> None:
    app, broker = Octopus("app"), MemoryBroker()
    for each in {"inside": [passing, middleware], "outside": [middleware, passing]}.get(chain, [middleware]):
        app.middleware(each)
    app.on("t", retry=5)(handler)
    (pipeline,) = pipelines(app, broker)
    outcome = await run_of(pipeline)(record(0), 1)
    assert isinstance(outcome, DeadLetter)
    assert sentence in outcome.reason
    assert broker.log(TopicPartition("t.dead-letter", 0)).end == 1


async def test_middleware_of_a_batch_that_forgets_to_return_runs_its_handler_once() -> None:
    app, runs = Octopus("app"), []
    app.middleware(forgetful)

    @app.on("t", batch=10)
    async def handle(values: list[Any]) -> None:
        runs.append(len(values))

    outcome = await run_with(app, Batch(records(range(3))))
    assert [type(single) for _, single in outcome.outcomes()] == [DeadLetter] * 3
    assert runs == [3]


async def test_middleware_knows_the_handler_the_attempt_and_the_partition() -> None:
    app, seen = Octopus("app"), []

    for _ in range(2):

        @app.middleware
        async def watching(given: Record | Batch, call_next: Next) -> Outcome:
            seen.append((call_next.handler, call_next.attempt, given.topic, given.partition))
            return await call_next(given)

    @app.on("t", name="single")
    async def single(value: Any) -> None: ...

    @app.on("t", batch=3)
    async def several(values: list[Any]) -> None: ...

    first, second = pipelines(app)
    run, run_batch = run_of(first), run_of(second)
    await run(record(0), 1)
    await run(record(0), 7)
    await run(record(0), 2)
    await run_batch(Batch(records(range(2))), 3)
    assert seen[::2] == seen[1::2]  # whichever it is
    assert seen[::2] == [("single", 1, "t", 0), ("single", 7, "t", 0), ("single", 2, "t", 0), ("several", 3, "t", 0)]


async def test_the_middleware_of_a_batch_may_pass_on_a_part_of_it() -> None:
    app, seen = Octopus("app"), []

    @app.middleware
    async def fresh(batch: Batch, call_next: Any) -> Outcome:
        return await call_next(Batch(each for each in batch if each.offset % 2))

    @app.on("t", batch=10)
    async def handle(events: list[Event[Any]]) -> None:
        seen.extend(event.offset for event in events)

    outcome = await run_with(app, Batch(records(range(4))))
    assert [(each.offset, single) for each, single in outcome.outcomes()] == [
        (0, SKIPPED),
        (1, DONE),
        (2, SKIPPED),
        (3, DONE),
    ]
    assert seen == [1, 3]


@pytest.mark.parametrize("given", [DONE, SKIPPED, Retry(2.0)], ids=repr)
async def test_the_middleware_of_a_batch_may_decide_for_all_of_it(given: Outcome) -> None:
    app = Octopus("app")

    @app.middleware
    async def decide(batch: Batch, call_next: Any) -> Outcome:
        return given

    app.on("t", batch=10)(handler)
    outcome = await run_with(app, Batch(records(range(2))))
    assert [single for _, single in outcome.outcomes()] == [given, given]
    assert outcome.retry == (given if isinstance(given, Retry) else None)
