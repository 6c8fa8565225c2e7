"""ListOffsets: what may be asked for in place of a time, from which version on, on the embedded broker and on Apache Kafka."""

import time

import pytest

from octopus.broker.batch import Record, encode_batch
from octopus.broker.codes import Code
from octopus.broker.wire import Writer
from tests.broker.requests_and_answers import LIST_OFFSETS, PRODUCE, produce
from tests.broker.topics_on_either import fresh, make_topic
from tests.broker.wire_client import WireClient

NEWEST, EARLIEST_LOCAL, LATEST_TIERED, EARLIEST_PENDING_UPLOAD = -3, -4, -5, -6
UNSUPPORTED = (Code.UNSUPPORTED_VERSION, -1, -1, -1)


async def ask(
    peer: WireClient, version: int, topic: str, timestamp: int, *, current_epoch: int = -1, isolation: int = 0
) -> tuple[int, int, int, int]:
    """Return (code, timestamp, offset, leader epoch)."""
    body = Writer(version >= 6).int32(-1).int8(isolation)

    def part(number: int) -> None:
        body.int32(number)
        if version >= 4:
            body.int32(current_epoch)
        body.int64(timestamp)

    body.structs([topic], lambda name: body.string(name).structs([0], part))
    answer = await peer.ask(LIST_OFFSETS, version, body.int32(1000) if version >= 10 else body)
    if version >= 6:
        answer.become_flexible()
    assert answer.int32() == 0

    def found() -> tuple[int, int, int, int]:
        assert answer.int32() == 0
        return answer.int16(), answer.int64(), answer.int64(), answer.int32() if version >= 4 else -1

    ((result,),) = answer.structs(lambda: (answer.string(), answer.structs(found))[1])
    if version >= 6:
        answer.tags()
    assert answer.remaining == 0
    return result


def stamped(*times: int) -> bytes:
    return encode_batch([Record(offset, time, None, b"x") for offset, time in enumerate(times)])


@pytest.mark.parametrize("version", range(2, 12))
async def test_a_negative_time_is_answered_from_its_version_on(peer: WireClient, version: int) -> None:
    name, now = fresh("times"), int(time.time() * 1000)
    await make_topic(peer, name)
    await peer.ask(PRODUCE, 3, produce(name, stamped(now - 900, now - 100, now - 100, now - 500)))
    epoch = 0 if version >= 4 else -1
    expected = {
        -1: (1, (Code.NONE, -1, 4, epoch)),
        -2: (1, (Code.NONE, -1, 0, epoch)),
        NEWEST: (7, (Code.NONE, now - 100, 1, epoch)),
        EARLIEST_LOCAL: (8, (Code.NONE, -1, 0, epoch)),
        LATEST_TIERED: (9, (Code.NONE, -1, -1, -1)),
        EARLIEST_PENDING_UPLOAD: (11, (Code.NONE, -1, -1, -1)),
        -7: (99, ()),
        -100: (99, ()),
        now - 100: (1, (Code.NONE, now - 100, 1, epoch)),
        now - 99: (1, (Code.NONE, -1, -1, -1)),
    }
    for timestamp, (since, answer) in expected.items():
        assert await ask(peer, version, name, timestamp) == (answer if version >= since else UNSUPPORTED), timestamp


async def test_an_empty_partition_has_ends_and_no_newest_record(peer: WireClient) -> None:
    name = fresh("empty")
    await make_topic(peer, name)
    assert [(await ask(peer, 11, name, timestamp))[1:] for timestamp in (-1, -2, NEWEST, EARLIEST_LOCAL, 0)] == [
        (-1, 0, 0),
        (-1, 0, 0),
        (-1, -1, -1),
        (-1, 0, 0),
        (-1, -1, -1),
    ]


async def test_the_newest_record_is_the_first_of_those_with_the_largest_time(peer: WireClient) -> None:
    name, now = fresh("newest"), int(time.time() * 1000)
    await make_topic(peer, name)
    for times in ([now - 900], [now - 50, now - 60], [now - 50], [now - 300]):
        await peer.ask(PRODUCE, 3, produce(name, stamped(*times)))
    assert await ask(peer, 7, name, NEWEST) == (Code.NONE, now - 50, 1, 0)


async def test_the_newest_record_under_the_logs_own_time_is_the_first_of_its_batch(peer: WireClient) -> None:
    name = fresh("log-time")
    await make_topic(peer, name, config={"message.timestamp.type": "LogAppendTime"})
    await peer.ask(PRODUCE, 3, produce(name, stamped(1, 2, 3)))
    code, timestamp, offset, epoch = await ask(peer, 7, name, NEWEST)
    assert (code, offset, epoch) == (Code.NONE, 0, 0)
    assert timestamp > 3, "not the producer's"


@pytest.mark.parametrize(
    ("epoch", "code"),
    [(-1, 0), (0, 0), (-2, Code.FENCED_LEADER_EPOCH), (1, Code.UNKNOWN_LEADER_EPOCH), (7, Code.UNKNOWN_LEADER_EPOCH)],
)
@pytest.mark.parametrize("version", [4, 11])
async def test_a_client_that_knows_another_leader_is_refused(
    peer: WireClient, version: int, epoch: int, code: int
) -> None:
    name = fresh("fenced")
    await make_topic(peer, name)
    assert (await ask(peer, version, name, -1, current_epoch=epoch))[0] == code
