"""One record, or one batch, inside a route: filter, decode, call, publish."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest

from octopus import Event, Message, Octopus, Reject, RetryLater, RetryPolicy, config
from octopus.errors import DecodeError
from octopus.events import Batch, Record
from octopus.outcomes import DONE, SKIPPED, DeadLetter, Retry
from octopus.patterns import Pattern
from octopus.pipeline.claims import one_by_one
from octopus.transports.memory import MemoryBroker, MemoryTransport
from tests.staged import P0, record, records


class File(msgspec.Struct):
    path: str
    size: int = 0


@pytest.fixture(autouse=True, params=["fused", "wrapped"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stand, "is_wrapped", request.param == "wrapped")


class Stand:
    """An app with one handler, and what became of the records given to it, on the fused road or on the wrapped one."""

    is_wrapped = False

    def __init__(self, **options: Any) -> None:
        self.app = Octopus("app")
        self.broker = MemoryBroker()
        self.options: dict[str, Any] = {"retry": RetryPolicy(attempts=2, backoff=1, jitter=0), **options}

    def __call__(self, function: Callable[..., Any]) -> "Stand":
        self.app.on("t", **self.options)(function)
        (pipeline,) = self.app.pipelines(MemoryTransport(self.broker).producer(), config.load({}))
        (road,) = pipeline.roads
        self._run = road.wrapped(P0) if self.is_wrapped else one_by_one(pipeline.bind(P0))
        return self

    async def run(self, stored: Any, attempt: int = 1) -> Any:
        return await self._run(stored, attempt)

    def stored(self, topic: str) -> list[Record]:
        return [each for log in self.broker.topics.get(topic, []) for each in log.records if each is not None]


async def test_a_record_that_does_not_match_is_skipped_without_being_called() -> None:
    seen: list[File] = []

    @Stand(filter={"size": [{"numeric": [">", 10]}]})
    async def stand(file: File) -> None:
        seen.append(file)

    assert await stand.run(record(0, value=b'{"path":"a","size":5}')) is SKIPPED
    assert await stand.run(record(1, value=b'{"path":"a","size":50}')) is DONE
    assert seen == [File("a", 50)]


@pytest.mark.parametrize(
    "pattern", [{"a": ["x", "y"]}, {"a": ["x"], "b": [1]}, {"a": ["10.0.0.1"]}, {"a": [1]}], ids=str
)
@pytest.mark.parametrize(
    "value",
    [
        b'{"a":"x"}',
        b'{"a":"x","b":1}',
        b'{"a":"z","a":"x"}',
        b'{"a":"\\u0078"}',
        b'{"a":["z","y"],"b":[1,2]}',
        b'{"a":"010.0.0.1"}',
        b'{"a":1}',
        b'{"a":null}',
        b'{"b":"x"}',
        b'{"a":{"a":"x"}}',
        b'["a","x"]',
        b'"x"',
        b'{"a":"z"',
        b'{"a":"z"} {',
        b'{"a":"\xff"}',
        b"",
    ],
)
async def test_the_short_way_for_one_text_field_decides_as_the_pattern_does(pattern: dict, value: bytes) -> None:
    @Stand(filter=pattern)
    async def stand(event: Any) -> None:
        pass

    try:
        expected: Any = DONE if Pattern.compile(pattern).matches(value) else SKIPPED
    except DecodeError:
        expected = DeadLetter
    outcome = await stand.run(record(0, value=value))
    assert type(outcome) is DeadLetter if expected is DeadLetter else outcome is expected


async def test_a_tombstone_matches_no_filter_and_is_a_value_without_one() -> None:
    seen: list[Any] = []

    @Stand(filter={"a": [1]})
    async def filtered(value: dict) -> None:
        raise AssertionError

    @Stand()
    async def plain(value: File | None) -> None:
        seen.append(value)

    tombstone = Record("t", 0, 0, 0, b"k", None)
    assert await filtered.run(tombstone) is SKIPPED
    assert await plain.run(tombstone) is DONE
    assert seen == [None]


@pytest.mark.parametrize(
    "value", [b"{not json", b"\xff\xfe", b"", b"[" * 100_000], ids=["json", "utf-8", "empty", "deep"]
)
async def test_bytes_that_do_not_decode_are_no_mismatch_but_a_dead_letter(value: bytes) -> None:
    @Stand(filter={"a": [1]})
    async def stand(value: dict) -> None:
        raise AssertionError

    outcome = await stand.run(record(0, value=value))
    assert isinstance(outcome, DeadLetter)
    assert isinstance(outcome.error, DecodeError)
    assert stand.stored("t.dead-letter")[0].value == value


async def test_a_value_of_the_wrong_type_is_a_dead_letter_that_names_the_field() -> None:
    @Stand()
    async def stand(file: File) -> None:
        raise AssertionError

    outcome = await stand.run(record(0, value=b'{"path":"a","size":"many"}'))
    assert "$.size" in outcome.reason


async def test_an_event_knows_its_coordinates_and_attempt() -> None:
    seen: list[Event[File]] = []

    @Stand()
    async def stand(event: Event[File]) -> None:
        seen.append(event)

    await stand.run(Record("t", 0, 7, 1500, b"k", b'{"path":"a"}', (("h", b"1"), ("h", b"2"))), 3)
    (event,) = seen
    assert (event.topic, event.partition, event.offset, event.key, event.attempt) == ("t", 0, 7, b"k", 3)
    assert (event.timestamp, event.header("h"), event.header("x")) == (1.5, b"2", None)


class Pair(NamedTuple):
    left: int
    right: int


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (None, []),
        ([], []),
        ({"a": 1}, [(b"k", b'{"a":1}')]),
        ([1, None, 2], [(b"k", b"1"), (b"k", b"2")]),
        ((1, 2), [(b"k", b"1"), (b"k", b"2")]),
        (Pair(1, 2), [(b"k", b"[1,2]")]),
        (b"raw", [(b"k", b"raw")]),
        (Message("text", key="mine"), [(b"mine", b"text")]),
        (Message(None), [(b"k", None)]),
        (0, [(b"k", b"0")]),
    ],
    ids=["nothing", "an empty list", "a value", "a list", "a tuple", "a named tuple", "bytes", "a message", "a tombstone", "zero"],
)  # fmt: skip
async def test_what_a_handler_returns_is_published_before_its_record_is_done(result: Any, expected: Any) -> None:
    @Stand(to="out")
    async def stand(value: Any) -> Any:
        return result

    assert await stand.run(record(0, b"k")) is DONE
    assert [(each.key, each.value) for each in stand.stored("out")] == expected


async def test_a_message_may_name_another_topic_and_a_plain_value_needs_one() -> None:
    @Stand()
    async def named(value: Any) -> Message[int]:
        return Message(1, topic="elsewhere")

    @Stand()
    async def unnamed(value: Any) -> Any:
        return 1

    assert await named.run(record(0)) is DONE
    assert len(named.stored("elsewhere")) == 1
    outcome = await unnamed.run(record(0))
    assert isinstance(outcome, DeadLetter)
    assert outcome.reason == (
        "handler 'unnamed' returned a value of type int, and nothing says where it goes: give it to=, return a "
        "Message(…, topic=…), or return None."
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RetryLater(9.0), Retry(9.0, counted=False)),
        (Reject("not mine"), DeadLetter("not mine", rejected=True)),
    ],
    ids=["later", "reject"],
)
async def test_a_handler_says_no_by_raising(error: Exception, expected: Any) -> None:
    @Stand()
    async def stand(value: Any) -> None:
        raise error

    assert await stand.run(record(0)) == expected


async def test_a_failure_is_retried_and_then_given_up() -> None:
    @Stand()
    async def stand(value: Any) -> None:
        raise OSError("busy")

    first, second = await stand.run(record(0), 1), await stand.run(record(0), 2)
    assert (first.after, str(first.error)) == (1.0, "busy")
    assert second.reason == "failed 2 times, at last with OSError: busy"


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even this fails")


async def test_an_exception_whose_text_cannot_be_had_is_a_failure_like_any_other() -> None:
    @Stand()
    async def stand(value: Any) -> None:
        raise Unspeakable

    assert isinstance(await stand.run(record(0), 1), Retry)
    outcome = await stand.run(record(0), 2)
    assert outcome.reason == "failed with Unspeakable, whose text cannot be read"
    assert len(stand.stored("t.dead-letter")) == 1


async def test_a_sync_handler_runs_in_a_thread_and_its_exceptions_come_back() -> None:
    threads: list[threading.Thread] = []

    @Stand(to="out")
    def stand(value: int) -> int:
        threads.append(threading.current_thread())
        if value:
            raise OSError("busy")
        return 5

    assert await stand.run(record(0, value=b"0")) is DONE
    assert isinstance(await stand.run(record(1, value=b"1")), Retry)
    assert threading.current_thread() not in threads
    assert [each.value for each in stand.stored("out")] == [b"5"]


async def test_a_sync_wrapper_of_an_async_function_is_awaited() -> None:
    seen: list[Any] = []

    async def inner(value: Any) -> None:
        seen.append(value)

    @Stand()
    def stand(value: Any) -> Any:
        return inner(value)

    assert await stand.run(record(0, value=b"1")) is DONE
    assert seen == [1]


async def test_no_more_threads_run_than_the_concurrency_allows() -> None:
    lock, release, running, most = threading.Lock(), threading.Event(), [0], [0]

    @Stand(concurrency=2)
    def stand(value: Any) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        release.wait(0.02)
        with lock:
            running[0] -= 1

    await asyncio.gather(*(stand.run(record(number)) for number in range(6)))
    assert most == [2]


# ── batches ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def of(outcome: Any) -> dict[int, Any]:
    return {stored.offset: single for stored, single in outcome.outcomes()}


def values(*given: bytes) -> Batch:
    return Batch(record(number, value=value) for number, value in enumerate(given))


async def test_a_batch_gets_what_matches_and_decodes() -> None:
    seen: list[Any] = []

    @Stand(batch=10, filter={"size": [{"numeric": [">", 1]}]}, to="out")
    async def stand(files: list[File]) -> int:
        seen.append(files)
        return len(files)

    outcome = await stand.run(values(b'{"path":"a","size":5}', b'{"size":0}', b"{bad", b'{"path":"b","size":6}'))
    assert seen == [[File("a", 5), File("b", 6)]]
    assert [type(single).__name__ for single in of(outcome).values()] == ["Done", "Skipped", "DeadLetter", "Done"]
    assert [each.value for each in stand.stored("out")] == [b"2"]
    assert [each.value for each in stand.stored("t.dead-letter")] == [b"{bad"]


async def test_a_batch_of_nothing_that_matches_is_not_called() -> None:
    @Stand(batch=10, filter={"size": [1]})
    async def stand(files: list[Event[File]]) -> None:
        raise AssertionError

    outcome = await stand.run(values(b"{}", b"{}"))
    assert of(outcome) == {0: SKIPPED, 1: SKIPPED}


async def test_a_batch_that_fails_is_retried_whole_and_then_one_by_one() -> None:
    seen: list[Any] = []

    @Stand(batch=10)
    async def stand(events: list[Event[Any]]) -> None:
        seen.append([event.offset for event in events])
        if any(event.offset == 1 for event in events):
            raise ValueError("one is bad")

    batch = Batch(records(range(3)))
    first = await stand.run(batch, 1)
    assert first.retry is not None
    assert {type(single) for single in of(first).values()} == {Retry}
    second = await stand.run(batch, 2)
    assert [type(single).__name__ for single in of(second).values()] == ["Done", "DeadLetter", "Done"]
    assert seen == [[0, 1, 2], [0, 1, 2], [0], [1], [2]]


async def test_a_batch_that_is_rejected_is_rejected_one_by_one() -> None:
    @Stand(batch=10)
    async def stand(events: list[Event[Any]]) -> None:
        if any(event.offset == 0 for event in events):
            raise Reject("not this one")
        if len(events) == 1 and events[0].offset == 2:
            raise RetryLater(4.0)

    outcome = await stand.run(Batch(records(range(3))))
    assert of(outcome) == {0: DeadLetter("not this one", rejected=True), 1: DONE, 2: Retry(4.0, counted=False)}
    assert outcome.retry == Retry(4.0, counted=False)


async def test_a_batch_in_a_group_member_that_is_out_of_memory_settles_nothing() -> None:
    class Hungry:
        content_type = "x/hungry"

        def decoder(self, annotation: Any) -> Any:
            def decode(data: bytes) -> Any:
                raise MemoryError

            return decode

        def encode(self, value: Any) -> bytes:
            return b""

    app = Octopus("app", codecs=[Hungry()])

    @app.on("t", batch=2)
    async def handle(values: list[int]) -> None: ...

    (pipeline,) = app.pipelines(MemoryTransport(MemoryBroker()).producer(), config.load({}))
    hungry = Record("t", 0, 0, 0, None, b"1", (("content-type", b"x/hungry"),))
    with pytest.raises(MemoryError):
        await one_by_one(pipeline.bind(P0))(Batch([hungry]), 1)


async def test_a_batch_that_cancels_itself_has_failed() -> None:
    @Stand(batch=2)
    async def stand(values: list[Any]) -> None:
        raise asyncio.CancelledError

    outcome = await stand.run(Batch(records(range(2))))
    assert outcome.retry is not None
