"""Transactions over the wire: what each request answers when it is done, and the code for what is refused."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from octopus.broker.codes import Code
from octopus.broker.faults import Faults
from octopus.broker.server import Broker
from octopus.broker.storage import Storage
from octopus.broker.wire import Writer
from tests.broker.requests_and_answers import (
    CREATE_TOPICS,
    END_TXN,
    FETCH,
    INIT_PRODUCER_ID,
    PRODUCE,
    batch,
    create_topic,
    fetch,
    fetched,
    produce,
    produced,
)
from tests.broker.wire_client import WireClient, connected

ADD_PARTITIONS, ADD_OFFSETS, TXN_OFFSET_COMMIT = 24, 25, 28
NAME = "line-of-transactions"
Places = list[tuple[str, list[int]]]


@pytest.fixture
def disk() -> Faults:
    return Faults()


@pytest.fixture
async def storage(tmp_path: Path, disk: Faults) -> Storage:
    return Storage.open(tmp_path / "data", faults=disk)


@pytest.fixture
async def broker(storage: Storage, disk: Faults) -> AsyncIterator[Broker]:
    async with Broker(storage) as broker:
        async with connected(broker.address) as client:
            await client.ask(CREATE_TOPICS, 2, create_topic("t", 2))
        yield broker
        disk.write_error = 0


async def initialized(client: WireClient, name: str | None = NAME, timeout: int = 60_000) -> tuple[int, int, int]:
    """Return code, producer id, epoch."""
    answer = await client.ask(INIT_PRODUCER_ID, 1, Writer().string(name).int32(timeout))
    answer.int32()
    return answer.int16(), answer.int64(), answer.int16()


async def with_partitions(
    client: WireClient, producer: int, epoch: int, places: Places, name: str = NAME
) -> dict[tuple[str, int], int]:
    body = Writer().string(name).int64(producer).int16(epoch)
    body.array(places, lambda each: body.string(each[0]).array(each[1], body.int32))
    answer = await client.ask(ADD_PARTITIONS, 0, body)
    answer.int32()
    found = answer.array(lambda: (answer.string(), answer.array(lambda: (answer.int32(), answer.int16()))))
    assert answer.remaining == 0
    return {(topic, number): code for topic, parts in found for number, code in parts}


async def with_group(client: WireClient, producer: int, epoch: int, group: str) -> int:
    answer = await client.ask(ADD_OFFSETS, 0, Writer().string(NAME).int64(producer).int16(epoch).string(group))
    answer.int32()
    return answer.int16()


async def with_offset(
    client: WireClient, producer: int, epoch: int, group: str, topic: str = "t", *, version: int = 2, note: str = ""
) -> int:
    body = Writer().string(NAME).string(group).int64(producer).int16(epoch)
    body.int32(1).string(topic).int32(1).int32(0).int64(7)
    if version >= 2:
        body.int32(-1)
    answer = await client.ask(TXN_OFFSET_COMMIT, version, body.string(note))
    answer.int32()
    [(_, [(_, code)])] = answer.array(lambda: (answer.string(), answer.array(lambda: (answer.int32(), answer.int16()))))
    return code


async def ended(client: WireClient, producer: int, epoch: int, *, commit: bool = True) -> int:
    answer = await client.ask(END_TXN, 0, Writer().string(NAME).int64(producer).int16(epoch).boolean(commit))
    answer.int32()
    return answer.int16()


@pytest.mark.parametrize("commit", [True, False], ids=["commit", "abort"])
@pytest.mark.parametrize("version", [1, 2])
async def test_records_and_offsets_become_visible_together_or_not_at_all(
    storage: Storage, client: WireClient, commit: bool, version: int
) -> None:
    code, producer, epoch = await initialized(client)
    assert (code, epoch) == (Code.NONE, 0)
    assert await with_partitions(client, producer, epoch, [("t", [0])]) == {("t", 0): Code.NONE}
    records = batch(b"x", attributes=0x10, producer_id=producer, producer_epoch=epoch, base_sequence=0)
    assert produced(await client.ask(PRODUCE, 3, produce("t", records, transactional_id=NAME))) == [(Code.NONE, 0)]
    assert await with_group(client, producer, epoch, "g") == Code.NONE
    assert await with_offset(client, producer, epoch, "g", version=version) == Code.NONE
    assert fetched(await client.ask(FETCH, 4, fetch("t", isolation=1)))[0][1:] == (0, b"")
    assert storage.offsets.groups() == []
    assert await ended(client, producer, epoch, commit=commit) == Code.NONE
    assert fetched(await client.ask(FETCH, 4, fetch("t", isolation=1)))[0][1] == 2
    assert storage.offsets.groups() == (["g"] if commit else [])


async def test_partitions_are_added_all_or_none(client: WireClient, broker: Broker) -> None:
    _, producer, epoch = await initialized(client)
    places: Places = [("t", [0, 9]), ("unknown", [0])]
    assert await with_partitions(client, producer, epoch, places) == {
        ("t", 0): Code.OPERATION_NOT_ATTEMPTED,
        ("t", 9): Code.UNKNOWN_TOPIC_OR_PARTITION,
        ("unknown", 0): Code.UNKNOWN_TOPIC_OR_PARTITION,
    }
    records = batch(b"x", attributes=0x10, producer_id=producer, producer_epoch=epoch, base_sequence=0)
    refused = produced(await client.ask(PRODUCE, 3, produce("t", records, transactional_id=NAME)))
    assert refused[0][0] == Code.INVALID_TXN_STATE, "nothing was added"


@pytest.mark.parametrize(
    ("id_shift", "epoch_shift", "code"),
    [(1, 0, Code.INVALID_PRODUCER_ID_MAPPING), (0, -1, Code.INVALID_PRODUCER_EPOCH)],
    ids=["another producer", "an older epoch"],
)
async def test_who_is_not_the_owner_is_refused_by_every_request(
    client: WireClient, id_shift: int, epoch_shift: int, code: Code
) -> None:
    await initialized(client)
    _, producer, epoch = await initialized(client)
    wrong = producer + id_shift, epoch + epoch_shift
    assert await with_partitions(client, *wrong, [("t", [0, 1])]) == {("t", 0): code, ("t", 1): code}
    assert await with_group(client, *wrong, "g") == code
    assert await with_offset(client, *wrong, "g") == code
    assert await ended(client, *wrong) == code


@pytest.mark.parametrize(
    ("name", "timeout", "code"),
    [
        ("", 1000, Code.INVALID_REQUEST),
        ("x" * 1025, 1000, Code.INVALID_REQUEST),
        ("x", 0, Code.INVALID_TRANSACTION_TIMEOUT),
        ("x", 2**31 - 1, Code.INVALID_TRANSACTION_TIMEOUT),
    ],
    ids=["empty", "long", "no time", "too much time"],
)
async def test_an_id_or_a_time_out_that_cannot_be_gets_no_producer(
    client: WireClient, name: str, timeout: int, code: Code
) -> None:
    assert await initialized(client, name, timeout) == (code, -1, -1)


async def test_offsets_that_cannot_be_stored_are_refused_before_the_transaction_ends(client: WireClient) -> None:
    _, producer, epoch = await initialized(client)
    assert await with_group(client, producer, epoch, "") == Code.INVALID_GROUP_ID
    assert await with_offset(client, producer, epoch, "") == Code.INVALID_GROUP_ID
    assert await with_group(client, producer, epoch, "g") == Code.NONE
    assert await with_offset(client, producer, epoch, "g", "unknown") == Code.UNKNOWN_TOPIC_OR_PARTITION
    assert await with_offset(client, producer, epoch, "g", note="n" * 4097) == Code.OFFSET_METADATA_TOO_LARGE


async def test_ending_what_never_began_is_refused(client: WireClient) -> None:
    _, producer, epoch = await initialized(client)
    assert await ended(client, producer, epoch) == Code.INVALID_TXN_STATE


async def test_a_disk_that_fails_gives_out_no_producer_and_forgets_none(client: WireClient, disk: Faults) -> None:
    _, producer, epoch = await initialized(client)
    disk.write_error = 5
    assert await initialized(client) == (Code.KAFKA_STORAGE_ERROR, -1, -1)
    assert await initialized(client, "newcomer") == (Code.KAFKA_STORAGE_ERROR, -1, -1)
    disk.write_error = 0
    assert await initialized(client) == (Code.NONE, producer, epoch + 1), "what was refused did not happen"
    assert (await initialized(client, "newcomer"))[0] == Code.NONE
