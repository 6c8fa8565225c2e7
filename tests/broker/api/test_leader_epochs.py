"""Leader epochs (KIP-320): the same answers from the embedded broker and from Apache Kafka."""

import asyncio

import pytest

from octopus.broker.codes import Code
from octopus.broker.wire import Writer
from tests.broker.requests_and_answers import FETCH, OFFSET_COMMIT, OFFSET_FETCH, PRODUCE, batch, produce
from tests.broker.topics_on_either import fetch_from, find_coordinator, fresh, make_topic, read
from tests.broker.wire_client import WireClient

OFFSET_FOR_LEADER_EPOCH = 23
STARTING = (Code.COORDINATOR_LOAD_IN_PROGRESS, Code.COORDINATOR_NOT_AVAILABLE, Code.NOT_COORDINATOR)


async def end_of_epoch(peer: WireClient, version: int, topic: str, current: int, wanted: int) -> tuple[int, int, int]:
    """Return (code, epoch, end offset)."""
    body = Writer(version >= 4)
    if version >= 3:
        body.int32(-1)
    parts = [(0, current, wanted)]
    body.structs(
        [topic],
        lambda name: body.string(name).structs(parts, lambda part: [body.int32(number) for number in part]),
    )
    answer = await peer.ask(OFFSET_FOR_LEADER_EPOCH, version, body)
    if version >= 4:
        answer.become_flexible()
    assert answer.int32() == 0

    def found() -> tuple[int, int, int]:
        code, partition = answer.int16(), answer.int32()
        assert partition == 0
        return code, answer.int32(), answer.int64()

    ((result,),) = answer.structs(lambda: (answer.string(), answer.structs(found))[1])
    return result


@pytest.mark.parametrize("version", [2, 3, 4])
@pytest.mark.parametrize(
    ("current", "wanted", "expected"),
    [
        (-1, 0, (Code.NONE, 0, 3)),
        (0, 0, (Code.NONE, 0, 3)),
        (-1, 1, (Code.NONE, -1, -1)),
        (-1, -1, (Code.NONE, -1, -1)),
        (1, 0, (Code.UNKNOWN_LEADER_EPOCH, -1, -1)),
        (-2, 0, (Code.FENCED_LEADER_EPOCH, -1, -1)),
    ],
)
async def test_a_client_learns_where_the_records_of_an_epoch_end(
    peer: WireClient, version: int, current: int, wanted: int, expected: tuple[int, int, int]
) -> None:
    name = fresh("epoch")
    await make_topic(peer, name)
    await peer.ask(PRODUCE, 3, produce(name, batch(b"1", b"2", b"3")))
    assert await end_of_epoch(peer, version, name, current, wanted) == expected
    unknown = (Code.UNKNOWN_TOPIC_OR_PARTITION, -1, -1)
    assert await end_of_epoch(peer, version, fresh("none"), current, wanted) == unknown


@pytest.mark.parametrize(("epoch", "code"), [(-2, 0), (-1, 0), (0, 0), (1, Code.UNKNOWN_LEADER_EPOCH)])
@pytest.mark.parametrize("version", [9, 11, 12])
async def test_a_fetch_from_a_leader_of_another_epoch_is_refused(
    peer: WireClient, version: int, epoch: int, code: int
) -> None:
    name = fresh("fenced")
    await make_topic(peer, name)
    await peer.ask(PRODUCE, 3, produce(name, batch(b"here")))
    (part,) = read(await peer.ask(FETCH, version, fetch_from(name, version, current_epoch=epoch)), version)
    assert (part.code, b"here" in part.records) == (code, code == Code.NONE)


@pytest.mark.parametrize(
    ("offset", "last_epoch", "expected"),
    [
        (1, -1, (Code.NONE, None)),
        (1, -2, (Code.NONE, None)),
        (1, 0, (Code.NONE, None)),
        (2, 0, (Code.NONE, None)),
        (5, 0, (Code.NONE, (0, 2))),
        (5, -1, (Code.OFFSET_OUT_OF_RANGE, None)),
        (1, 3, (Code.OFFSET_OUT_OF_RANGE, None)),
    ],
)
async def test_who_has_read_what_is_not_here_is_told_where_to_go_back_to(
    peer: WireClient, offset: int, last_epoch: int, expected: tuple[int, tuple[int, int] | None]
) -> None:
    name = fresh("diverged")
    await make_topic(peer, name)
    await peer.ask(PRODUCE, 3, produce(name, batch(b"one")))
    await peer.ask(PRODUCE, 3, produce(name, batch(b"two")))
    body = fetch_from(name, 12, offset, last_epoch=last_epoch)
    (part,) = read(await peer.ask(FETCH, 12, body), 12)
    assert (part.code, part.diverging) == expected
    assert (b"two" in part.records) == (offset == 1 and last_epoch <= 0)


async def commit(peer: WireClient, version: int, group: str, topic: str, offset: int, epoch: int) -> int:
    body = Writer().string(group).int32(-1).string("")
    if version <= 4:
        body.int64(-1)
    if version >= 7:
        body.string(None)
    body.int32(1).string(topic).int32(1).int32(0).int64(offset)
    if version >= 6:
        body.int32(epoch)
    answer = await peer.ask(OFFSET_COMMIT, version, body.string("note"))
    assert answer.int32() == 0
    ((code,),) = answer.array(lambda: (answer.string(), answer.array(lambda: (answer.int32(), answer.int16())[1]))[1])
    return code


async def committed(peer: WireClient, version: int, group: str, topic: str) -> tuple[int, int]:
    """Return (offset, leader epoch)."""
    answer = await peer.ask(OFFSET_FETCH, version, Writer().string(group).int32(1).string(topic).int32(1).int32(0))
    assert (answer.int32(), answer.int32(), answer.string(), answer.int32(), answer.int32()) == (0, 1, topic, 1, 0)
    return answer.int64(), answer.int32() if version >= 5 else -1


@pytest.mark.parametrize(("version", "told"), [(5, -1), (6, 3), (7, 3)])
async def test_the_leader_epoch_of_a_committed_offset_comes_back(peer: WireClient, version: int, told: int) -> None:
    name, group = fresh("committed"), fresh("group")
    await make_topic(peer, name)
    await find_coordinator(peer, group)
    async with asyncio.timeout(30):
        while await commit(peer, version, group, name, 5, 3) in STARTING:
            await asyncio.sleep(0.05)
    assert await committed(peer, 5, group, name) == (5, told)
    assert await committed(peer, 4, group, name) == (5, -1)
    assert await commit(peer, 5, group, name, 6, 3) == Code.NONE
    assert await committed(peer, 5, group, name) == (6, -1)
