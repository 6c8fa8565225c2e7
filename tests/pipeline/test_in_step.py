"""Many records of a claim that are taken, traced and decoded in step: each comes to what it comes to by itself."""

import asyncio
import itertools
import random
from typing import Any

import msgspec
import pytest

from octopus import Event, Octopus, RetryPolicy, config
from octopus.claim import Claim
from octopus.events import Headers
from octopus.outcomes import DONE, SKIPPED, Outcome
from octopus.pipeline.handling import IN_STEP_FROM
from octopus.transports.base import Outgoing
from octopus.transports.memory import MemoryBroker, MemoryTransport
from tests.pipeline.forms import ANNOTATIONS, BY_TYPE, MANY_IN_ONE, Stand, records, spelled
from tests.staged import P0, committed, dead_letters, until, working


async def ended(stand: Stand, given: list[tuple[bytes | None, Headers]]) -> list[tuple[int, str]]:
    """Run records as a runner does, from claim to claim; return the outcomes of those that are not done."""
    left: list[Any] = [*records(given)]
    others: list[tuple[int, str]] = []
    while left:
        claim = Claim(left)
        outcome: Any = await stand.run_claim(claim)
        if outcome is not DONE:
            others.append((claim.current.offset, spelled(outcome)))
        left = claim.end()
    return others


@pytest.mark.parametrize("annotation", ANNOTATIONS.values(), ids=ANNOTATIONS)
@pytest.mark.parametrize("given", [BY_TYPE, MANY_IN_ONE], ids=["forms", "many in one"])
async def test_records_of_a_claim_come_to_what_they_come_to_one_by_one(
    given: list[tuple[bytes | None, Headers]], annotation: Any
) -> None:
    draw = random.Random(7)
    untyped = [each for each in given if not any(name.lower() == "content-type" for name, _ in each[1])]
    selections = [draw.sample(among, len(among)) for among in (given, untyped) for _ in range(3)]
    selections.append([*itertools.islice(itertools.cycle(untyped), 100)])
    for selection in selections:
        together, alone = (Stand(annotation, batch=False, filter=None) for _ in range(2))
        others = await ended(together, selection)
        outcomes = [await alone.run(stored, 1) for stored in records(selection)]
        assert together.seen == alone.seen
        assert others == [(at, spelled(each)) for at, each in enumerate(outcomes) if each not in (DONE, SKIPPED)]
        assert together.dead == alone.dead
        assert len(selection) >= IN_STEP_FROM


TRACED: Headers = (("traceparent", b"1"), ("source", b"a"))


@pytest.mark.parametrize(
    "headers",
    [[()], [(("source", b"a"),)], [TRACED], [TRACED, (), (("traceparent", b"2"),), (("source", b"a"),)]],
    ids=["none", "no trace", "one", "all kinds"],
)
async def test_each_record_of_a_claim_runs_in_its_own_trace(headers: list[Headers]) -> None:
    stand = Stand(Any, batch=False, filter=None)
    of_each = [*itertools.islice(itertools.cycle(headers), 2 * IN_STEP_FROM)]
    for _ in range(2):  # nothing is left of the claim before
        assert await ended(stand, [(b"1", each) for each in of_each]) == []
        assert await ended(stand, [(b"1", ())] * IN_STEP_FROM) == []
    traces = [[header for header in each if header[0] == "traceparent"] for each in stand.traces]
    expected = [[header for header in each if header[0] == "traceparent"] for each in of_each] + [[]] * IN_STEP_FROM
    assert traces == expected * 2


async def test_a_record_of_a_claim_is_decoded_when_its_turn_comes() -> None:
    decoded: list[int] = []
    begun: list[int] = []
    go_on = asyncio.Event()

    class Counted(msgspec.Struct):
        number: int

        def __post_init__(self) -> None:
            decoded.append(self.number)

    app = Octopus("app")

    @app.on("t")
    async def handle(each: Counted) -> None:
        begun.append(each.number)
        if each.number == 2:
            await go_on.wait()

    (pipeline,) = app.pipelines(MemoryTransport(MemoryBroker()).producer(), config.load({}))
    claim = Claim(records([(b'{"number":%d}' % number, ()) for number in range(IN_STEP_FROM)]))
    run = asyncio.ensure_future(pipeline.bind(P0)(claim))
    await until(lambda: len(begun) == 3)
    assert decoded == [0, 1, 2]
    assert claim.taken == 3
    left = claim.end()
    claim.keep_last()
    go_on.set()
    outcome: Outcome | Any = await run
    assert outcome is DONE
    assert [each.offset for each in left] == [*range(3, IN_STEP_FROM)]
    assert begun == decoded == [0, 1, 2]


async def test_a_handler_that_fails_in_a_claim_fails_its_own_record() -> None:
    stand = Stand(Any, batch=False, filter=None)
    for bad in (0, 3, IN_STEP_FROM - 1):
        given: list[tuple[bytes | None, Headers]] = [(b"1", ())] * IN_STEP_FROM
        given[bad] = (b'"fail"', ())
        assert [at for at, _ in await ended(stand, given)] == [bad]


async def test_outputs_of_a_claim_keep_their_order_around_records_that_cannot_be_decoded() -> None:
    app, broker = Octopus("app"), MemoryBroker()
    bad = {40, 41, 90, 199}

    @app.on("t", to="out")
    async def handle(value: int) -> int:
        app.publish_soon("side", value)
        return value

    broker.append([Outgoing("t", b"{bad" if number in bad else b"%d" % number) for number in range(200)])
    async with working(app, broker) as worker:
        await worker.caught_up()
    good = [b"%d" % number for number in range(200) if number not in bad]
    for topic in ("out", "side"):
        assert [each.value for log in broker.topics[topic] for each in log.records if each is not None] == good
    assert [dead_letter.value for dead_letter in dead_letters(broker)] == [b"{bad"] * len(bad)
    assert committed(broker, "app.handle") == 200


async def test_what_is_refused_behind_a_record_that_cannot_be_decoded_is_the_failure_of_its_own_record() -> None:
    app, broker = Octopus("app"), MemoryBroker()
    attempts: list[int] = []

    @app.on("t", to="out", retry=RetryPolicy(attempts=1))
    async def handle(event: Event[int]) -> str:
        attempts.append(event.offset)
        return "x" * (2_000_000 if event.offset == 60 else 1)

    broker.append([Outgoing("t", b"{bad" if number == 50 else b"%d" % number) for number in range(100)])
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert attempts == [number for number in range(100) if number != 50]
    assert [dead_letter.value for dead_letter in dead_letters(broker)] == [b"{bad", b"60"]
    assert committed(broker, "app.handle") == 100
