"""A batch's records as columns: each comes to the value and the outcome that it would have by itself."""

import itertools
import random
from typing import Any

import msgspec
import pytest

from octopus import Event, Octopus, RetryPolicy, config
from octopus.events import Batch, Headers, Record
from octopus.outcomes import DONE, SKIPPED, DeadLetter, Retry
from octopus.pipeline.claims import one_by_one
from octopus.tracing import current
from octopus.transports.memory import MemoryBroker, MemoryTransport
from tests.staged import P0


class File(msgspec.Struct):
    path: str = ""
    size: int = 0


BY_TYPE: list[tuple[bytes | None, Headers]] = [
    (b'{"path":"plain","size":5}', ()),
    (b'{"path":"small","size":1}', ()),
    (b'{"path":"traced","size":6}', (("traceparent", b"00-1"), ("source", b"a"))),
    (b'{"path":"named","size":7}', (("Content-Type", b"application/json"),)),
    (msgspec.msgpack.encode({"path": "packed", "size": 8}), (("content-type", b"application/msgpack"),)),
    (b'{"path":"unknown","size":9}', (("content-type", b"x/unknown"),)),
    (b'{"path":"float","size":10.0}', (("other-header", b"12 letters"),)),
    (b"{bad", ()),
    (b"{bad", (("source", b"b"),)),
    (b"", ()),
    (None, ()),
    (None, (("content-type", b"application/json"),)),
    (b"[]", ()),
    (b"7", ()),
    (b'"text"', ()),
]
"""Values and headers of which each takes another way."""

MANY_IN_ONE: list[tuple[bytes | None, Headers]] = [
    *((b'{"size":5}' + end, ()) for end in (b"", b',{"size":6}', b'\n{"size":6}', b' {"size":6}', b"\n")),
    *((part, ()) for part in (b"1],[2", b'{"path":"a', b'b","size":7}', b'{"size":', b"8}")),
    *((bytes([each]), ()) for each in b"][,\n\0"),
]
"""Values that would be others', or several, if they were read as one text with their neighbours."""


class Ending(msgspec.Struct):
    """Its own code raises what ends iterations."""

    path: str = ""
    size: int = 0

    def __post_init__(self) -> None:
        if self.path == "plain" or self.size == 8:
            raise StopIteration


class Alone:
    """An app with one handler, with batches or without, and what it was given."""

    def __init__(self, annotation: Any, *, batch: bool, filter: Any) -> None:
        self.given: list[Any] = []
        self.traces: list[Headers] = []
        self.broker = MemoryBroker()
        app = Octopus("app")
        options: dict[str, Any] = {"filter": filter, "retry": RetryPolicy(attempts=1)}
        if batch:
            options["batch"] = 1000

        async def handle_batch(values: list[annotation]) -> None:
            self.traces.append(current.get())
            self.given += values

        async def handle(value: annotation) -> None:
            self.given.append(value)

        app.on("t", name="handle", **options)(handle_batch if batch else handle)
        (pipeline,) = app.pipelines(MemoryTransport(self.broker).producer(), config.load({}))
        self.run = one_by_one(pipeline.bind(P0))

    @property
    def seen(self) -> list[str]:
        return [
            f"{each.offset} {each.attempt} {each.value!r}" if isinstance(each, Event) else repr(each)
            for each in self.given
        ]

    @property
    def dead(self) -> list[tuple[bytes | None, Headers]]:
        """The dead letters, but for the frames that an exception went through."""
        return [
            (each.value, [header for header in each.headers if header[0] != "octopus-dead-letter-traceback"])
            for log in self.broker.topics.get("t.dead-letter", [])
            for each in log.records
            if each is not None
        ]


def records(given: list[tuple[bytes | None, Headers]]) -> list[Record]:
    return [Record("t", 0, offset, 0, b"key", value, headers) for offset, (value, headers) in enumerate(given)]


ANNOTATIONS: dict[str, Any] = {
    "struct": File,
    "struct or none": File | None,
    "anything": Any,
    "bytes": bytes,
    "its own code ends iterations": Ending,
    "event": Event[File],
    "event of anything": Event[Any],
}
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
        together, alone = (Alone(annotation, batch=batch, filter=filter) for batch in (True, False))
        outcome: Any = await together.run(Batch(records(selection)), 1)
        outcomes = [await alone.run(stored, 1) for stored in records(selection)]
        assert together.seen == alone.seen
        assert [(stored.offset, _spelled(each)) for stored, each in outcome.outcomes()] == [
            (offset, _spelled(each)) for offset, each in enumerate(outcomes)
        ]
        assert outcome.retry is None
        assert together.dead == alone.dead


def _spelled(outcome: Any) -> str:
    return f"dead letter: {outcome.reason}" if isinstance(outcome, DeadLetter) else repr(outcome)


async def test_a_batch_in_which_all_are_done_names_no_outcome() -> None:
    stand = Alone(File, batch=True, filter=None)
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
    stand = Alone(File, batch=True, filter=None)
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
