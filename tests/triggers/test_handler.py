"""What the function answers: which records are delivered again."""

import asyncio
import contextlib
import contextvars
import logging
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from octopus import Event, Octopus, Record, Reject, RetryLater, RetryPolicy
from octopus.errors import ConfigurationError, HandlerStopped
from octopus.testing import VirtualTime, VirtualTimeLoop, records
from octopus.transports.memory import MemoryBroker, memory_transport
from octopus.triggers.aws import handler
from tests.triggers.lambda_events import encode, failures


class Remaining:
    """A Lambda context with so much time left."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends = clock() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._ends - self._clock()) * 1000))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    """Let the function run in virtual time."""
    loop = VirtualTimeLoop()
    monkeypatch.setattr(asyncio, "new_event_loop", lambda: loop)
    return loop.virtual_time


@pytest.fixture
def app() -> Octopus:
    return Octopus("beamline")


@pytest.fixture
def address() -> str:
    return f"memory://{uuid.uuid4()}"


@pytest.fixture
def broker(address: str) -> MemoryBroker:
    return memory_transport(address.removeprefix("memory://"), {}).broker


def invoke(trigger: Any, sent: list[Record], seconds: float = 30.0) -> list[dict[str, Any]]:
    answer = trigger(encode(sent), Remaining(seconds))
    assert [*answer] == ["batchItemFailures"]
    return answer["batchItemFailures"]


# ── what fails ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_success_is_an_empty_list(app: Octopus) -> None:
    seen = []

    @app.on("files")
    async def handle(event: Event[int]) -> None:
        seen.append((event.value, event.offset))

    assert invoke(handler(app), records(1, 2, 3, topic="files", first=7)) == []
    assert seen == [(1, 7), (2, 8), (3, 9)]


@pytest.mark.parametrize(
    ("ordering", "keys", "expected"),
    [
        ("partition", "aaaaa", failures(2, 3, 4)),
        ("key", "ababa", failures(2, 4)),
        ("key", "aabaa", failures(2)),
        ("none", "aaaaa", failures(2)),
    ],
    ids=["partition: all behind", "key: its key behind", "key: nothing behind", "none: itself"],
)
def test_a_failed_record_is_reported_with_what_must_stay_behind_it(
    app: Octopus, ordering: str, keys: str, expected: list[dict[str, Any]]
) -> None:
    seen = []

    @app.on("files", ordering=ordering)  # type: ignore[arg-type]
    async def handle(event: Event[int]) -> None:
        seen.append(event.offset)
        if event.offset == 2:
            raise OSError("disk full")

    sent = [Record("files", 0, offset, 0, key.encode(), b"1") for offset, key in enumerate(keys)]
    assert invoke(handler(app), sent) == expected
    reported = {failure["itemIdentifier"]["offset"] for failure in expected}
    assert {*seen} == {0, 1, 2, 3, 4} - (reported - {2})


def test_other_partitions_are_not_affected(app: Octopus) -> None:
    @app.on("files")
    async def handle(value: int) -> None:
        if value == 13:
            raise OSError

    sent = [*records(1, 13, 1, topic="files"), *records(1, 1, topic="files", partition=3)]
    assert invoke(handler(app), sent) == failures(1, 2)


def test_gaps_between_offsets_are_no_failures(app: Octopus) -> None:
    @app.on("my-own-files")
    async def handle(value: int) -> None:
        if value == 13:
            raise OSError

    sent = [Record("my-own-files", 1, offset, 0, None, value) for offset, value in ((5, b"1"), (9, b"13"), (400, b"1"))]
    assert invoke(handler(app), sent) == failures(9, 400, topic="my-own-files", partition=1)


def test_filtered_and_tombstones_and_rejected_records_succeed(app: Octopus, broker: MemoryBroker, address: str) -> None:
    seen = []

    @app.on("files", filter={"size": [{"numeric": [">", 10]}]})
    async def handle(file: dict[str, int]) -> None:
        seen.append(file["size"])
        raise Reject("never")

    assert invoke(handler(app, brokers=address), records({"size": 1}, None, {"size": 11}, topic="files")) == []
    assert seen == [11]
    (dead_letter,) = _dead_letters(broker, "files.dead-letter")
    assert (dead_letter.value, dict(dead_letter.headers)["octopus-dead-letter-offset"]) == (b'{"size":11}', b"2")


@pytest.mark.parametrize("error", [RetryLater(1), OSError("away")], ids=["retry later", "exception"])
def test_a_retry_is_left_to_the_service(app: Octopus, error: Exception) -> None:
    calls = []

    @app.on("files")
    async def handle(event: Event[int]) -> None:
        calls.append(event.attempt)
        raise error

    trigger = handler(app)
    for _ in range(2):
        assert invoke(trigger, records(1, topic="files")) == failures(0)
    assert calls == [1, 1]


def test_a_short_retry_can_run_in_the_same_invocation(app: Octopus) -> None:
    calls = []

    @app.on("files", retry=RetryPolicy(attempts=0, backoff=0.01, maximum=0.01))
    async def handle(event: Event[int]) -> None:
        calls.append((event.value, event.attempt))
        if event.value == 1 and event.attempt < 3:
            raise OSError
        if event.value == 2:
            raise RetryLater(3600)

    assert invoke(handler(app, retry_in_process=True), records(1, 2, 3, topic="files")) == failures(1, 2)
    assert calls == [(1, 1), (1, 2), (1, 3), (2, 1)]


@pytest.mark.parametrize("ordering", ["partition", "key", "none"])
def test_retries_without_a_wait_run_in_process_until_nothing_is_left(app: Octopus, ordering: str) -> None:
    calls = []

    @app.on("files", ordering=ordering, retry=RetryPolicy(attempts=3, backoff=0))
    async def handle(event: Event[int]) -> None:
        calls.append((event.value, event.attempt))
        if event.attempt < 3:
            raise OSError

    assert invoke(handler(app, retry_in_process=True), records(1, 2, 3, topic="files")) == []
    assert sorted(calls) == [(value, attempt) for value in (1, 2, 3) for attempt in (1, 2, 3)]


def test_retries_in_process_end_with_the_time(app: Octopus, clock: VirtualTime) -> None:
    @app.on("files", retry=RetryPolicy(attempts=0, backoff=0.01, maximum=0.01))
    async def handle(value: int) -> None:
        raise OSError

    context = Remaining(0.3, clock.time)
    answer = handler(app, retry_in_process=True, margin=0.1)(encode(records(1, 2, topic="files")), context)
    assert answer["batchItemFailures"] == failures(0, 1)
    assert context.get_remaining_time_in_millis() > 0


def test_without_partial_failures_the_invocation_fails_as_a_whole(app: Octopus) -> None:
    @app.on("files", ordering="none")
    async def handle(value: int) -> None:
        if value == 13:
            raise OSError

    trigger = handler(app, report_failures=False)
    assert invoke(trigger, records(1, 2, topic="files")) == []
    with pytest.raises(HandlerStopped, match=r"1 of 3 records are to be delivered again, the first is files\[0\]@1"):
        invoke(trigger, records(1, 13, 3, topic="files"))


# ── batches ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_batch_handlers_get_full_batches_and_the_rest_at_once(app: Octopus, clock: VirtualTime) -> None:
    sizes = []

    @app.on("files", batch=4, within=60)
    async def store(values: list[int]) -> None:
        sizes.append(len(values))
        await asyncio.sleep(0)

    began = clock.time()
    assert invoke(handler(app), records(*range(10), topic="files")) == []
    assert sizes == [4, 4, 2]
    assert clock.time() == began


def test_a_failed_batch_is_reported_with_everything_behind_it(app: Octopus) -> None:
    @app.on("files", batch=2)
    async def store(values: list[int]) -> None:
        if 3 in values:
            raise OSError

    assert invoke(handler(app), records(0, 1, 2, 3, 4, 5, topic="files")) == failures(2, 3, 4, 5)


def test_bad_records_of_a_batch_are_dead_lettered_and_the_others_handled(
    app: Octopus, broker: MemoryBroker, address: str
) -> None:
    seen = []

    @app.on("files", batch=10)
    async def store(values: list[int]) -> None:
        seen.extend(values)

    assert invoke(handler(app, brokers=address), records(0, b"{", 2, topic="files")) == []
    assert seen == [0, 2]
    assert [dead_letter.value for dead_letter in _dead_letters(broker, "files.dead-letter")] == [b"{"]


# ── several handlers ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_record_succeeds_when_every_handler_has_settled_it(app: Octopus) -> None:
    calls = []

    @app.on("files", ordering="none")
    async def steady(value: int) -> None:
        calls.append(("steady", value))

    @app.on("files", ordering="none")
    async def broken(value: int) -> None:
        calls.append(("broken", value))
        if value == 1:
            raise OSError

    @app.on("elsewhere")
    async def other(value: int) -> None:
        calls.append(("other", value))

    assert invoke(handler(app), records(0, 1, 2, topic="files")) == failures(1)
    assert sorted(calls) == [(name, value) for name in ("broken", "steady") for value in (0, 1, 2)]
    assert invoke(handler(app, only=["steady"]), records(0, 1, 2, topic="files")) == []


def test_handlers_that_share_a_group_do_too(app: Octopus) -> None:
    @app.on("files", group="shared")
    async def steady(value: int) -> None: ...

    @app.on("files", group="shared")
    async def broken(value: int) -> None:
        if value == 1:
            raise OSError

    assert invoke(handler(app), records(0, 1, 2, topic="files")) == failures(1, 2)


def test_records_of_a_topic_that_nobody_reads_are_an_error(app: Octopus) -> None:
    @app.on("files")
    async def handle(value: int) -> None: ...

    trigger = handler(app)
    with pytest.raises(ConfigurationError, match=r"topic 'other', which no handler of this function reads \(handle\)"):
        invoke(trigger, records(1, topic="other"))
    assert invoke(trigger, []) == []
    with pytest.raises(ConfigurationError, match="no handler 'hande'"):
        handler(app, only=["hande"])(encode([]))


# ── dead letters and publishing ───────────────────────────────────────────────────────────────────────────────────


def test_returned_values_are_published_before_the_answer(app: Octopus, broker: MemoryBroker, address: str) -> None:
    @app.on("files", to="transfers")
    async def start(value: int) -> dict[str, int]:
        await app.publish("seen", value)
        return {"source": value}

    assert invoke(handler(app, brokers=address), records(1, 2, topic="files")) == []
    assert [record.value for record in _dead_letters(broker, "transfers")] == [b'{"source":1}', b'{"source":2}']
    assert len(_dead_letters(broker, "seen")) == 2


def test_the_cluster_of_the_event_is_published_to_when_no_other_is_named(
    app: Octopus, broker: MemoryBroker, address: str
) -> None:
    @app.on("files", to="transfers")
    async def start(value: int) -> int:
        return value

    assert handler(app)(encode(records(1, topic="files"), servers=address)) == {"batchItemFailures": []}
    assert len(_dead_letters(broker, "transfers")) == 1


def test_the_environment_names_brokers(
    app: Octopus, broker: MemoryBroker, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCTOPUS_BROKERS", address)

    @app.on("files", to="transfers")
    async def start(value: int) -> int:
        return value

    assert invoke(handler(app), records(1, topic="files")) == []
    assert len(_dead_letters(broker, "transfers")) == 1


def test_without_any_broker_a_dead_letter_stays_open(app: Octopus, caplog: pytest.LogCaptureFixture) -> None:
    seen = []

    @app.on("files", ordering="none")
    async def handle(value: int) -> None:
        seen.append(value)

    assert handler(app)(encode(records(1, b"{", 3, topic="files"), servers="")) == {"batchItemFailures": failures(1)}
    assert seen == [1, 3]
    assert "beamline.handle leaves files[0]@1 open" in caplog.text
    assert "no brokers are configured" in caplog.text


def test_without_a_dead_letter_topic_the_record_stays_open(app: Octopus) -> None:
    @app.on("files", retry=1, dead_letter=False)
    async def handle(value: int) -> None:
        if value == 13:
            raise OSError

    sent = [*records(1, 13, 1, topic="files"), *records(1, topic="files", partition=1)]
    assert invoke(handler(app), sent) == failures(1, 2)


def test_a_connection_that_was_idle_for_long_is_made_again(
    app: Octopus, broker: MemoryBroker, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.on("files", to="transfers")
    async def start(value: int) -> int:
        return value

    trigger = handler(app, brokers=address)
    assert invoke(trigger, records(1, topic="files")) == []
    first = trigger._producer._producer
    assert invoke(trigger, records(1, topic="files")) == []
    assert trigger._producer._producer is first
    monkeypatch.setattr("octopus.triggers.aws.producer.STALE_AFTER", -1.0)
    assert invoke(trigger, records(1, topic="files")) == []
    assert trigger._producer._producer is not first
    assert len(_dead_letters(broker, "transfers")) == 3


# ── the deadline ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_with_200_ms_left_nothing_is_started(app: Octopus, caplog: pytest.LogCaptureFixture) -> None:
    seen = []

    @app.on("files", ordering="none")
    async def handle(value: int) -> None:
        seen.append(value)

    assert invoke(handler(app), records(1, 2, topic="files"), seconds=0.2) == failures(0, 1)
    assert seen == []
    assert "give the function a longer timeout" in caplog.text


@pytest.mark.parametrize("kind", ["awaits", "blocks the loop", "sync"])
@pytest.mark.parametrize("ordering", ["partition", "none"])
def test_what_is_not_reached_in_time_is_reported(app: Octopus, kind: str, ordering: Any, clock: VirtualTime) -> None:
    seen = []
    clock.hold_while(lambda: kind == "sync")  # a thread works, or the test is over soon

    async def awaits(event: Event[int]) -> None:
        await asyncio.sleep(0.03)
        seen.append(event.offset)

    async def blocks(event: Event[int]) -> None:
        clock.pass_by(0.03)
        seen.append(event.offset)

    def sync(event: Event[int]) -> None:
        clock.pass_by(0.03)
        seen.append(event.offset)

    app.on("files", ordering=ordering, concurrency=1, name="handle")(
        {"awaits": awaits, "blocks the loop": blocks, "sync": sync}[kind]
    )
    context = Remaining(0.5, clock.time)
    answer = handler(app, margin=0.25)(encode(records(*range(200), topic="files")), context)
    assert context.get_remaining_time_in_millis() > 0
    assert 1 <= len(seen) <= 12
    assert answer["batchItemFailures"] == failures(*range(len(seen), 200))


def test_a_handler_that_hangs_is_cancelled_before_the_deadline(app: Octopus, clock: VirtualTime) -> None:
    ended = []

    @app.on("files", ordering="none")
    async def handle(value: int) -> None:
        try:
            await asyncio.sleep(3600 if value == 13 else 0)
        except asyncio.CancelledError:
            ended.append(value)
            raise

    context = Remaining(0.4, clock.time)
    answer = handler(app, margin=0.2)(encode(records(1, 13, 3, topic="files")), context)
    assert answer["batchItemFailures"] == failures(1)
    assert ended == [13]
    assert context.get_remaining_time_in_millis() > 0


def test_a_handler_that_will_not_end_costs_the_answer_no_more_time_than_there_is(
    app: Octopus, caplog: pytest.LogCaptureFixture, clock: VirtualTime
) -> None:
    enough = threading.Event()

    @app.on("files", ordering="none")
    async def handle(value: int) -> None:
        while value == 13 and not enough.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    context = Remaining(2.0, clock.time)
    function = handler(app, margin=1.0)
    answer = function(encode(records(1, 13, 3, topic="files")), context)
    assert answer["batchItemFailures"] == failures(1)
    assert context.get_remaining_time_in_millis() > 0
    assert "some handlers do not end although they were cancelled" in caplog.text
    assert function(encode(records(5, topic="files")))["batchItemFailures"] == []
    enough.set()
    function.close()


def test_a_handler_that_makes_an_ordinary_end_of_its_cancellation_is_not_done(app: Octopus, clock: VirtualTime) -> None:
    @app.on("files", ordering="none")
    async def handle(value: int) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600 if value == 13 else 0)

    answer = handler(app, margin=0.2)(encode(records(1, 13, 3, topic="files")), Remaining(0.4, clock.time))
    assert answer["batchItemFailures"] == failures(1)


# ── one loop, one lifespan ────────────────────────────────────────────────────────────────────────────────────────


def test_every_invocation_runs_on_the_same_loop_and_leaves_no_task(app: Octopus) -> None:
    loops = set()

    @app.on("files", ordering="none")
    async def handle(value: int) -> None:
        loops.add(asyncio.get_running_loop())
        await asyncio.sleep(0)

    @app.on("files", batch=3)
    def store(values: list[int]) -> None: ...

    trigger = handler(app)
    for _ in range(20):
        assert invoke(trigger, records(1, 2, 3, 4, topic="files")) == []
        (loop,) = loops
        assert not asyncio.all_tasks(loop)
        assert not loop.is_closed()
    trigger.close()
    assert loop.is_closed()


def test_the_lifespan_spans_invocations() -> None:
    steps: list[str] = []
    session: contextvars.ContextVar[str] = contextvars.ContextVar("session")

    @contextlib.asynccontextmanager
    async def lifespan(app: Octopus) -> AsyncIterator[None]:
        steps.append("enter")
        session.set("session")
        yield
        steps.append("leave")

    app = Octopus("beamline", lifespan=lifespan)

    @app.on("files")
    async def handle(value: int) -> None:
        steps.append(session.get())

    trigger = handler(app)
    assert steps == []
    for _ in range(2):
        invoke(trigger, records(1, topic="files"))
    trigger.close()
    assert steps == ["enter", "session", "session", "leave"]


def test_a_lifespan_that_fails_fails_the_invocation_and_is_tried_again() -> None:
    attempts = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Octopus) -> AsyncIterator[None]:
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError("no database")
        yield

    app = Octopus("beamline", lifespan=lifespan)

    @app.on("files")
    async def handle(value: int) -> None: ...

    trigger = handler(app)
    with pytest.raises(OSError, match="no database"):
        invoke(trigger, records(1, topic="files"))
    assert invoke(trigger, records(1, topic="files")) == []


def test_middleware_and_sync_handlers_work(app: Octopus) -> None:
    seen = []

    @app.middleware
    async def watch(record, call_next):  # type: ignore[no-untyped-def]
        outcome = await call_next(record)
        seen.append(record.coordinates)
        return outcome

    @app.on("files")
    def handle(value: int) -> None:
        anyio.from_thread.check_cancelled()

    assert invoke(handler(app), records(1, topic="files")) == []
    assert seen == ["files[0]@0"]


def test_timers_are_mentioned(app: Octopus, caplog: pytest.LogCaptureFixture) -> None:
    @app.every(10)
    async def beat() -> None: ...

    caplog.set_level(logging.INFO)
    handler(app)(encode([]))
    assert "beamline has timers, which do not run in a function" in caplog.text


def test_mistaken_settings_are_refused_at_import(app: Octopus) -> None:
    with pytest.raises(ConfigurationError, match="margin"):
        handler(app, margin=-1)
    with pytest.raises(ConfigurationError, match="borkers"):
        handler(app, borkers="b:9092")


def _dead_letters(broker: MemoryBroker, topic: str) -> list[Record]:
    return [record for log in broker.topics.get(topic, []) for record in log.records if record is not None]
