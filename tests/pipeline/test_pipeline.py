"""Pipelines: subscriptions, groups of several handlers, middleware."""

import re
from typing import Any

import msgspec
import pytest

from octopus import Event, Next, Octopus, RetryPolicy, Router, config
from octopus.errors import ConfigurationError, HandlerStopped
from octopus.events import Batch, Record, TopicPartition
from octopus.outcomes import DONE, SKIPPED, DeadLetter, Outcome, Retry
from octopus.pipeline import Pipeline, subscription
from octopus.pipeline.fan_out import fan_out, one_by_one
from octopus.publishing import Publisher
from octopus.transports.memory import MemoryBroker, MemoryTransport
from octopus.types import BatchOutcome, Claim
from tests.staged import P0, record, records


async def handler(value: Any) -> None: ...


def pipelines(app: Octopus, broker: MemoryBroker | None = None) -> list[Pipeline]:
    return app.pipelines(MemoryTransport(broker).producer(), config.load({}))


def subscribe(*topics: Any) -> Any:
    router = Router()
    for number, each in enumerate(topics):
        router.on(each, name=str(number))(handler)
    return subscription(router.routes)


# ── subscriptions ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_names_are_subscribed_by_name() -> None:
    assert subscribe("a", ["b", "a"]) == ("a", "b")


@pytest.mark.parametrize(
    ("topics", "taken", "left"),
    [
        ([re.compile("lab-.*")], ["lab-a"], ["lab", "xlab-a", "lab-a.dead-letter", "lab-a\n"]),
        ([re.compile(".*dead-letter")], ["a.dead-letter"], ["a", "a.dead-letter.dead-letter"]),
        (["plain.topic", re.compile("lab-.*")], ["plain.topic", "lab-1"], ["plainXtopic", "lab"]),
        ([re.compile("(?i)lab")], ["LAB"], ["labs"]),
        ([re.compile("lab", re.IGNORECASE), re.compile("x")], ["LAB", "x"], ["X"]),
        ([re.compile("lab  # the laboratory", re.VERBOSE), "b"], ["lab", "b"], ["lab  "]),
        ([re.compile("a|b"), re.compile("c|d")], ["a", "b", "c", "d"], ["ab"]),
    ],
    ids=["one", "dead letters", "with names", "global flag", "flag", "verbose", "alternatives"],
)
def test_patterns_and_names_become_one_pattern_without_dead_letters(topics: Any, taken: Any, left: Any) -> None:
    pattern = subscribe(*topics)
    assert [topic for topic in taken if not pattern.match(topic)] == []
    assert [topic for topic in left if pattern.match(topic)] == []


# ── several handlers in one group ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ({"ordering": "key"}, {}, "differ in ordering: 'key' and 'partition'"),
        ({}, {"start": "latest"}, "differ in start: 'earliest' and 'latest'"),
        ({"batch": 3}, {"batch": 4}, "differ in batch: 3 and 4"),
        ({"batch": 3}, {"batch": 3}, "batch handlers 'one' and 'two' cannot share group 'g'"),
    ],
    ids=["ordering", "start", "batch size", "batches"],
)
def test_handlers_that_cannot_share_a_group_are_refused(first: Any, second: Any, sentence: str) -> None:
    app = Octopus("app")
    app.on("t", group="g", name="one", **first)(handler)
    app.on("t", group="g", name="two", **second)(handler)
    with pytest.raises(ConfigurationError) as caught:
        pipelines(app)
    assert sentence in str(caught.value)


def test_a_group_takes_the_highest_concurrency_and_every_handler_its_own_group() -> None:
    app = Octopus("app")
    app.on("t", group="g", name="one", concurrency=5)(handler)
    app.on("u", group="g", name="two", concurrency=50)(handler)
    app.on("u", name="three")(handler)
    shared, own = pipelines(app)
    assert (shared.group, shared.concurrency, shared.topics) == ("g", 50, ("t", "u"))
    assert own.group == "app.three"


async def run_of(*outcomes: Outcome) -> Any:
    """Return a run that gives these outcomes one after the other, and what it was asked."""
    left, asked = [*outcomes], []

    async def run(stored: Any, attempt: int) -> Outcome:
        asked.append(attempt)
        return left.pop(0)

    return run, asked


async def test_each_of_several_handlers_is_retried_alone_and_counts_for_itself() -> None:
    one, asked_one = await run_of(DONE)
    two, asked_two = await run_of(Retry(1.0), Retry(5.0, counted=False), DONE)
    three, asked_three = await run_of(Retry(3.0), DeadLetter("no"))
    run = one_by_one(fan_out([one, two, three]))
    assert await run(record(0), 1) == Retry(3.0), "the longest wait"
    assert await run(record(0), 2) == Retry(5.0, counted=False)
    assert await run(record(0), 2) == DeadLetter("given up by one of several handlers")
    assert (asked_one, asked_two, asked_three) == ([1], [1, 2, 2], [1, 2])


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([DONE, SKIPPED], DONE),
        ([SKIPPED, SKIPPED], SKIPPED),
        ([DONE, DeadLetter("no")], DeadLetter("given up by one of several handlers")),
    ],
    ids=["one did it", "nobody wanted it", "one gave up"],
)
async def test_a_record_is_settled_by_what_all_handlers_made_of_it(outcomes: Any, expected: Outcome) -> None:
    runs = [(await run_of(each))[0] for each in outcomes]
    assert await one_by_one(fan_out(runs))(record(0), 1) == expected


async def test_a_record_goes_to_the_handlers_that_read_its_topic() -> None:
    app, seen = Octopus("app"), []

    @app.on("a", group="g")
    async def one(value: Any) -> None:
        seen.append("one")

    @app.on(["a", "b"], group="g")
    async def two(value: Any) -> None:
        seen.append("two")

    (pipeline,) = pipelines(app)
    await pipeline.bind(TopicPartition("b", 0))(record(0), 1)
    assert seen == ["two"]
    await pipeline.bind(TopicPartition("a", 0))(record(0), 1)
    assert seen == ["two", "one", "two"]


def stored(offset: int, value: bytes | None, headers: Any = ()) -> Record:
    return Record("t", 0, offset, 0, None, value, headers)


async def run_group(app: Octopus, *records: Any, broker: MemoryBroker | None = None) -> tuple[Any, Claim]:
    (pipeline,) = pipelines(app, broker)
    claim = Claim(records)
    return await pipeline.bind_claim(P0)(claim), claim


async def test_each_of_many_handlers_gets_what_it_filters_for_and_nothing_else() -> None:
    app, seen = Octopus("app"), []
    for number in range(20):

        def handler_of(number: int) -> Any:
            async def handle(value: dict[str, Any]) -> None:
                seen.append((number, value["n"]))

            return handle

        app.on("t", group="g", name=f"h{number}", filter={"kind": [f"k{number}"]})(handler_of(number))

    @app.on("t", group="g")
    async def everything(value: dict[str, Any]) -> None:
        seen.append(("all", value["n"]))

    @app.on("t", group="g", filter={"n": [{"numeric": [">", 1]}]})
    async def large(value: dict[str, Any]) -> None:
        seen.append(("large", value["n"]))

    values = ['{"kind":"k7","n":1}', '{"kind":["k3","k4"],"n":2}', '{"kind":"none","n":1}', '{"n":9}']
    outcome, claim = await run_group(app, *(stored(at, each.encode()) for at, each in enumerate(values)))
    assert outcome is DONE
    assert seen == [(7, 1), ("all", 1), (3, 2), (4, 2), ("all", 2), ("large", 2), ("all", 1), ("all", 9), ("large", 9)]
    assert claim.taken == 4


async def test_a_record_that_no_handler_of_a_group_filters_for_is_skipped() -> None:
    app = Octopus("app")
    app.on("t", group="g", name="a", filter={"kind": ["a"]})(handler)
    app.on("t", group="g", name="b", filter={"kind": ["b"]})(handler)
    outcome, claim = await run_group(app, stored(0, b'{"kind":"c"}'), stored(1, None))
    assert (outcome, claim.skipped) == (SKIPPED, 2)


async def test_what_cannot_be_filtered_is_a_dead_letter_of_every_handler_of_a_group() -> None:
    app, broker = Octopus("app"), MemoryBroker()
    app.on("t", group="g", name="a", filter={"kind": ["a"]})(handler)
    app.on("t", group="g", name="b", filter={"kind": ["b"]})(handler)
    outcome, _ = await run_group(app, stored(0, b"no JSON"), broker=broker)
    assert isinstance(outcome, DeadLetter)
    assert broker.log(TopicPartition("t.dead-letter", 0)).end == 2


async def test_the_content_type_counts_when_the_handlers_of_a_group_are_chosen() -> None:
    app, seen = Octopus("app"), []

    @app.on("t", group="g", filter={"kind": ["a"]})
    async def a(value: dict[str, Any]) -> None:
        seen.append(value)

    app.on("t", group="g", name="b", filter={"kind": ["b"]})(handler)
    packed = msgspec.msgpack.encode({"kind": "a"})
    outcome, _ = await run_group(app, stored(0, packed, [("content-type", b"application/msgpack")]))
    assert (outcome, seen) == (DONE, [{"kind": "a"}])


async def test_a_handler_chosen_by_its_filter_is_retried_alone_with_its_attempts() -> None:
    app, attempts = Octopus("app"), []

    @app.on("t", group="g", filter={"kind": ["a"]}, retry=3)
    async def flaky(event: Event[dict[str, Any]]) -> None:
        attempts.append(event.attempt)
        if len(attempts) < 3:
            raise ValueError("again")

    app.on("t", group="g", name="b", filter={"kind": ["b"]})(handler)
    (pipeline,) = pipelines(app)
    run = pipeline.bind_claim(P0)
    outcomes = [await run(Claim((stored(0, b'{"kind":"a"}'),), attempt)) for attempt in (1, 2, 3)]
    assert [type(outcome) for outcome in outcomes] == [Retry, Retry, type(DONE)]
    assert attempts == [1, 2, 3]


# ── middleware ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def run_with(app: Octopus, stored: Any, broker: MemoryBroker | None = None) -> Any:
    (pipeline,) = pipelines(app, broker)
    return await pipeline.bind(P0)(stored, 1)


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
    assert await pipeline.bind_claim(P0)(claim) is DONE
    assert len(links) == 60
    assert len({*map(id, links)}) == 3


async def test_middleware_around_a_stretch_keeps_attempts_and_counts_what_is_skipped() -> None:
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
    outcome = await pipeline.bind_claim(P0)(claim)
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


async def test_a_dead_letter_that_middleware_returns_is_buried_first() -> None:
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


@pytest.mark.parametrize("chain", ["alone", "inside", "outside", "stretched"])
@pytest.mark.parametrize(("middleware", "sentence"), NO_OUTCOME.values(), ids=NO_OUTCOME)
async def test_middleware_that_forgets_to_return_is_named_in_a_dead_letter_without_retries(
    middleware: Any, sentence: str, chain: str
) -> None:
    app, broker = Octopus("app"), MemoryBroker()
    for each in {"inside": [passing, middleware], "outside": [middleware, passing]}.get(chain, [middleware]):
        app.middleware(each)
    app.on("t", retry=5)(handler)
    (pipeline,) = pipelines(app, broker)
    if chain == "stretched":
        outcome = await pipeline.bind_claim(P0)(Claim([record(0)]))
    else:
        outcome = await pipeline.bind(P0)(record(0), 1)
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
    assert [type(single) for _, single in outcome.outcomes] == [DeadLetter] * 3
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
    await first.bind(P0)(record(0), 1)
    await first.bind(P0)(record(0), 7)
    await first.bind_claim(P0)(Claim([record(0)], 2))
    await second.bind(P0)(Batch(records(range(2))), 3)
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
    assert [(each.offset, single) for each, single in outcome.outcomes] == [
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
    assert [single for _, single in outcome.outcomes] == [given, given]
    assert outcome.retry == (given if isinstance(given, Retry) else None)


async def test_a_line_without_a_place_for_its_dead_letter_stops() -> None:
    app = Octopus("app")

    @app.on("t", dead_letter=False, retry=1)
    async def handle(value: Any) -> None:
        raise ValueError("no")

    with pytest.raises(HandlerStopped):
        await run_with(app, record(0))


def test_a_publisher_is_what_handlers_share() -> None:
    producer = MemoryTransport(MemoryBroker()).producer()
    router = Router()
    router.on("t")(handler)
    pipeline = Pipeline("g", router.routes, publisher=Publisher(producer), producer=producer)
    assert pipeline.topics == ("t",)
    assert BatchOutcome([]).retry is None
