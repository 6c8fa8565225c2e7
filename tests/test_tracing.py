"""Trace headers travel from a record to all that is published for it, and nothing else does."""

import asyncio
from typing import Any

import msgspec
import pytest

from octopus import Message, Octopus, Reject, RetryLater
from octopus.testing import VirtualTime
from octopus.transports.base import Outgoing
from octopus.transports.memory import MemoryBroker
from octopus.types import Next
from tests.staged import dead_letters, working
from tests.worker.conftest import virtual_time

__all__ = ["virtual_time"]

TRACE = [("traceparent", b"00-1-2-01"), ("tracestate", b"a=1"), ("baggage", b"user=7")]
OTHER = [("content-type", b"application/json"), ("source", b"detector")]


def headers_on(broker: MemoryBroker, topic: str) -> list[list[tuple[str, bytes | None]]]:
    return [[*record.headers] for log in broker.topics.get(topic, []) for record in log.records if record is not None]


async def run(app: Octopus, *headers: Any, **given: Any) -> MemoryBroker:
    broker = MemoryBroker()
    broker.append([Outgoing("t", b"%d" % number, headers=each) for number, each in enumerate(headers)])
    async with working(app, broker, **given) as worker:
        await worker.caught_up()
    return broker


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("middleware", [False, True], ids=["bare", "middleware"])
@pytest.mark.parametrize("timeout", [None, 10.0], ids=["", "deadline"])
@pytest.mark.parametrize("several", [False, True], ids=["one handler", "two handlers"])
async def test_what_a_handler_returns_or_publishes_has_the_trace_of_its_event(
    delivery: Any, middleware: bool, timeout: float | None, several: bool, virtual_time: VirtualTime
) -> None:
    app = Octopus("app")
    group: dict[str, Any] = {"group": "g"} if several else {}

    if middleware:

        @app.middleware
        async def audit(record: Any, call_next: Next) -> Any:
            await app.publish("audit", record.offset)
            return await call_next(record)

    @app.on("t", to="out", delivery=delivery, timeout=timeout, **group)
    async def handle(value: int) -> int:
        await asyncio.sleep(0.01)
        await app.publish("side", value)
        await app.publish_many("many", [b"x", value])
        return value

    if several:

        @app.on("t", delivery=delivery, timeout=timeout, filter={"never": [1]}, **group)
        async def other(value: Any) -> None: ...

    broker = await run(app, [*TRACE, *OTHER], (), OTHER, TRACE[:1], ())
    expected = [TRACE, [], [], TRACE[:1], []]
    assert headers_on(broker, "out") == headers_on(broker, "side") == expected
    assert headers_on(broker, "many") == [each for each in expected for _ in range(2)]
    runs = len(app.routes) * middleware  # each handler has middleware of its own around it
    assert headers_on(broker, "audit") == [each for each in expected for _ in range(runs)]


async def test_a_message_with_a_trace_of_its_own_keeps_it_whole(virtual_time: VirtualTime) -> None:
    app = Octopus("app")
    own = [("traceparent", b"00-9-9-00")]

    @app.on("t", to="out")
    async def handle(value: int) -> Message[int]:
        return Message(value, headers=own)

    broker = await run(app, TRACE)
    assert headers_on(broker, "out") == [[*own, TRACE[2]]], "a tracestate belongs to its traceparent"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [([TRACE, TRACE], TRACE), ([TRACE, ()], []), ([TRACE, TRACE[:1]], []), ([(), ()], [])],
    ids=["the same", "one has none", "different", "none"],
)
async def test_what_a_batch_publishes_has_the_trace_that_its_events_agree_on(
    headers: Any, expected: Any, virtual_time: VirtualTime
) -> None:
    app = Octopus("app")

    @app.on("t", to="out", batch=2)
    async def handle(values: list[int]) -> list[int]:
        return [sum(values)]

    assert headers_on(await run(app, *headers), "out") == [expected]


async def test_dead_letters_and_what_waits_in_a_retry_topic_keep_it(virtual_time: VirtualTime) -> None:
    app = Octopus("app")

    @app.on("t", retry_topic=True)
    async def handle(value: int) -> None:
        raise RetryLater(60) if value else Reject("no")

    broker = await run(app, [*OTHER, *TRACE], [*OTHER, *TRACE])
    waiting = [each for topic in broker.topics if "retry" in topic for each in headers_on(broker, topic)]
    assert [each[:5] for each in waiting] == [[*OTHER, *TRACE]]
    assert [[*dead_letter.headers][:5] for dead_letter in dead_letters(broker)] == [[*OTHER, *TRACE]]


async def test_handlers_that_run_side_by_side_do_not_mix_their_traces(virtual_time: VirtualTime) -> None:
    app = Octopus("app")

    @app.on("t", to="out", ordering="none", concurrency=8)
    async def handle(value: int) -> int:
        await asyncio.sleep(0.01 * (value % 5))
        return value

    traces = [[("traceparent", b"%d" % number)] if number % 3 else [] for number in range(40)]
    broker = await run(app, *traces)
    found = {
        msgspec.json.decode(record.value or b""): [*record.headers]
        for log in broker.topics["out"]
        for record in log.records
        if record is not None
    }
    assert found == dict(enumerate(traces))
