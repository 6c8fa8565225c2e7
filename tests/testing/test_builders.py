"""Events and records for tests of handlers."""

import msgspec

from octopus import Event, Record
from octopus.testing import event, record, records


class File(msgspec.Struct):
    path: str


async def test_an_event_is_what_a_handler_gets() -> None:
    async def handler(file: Event[File]) -> tuple[str, bytes | None, bytes | None, int]:
        return file.value.path, file.key, file.header("run"), file.attempt

    built = event(File("/a"), key="k", headers={"run": "7"}, attempt=2)
    assert await handler(built) == ("/a", b"k", b"7", 2)
    assert built.record.value == b'{"path":"/a"}'
    assert (built.topic, built.partition, built.offset) == ("events", 0, 0)


def test_a_record_is_what_a_broker_stores() -> None:
    assert record(None, topic="t", partition=1, offset=5, key=b"k", timestamp=2.5) == Record("t", 1, 5, 2500, b"k")
    assert record("text").value == b"text"


def test_records_follow_each_other() -> None:
    built = records(1, 2, 3, topic="t", first=10)
    assert [(each.offset, each.value) for each in built] == [(10, b"1"), (11, b"2"), (12, b"3")]
    assert built[0].timestamp < built[1].timestamp
