"""Publishing: what messages become, and from where one may publish."""

import asyncio
import dataclasses
import json
import re
import threading
import time
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any

import fastapi
import msgspec
import pydantic
import pytest

from octopus import Message, Octopus
from octopus.errors import ConfigurationError, NotAuthorized, RecordTooLarge
from octopus.events import Published, TopicPartition
from octopus.publishing import Publisher, encode_headers, encode_key
from octopus.serde import JSON
from octopus.synchronous import SynchronousPublisher
from octopus.testing import TestClient
from octopus.transports.base import Outgoing
from octopus.transports.memory import MemoryBroker, MemoryTransport, memory_transport
from tests.staged import until


class Colour(Enum):
    RED = "red"


class Packed:
    content_type = "application/msgpack"

    def decoder(self, annotation: Any) -> Any:
        return msgspec.msgpack.Decoder(annotation).decode

    def encode(self, value: Any) -> bytes:
        return msgspec.msgpack.encode(value)


def publisher(broker: MemoryBroker, **options: Any) -> Publisher:
    return Publisher(MemoryTransport(broker).producer(), **options)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"a": 1}, Outgoing("t", b'{"a":1}', b"k")),
        ("text", Outgoing("t", b"text", b"k")),
        (b"raw", Outgoing("t", b"raw", b"k")),
        (None, Outgoing("t", None, b"k")),
        (Message(1), Outgoing("t", b"1", b"k")),
        (Message(1, key="mine"), Outgoing("t", b"1", b"mine")),
        (Message(1, topic="u", partition=3), Outgoing("u", b"1", b"k", (), 3)),
        (Message(1, timestamp=1.5), Outgoing("t", b"1", b"k", (), None, 1500)),
        (Message(1, headers={"a": "b"}), Outgoing("t", b"1", b"k", [("a", b"b")])),
        (Message(1, headers=[("a", None), ("a", b"\xff")]), Outgoing("t", b"1", b"k", [("a", None), ("a", b"\xff")])),
    ],
    ids=["value", "text", "bytes", "tombstone", "message", "key", "place", "time", "header", "headers"],
)
def test_what_a_message_becomes(message: Any, expected: Outgoing) -> None:
    assert publisher(MemoryBroker()).outgoing("t", message, b"k") == expected


@pytest.mark.parametrize("message", [1, Message(1)], ids=["value", "message"])
def test_a_message_without_a_topic_is_refused(message: Any) -> None:
    with pytest.raises(ConfigurationError, match="has no topic"):
        publisher(MemoryBroker()).outgoing(None, message)


def test_what_cannot_be_encoded_is_refused() -> None:
    with pytest.raises(TypeError):
        publisher(MemoryBroker()).outgoing("t", threading.Lock())


@pytest.mark.parametrize(
    ("value", "announced"),
    [({"a": 1}, True), (Colour.RED, True), ("text", False), (b"raw", False), (None, False)],
    ids=["value", "enum", "text", "bytes", "tombstone"],
)
def test_a_codec_other_than_json_announces_itself(value: Any, announced: bool) -> None:
    headers = publisher(MemoryBroker(), codec=Packed()).outgoing("t", Message(value, headers={"a": "b"})).headers
    expected = [("a", b"b")] + [("content-type", b"application/msgpack")] * announced
    assert list(headers) == expected


NOT_TO_BE_PUBLISHED = {
    "a key": ({"key": 5}, "A key is text, bytes or None, and not of type int."),
    "headers": ({"headers": 5}, "Headers are a mapping, or pairs of a name and a value; these, of type int, are not."),
    "pairs of one": (
        {"headers": [("a",)]},
        "Headers are a mapping, or pairs of a name and a value; these, of type list",
    ),
    "text for headers": (
        {"headers": "abc"},
        "Headers are a mapping, or pairs of a name and a value; these, of type str",
    ),
    "a header": ({"headers": {"a": 5}}, "Header 'a' is text, bytes or None, and not of type int."),
    "a header's name": ({"headers": {5: "a"}}, "The name of a header is text, and not of type int."),
    "a partition": ({"partition": "x"}, "partition= is a whole number, and not of type str."),
    "half a partition": ({"partition": 1.5}, "partition= is a whole number, and not of type float."),
    "a time": ({"timestamp": "now"}, "timestamp= is a number of seconds since the epoch, and not of type str."),
    "a time before all": ({"timestamp": -5}, "timestamp=-5 is no time that Kafka can store: seconds since the epoch"),
    "no time": ({"timestamp": float("nan")}, "timestamp=nan is no time that Kafka can store"),
    "a time after all": ({"timestamp": 1e300}, "timestamp=1e+300 is no time that Kafka can store"),
}


@pytest.mark.parametrize(("given", "sentence"), NOT_TO_BE_PUBLISHED.values(), ids=NOT_TO_BE_PUBLISHED)
def test_what_no_event_can_have_is_refused_with_a_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(sentence)}"):
        publisher(MemoryBroker()).outgoing("t", Message(1, **given))


def test_headers_that_were_given_before_are_those_that_they_are_now() -> None:
    outgoing = publisher(MemoryBroker()).outgoing
    pair: Any = ["a", "1"]
    given: Any = [("a", "1"), ("b", b"2")]
    assert outgoing("t", Message(1, headers=given)).headers == [("a", b"1"), ("b", b"2")]
    assert outgoing("t", Message(1, headers=given)).headers == [("a", b"1"), ("b", b"2")]
    given[1] = ("b", b"3")
    assert outgoing("t", Message(1, headers=given)).headers == [("a", b"1"), ("b", b"3")]
    given.append(pair)
    assert outgoing("t", Message(1, headers=given)).headers == [("a", b"1"), ("b", b"3"), ("a", b"1")]
    pair[1] = "4"
    assert outgoing("t", Message(1, headers=given)).headers == [("a", b"1"), ("b", b"3"), ("a", b"4")]
    with pytest.raises(TypeError, match="Header 'b' is text, bytes or None"):
        outgoing("t", Message(1, headers=[("b", bytearray(b"3"))]))
    assert outgoing("t", Message(1)).headers == ()


def test_text_is_utf_8_in_keys_and_headers() -> None:
    assert (encode_key("ü"), encode_key(b"\xff"), encode_key(None)) == (b"\xc3\xbc", b"\xff", None)
    assert (encode_key(bytearray(b"k")), encode_key(memoryview(b"k"))) == (b"k", b"k")  # type: ignore[arg-type]
    assert encode_headers({"a": "ü", "b": None}) == [("a", b"\xc3\xbc"), ("b", None)]


async def test_many_are_published_in_order_and_at_once() -> None:
    broker = MemoryBroker()
    published = await publisher(broker).publish_many("t", [1, Message(2, topic="u"), 3])
    assert published == [Published("t", 0, 0), Published("u", 0, 0), Published("t", 0, 1)]
    assert await publisher(broker).publish_many("t", []) == []


# ── the app ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_published_soon_is_queued_in_order_and_its_future_has_what_publish_has() -> None:
    app = Octopus("app", brokers="memory://soon", settings={"topics": {"partitions": 1}})
    keep = memory_transport("soon", {})
    async with app.connected() as connection:
        soon = [app.publish_soon("t", number, key="k", headers={"h": "1"}) for number in range(3)]
        soon.append(connection.publish_soon("t", 3, partition=0))
        assert await app.publish("t", 4) == Published("t", 0, 4)
        assert await asyncio.gather(*soon) == [Published("t", 0, offset) for offset in range(4)]
        with pytest.raises(ConfigurationError, match="is not a topic name"):
            await app.publish_soon("no topic!", 1)
        with pytest.raises(TypeError):
            app.publish_soon("t", object())
    records, _ = keep.broker.log(TopicPartition("t", 0)).read(0, 10)
    assert [record.value for record in records] == [b"0", b"1", b"2", b"3", b"4"]
    assert (records[0].key, records[0].headers) == (b"k", (("h", b"1"),))
    with pytest.raises(ConfigurationError, match="is not connected"):
        app.publish_soon("t", 1)


async def test_what_is_published_soon_from_another_event_loop_is_refused() -> None:
    app = Octopus("app", brokers="memory://soon-elsewhere")

    async def elsewhere() -> None:
        app.publish_soon("t", 1)

    async with app.connected():
        with pytest.raises(ConfigurationError, match="event loop"):
            await asyncio.to_thread(asyncio.run, elsewhere())


async def test_an_app_publishes_while_it_is_connected() -> None:
    broker = MemoryBroker()
    app = Octopus("app", settings={"brokers": ["memory://connected"], "topics": {"partitions": 2}})
    keep = memory_transport("connected", {})
    with pytest.raises(ConfigurationError, match=r"app is not connected: publish from a handler, or within"):
        await app.publish("t", 1)
    async with app.connected():
        assert await app.publish("t", 1, key="k", headers={"h": "1"}, partition=1, timestamp=2.5) == Published(
            "t", 1, 0
        )
        assert await app.publish_many("t", [Message(2, partition=0)]) == [Published("t", 0, 0)]
    record = keep.broker.log(TopicPartition("t", 1)).records[0]
    assert record is not None
    assert (record.key, record.headers, record.timestamp) == (b"k", (("h", b"1"),), 2500)
    with pytest.raises(ConfigurationError):
        await app.publish("t", 1)
    assert broker.topics == {}


async def test_an_app_runs_inside_somebody_elses_program() -> None:
    app, seen = Octopus("app", brokers="memory://running", settings={"topics": {"partitions": 1}}), []
    keep = memory_transport("running", {})

    @app.on("t")
    async def handle(value: int) -> None:
        seen.append(value)

    async with app.running(worker={"commit_interval": 0.01}):
        await app.publish("t", 7)
        await until(lambda: seen)
    assert seen == [7]
    assert keep.broker.group("app.handle").offsets[TopicPartition("t", 0)].offset == 1


@pytest.mark.parametrize("name", ["", "a b", "x" * 201], ids=["empty", "a blank", "long"])
def test_a_name_that_cannot_begin_a_group_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name an app"):
        Octopus(name)


# ── from code that is not async ───────────────────────────────────────────────────────────────────────────────────────


def test_code_that_is_not_async_publishes_from_any_thread() -> None:
    app = Octopus("app", brokers="memory://synchronous", settings={"topics": {"partitions": 1}})
    keep = memory_transport("synchronous", {})
    with app.synchronous_publisher() as publisher:
        assert publisher.publish("t", {"a": 1}, key="k", headers={"h": "1"}) == Published("t", 0, 0)
        assert len(publisher.publish_many("t", [1, 2, 3])) == 3
        threads = [threading.Thread(target=publisher.publish, args=("t", number)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert keep.broker.log(TopicPartition("t", 0)).end == 9
    assert not any(thread.name == "octopus publisher" for thread in threading.enumerate())


def test_a_synchronous_publisher_that_is_not_open_says_so() -> None:
    publisher = Octopus("app", brokers="memory://closed").synchronous_publisher()
    with pytest.raises(ConfigurationError, match="use it in a `with` block"):
        publisher.publish("t", 1)
    with publisher:
        publisher.publish("t", 1)
    with pytest.raises(ConfigurationError, match="use it in a `with` block"):
        publisher.publish_many("t", [1])


def test_errors_of_the_broker_reach_the_thread_that_publishes() -> None:
    broker = MemoryBroker(max_record_bytes=10)

    @asynccontextmanager
    async def connect() -> Any:
        yield MemoryTransport(broker).producer()

    with SynchronousPublisher(connect) as publisher:
        with pytest.raises(RecordTooLarge):
            publisher.publish("t", "x" * 100)
        publisher.publish("t", "x")


def test_a_synchronous_publisher_that_cannot_connect_leaves_no_thread() -> None:
    @asynccontextmanager
    async def connect() -> Any:
        raise NotAuthorized("nobody may")
        yield

    with pytest.raises(NotAuthorized), SynchronousPublisher(connect):
        pass
    assert not any(thread.name == "octopus publisher" for thread in threading.enumerate())


def test_a_synchronous_publisher_does_not_wait_for_ever() -> None:
    class Stuck:
        async def send(self, message: Outgoing) -> Any:
            await asyncio.sleep(0.3)

    @asynccontextmanager
    async def connect() -> Any:
        yield Stuck()

    began = time.monotonic()
    with SynchronousPublisher(connect) as publisher:
        with pytest.raises(TimeoutError, match=r"publishes is not acknowledged after 0\.01 s; it may yet be stored"):
            publisher.publish("t", 1, timeout=0.01)
        assert time.monotonic() - began < 0.3


def _lab(name: str) -> MemoryBroker:
    return memory_transport(name, {}).broker


async def test_a_connection_opened_where_the_app_runs_publishes_by_itself_and_redirects_nothing() -> None:
    seen: list[int] = []
    app = Octopus("app", brokers="memory://at-home")
    at_home, elsewhere = _lab("at-home"), _lab("elsewhere")

    @app.on("numbers")
    async def take(number: int) -> None:
        seen.append(number)

    async with app.running(), app.connected(brokers="memory://elsewhere") as other:
        await app.publish("mine", 1)
        await other.publish("theirs", 2, key="k")
        await other.publish_many("theirs", [3])
    assert [at_home.log(TopicPartition("mine", 0)).end, elsewhere.log(TopicPartition("theirs", 0)).end] == [1, 2]
    assert "mine" not in elsewhere.topics
    assert "theirs" not in at_home.topics


async def test_a_connection_is_refused_in_another_event_loop() -> None:
    app = Octopus("app", brokers="memory://at-home")
    async with app.connected() as connection:
        with pytest.raises(ConfigurationError, match="This connection of app"):
            await asyncio.to_thread(lambda: asyncio.run(connection.publish("t", 1)))


def test_what_publish_returns_can_be_put_into_json() -> None:
    stored = Published("t", 1, 2)
    assert json.loads(json.dumps({"stored": dict(stored)})) == {"stored": {"topic": "t", "partition": 1, "offset": 2}}
    assert {**stored, "seen": True} == {"topic": "t", "partition": 1, "offset": 2, "seen": True}
    assert JSON.encode([stored]) == b'[{"topic":"t","partition":1,"offset":2}]'
    assert json.dumps([stored], default=dict) == '[{"topic": "t", "partition": 1, "offset": 2}]'
    topic, *place = stored
    assert (topic, place) == ("t", [1, 2])
    with pytest.raises(KeyError):
        stored["key"]


class Answer(pydantic.BaseModel):
    stored: list[Published]


PLAIN = {"topic": "t", "partition": 1, "offset": 2}


@pytest.mark.parametrize(
    ("annotation", "value", "plain"),
    [
        (Published, Published("t", 1, 2), PLAIN),
        (list[Published], [Published("t", 1, 2)], [PLAIN]),
        (Published | None, Published("t", 1, 2), PLAIN),
        (Answer, Answer(stored=[Published("t", 1, 2)]), {"stored": [PLAIN]}),
    ],
    ids=["alone", "in a list", "or nothing", "in a model"],
)
def test_pydantic_writes_and_reads_what_publish_returns(annotation: Any, value: Any, plain: Any) -> None:
    adapter = pydantic.TypeAdapter(annotation)
    assert json.loads(adapter.dump_json(value)) == adapter.dump_python(value) == plain
    assert adapter.validate_json(json.dumps(plain)) == adapter.validate_python(plain) == value
    assert adapter.validate_python(value) == value
    with pytest.raises(pydantic.ValidationError):
        adapter.validate_python({"topic": "t"})
    assert '"offset"' in json.dumps(adapter.json_schema(mode="serialization"))


async def test_a_route_of_fastapi_answers_with_what_publish_returns() -> None:
    app, web = Octopus("app", brokers="memory://fastapi"), fastapi.FastAPI()

    @web.get("/annotated")
    async def annotated() -> Published:
        return await app.publish("t", 1, partition=0)

    @web.get("/many")
    async def many() -> list[Published]:
        return await app.publish_many("t", [Message(2, partition=0), Message(3, partition=0)])

    @web.get("/unannotated")
    async def unannotated():  # type: ignore[no-untyped-def]
        return {"stored": await app.publish("t", 4, partition=0)}

    def stored(offset: int) -> dict[str, Any]:
        return {"topic": "t", "partition": 0, "offset": offset}

    async with app.connected():
        assert await answer(web, "/annotated") == stored(0)
        assert await answer(web, "/many") == [stored(1), stored(2)]
        assert await answer(web, "/unannotated") == {"stored": stored(3)}
    described = web.openapi()["paths"]["/annotated"]["get"]["responses"]["200"]["content"]["application/json"]
    assert set(described["schema"]["properties"]) == {"topic", "partition", "offset"}


async def answer(web: Any, path: str) -> Any:
    """Ask a web application, as its server does; return the JSON of its answer."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
    }
    await web(scope | {"query_string": b"", "headers": [], "http_version": "1.1"}, receive, send)
    assert sent[0]["status"] == 200
    return json.loads(b"".join(message.get("body", b"") for message in sent))


class Reading(msgspec.Struct):
    device: Any


@dataclasses.dataclass
class Place:
    where: Any


CANNOT_BE_PUBLISHED = {
    "itself": (
        threading.Lock(),
        "A value of type lock cannot be published as application/json: _thread.lock is not a data type",
    ),
    "in a list in a dict": ({"a": [1, threading.Lock()]}, "application/json: $.a[1]: _thread.lock is not a data type"),
    "under another key": ({1: {"a b": object()}}, "application/json: $[1]['a b']: builtins.object is not a data type"),
    "in a struct": (
        Reading([object()]),
        "A value of type Reading cannot be published as application/json: $.device[0]: builtins.object",
    ),
    "in a dataclass": (Reading(Place(object())), "$.device.where: builtins.object is not a data type"),
    "as a key": ({"a": {(1, 2): 3}}, "$.a: builtins.tuple is not a data type"),
}


@pytest.mark.parametrize(("value", "sentence"), CANNOT_BE_PUBLISHED.values(), ids=CANNOT_BE_PUBLISHED)
async def test_a_value_that_cannot_be_written_is_refused_with_its_type_and_where_it_is(
    value: Any, sentence: str
) -> None:
    app = Octopus("app")
    async with TestClient(app):
        with pytest.raises(TypeError) as refused:
            await app.publish("t", value)
    assert sentence in str(refused.value)


@pytest.mark.parametrize("topic", ["a b", "", "..", "a/b", "a" * 250, 1])
@pytest.mark.parametrize("through", ["a broker", "a test"])
async def test_what_is_no_topic_name_is_refused_where_it_is_published(topic: Any, through: str) -> None:
    app = Octopus("app", brokers="memory://no-topic-names")
    async with app.connected() if through == "a broker" else TestClient(app):
        with pytest.raises(
            ConfigurationError, match=r"is not a topic name: 1 to 249 letters, digits, '\.', '_' or '-'\.$"
        ):
            await app.publish(topic, 1)
        with pytest.raises(ConfigurationError, match="is not a topic name"):
            await app.publish_many("t", [Message(1, topic=topic)] if topic else [Message(1, topic="a b")])
    assert "t" not in memory_transport("no-topic-names", {}).broker.topics
