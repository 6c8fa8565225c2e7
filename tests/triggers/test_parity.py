"""The same records through the worker, the Lambda function and the test client end the same way."""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octopus import (
    DONE,
    Batch,
    Event,
    Message,
    Next,
    Octopus,
    Record,
    Reject,
    RetryLater,
    RetryPolicy,
    config,
)
from octopus.events import TopicPartition
from octopus.pipeline.dead_letters import PREFIX
from octopus.testing import TestClient
from octopus.transports.memory import MemoryBroker, MemoryTransport, memory_transport
from octopus.triggers.aws import handler
from octopus.worker import Worker
from tests.triggers.lambda_events import encode

TOPIC = "my-events"

MESSAGES: dict[str, Message[Any]] = {
    "good": Message({"kind": "file", "size": 20}, key="a"),
    "filtered": Message({"kind": "file", "size": 1}, key="a"),
    "wrong kind": Message({"kind": "directory"}, key="b"),
    "poison": Message({"kind": "file", "size": 666}, key="a"),
    "behind the poison": Message({"kind": "file", "size": 30}, key="a"),
    "fails at first": Message({"kind": "file", "size": 77}, key="b"),
    "behind the failure": Message({"kind": "file", "size": 31}, key="b"),
    "later": Message({"kind": "file", "size": 88}, key="c"),
    "rejected": Message({"kind": "file", "size": 99}),
    "tombstone": Message(None, key="a"),
    "empty": Message(b""),
    "NaN": Message(b'{"kind": "file", "size": NaN}'),
    "bare NaN": Message(b"NaN"),
    "2^53 + 1": Message(b'{"kind": "file", "size": 9007199254740993}', key="a"),
    "2^64": Message(b'{"kind": "file", "size": 18446744073709551616}'),
    "a float": Message(b'{"kind": "file", "size": 2e1}'),
    "invalid UTF-8": Message(b'{"kind": "\xff\xfe", "size": 20}'),
    "not JSON": Message(b"\x00\x01"),
    "truncated": Message(b'{"kind": "file", "size": 2'),
    "wrong type": Message({"kind": "file", "size": "large"}),
    "a list": Message([1, 2]),
    "a number": Message(b"7"),
    "null": Message(b"null"),
    "doubled key": Message(b'{"kind": "file", "size": 5, "size": 50}'),
    "headers": Message({"kind": "file", "size": 21}, headers=[("run", b"\xff\x80"), ("run", b"2"), ("none", None)]),
    "MessagePack": Message(
        msgspec.msgpack.encode({"kind": "file", "size": 40}), headers={"content-type": "application/msgpack"}
    ),
    "garbled MessagePack": Message(b"\xc1", headers={"content-type": "application/msgpack"}),
    "unknown format": Message(b"x", headers={"content-type": "application/x-unknown"}),
}


class File(msgspec.Struct):
    kind: str
    size: int


class Seen(NamedTuple):
    """What can be seen from outside.

    Attributes:
        done: What each handler finished, per key in order; batches as they came together do not matter.
        published: What was published to which topic, without order.
        dead: Reason, attempts and original headers of each dead letter, by handler and offset.
    """

    done: dict[str, list[tuple[int, str]]]
    published: dict[str, list[tuple[bytes | None, bytes | None]]]
    dead: dict[tuple[str, int], tuple[str, str, tuple[Any, ...]]]


Make = Callable[[], tuple[Octopus, dict[str, list[tuple[int, str]]]]]
"""Makes an app and what its handlers have finished."""


def make_app() -> tuple[Octopus, dict[str, list[tuple[int, str]]]]:
    app = Octopus("parity", settings={"topics": {"partitions": 1}})
    done: dict[str, list[tuple[int, str]]] = defaultdict(list)
    tried: set[tuple[str, int]] = set()
    patient = RetryPolicy(attempts=3, backoff=0.001, never=(ZeroDivisionError,))

    def work(name: str, event: Event[Any], size: object) -> None:
        again = (name, event.offset) in tried
        tried.add((name, event.offset))
        if size == 666:
            raise ZeroDivisionError("poison")
        if size == 77 and not again:
            raise OSError("at first")
        if size == 88 and not again:
            raise RetryLater(0.001)
        if size == 99:
            raise Reject("not ours")
        done[name].append((event.offset, repr((event.value, event.key, [*event.headers]))))

    @app.on(TOPIC, filter={"kind": ["file"], "size": [{"numeric": [">", 10]}]}, to="large", retry=patient)
    async def large(event: Event[File]) -> dict[str, int]:
        work("large", event, event.value.size)
        return {"size": event.value.size}

    @app.on(TOPIC, ordering="key", retry=patient)
    async def by_key(event: Event[dict[str, Any]]) -> None:
        work("by_key", event, event.value.get("size"))

    @app.on(TOPIC, ordering="none", retry=patient, to="sync-out")
    def in_thread(event: Event[Any]) -> Any:
        size = event.value.get("size") if isinstance(event.value, dict) else None
        work("in_thread", event, size)
        return Message(f"{event.offset}", key=event.key)

    @app.on(TOPIC, ordering="none")
    async def raw(event: Event[bytes]) -> None:
        work("raw", event, None)

    @app.on(TOPIC)
    async def text(event: Event[str | None]) -> None:
        work("text", event, None)

    @app.on(TOPIC, batch=4, within=0.05, filter={"size": [{"exists": True}]}, retry=patient)
    async def batches(events: list[Event[File]]) -> list[Message[Any]]:
        for event in events:
            if event.value.size == 99:
                raise ZeroDivisionError("one of them is poison")
        for event in events:
            done["batches"].append((event.offset, repr(event.value)))
        return []

    for name in ("shared_first", "shared_second"):

        async def shared(event: Event[dict[str, Any]], name: str = name) -> None:
            work(name, event, event.value.get("size"))

        app.on(TOPIC, group="shared", retry=patient, name=name)(shared)
    return app, done


async def through_the_worker(messages: list[Message[Any]], make: Make = make_app) -> Seen:
    app, done = make()
    broker = MemoryBroker()
    broker.create_topic(TOPIC)
    loaded = config.load(app.settings)
    async with Worker(app, loaded, transport=MemoryTransport(broker)) as worker:
        await app.publish_many(TOPIC, messages)
        async with asyncio.timeout(20):
            await worker.caught_up()
        assert worker.failures == []
    return look(done, broker)


async def through_the_client(messages: list[Message[Any]], make: Make = make_app) -> Seen:
    app, done = make()
    broker = MemoryBroker()
    async with TestClient(app, raise_errors=False, broker=broker) as client:
        await client.publish_many(TOPIC, messages)
    return look(done, broker)


def through_the_function(messages: list[Message[Any]], make: Make = make_app, **options: Any) -> Seen:
    """Deploy a function for each group, and invoke it until nothing is reported, as the service does."""
    app, done = make()
    name = str(uuid.uuid4())
    transport = memory_transport(name, {})
    with app.synchronous_publisher(brokers=f"memory://{name}") as publisher:
        publisher.publish_many(TOPIC, messages)
    groups: dict[str, list[str]] = defaultdict(list)
    for route in app.routes:
        groups[app.group_of(route)].append(route.name)
    for only in groups.values():
        left = stored(transport.broker, TOPIC)
        trigger = handler(app, only=only, brokers=f"memory://{name}", **options)
        for _ in range(10):
            failures = trigger(encode(left))["batchItemFailures"]
            reported = {failure["itemIdentifier"]["offset"] for failure in failures}
            left = [record for record in left if record.offset in reported]
            if not left:
                break
        assert left == []
        trigger.close()
    return look(done, transport.broker)


def look(done: dict[str, list[tuple[int, str]]], broker: MemoryBroker) -> Seen:
    published = {
        topic: sorted(((r.key, r.value) for r in stored(broker, topic)), key=repr)
        for topic in broker.topics
        if topic not in (TOPIC, f"{TOPIC}.dead-letter")
    }
    dead = {}
    for dead_letter in stored(broker, f"{TOPIC}.dead-letter"):
        said = {
            name.removeprefix(PREFIX): (value or b"").decode()
            for name, value in dead_letter.headers
            if name.startswith(PREFIX)
        }
        kept = tuple(pair for pair in dead_letter.headers if not pair[0].startswith(PREFIX))
        place = (said["handler"], int(said["offset"]))
        assert place not in dead, "dead-lettered twice"
        dead[place] = (said["reason"], said["attempts"], (dead_letter.key, dead_letter.value, kept))
    return Seen({name: sorted({*each}) for name, each in done.items()}, published, dead)


def stored(broker: MemoryBroker, topic: str) -> list[Record]:
    if topic not in broker.topics:
        return []
    log = broker.log(TopicPartition(topic, 0))
    return log.read(log.start, log.end - log.start)[0]


@pytest.fixture(scope="module")
def seen() -> dict[str, Seen]:
    messages = [*MESSAGES.values()]
    return {
        "worker": asyncio.run(through_the_worker(messages)),
        "client": asyncio.run(through_the_client(messages)),
        "function": through_the_function(messages),
    }


@pytest.mark.parametrize("driver", ["client", "function"])
@pytest.mark.parametrize("aspect", Seen._fields)
def test_it_makes_no_difference_what_runs_a_handler(seen: dict[str, Seen], driver: str, aspect: str) -> None:
    assert getattr(seen[driver], aspect) == getattr(seen["worker"], aspect)


def test_the_records_of_the_comparison_end_in_every_way(seen: dict[str, Seen]) -> None:
    names = [*MESSAGES]
    done = {names[offset] for offset, _ in seen["worker"].done["large"]}
    dead = {names[offset] for handler_name, offset in seen["worker"].dead if handler_name == "large"}
    assert {"good", "behind the poison", "fails at first", "later", "MessagePack", "headers"} <= done
    assert {"poison", "rejected", "NaN", "invalid UTF-8", "truncated", "garbled MessagePack"} <= dead
    # EventBridge compares numbers up to five billion only, so the pattern takes no larger one; handlers get it exactly.
    assert {"filtered", "wrong kind", "tombstone", "2^53 + 1"} <= {*names} - done - dead
    assert any("9007199254740993" in value for _, value in seen["worker"].done["by_key"])


def make_careless_app() -> tuple[Octopus, dict[str, list[tuple[int, str]]]]:
    app = Octopus("careless", settings={"topics": {"partitions": 1}})
    done: dict[str, list[tuple[int, str]]] = defaultdict(list)

    @app.middleware
    async def forgetful(record: Record | Batch, call_next: Next) -> Any:
        outcome = await call_next(record)
        return None if call_next.handler == "quiet" else outcome

    @app.on(TOPIC)
    async def answers(event: Event[Any]):  # type: ignore[no-untyped-def]
        done["answers"].append((event.offset, str(event.attempt)))
        return {"offset": event.offset}

    @app.on(TOPIC, batch=2, within=0.05)
    def batches(events: list[Event[Any]]) -> Any:
        done["batches"].extend((event.offset, str(event.attempt)) for event in events)
        return [1, 2]

    @app.on(TOPIC, to="out")
    async def lost(event: Event[Any]) -> Message[Any]:
        return Message("x", topic="no topic")

    @app.on(TOPIC, to="out")
    async def answered(event: Event[Any]) -> Any:
        return DONE

    @app.on(TOPIC)
    async def quiet(event: Event[Any]) -> None:
        done["quiet"].append((event.offset, str(event.attempt)))

    return app, done


def test_what_was_returned_and_cannot_be_used_is_a_dead_letter_at_once_wherever_it_runs() -> None:
    given: list[Message[Any]] = [Message(1), Message(2)]
    seen = [
        asyncio.run(through_the_worker(given, make_careless_app)),
        asyncio.run(through_the_client(given, make_careless_app)),
        through_the_function(given, make_careless_app),
    ]
    once = [(0, "1"), (1, "1")]
    reasons = {
        "answers": "handler 'answers' returned a value of type dict, and nothing says where it goes: give it to=",
        "batches": "handler 'batches' returned a value of type int, and nothing says where it goes: give it to=",
        "lost": "handler 'lost': 'no topic' is not a topic name",
        "answered": "handler 'answered' returned a value of type Done, which is an outcome: return None",
        "quiet": "middleware 'make_careless_app.forgetful' of handler 'quiet' returned None, which is no outcome",
    }
    for each in seen:
        assert each.done == {"answers": once, "batches": once, "quiet": once}
        assert {place[0] for place in each.dead} == {*reasons}
        for (name, _), (reason, attempts, _) in each.dead.items():
            assert reason.startswith(reasons[name])
            assert attempts == "1"
        assert each.published == {}


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([666, 77, 88, 99, 11, "file"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["kind", "size", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)
files = st.fixed_dictionaries({"kind": st.sampled_from(["file", "directory"]), "size": st.integers(0, 100)})
messages = st.builds(
    lambda value, key: Message(value, key=key),
    files | values.filter(lambda value: not isinstance(value, float)) | st.binary(max_size=12),
    st.sampled_from(["a", "b", None]),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(messages, min_size=1, max_size=6))
def test_nor_does_it_for_any_other_record(messages: list[Message[Any]]) -> None:
    assert through_the_function(messages) == asyncio.run(through_the_client(messages))
