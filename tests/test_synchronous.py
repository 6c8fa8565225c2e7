"""`SynchronousPublisher.send`: it returns at once, memory is bounded, and whatever is not delivered is told."""

import asyncio
import logging
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from octopus import Octopus
from octopus.errors import ConfigurationError, ConnectionFailed, QueueFull, RecordTooLarge, TransportError
from octopus.events import Published, TopicPartition
from octopus.send_queue import OVERHEAD, PART_BYTES, Undelivered
from octopus.synchronous import SynchronousPublisher
from octopus.transports.base import Outgoing
from octopus.transports.embedded import EmbeddedTransport
from octopus.transports.memory import MemoryBroker, MemoryTransport
from octopus.transports.opening import open_transport
from octopus.transports.queueing import Queued, answered, fail
from tests.transports.members import Member
from tests.transports.test_faults import PRODUCE


def connecting(producer: Any) -> Callable[[], AbstractAsyncContextManager[Any]]:
    @asynccontextmanager
    async def connect() -> AsyncIterator[Any]:
        yield producer

    return connect


def sending(broker: MemoryBroker, **options: Any) -> SynchronousPublisher:
    return SynchronousPublisher(connecting(MemoryTransport(broker).producer()), name="app", **options)


class Held:
    """A producer whose broker answers when it is told to.

    Attributes:
        calls: What was queued, with its future.
        has_any: Set when something was queued.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Sequence[Outgoing], Queued]] = []
        self.has_any = threading.Event()
        self.answers = False

    def queue(self, messages: Sequence[Outgoing]) -> Queued:
        if self.answers:
            return answered(lambda: [Published("t", 0, 0)] * len(messages))
        future: Queued = asyncio.get_running_loop().create_future()
        self.calls.append((messages, future))
        self.has_any.set()
        return future

    def release(self, error: BaseException | None = None) -> None:
        """Answer everything, from any thread; what comes later is answered at once."""
        _, first = self.calls[0]
        first.get_loop().call_soon_threadsafe(self._answer, error)

    def _answer(self, error: BaseException | None) -> None:
        self.answers = True
        for messages, future in self.calls:
            if error is not None:
                fail(future, error)
            elif not future.done():
                future.set_result([Published("t", 0, 0)] * len(messages))


def stored(broker: MemoryBroker, topic: str = "t") -> list[bytes]:
    return [record.value or b"" for log in broker.topics[topic] for record in log.read(0, 100_000)[0]]


def send_all(publisher: SynchronousPublisher, *values: object) -> None:
    with publisher:
        for value in values:
            publisher.send("t", value)


def in_threads(*works: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# ── order ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_threads_send_arrives_and_each_key_keeps_its_order() -> None:
    broker = MemoryBroker(auto_create=3)

    def send(name: str) -> Callable[[], None]:
        def work() -> None:
            for number in range(2000):
                publisher.send("t", f"{name}:{number}", key=name)

        return work

    with sending(broker, queue_bytes=100_000) as publisher:
        in_threads(*[send(name) for name in "abcd"])
        publisher.flush()
        values = [value.decode().split(":") for value in stored(broker)]
        for name in "abcd":
            assert [int(number) for owner, number in values if owner == name] == list(range(2000))


def test_send_publish_and_publish_many_keep_the_order_of_their_calls() -> None:
    broker = MemoryBroker(auto_create=1)
    with sending(broker) as publisher:
        for first in range(0, 60, 3):
            publisher.send("t", str(first))
            publisher.publish("t", str(first + 1))
            publisher.publish_many("t", [str(first + 2)])
    assert stored(broker) == [b"%d" % number for number in range(60)]


def test_key_headers_and_values_are_those_of_publish() -> None:
    broker = MemoryBroker(auto_create=1)
    with sending(broker) as publisher:
        for go in (publisher.send, publisher.publish):
            go("t", {"kelvin": 4.2}, key="k", headers={"h": "1"})
            go("t", None, key=b"k")
            go("t", "text")
    first, _ = broker.log(TopicPartition("t", 0)).read(0, 10)
    assert [(each.key, each.value, each.headers) for each in first[:3]] == [
        (each.key, each.value, each.headers) for each in first[3:]
    ]


def test_many_events_are_queued_together() -> None:
    held = Held()
    with SynchronousPublisher(connecting(held)) as publisher:
        publisher.send("t", "first")
        assert held.has_any.wait(20)
        for number in range(5000):
            publisher.send("t", str(number))
        held.release()
        publisher.flush()
    assert len(held.calls) < 500


def test_a_value_that_cannot_be_encoded_is_the_error_of_its_caller() -> None:
    with sending(MemoryBroker()) as publisher, pytest.raises(TypeError):
        publisher.send("t", object())


# ── the bound ─────────────────────────────────────────────────────────────────────────────────────────────────────────

EVENT = b"x" * (PART_BYTES // 4 - OVERHEAD)


@pytest.mark.parametrize("given", [{"key": 5}, {"headers": 5}, {"headers": {"a": 5}}], ids=["key", "headers", "header"])
def test_what_no_event_can_have_is_the_error_of_its_caller(given: dict[str, Any]) -> None:
    with sending(MemoryBroker()) as publisher, pytest.raises(TypeError, match=r"of type int(\.|, are not)"):
        publisher.send("t", 1, **given)


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("on_error", [5, "print"]),
        ("queue_bytes", [-1, 0, 1.5, "16 MB", None]),
        ("close_timeout", [-1, "x", None, float("nan"), float("inf")]),
    ],
    ids=["on_error", "queue_bytes", "close_timeout"],
)
def test_a_publisher_refuses_arguments_that_cannot_be(argument: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(ConfigurationError, match=re.escape(f"{argument}={value!r} ")):
            sending(MemoryBroker(), **{argument: value})


def fill(publisher: SynchronousPublisher) -> int:
    """Send until there is no room; return how many were taken."""
    for number in range(100):
        try:
            publisher.send("t", EVENT, timeout=0)
        except QueueFull:
            return number
    raise AssertionError("nothing bounds what is queued")


def test_a_full_queue_refuses_or_waits_until_there_is_room() -> None:
    held, sent = Held(), threading.Event()

    def send() -> None:
        publisher.send("t", EVENT, timeout=None)
        sent.set()

    with SynchronousPublisher(connecting(held), name="app", queue_bytes=2 * PART_BYTES) as publisher:
        assert fill(publisher) == 8
        with pytest.raises(
            QueueFull, match=r"of at most 524288, and no room after 0\.01 s: this event is not sent"
        ) as caught:
            publisher.send("t", EVENT, timeout=0.01)
        assert caught.value.retryable
        thread = threading.Thread(target=send)
        thread.start()
        assert held.has_any.wait(20)
        assert not sent.is_set()
        held.release()
        assert sent.wait(20)
        thread.join()
        publisher.flush()
        assert sum(len(messages) for messages, _ in held.calls) <= 8


def test_an_event_larger_than_the_queue_goes_when_it_is_alone() -> None:
    held = Held()
    with SynchronousPublisher(connecting(held), queue_bytes=1000) as publisher:
        publisher.send("t", b"x" * 5000, timeout=0)
        with pytest.raises(QueueFull):
            publisher.send("t", b"x", timeout=0)
        assert held.has_any.wait(20)
        held.release()


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_not_delivered_is_told_to_on_error_in_the_thread_of_the_publisher_and_by_flush() -> None:
    told: list[tuple[Undelivered, str]] = []

    def on_error(undelivered: Undelivered) -> None:
        told.append((undelivered, threading.current_thread().name))
        raise ValueError("and it fails itself")

    with sending(MemoryBroker(max_record_bytes=10), on_error=on_error) as publisher:
        for value in ("ok", "x" * 100, "fine", "y" * 100):
            publisher.send("t", value, key="k")
        with pytest.raises(TransportError, match=r"2 events are not delivered .* of app .* to 't'") as caught:
            publisher.flush()
        assert isinstance(caught.value.__cause__, RecordTooLarge)
        publisher.flush()
        publisher.send("t", "z" * 100)
    assert [(each.value, each.key, thread) for each, thread in told] == [
        (b"x" * 100, b"k", "octopus publisher"),
        (b"y" * 100, b"k", "octopus publisher"),
        (b"z" * 100, None, "octopus publisher"),
    ]
    assert all(isinstance(each.error, RecordTooLarge) for each, _ in told)


def test_the_end_of_the_block_raises_what_nobody_was_told() -> None:
    with pytest.raises(TransportError, match="1 event is not delivered"):
        send_all(sending(MemoryBroker(max_record_bytes=10)), "x" * 100)


def test_a_block_that_fails_keeps_its_error_and_the_log_has_the_other(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TypeError):
        send_all(sending(MemoryBroker(max_record_bytes=10)), "x" * 100, object())
    assert "1 event is not delivered" in caplog.text


def test_nothing_done_to_the_headers_of_an_undelivered_event_reaches_another() -> None:
    told: list[Undelivered] = []
    origin = ("origin", b"test")
    with sending(broker := MemoryBroker(max_record_bytes=100), on_error=told.append) as publisher:
        publisher.send("t", b"x" * 200, headers=[origin])
        with pytest.raises(TransportError):
            publisher.flush()
        assert told[0].headers == (origin,)
        with pytest.raises(AttributeError):
            told[0].headers.append(("attempt", b"2"))  # type: ignore[attr-defined]
        publisher.send("t", b"x", headers=[origin])
        publisher.flush()
    assert [record.headers for log in broker.topics["t"] for record in log.records] == [(origin,)]


def test_on_error_may_send_and_never_waits_for_room() -> None:
    held, said = Held(), list[object]()

    def on_error(undelivered: Undelivered) -> None:
        try:
            publisher.send("t", b"x" * 5000, timeout=None)
            said.append("sent")
        except QueueFull as error:
            said.append(error)

    with SynchronousPublisher(connecting(held), queue_bytes=3000, on_error=on_error) as publisher:
        for _ in range(3):
            publisher.send("t", b"x" * 700)
        assert held.has_any.wait(20)
        held.release(ConnectionFailed("away"))
        with pytest.raises(TransportError):
            publisher.flush()
    assert "sent" in said


# ── ends ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_flush_waits_no_longer_than_it_is_told() -> None:
    held = Held()
    with SynchronousPublisher(connecting(held), name="app") as publisher:
        publisher.send("t", "x")
        with pytest.raises(TimeoutError, match=r"^1 event is not acknowledged after 0\.01 s that .* of app has sent"):
            publisher.flush(0.01)
        assert held.has_any.wait(20)
        held.release()
        publisher.flush()


def test_closing_delivers_within_its_time_and_says_what_it_did_not() -> None:
    held, told = Held(), list[Undelivered]()
    with SynchronousPublisher(connecting(held), on_error=told.append, close_timeout=0.05) as publisher:
        for number in range(3):
            publisher.send("t", str(number))
    assert [each.value for each in told] == [b"0", b"1", b"2"]
    assert "not acknowledged within the 0.05 s" in str(told[0].error)
    with pytest.raises(TransportError, match="2 events are not delivered"):
        send_all(SynchronousPublisher(connecting(Held()), close_timeout=0.05), "a", "b")
    assert not any(thread.name == "octopus publisher" for thread in threading.enumerate())


def test_after_its_end_a_publisher_takes_nothing_and_says_so() -> None:
    publisher = sending(MemoryBroker())
    for go in (lambda: publisher.send("t", 1), publisher.flush):
        with pytest.raises(ConfigurationError, match="use it in a `with` block"):
            go()
    with publisher:
        publisher.send("t", 1)
    with pytest.raises(ConfigurationError, match="use it in a `with` block"):
        publisher.send("t", 1)


def test_who_waits_for_room_when_it_is_closed_is_told_that_the_event_is_not_sent() -> None:
    held, said, waits = Held(), list[Exception](), threading.Event()

    def send() -> None:
        waits.set()
        try:
            publisher.send("t", EVENT, timeout=None)
        except ConfigurationError as error:
            said.append(error)

    with SynchronousPublisher(
        connecting(held), name="app", queue_bytes=1000, on_error=lambda _: None, close_timeout=0.01
    ) as publisher:
        publisher.send("t", EVENT)
        thread = threading.Thread(target=send)
        thread.start()
        waits.wait()
    thread.join()
    assert "closed: this event is not sent" in str(said[0]) or "not open" in str(said[0])


FORKED = """
import os
from octopus import Octopus

app = Octopus("app", brokers="memory://fork")
with app.synchronous_publisher() as publisher:
    publisher.send("t", 1)
    child = os.fork()
    if not child:
        for go in (lambda: publisher.send("t", 2), publisher.flush):
            try:
                go()
            except Exception as error:
                print(type(error).__name__, error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    publisher.send("t", 3)
    publisher.flush()
print("the parent goes on")
"""


def test_a_fork_is_told_to_open_one_of_its_own_and_the_parent_goes_on() -> None:
    said = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.count("ConfigurationError The synchronous publisher of app was opened by process") == 2
    assert said.count("Open one in this process: `with app.synchronous_publisher() as publisher:`.") == 2
    assert "the parent goes on" in said


def test_sending_logs_nothing_when_all_is_well(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with Octopus("app", brokers="memory://quiet").synchronous_publisher() as publisher:
        publisher.send("t", 1)
        publisher.flush()
    assert caplog.text == ""


# ── a broker ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_broker_that_is_away_lets_the_queue_fill_and_gets_everything_in_order_when_it_is_back() -> None:
    broker = open_transport("embedded://")
    assert isinstance(broker, EmbeddedTransport)
    await broker.open()

    def send() -> int:
        with app.synchronous_publisher(queue_bytes=100_000) as publisher:
            publisher.send("numbers", "0", key="k")
            publisher.flush()
            broker.faults.delay(PRODUCE, 3600.0)
            number = 0
            while True:
                try:
                    publisher.send("numbers", str(number + 1), key="k", timeout=0.2)
                except QueueFull:
                    break
                number += 1
            broker.faults.clear()
            publisher.send("numbers", str(number + 1), key="k", timeout=None)
            publisher.flush(60)
            return number + 2

    app = Octopus("app", brokers=broker.address, settings={"producer": {"request_timeout": 1.0}})
    count = await asyncio.to_thread(send)
    assert count > 100
    member = Member(broker, "reader", {"numbers"})
    await member.consumer.start(member)
    await member.until(lambda: member.count >= count)
    await member.consumer.stop()
    assert member.values() == [b"%d" % number for number in range(count)]
    await broker.close()


KILLED = """
import os, signal, sys
from octopus import Octopus

app = Octopus("app", brokers=sys.argv[1])
with app.synchronous_publisher() as publisher:
    for number in range(500):
        publisher.send("numbers", str(number), key="k")
    publisher.flush()
    for number in range(500, 100_000):
        publisher.send("numbers", str(number), key="k")
    os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_of_a_process_that_dies_everything_is_stored_that_was_flushed_and_nothing_out_of_order() -> None:
    broker = open_transport("embedded://")
    await broker.open()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, broker.address)
    assert await process.wait() == -signal.SIGKILL
    member = Member(broker, "reader", {"numbers"})
    await member.consumer.start(member)
    await member.until(lambda: member.count >= 500)
    stored = member.values()
    await member.consumer.stop()
    assert stored == [b"%d" % number for number in range(len(stored))]
    await broker.close()
