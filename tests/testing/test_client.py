"""The test client: an app in process, in virtual time."""

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import pytest

from octopus import Event, Message, Octopus, Reject, RetryLater, RetryPolicy, Router
from octopus.errors import ConfigurationError, DecodeError, HandlerStopped, TransportError
from octopus.testing import DONE, SKIPPED, DeadLetter, Retry, TestClient, VirtualTimeLoop
from octopus.transports.memory import MemoryBroker


class File(msgspec.Struct):
    path: str
    size: int = 0


@pytest.fixture
def app() -> Octopus:
    return Octopus("beamline")


# ── publish in, outcomes and events out ───────────────────────────────────────────────────────────────────────────


async def test_publishing_runs_the_handlers_and_returns_the_outcome_of_each(app: Octopus) -> None:
    @app.on("files", filter={"size": [{"numeric": [">", 10]}]})
    async def large(file: File) -> None: ...

    @app.on("files")
    async def every(file: File) -> None: ...

    async with TestClient(app) as client:
        assert await client.publish("files", File("/a", 5)) == {"large": SKIPPED, "every": DONE}
        assert await client.publish("files", File("/b", 50)) == {"large": DONE, "every": DONE}
        assert await client.publish("elsewhere", {}) == {}


async def test_a_handler_that_an_event_is_not_for_has_skipped_it_once_however_often_another_tries() -> None:
    app = Octopus("app")

    @app.on("files", group="shared", filter={"size": [{"numeric": [">", 10]}]})
    async def large(file: File) -> None: ...

    @app.on("files", group="shared", retry=RetryPolicy(attempts=3, backoff=1, jitter=0))
    async def flaky(event: Event[File]) -> None:
        if event.attempt < 3:
            raise OSError("not yet")

    async with TestClient(app) as client:
        assert await client.publish("files", File("/a", 5)) == {"large": SKIPPED, "flaky": DONE}
        assert [outcome for _, outcome in client.outcomes("large")] == [SKIPPED]
        assert [type(outcome) for _, outcome in client.outcomes("flaky")] == [Retry, Retry, type(DONE)]
        assert await client.publish("files", File("/b", 50)) == {"large": DONE, "flaky": DONE}


def test_a_test_need_not_be_async(app: Octopus) -> None:
    @app.on("files", to="transfers")
    async def start(file: File) -> dict[str, str]:
        return {"source": file.path}

    with TestClient(app) as client:
        assert client.publish("files", File("/a")) == {"start": DONE}
        assert [message.value for message in client.published("transfers")] == [{"source": "/a"}]


async def test_published_events_are_decoded_and_keep_key_and_headers(app: Octopus) -> None:
    @app.on("files", to="out")
    async def copy(event: Event[File]) -> list[object]:
        return [Message(event.value, key="k", headers={"unit": "kelvin"}), "text", b"\xff", File("/b")]

    async with TestClient(app) as client:
        await client.publish("files", File("/a"), key="from")
        first, *others = client.published("out")
        assert (first.value, first.key, first.header("unit")) == ({"path": "/a", "size": 0}, b"k", b"kelvin")
        assert [message.value for message in others] == [b"text", b"\xff", {"path": "/b", "size": 0}]
        assert [message.key for message in others] == [b"from"] * 3
        assert client.published("files") == []  # that was the test itself
        with pytest.raises(DecodeError):
            client.published("out", File)


async def test_published_events_can_be_decoded_as_a_type(app: Octopus) -> None:
    async with TestClient(app) as client:
        await app.publish("out", File("/a", 3))
        assert client.published("out", File)[0].value.size == 3


async def test_what_one_handler_publishes_reaches_the_next(app: Octopus) -> None:
    seen = []

    @app.on("raw", to="clean")
    async def first(value: int) -> int:
        return value + 1

    @app.on("clean", to="final")
    async def second(value: int) -> int:
        return value * 2

    @app.on(re.compile("fin.*"))
    async def third(value: int) -> None:
        seen.append(value)

    async with TestClient(app) as client:
        assert await client.publish("raw", 1) == {"first": DONE}
        assert seen == [4]
        assert [record.value for record, _ in client.outcomes("second")] == [b"2"]


NOWHERE = "127.0.0.1:1"
"""Where no broker is: whoever asks for it fails."""


async def test_what_would_open_a_connection_of_its_own_stays_in_the_test_too() -> None:
    app = Octopus("beamline", brokers=NOWHERE)
    seen: list[str] = []

    @app.on("files")
    def in_a_thread(path: str) -> None:
        with app.synchronous_publisher() as publisher:
            publisher.publish("copies", "synchronous " + path)

    @app.on("files")
    async def connects(path: str) -> None:
        async with app.connected(brokers=NOWHERE) as elsewhere:
            await elsewhere.publish("copies", "connected " + path)
            await app.publish("copies", "app " + path)

    @app.on("copies")
    async def copied(text: str) -> None:
        seen.append(text)

    async with TestClient(app) as client:
        await client.publish("files", "/a")
        assert sorted(seen) == ["app /a", "connected /a", "synchronous /a"]
        assert sorted(event.value.decode() for event in client.published("copies")) == sorted(seen)


def test_a_synchronous_publisher_of_the_test_reaches_the_handlers_when_they_run_next() -> None:
    app = Octopus("beamline", brokers=NOWHERE)
    seen: list[str] = []

    @app.on("files")
    async def note(path: str) -> None:
        seen.append(path)

    with TestClient(app) as client, app.synchronous_publisher() as publisher:
        assert publisher.publish("files", "/a").offset == 0
        thread = threading.Thread(target=publisher.publish_many, args=("files", ["/b", "/c"]))
        thread.start()
        thread.join()
        client.settle()
        assert seen == ["/a", "/b", "/c"]
        assert [event.offset for event in client.published("files")] == [0, 1, 2]
    with pytest.raises(TransportError), app.synchronous_publisher():  # the test client is gone
        pass


async def test_middleware_runs(app: Octopus) -> None:
    seen = []

    @app.middleware
    async def watch(record, call_next):  # type: ignore[no-untyped-def]
        seen.append(record.coordinates)
        return await call_next(record)

    @app.on("files")
    async def handle(file: File) -> None: ...

    async with TestClient(app) as client:
        await client.publish("files", File("/a"))
    assert seen == ["files[0]@0"]


async def test_only_some_handlers_can_be_tested(app: Octopus) -> None:
    @app.on("files")
    async def one(file: File) -> None: ...

    @app.on("files")
    async def other(file: File) -> None: ...

    async with TestClient(app, only=["one"]) as client:
        assert await client.publish("files", File("/a")) == {"one": DONE}


# ── failures ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_exception_is_raised_in_the_test_once_its_event_is_given_up(app: Octopus) -> None:
    @app.on("files", retry=3)
    async def broken(file: File) -> None:
        raise KeyError(file.path)

    async with TestClient(app) as client:
        with pytest.raises(KeyError, match="/a") as caught:
            await client.publish("files", File("/a"))
        assert caught.value.__notes__ == ["while broken handled files[0]@0, attempt 3; it was given up"]
        await client.settle()  # raised once
        with pytest.raises(BaseExceptionGroup) as several:
            await client.publish_many("files", [File("/b"), File("/c")])
        assert len(several.value.exceptions) == 2


async def test_failures_keep_every_attempt(app: Octopus) -> None:
    @app.on("files", retry=3)
    async def moody(event: Event[File]) -> None:
        if event.attempt < 3:
            raise OSError(f"attempt {event.attempt}")

    async with TestClient(app) as client:
        assert await client.publish("files", File("/a")) == {"moody": DONE}
        assert [(f.handler, f.attempt, str(f.error)) for f in client.failures] == [
            ("moody", 1, "attempt 1"),
            ("moody", 2, "attempt 2"),
        ]
        retries = [outcome for _, outcome in client.outcomes("moody")]
        assert [type(outcome) for outcome in retries] == [Retry, Retry, type(DONE)]


async def test_dead_letters_tell_the_reason(app: Octopus) -> None:
    @app.on("files", retry=2)
    async def broken(file: File) -> None:
        if file.path == "/no":
            raise Reject("not ours")
        raise OSError("disk full")

    async with TestClient(app, raise_errors=False) as client:
        outcomes = await client.publish("files", File("/a"), key="k", headers={"run": "7"})
        await client.publish("files", File("/no"))
        await client.publish("files", b"{")
        assert isinstance(outcomes["broken"], DeadLetter)
        failed, rejected, garbled = client.dead_letters()
        assert failed.reason == "failed 2 times, at last with OSError: disk full"
        assert (failed.handler, failed.attempts, failed.error, failed.source) == ("broken", 2, "OSError", "files")
        assert (failed.event.value["path"], failed.event.key, failed.event.headers) == ("/a", b"k", (("run", b"7"),))
        assert rejected.reason == "not ours"
        assert (garbled.event.value, garbled.error) == (b"{", "octopus.errors.DecodeError")
        assert client.dead_letters("elsewhere") == []
        assert len(client.published("files.dead-letter")) == 3


async def test_answers_are_not_raised(app: Octopus) -> None:
    postponed = []

    @app.on("files")
    async def choosy(event: Event[File]) -> None:
        if event.offset == 0:
            raise Reject("no")
        if not postponed:
            postponed.append(event)
            raise RetryLater(3600)

    async with TestClient(app) as client:
        await client.publish("files", File("/a"))
        await client.publish("files", b"not a file")
        assert await client.publish("files", File("/b")) == {"choosy": DONE}
        assert client.failures == []


async def test_a_stop_of_processing_is_always_raised(app: Octopus) -> None:
    @app.on("files", retry=1, dead_letter=False)
    async def broken(file: File) -> None:
        raise OSError("disk full")

    async with TestClient(app, raise_errors=False) as client:
        with pytest.raises(HandlerStopped, match=r"cannot handle files\[0\]@0"):
            await client.publish("files", File("/a"))


async def test_a_handler_that_does_not_end_is_named(app: Octopus) -> None:
    @app.on("files")
    async def stuck(file: File) -> None:
        await asyncio.Event().wait()

    async with TestClient(app) as client:
        await client.publish("files", File("/a"), settle=False)
        with pytest.raises(TimeoutError, match=r"beamline.stuck files\[0\]@0"):
            await client.settle(patience=0.05)


async def test_handlers_that_feed_each_other_for_ever_are_noticed(app: Octopus) -> None:
    @app.on("ping", to="ping")
    async def again(value: int) -> int:
        return value + 1

    async with TestClient(app) as client:
        await client.publish("ping", 1, settle=False)
        with pytest.raises(TimeoutError, match="again"):
            await client.settle(patience=0.05)


# ── order, groups, starts ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("ordering", "expected"),
    [
        ("partition", ["a1 failed", "a1", "b1", "a2"]),
        ("key", ["a1 failed", "b1", "a1", "a2"]),
        ("none", ["a1 failed", "b1", "a2", "a1"]),
    ],
)
async def test_ordering_is_that_of_the_worker(app: Octopus, ordering: str, expected: list[str]) -> None:
    seen: list[str] = []

    @app.on("files", ordering=ordering, retry=2)  # type: ignore[arg-type]
    async def handle(event: Event[str]) -> None:
        if event.value == "a1" and event.attempt == 1:
            seen.append("a1 failed")
            raise OSError
        seen.append(event.value)

    async with TestClient(app) as client:
        await client.publish_many("files", [Message(name, key=name[0]) for name in ("a1", "b1", "a2")])
    assert seen == expected


async def test_handlers_of_one_group_share_its_records_and_retry_alone(app: Octopus) -> None:
    calls = []

    @app.on("files", group="shared")
    async def steady(event: Event[File]) -> None:
        calls.append("steady")

    @app.on("files", group="shared")
    async def moody(event: Event[File]) -> None:
        calls.append(f"moody {event.attempt}")
        if event.attempt == 1:
            raise OSError

    async with TestClient(app) as client:
        assert await client.publish("files", File("/a")) == {"steady": DONE, "moody": DONE}
    assert calls == ["steady", "moody 1", "moody 2"]


async def test_partitions_are_chosen_by_key_and_number(app: Octopus) -> None:
    seen = []

    @app.on("files")
    async def handle(event: Event[File]) -> None:
        seen.append((event.partition, event.offset))

    async with TestClient(app, partitions=3) as client:
        for partition in (2, 0, 2):
            await client.publish("files", File("/a"), partition=partition)
    assert seen == [(2, 0), (0, 0), (2, 1)]


@pytest.mark.parametrize(
    ("start", "expected"),
    [("earliest", ["old", "new"]), ("latest", ["new"]), (timedelta(hours=1), ["new"])],
    ids=["earliest", "latest", "an hour ago"],
)
async def test_a_new_group_starts_where_its_handler_says(app: Octopus, start: object, expected: list[str]) -> None:
    seen: list[str] = []
    broker = MemoryBroker()
    async with TestClient(app, broker=broker) as client:
        await client.publish("files", "old", timestamp=time.time() - 7200)

    @app.on("files", start=start)  # type: ignore[arg-type]
    async def handle(name: str) -> None:
        seen.append(name)

    async with TestClient(app, broker=broker) as client:
        await client.publish("files", "new")
    assert seen == expected


async def test_a_second_client_goes_on_where_the_first_ended(app: Octopus) -> None:
    seen: list[str] = []
    broker = MemoryBroker()

    @app.on("files", ordering="none", retry=0)
    async def handle(name: str) -> None:
        if name == "stuck" and len(seen) < 2:
            raise RetryLater(1e9)
        seen.append(name)

    async with TestClient(app, broker=broker) as client:
        await client.publish_many("files", ["stuck", "one", "two"], settle=False)
        await client.advance(1)
    async with TestClient(app, broker=broker) as client:
        await client.settle()
    assert seen == ["one", "two", "stuck"]


# ── small print ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_pytest_does_not_collect_the_client() -> None:
    assert TestClient.__test__ is False


async def test_an_async_test_is_told_to_use_the_async_form(app: Octopus) -> None:
    with pytest.raises(ConfigurationError, match="async with"), TestClient(app):
        pass


@pytest.fixture
async def client(app: Octopus) -> AsyncIterator[TestClient]:
    @app.on("files", retry=2)
    async def moody(event: Event[File]) -> None:
        if event.attempt == 1:
            raise OSError

    async with TestClient(app) as client:
        yield client


async def test_the_client_may_be_a_fixture(client: TestClient) -> None:
    assert await client.publish("files", File("/a")) == {"moody": DONE}


def test_settings_can_be_given(app: Octopus) -> None:
    @app.on("files", retry=1)
    async def broken(file: File) -> None:
        raise OSError("disk full")

    with (
        pytest.raises(HandlerStopped, match="2 events died"),
        TestClient(app, raise_errors=False, worker={"dead_letter_limit": 2}) as client,
    ):
        client.publish_many("files", [File("/a")] * 3)
    with pytest.raises(ConfigurationError):
        TestClient(app, wroker={})


async def test_a_loop_with_a_clock_of_its_own_is_refused(app: Octopus) -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed on this platform")

    async def enter() -> None:
        async with TestClient(app):
            pass

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(enter())

    with pytest.raises(ConfigurationError, match="uvloop"):
        await asyncio.to_thread(run)


def test_an_async_client_works_on_a_virtual_loop(app: Octopus) -> None:
    @app.on("files")
    async def handle(file: File) -> None:
        await asyncio.sleep(100)

    async def main() -> float:
        async with TestClient(app) as client:
            await client.publish("files", File("/a"))
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert 100 <= runner.run(main()) < 101


def test_a_router_is_tested_in_an_app_of_the_test() -> None:
    router = Router()

    @router.on("files", to="copies")
    async def copy(file: File) -> File:
        return file

    app = Octopus("test")
    app.include(router, prefix="x.")
    with TestClient(app) as client:
        assert client.publish("x.files", File("/a")) == {"x.copy": DONE}
        assert client.published("x.copies", File)[0].value == File("/a")
