"""Records, events, messages, outcomes and errors: how they read."""

import ast
from pathlib import Path

import octopus.errors
from octopus import Event, Message, RetryLater
from octopus.errors import DecodeError, PatternError, TransportError
from octopus.events import Batch, Record, TopicPartition

RECORD = Record("t", 1, 7, 1500, b"k", b"v", (("a", b"1"), ("a", b"2")))


def test_things_name_their_place() -> None:
    assert str(TopicPartition("t", 1)) == "t[1]"
    assert RECORD.coordinates == "t[1]@7"
    assert repr(Event({"a": 1}, RECORD, 2)) == "Event({'a': 1}, t[1]@7, attempt=2)"
    assert repr(Message(1, key="k", topic="u")) == "Message(1, key='k', topic='u')"


def test_a_record_is_not_copied_to_get_coordinates_it_has() -> None:
    assert Record.at(TopicPartition("t", 1), RECORD) is RECORD


def test_a_batch_stands_for_its_first_record() -> None:
    batch = Batch([RECORD, Record("t", 1, 8, 1600)])
    assert (batch.offset, batch.timestamp, batch.key, batch.value, batch.headers) == (
        RECORD.offset,
        RECORD.timestamp,
        RECORD.key,
        RECORD.value,
        RECORD.headers,
    )


def test_an_event_gives_what_its_record_says() -> None:
    event = Event(1, RECORD)
    assert (event.key, event.headers, event.topic, event.partition, event.offset) == (
        b"k",
        RECORD.headers,
        "t",
        1,
        7,
    )
    assert (event.timestamp, event.header("a"), event.attempt) == (1.5, b"2", 1)


def test_errors_say_what_and_carry_the_rest() -> None:
    assert str(PatternError("is no number", path="size")) == "size: is no number"
    assert DecodeError("expected int", field="$.size").field == "$.size"
    assert TransportError("away", retryable=True).retryable
    assert not TransportError("no").retryable
    assert str(RetryLater(2.5)) == "retry in 2.5 s"


def test_every_error_is_made_somewhere_or_has_kinds_that_are() -> None:
    package = Path(octopus.__file__).parent
    made = set()
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        caught = {id(node.type) for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)}
        made |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in caught}
    kinds = [each for each in vars(octopus.errors).values() if isinstance(each, type) and issubclass(each, Exception)]
    assert [each.__name__ for each in kinds if not each.__subclasses__() and each.__name__ not in made] == []
