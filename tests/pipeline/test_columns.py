"""A batch's records as columns: each comes to the value and the outcome that it would have by itself."""

import itertools
import random
from typing import Any

import pytest

from octopus import Octopus, RetryPolicy, config
from octopus.events import Batch, Headers
from octopus.outcomes import DONE, SKIPPED, Retry
from octopus.pipeline.claims import one_by_one
from octopus.transports.memory import MemoryBroker, MemoryTransport
from tests.pipeline.forms import ANNOTATIONS, BY_TYPE, MANY_IN_ONE, File, Stand, records, spelled
from tests.staged import P0

FILTERS: dict[str, Any] = {
    "no filter": None,
    "numbers": {"size": [{"numeric": [">", 4]}]},
    "text": {"path": ["plain", "packed"]},
}


@pytest.mark.parametrize("filter", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("annotation", ANNOTATIONS.values(), ids=ANNOTATIONS)
@pytest.mark.parametrize("given", [BY_TYPE, MANY_IN_ONE], ids=["forms", "many in one"])
async def test_the_records_of_a_batch_come_to_what_they_come_to_one_by_one(
    given: list[tuple[bytes | None, Headers]], annotation: Any, filter: Any
) -> None:
    draw = random.Random(7)
    selections = [[each] for each in given] + [draw.sample(given, len(given)) for _ in range(2)]
    selections += [[each for each in given if not each[1]], [*itertools.islice(itertools.cycle(given), 100)]]
    for selection in selections:
        together, alone = (Stand(annotation, batch=batch, filter=filter) for batch in (True, False))
        outcome: Any = await together.run(Batch(records(selection)), 1)
        outcomes = [await alone.run(stored, 1) for stored in records(selection)]
        assert together.seen == alone.seen
        assert [(stored.offset, spelled(each)) for stored, each in outcome.outcomes()] == [
            (offset, spelled(each)) for offset, each in enumerate(outcomes)
        ]
        assert outcome.retry is None
        assert together.dead == alone.dead


async def test_a_batch_in_which_all_are_done_names_no_outcome() -> None:
    stand = Stand(File, batch=True, filter=None)
    batch = Batch(records([(b"{}", ())] * 3))
    outcome: Any = await stand.run(batch, 1)
    assert outcome.batch is batch
    assert not outcome.others


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ([(), ()], []),
        ([(("a", b"1"),), (("a", b"1"),)], []),
        ([(("traceparent", b"1"), ("a", b"1")), (("traceparent", b"1"), ("a", b"2"))], [("traceparent", b"1")]),
        ([(("traceparent", b"1"),), (("traceparent", b"2"),)], []),
        ([(("traceparent", b"1"),), ()], []),
        ([(), (("traceparent", b"1"),)], []),
    ],
    ids=["no headers", "no trace", "one trace", "two traces", "then none", "at first none"],
)
async def test_a_batch_runs_in_the_trace_that_all_of_its_records_have(headers: list[Headers], trace: list[Any]) -> None:
    stand = Stand(File, batch=True, filter=None)
    await stand.run(Batch(records([(b"{}", each) for each in headers])), 1)
    assert [[*each] for each in stand.traces] == [trace]


async def test_a_batch_is_retried_when_the_longest_wait_of_its_records_is_over() -> None:
    waits = iter([3.0, 9.0, 5.0])

    class Away:
        content_type = "x/away"

        def decoder(self, annotation: Any) -> Any:
            def decode(data: bytes) -> Any:
                raise OSError

            return decode

        def encode(self, value: Any) -> bytes:
            return b""

    class Waiting(RetryPolicy, frozen=True):
        def decide(self, attempt: int, error: Exception, draw: float) -> Any:
            return Retry(next(waits), error)

    app = Octopus("app", codecs=[Away()])
    seen: list[Any] = []

    @app.on("t", batch=10, retry=Waiting())
    async def handle(values: list[Any]) -> None:
        seen.append(values)

    (pipeline,) = app.pipelines(MemoryTransport(MemoryBroker()).producer(), config.load({}))
    away: Headers = (("content-type", b"x/away"),)
    batch = Batch(records([(b"0", away), (b"1", ()), (b"2", away), (b"3", away)]))
    outcome: Any = await one_by_one(pipeline.bind(P0))(batch, 1)
    assert seen == [[1]]
    assert [type(each) for _, each in outcome.outcomes()] == [Retry, type(DONE), Retry, Retry]
    assert outcome.retry.after == 9.0
    assert SKIPPED not in outcome.others.values()
