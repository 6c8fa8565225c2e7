"""What happens when bytes are bad, requests fail and groups move on: nothing is lost, nothing is skipped, others go on."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from typing import Any

import aiokafka.errors as kafka
import pytest

from octopus.broker.checksum import crc32c
from octopus.errors import (
    BatchTooLarge,
    ConnectionFailed,
    CorruptBatch,
    NotAuthorized,
    PartitionLost,
    RecordTooLarge,
    TransportError,
)
from octopus.events import Published, TopicPartition
from octopus.transports.base import Admin, Commit, Outgoing, Producer, Transport
from octopus.transports.embedded import EmbeddedTransport
from octopus.transports.kafka.errors import end_of, translated
from octopus.transports.opening import open_transport

from .engines import KAFKA, LIBRDKAFKA
from .members import Member

PRODUCE, FETCH, METADATA, OFFSET_COMMIT, OFFSET_FETCH, HEARTBEAT = 0, 1, 3, 8, 9, 12


@pytest.fixture
def transport(wire_transport: Transport) -> Transport:
    return wire_transport


@pytest.fixture
async def broken() -> AsyncIterator[EmbeddedTransport]:
    """An embedded broker that takes faults on order."""
    made = open_transport("embedded://", metadata_timeout=1.0, commit_timeout=2.0)
    assert isinstance(made, EmbeddedTransport)
    await made.open()
    yield made
    await made.close()


class Publisher:
    """A producer for the length of a `with`."""

    def __init__(self, transport: Transport, **options: Any) -> None:
        self.producer = transport.producer(**options)

    async def __aenter__(self) -> Producer:
        await self.producer.start()
        return self.producer

    async def __aexit__(self, *_: object) -> None:
        await self.producer.stop()


class Tampering:
    """Changes the bytes of chosen batches between the broker and a consumer.

    Args:
        member: A started member.
        change: Takes a batch and returns another one.
    """

    def __init__(self, member: Member, at: tuple[TopicPartition, int], change: Any) -> None:
        self._fetcher = member.consumer._engine._fetcher  # type: ignore[attr-defined]
        self._client = self._fetcher._client
        self._at = at
        self._change = change
        self._fetcher._client = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def stop(self) -> None:
        self._fetcher._client = self._client

    async def send(self, node_id: int, request: Any, **options: Any) -> Any:
        reply = await self._client.send(node_id, request, **options)
        (place, offset) = self._at
        for topic, partitions in getattr(reply, "topics", []):
            for number, entry in enumerate(partitions):
                if (topic, entry[0]) == place and isinstance(entry[-1], bytes | memoryview):
                    partitions[number] = (*entry[:-1], self._tampered(bytes(entry[-1]), offset))
        return reply

    def _tampered(self, data: bytes, wanted: int) -> bytes:
        out, position = b"", 0
        while position + 12 <= len(data):
            base, length = struct.unpack_from(">qi", data, position)
            batch = data[position : position + 12 + length]
            out += self._change(batch) if base == wanted else batch
            position += 12 + length
        return out


def flip_last_byte(batch: bytes) -> bytes:
    return batch[:-1] + bytes([batch[-1] ^ 0xFF])


def with_unknown_codec(batch: bytes) -> bytes:
    body = bytearray(batch[21:])
    body[1] |= 5
    return batch[:17] + struct.pack(">I", crc32c(bytes(body))) + bytes(body)


def with_broken_framing(batch: bytes) -> bytes:
    body = bytearray(batch[21:])
    body[36:40] = struct.pack(">i", 1000)  # more records than there are
    return batch[:17] + struct.pack(">I", crc32c(bytes(body))) + bytes(body)


@pytest.mark.parametrize(
    "change", [flip_last_byte, with_unknown_codec, with_broken_framing], ids=["checksum", "codec", "framing"]
)
async def test_an_unreadable_batch_stops_its_partition_after_everything_before_it(
    transport: Transport, admin: Admin, producer: Producer, topic: str, change: Any
) -> None:
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    for start in range(0, 9, 3):
        await producer.send_many([Outgoing(topic, b"%d" % n, partition=0) for n in range(start, start + 3)])
    await producer.send_many([Outgoing(topic, b"%d" % n, partition=1) for n in range(20)])
    member = Member(transport, topic, {topic})
    await member.consumer.start(member)
    tampering = Tampering(member, (zero, 3), change)
    await member.until(lambda: member.count >= 23 and zero in member.unreadable)
    assert member.values(zero) == [b"0", b"1", b"2"]
    assert len(member.values(one)) == 20
    error = member.unreadable[zero].error
    assert isinstance(error, CorruptBatch)
    assert f"{topic}[0]@3" in str(error)
    tampering.stop()
    await member.until(lambda: len(member.values(zero)) == 9)
    assert member.values(zero) == [b"%d" % number for number in range(9)]
    await member.consumer.stop()


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_every_codec_is_read_and_a_bomb_is_not(
    transport: Transport, admin: Admin, topic: str, codec: str
) -> None:
    zero = TopicPartition(topic, 0)
    async with Publisher(transport, compression=codec, max_batch_bytes=900_000) as producer:
        await producer.send_many([Outgoing(topic, b"%d" % n * 50, partition=0) for n in range(100)])
        await producer.send(Outgoing(topic, bytes(800_000), partition=0))
    address: str = transport.address  # type: ignore[attr-defined]
    strict = open_transport(address, decompression_limit_bytes=500_000)
    member = Member(strict, topic, {topic})
    await member.consumer.start(member)
    await member.until(lambda: zero in member.unreadable)
    assert len(member.values(zero)) == 100
    assert isinstance(member.unreadable[zero].error, BatchTooLarge)
    assert f"{topic}[0]@100" in str(member.unreadable[zero].error)
    # another consumer of the same process has a limit of its own
    patient = Member(transport, f"{topic}-2", {topic})
    await patient.consumer.start(patient)
    await patient.until(lambda: patient.count == 101)
    await member.consumer.stop()
    await patient.consumer.stop()


async def test_of_a_batch_that_is_too_large_only_the_records_that_are_too_large_fail(
    transport: Transport, admin: Admin, producer: Producer, fresh: str
) -> None:
    await admin.create_topic(fresh, config={"max.message.bytes": "20000"})
    sizes = [5000, 5000, 15000, 30000, 10, 5000, 40000, 15000, 10]
    with pytest.raises(RecordTooLarge):
        await producer.send_many([Outgoing(fresh, bytes([n]) * size) for n, size in enumerate(sizes)])
    assert await producer.send(Outgoing(fresh, b"after")) == Published(fresh, 0, 7)
    member = Member(transport, fresh, {fresh})
    await member.consumer.start(member)
    await member.until(lambda: member.count == 8)
    assert [(value or b"?")[0] for value in member.values()[:7]] == [0, 1, 2, 4, 5, 7, 8]
    await member.consumer.stop()


@pytest.mark.parametrize("wire_transport", ["embedded", KAFKA, *LIBRDKAFKA], indirect=True)
async def test_records_of_aborted_transactions_are_passed_over_and_the_position_goes_on(
    transport: Transport, admin: Admin, producer: Producer, topic: str
) -> None:
    zero = TopicPartition(topic, 0)
    transactional = transport.transactional_producer(topic)
    await transactional.start()
    for value, ending in ((b"yes", transactional.commit), (b"no", transactional.abort)):
        await transactional.begin()
        await transactional.send_many([Outgoing(topic, value, partition=0)] * 3)
        await ending()
    await transactional.begin()
    await transactional.send_offsets(topic, {zero: Commit(2, "inside")})
    await transactional.commit()
    await transactional.stop()
    member = Member(transport, f"{topic}-reader", {topic})
    await member.consumer.start(member)
    await member.until(lambda: member.next_offsets.get(zero) == 8)
    assert member.values() == [b"yes"] * 3
    assert await admin.group_offsets(topic) == {zero: Commit(2, "inside")}
    await member.consumer.stop()
    everything = Member(transport, f"{topic}-all", {topic}, isolation="read_uncommitted")
    await everything.consumer.start(everything)
    await everything.until(lambda: everything.count == 6)
    await everything.consumer.stop()


@pytest.mark.parametrize("code", [14, 15, 16])
async def test_a_coordinator_that_is_not_ready_never_means_that_nothing_is_committed(
    broken: EmbeddedTransport, code: int
) -> None:
    zero = TopicPartition("numbers", 0)
    async with Publisher(broken) as producer:
        await producer.send_many([Outgoing("numbers", b"%d" % number) for number in range(100)])
    first = Member(broken, "group", {"numbers"})
    await first.consumer.start(first)
    await first.until(lambda: first.mine)
    await first.consumer.commit({zero: Commit(40)})
    broken.faults.fail(OFFSET_FETCH, code, code)
    assert await first.consumer.committed({zero}) == {zero: Commit(40)}
    await first.consumer.stop()
    broken.faults.clear()
    broken.faults.fail(OFFSET_FETCH, *[code] * 3)
    second = Member(broken, "group", {"numbers"})
    await second.consumer.start(second)
    await second.until(lambda: second.count == 60)
    assert second.values()[0] == b"40"
    await second.consumer.stop()


@pytest.fixture
async def single(broken: EmbeddedTransport) -> AsyncIterator[Member]:
    """The only member of a group on the breakable broker, with ten records to read."""
    async with Publisher(broken) as producer:
        await producer.send_many([Outgoing("numbers", b"%d" % number) for number in range(10)])
    member = Member(broken, "group", {"numbers"})
    await member.consumer.start(member)
    await member.until(lambda: member.mine)
    yield member
    await member.consumer.stop()


ZERO = TopicPartition("numbers", 0)


@pytest.mark.parametrize(
    ("codes", "error"),
    [((14, 16), None), ((25,), PartitionLost), ((22,), PartitionLost), ((27,), PartitionLost), ((30,), NotAuthorized)],
    ids=["loading", "unknown member", "old generation", "rebalance", "not authorized"],
)
async def test_errors_of_a_commit(
    broken: EmbeddedTransport, single: Member, codes: tuple[int, ...], error: type[Exception] | None
) -> None:
    broken.faults.fail(OFFSET_COMMIT, *codes)
    if error is None:
        await single.consumer.commit({ZERO: Commit(5)})
        assert await single.consumer.committed({ZERO}) == {ZERO: Commit(5)}
    else:
        with pytest.raises(error):
            await single.consumer.commit({ZERO: Commit(5)})
        assert await single.consumer.committed({ZERO}) == {ZERO: None}


async def test_a_commit_that_is_not_answered_fails_in_time_and_can_be_repeated(
    broken: EmbeddedTransport, single: Member
) -> None:
    broken.faults.delay(OFFSET_COMMIT, 4.0)
    with pytest.raises(ConnectionFailed) as caught:
        await single.consumer.commit({ZERO: Commit(5)})
    assert caught.value.retryable
    broken.faults.clear()


async def test_a_member_that_the_group_forgot_loses_its_partitions_and_joins_again(
    broken: EmbeddedTransport, single: Member
) -> None:
    broken.faults.fail(HEARTBEAT, 25)
    await single.until(lambda: len(single.changes) >= 3)
    assert [what for what, _ in single.changes] == ["assigned", "lost", "assigned"]


async def test_an_error_that_a_broker_keeps_answering_stops_the_partition(
    broken: EmbeddedTransport, single: Member
) -> None:
    await single.until(lambda: single.count == 10)
    broken.faults.fail(FETCH, *[56] * 100)
    await single.until(lambda: ZERO in single.unreadable)
    broken.faults.clear()
    async with Publisher(broken) as producer:
        await producer.send(Outgoing("numbers", b"more"))
    await single.until(lambda: single.count == 11)


async def test_the_death_of_a_background_task_surfaces_from_fetch(single: Member) -> None:
    single.consumer._engine._fetcher._fetch_task.cancel()  # type: ignore[attr-defined]
    with pytest.raises(TransportError, match="background"):
        await single.until(lambda: False)


async def test_a_consumer_that_is_still_connecting_has_no_answer_yet(broken: EmbeddedTransport) -> None:
    broken.faults.delay(METADATA, 0.3)
    member = Member(broken, "g", {"numbers"})
    starting = asyncio.create_task(member.consumer.start(member))
    await asyncio.sleep(0)
    with pytest.raises(ConnectionFailed, match="still connecting"):
        await member.consumer.topic_ids({"numbers"})
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting


async def test_a_mistake_of_the_client_is_one_that_a_new_client_may_not_make(single: Member) -> None:
    failed = asyncio.get_running_loop().create_future()
    failed.set_exception(AssertionError("never"))
    single.consumer._engine._fetcher._pending_tasks.add(failed)  # type: ignore[attr-defined]
    with pytest.raises(ConnectionFailed, match=r"mistake of its own \(AssertionError\('never'\)\)"):
        await single.until(lambda: False)


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        pytest.param(None, ConnectionFailed, id="without a word"),
        pytest.param(KeyError("leader"), ConnectionFailed, id="a mistake"),
        pytest.param(asyncio.CancelledError(), ConnectionFailed, id="cancelled by itself"),
        pytest.param(kafka.GroupAuthorizationFailedError("g"), kafka.GroupAuthorizationFailedError, id="not allowed"),
        pytest.param(kafka.KafkaError("odd"), kafka.KafkaError, id="not known"),
        pytest.param(NotAuthorized("expired"), NotAuthorized, id="of ours"),
    ],
)
async def test_the_end_of_a_background_task_is_what_it_says(
    raised: BaseException | None, kind: type[BaseException]
) -> None:
    async def work() -> None:
        if raised is not None:
            raise raised

    task = asyncio.create_task(work())
    await asyncio.wait([task])
    assert type(end_of(task)) is kind


@pytest.mark.parametrize(
    ("cause", "kind", "retryable"),
    [
        pytest.param(kafka.KafkaConnectionError("closed"), ConnectionFailed, True, id="connection"),
        pytest.param(kafka.GroupAuthorizationFailedError("g"), NotAuthorized, False, id="not allowed"),
        pytest.param(None, TransportError, False, id="nothing"),
    ],
)
def test_what_the_client_did_not_expect_is_what_is_behind_it(
    cause: Exception | None, kind: type[TransportError], retryable: bool
) -> None:
    error = kafka.KafkaError(repr(cause))
    error.__cause__ = cause
    ours = translated(error, "connecting", "broker:9092")
    assert isinstance(ours, TransportError)
    assert (type(ours), ours.retryable) == (kind, retryable)


async def test_what_the_client_cancels_while_it_closes_cancels_nobody_else(single: Member) -> None:
    # aiokafka awaits what it cancelled; after an outage that is a fetch of a node which is away
    waiting = asyncio.ensure_future(asyncio.get_running_loop().create_future())
    single.consumer._engine._fetcher._pending_tasks.add(waiting)  # type: ignore[attr-defined]
    await single.consumer.stop()
    assert waiting.cancelled()


async def test_a_lost_acknowledgement_stores_a_record_once(broken: EmbeddedTransport, single: Member) -> None:
    async with Publisher(broken) as producer:
        broken.faults.drop(PRODUCE, moment="after")
        assert (await producer.send(Outgoing("numbers", b"once"))).offset == 10
        assert (await producer.send(Outgoing("numbers", b"twice"))).offset == 11
    await single.until(lambda: single.count == 12)
    assert single.values()[10:] == [b"once", b"twice"]


async def test_a_producer_whose_sequence_the_broker_forgot_starts_anew(broken: EmbeddedTransport) -> None:
    async with Publisher(broken) as producer:
        await producer.send(Outgoing("numbers", b"1"))
        broken.faults.fail(PRODUCE, 45)
        assert (await producer.send(Outgoing("numbers", b"2"))).offset == 1
        assert (await producer.send(Outgoing("numbers", b"3"))).offset == 2


async def test_a_refused_batch_does_not_disturb_those_after_it(broken: EmbeddedTransport) -> None:
    async with Publisher(broken) as producer:
        broken.faults.fail(PRODUCE, 0, 29)
        await producer.send(Outgoing("numbers", b"1"))
        with pytest.raises(NotAuthorized):
            await producer.send(Outgoing("numbers", b"2"))
        assert (await producer.send(Outgoing("numbers", b"3"))).offset == 1


async def test_a_record_without_an_answer_fails_after_the_delivery_timeout(broken: EmbeddedTransport) -> None:
    async with Publisher(broken, delivery_timeout=0.5) as producer:
        broken.faults.delay(PRODUCE, 2.0)
        with pytest.raises(ConnectionFailed, match="may yet be stored"):
            await producer.send(Outgoing("numbers", b"1"))
        await asyncio.sleep(0)
        broken.faults.clear()


async def test_after_a_record_without_an_answer_its_partition_takes_others(broken: EmbeddedTransport) -> None:
    async with Publisher(broken, delivery_timeout=0.5) as producer:
        broken.faults.delay(PRODUCE, 2.0)
        with pytest.raises(ConnectionFailed, match="may yet be stored"):
            await producer.send(Outgoing("numbers", b"1", partition=0))
        broken.faults.clear()
        async with asyncio.timeout(20):
            while True:  # the first may be on its way as long as its answer is awaited
                with contextlib.suppress(ConnectionFailed):
                    assert (await producer.send(Outgoing("numbers", b"2", partition=0))).partition == 0
                    break
                await asyncio.sleep(0.1)


async def test_nobody_at_the_address_is_a_connection_that_failed() -> None:
    for part in (open_transport("127.0.0.1:1").admin(), open_transport("127.0.0.1:1").producer()):
        with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:1"):
            await part.start()


async def test_a_position_that_two_look_for_and_none_finds_ends_nothing(single: Member) -> None:
    """As when the leader moves while the first look is under way: the second goes to the new one."""
    await single.until(lambda: single.count == 10)
    fetcher = single.consumer._engine.fetcher  # type: ignore[attr-defined]
    fetcher.results.pop(ZERO, None)
    for _ in range(2):
        fetcher._set_error(ZERO, kafka.NoOffsetForPartitionError(ZERO))
    await single.until(lambda: ZERO in single.unreadable)
    assert "background" not in str(single.unreadable[ZERO].error)
