"""Several handlers in one group: who gets a record, who is retried, when it is settled."""

from typing import Any

import msgspec
import pytest

from octopus import Event, Octopus, config
from octopus.claim import Claim
from octopus.events import Record, TopicPartition
from octopus.outcomes import DONE, SKIPPED, DeadLetter, Outcome, Retry
from octopus.pipeline import Pipeline
from octopus.pipeline.claims import one_by_one
from octopus.pipeline.fan_out import fan_out
from octopus.transports.memory import MemoryBroker, MemoryTransport
from tests.staged import P0, record


def pipelines(app: Octopus, broker: MemoryBroker | None = None) -> list[Pipeline]:
    return app.pipelines(MemoryTransport(broker).producer(), config.load({}))


async def handler(value: Any) -> None: ...


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
    await one_by_one(pipeline.bind(TopicPartition("b", 0)))(record(0), 1)
    assert seen == ["two"]
    await one_by_one(pipeline.bind(TopicPartition("a", 0)))(record(0), 1)
    assert seen == ["two", "one", "two"]


def stored(offset: int, value: bytes | None, headers: Any = ()) -> Record:
    return Record("t", 0, offset, 0, None, value, headers)


async def run_group(app: Octopus, *records: Any, broker: MemoryBroker | None = None) -> tuple[Any, Claim]:
    (pipeline,) = pipelines(app, broker)
    claim = Claim(records)
    return await pipeline.bind(P0)(claim), claim


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
    run = pipeline.bind(P0)
    outcomes = [await run(Claim((stored(0, b'{"kind":"a"}'),), attempt)) for attempt in (1, 2, 3)]
    assert [type(outcome) for outcome in outcomes] == [Retry, Retry, type(DONE)]
    assert attempts == [1, 2, 3]
