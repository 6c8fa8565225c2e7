"""Views of an answer say what aiokafka's copies of it say, and leave it as it was."""

import gc
import gzip
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import aiokafka.errors as kafka
import pytest
from aiokafka.consumer.fetcher import PartitionRecords as TheirRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition as KafkaTopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from octopus.errors import BatchTooLarge, CorruptBatch
from octopus.events import TopicPartition
from octopus.transports.base import LARGE, Chunk
from octopus.transports.checksum import crc32c
from octopus.transports.kafka import reader
from octopus.transports.kafka.engine import PartitionRecords
from octopus.transports.kafka.fetched import Batch, FetchedBatches
from octopus.transports.kafka.measuring import HEADER_BYTES, RECORD_BYTES
from octopus.transports.kafka.reader import Buffer, read_among
from octopus.unread import Unread

LIMIT = 64 * 1024 * 1024

# batches

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)


def batch_of(
    values: list[bytes | None],
    *,
    magic: int = 2,
    codec: int = NONE,
    offset: int = 0,
    producer: int = -1,
    transactional: bool = False,
) -> bytes:
    """Build a batch, or a message set of an older format, as a broker would keep it."""
    if magic < 2:
        old = LegacyRecordBatchBuilder(magic, codec, 2**20)
        for number, value in enumerate(values):
            old.append(offset + number, 1000 + number, b"key", value)
        return bytes(old.build())
    new = DefaultRecordBatchBuilder(2, codec, transactional, producer, 0, 0, 2**20)
    for number, value in enumerate(values):
        new.append(number, 1000 + number, b"key", value, [("header", b"value")])
    return struct.pack(">q", offset) + bytes(new.build())[8:]


@st.composite
def record_sets(draw: st.DrawFn) -> bytes:
    """A few batches of any codec, in one of the formats: aiokafka takes that of the first for that of all."""
    made, offset, magic = b"", draw(st.integers(0, 10**12)), draw(st.sampled_from([0, 1, 2, 2, 2]))
    # in the oldest format the framing of LZ4 was broken: aiokafka takes none
    codecs = {0: [NONE, GZIP, SNAPPY], 1: [NONE, GZIP, SNAPPY, LZ4], 2: [NONE, GZIP, SNAPPY, LZ4, ZSTD]}[magic]
    for _ in range(draw(st.integers(0, 4))):
        values = draw(st.lists(st.none() | st.binary(max_size=50), min_size=1, max_size=5))
        producer = draw(st.sampled_from([-1, 5]))
        made += batch_of(values, magic=magic, codec=draw(st.sampled_from(codecs)), offset=offset, producer=producer)
        offset += len(values)
    return made


Seen = list[tuple[Any, ...]]


def seen(records: Any, whole: Callable[[Any], bool], reader: Callable[[Any], Any]) -> Seen:
    """Write down all that can be known of batches, up to the first that has no frame."""
    found: Seen = [("bytes", records.size_in_bytes())]
    try:
        while records.has_next():
            item = records.next() if isinstance(records, FetchedBatches) else records.next_batch()
            batch = reader(item)
            good = whole(item)
            rows = [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in batch] if good else []
            found.append(
                (
                    type(batch),
                    getattr(batch, "base_offset", None),
                    batch.next_offset,
                    batch.is_control_batch,
                    good,
                    rows,
                )
            )
    except Exception as error:
        # where aiokafka's compiled readers stumble over lengths that lie, we say what that is
        found.append((kafka.CorruptRecordException if isinstance(error, SystemError) else type(error),))
    return found


def as_aiokafka_sees(data: bytes) -> Seen:
    return seen(MemoryRecords(data), lambda batch: batch.validate_crc(), lambda batch: batch)


def as_we_see(data: bytes | memoryview) -> Seen:
    return seen(FetchedBatches(data), lambda batch: batch.is_whole, lambda batch: batch.records)


def as_aiokafka_sees_ours(data: bytes | memoryview) -> Seen:
    """Use our class in the place of `MemoryRecords`, as aiokafka's fetcher does."""
    ours = FetchedBatches(data)

    class Stand:
        size_in_bytes, has_next, next_batch = ours.size_in_bytes, ours.has_next, ours.next_batch

    return seen(Stand, lambda batch: batch.validate_crc(), lambda batch: batch)


def agree(data: bytes) -> None:
    buffer = bytearray(data)
    expected = as_aiokafka_sees(data)
    assert as_we_see(data) == as_we_see(memoryview(buffer)) == expected
    assert as_aiokafka_sees_ours(memoryview(buffer)) == expected
    assert buffer == data, "nobody writes into a frame"


@given(record_sets())
@settings(deadline=None)
def test_whole_batches_are_seen_as_aiokafka_sees_them(data: bytes) -> None:
    agree(data)
    assert all(row[4] for row in as_we_see(data)[1:])


@given(record_sets(), st.data())
@settings(deadline=None)
def test_batches_that_are_cut_off_are_seen_as_aiokafka_sees_them(data: bytes, draws: st.DataObject) -> None:
    agree(data[: draws.draw(st.integers(0, len(data)))])


@given(record_sets().filter(bool), st.data())
@settings(deadline=None, max_examples=200)
def test_a_byte_that_was_changed_gets_the_verdict_that_aiokafka_gives(data: bytes, draws: st.DataObject) -> None:
    at = draws.draw(st.integers(0, len(data) - 1))
    start = 0
    while at - start >= 12 + struct.unpack_from(">i", data, start + 8)[0]:
        start += 12 + struct.unpack_from(">i", data, start + 8)[0]
    changed = bytearray(data)
    if 8 <= at - start < 12 or at - start == 16:
        return  # the length and the format are in no checksum: below
    changed[at] ^= draws.draw(st.integers(1, 255))
    agree(bytes(changed))
    if at - start >= 17:
        index = len(as_we_see(data[:start]))
        verdict = as_we_see(bytes(changed))[index]
        assert len(verdict) == 1 or verdict[4] is False, "every byte behind the format is in a checksum"


@given(record_sets().filter(bool), st.data())
@settings(deadline=None)
def test_lengths_and_formats_that_lie_are_corruption_or_an_end_and_never_a_loop(
    data: bytes, draws: st.DataObject
) -> None:
    changed = bytearray(data)
    changed[draws.draw(st.sampled_from([8, 9, 10, 11, 16]))] = draws.draw(st.integers(0, 255))
    batches = FetchedBatches(changed)
    for _ in range(len(data)):
        try:
            batch = batches.next()
        except kafka.CorruptRecordException:
            return
        if batch is None:
            return
        assert isinstance(batch.is_whole, bool)
    pytest.fail("there are more batches than bytes")


@pytest.mark.parametrize("length", [-(2**31), -12, -1, 0, 13, 48])
def test_a_batch_shorter_than_its_header_is_corruption_each_time_it_is_asked_for(length: int) -> None:
    data = struct.pack(">qiib", 0, length, 0, 2) + bytes(100)
    batches = FetchedBatches(data)
    for _ in range(2):
        assert batches.has_next()
        with pytest.raises(kafka.CorruptRecordException, match="shorter than its header"):
            batches.next_batch()


@pytest.mark.parametrize("data", [None, b"", b"short", struct.pack(">qi", 0, 1000)])
def test_without_a_whole_batch_there_is_none(data: bytes | None) -> None:
    batches = FetchedBatches(data)
    assert (batches.has_next(), batches.next_batch(), batches.next()) == (False, None, None)
    assert batches.size_in_bytes() == len(data or b"")


def test_formats_may_be_mixed_as_they_are_after_an_upgrade() -> None:
    data = b"".join(batch_of([b"%d" % at], magic=magic, offset=at) for at, magic in enumerate((0, 1, 2, 1)))
    buffer = buffered(fetched(memoryview(data)))
    assert [r.value for chunk in read_all(buffer) for r in chunk.records] == [b"0", b"1", b"2", b"3"]


# sizes


def first(data: bytes) -> tuple[Batch, list[Any]]:
    batch = FetchedBatches(data).next()
    assert batch is not None
    return batch, list(batch.records)


def test_records_of_a_plain_batch_count_their_share_of_it_and_their_objects() -> None:
    data = batch_of([bytes(1000)] * 10)
    batch, records = first(data)
    objects = RECORD_BYTES + HEADER_BYTES
    assert batch.take(records, 1) == (records, (len(data) + 10 * objects, {}))
    assert batch.take(records[:5], 1) == (records[:5], (len(data) // 2 + 5 * objects, {}))
    assert batch.take([], 1) == ([], (0, {}))


@pytest.mark.parametrize(
    ("magic", "codec"), [(2, GZIP), (2, SNAPPY), (2, LZ4), (2, ZSTD), (1, GZIP), (1, NONE), (0, NONE)]
)
def test_compressed_and_old_records_count_everything_they_have_and_large_ones_by_themselves(
    magic: int, codec: int
) -> None:
    batch, records = first(batch_of([bytes(LARGE), None], magic=magic, codec=codec))
    headers = sum([HEADER_BYTES + len(name) + len(value) for record in records for name, value in record.headers])
    taken, (size, large) = batch.take(records, 2**30)
    assert taken == records
    assert size == LARGE + len(records) * (RECORD_BYTES + 3) + headers
    assert [*large] == [0]
    assert LARGE < large[0] <= size


# what is read for a consumer


def fetched(data: Any, *, aborted: Any = (), isolation: int = 1) -> PartitionRecords:
    tp = KafkaTopicPartition("topic", 0)
    return PartitionRecords(tp, FetchedBatches(data), aborted, 0, None, None, True, isolation)


def buffered(records: PartitionRecords, number: int = 0) -> Buffer:
    return Buffer(TopicPartition("topic", number), records, LIMIT)


def read_all(buffer: Buffer, limit: int = 3) -> list[Chunk]:
    chunks = []
    while (chunk := buffer.read(limit)) is not None:
        chunks.append(chunk._replace(records=[*chunk.records]))
    return chunks


@given(record_sets(), st.integers(1, 7))
@settings(deadline=None)
def test_a_consumer_reads_what_aiokafkas_would_from_every_format(data: bytes, limit: int) -> None:
    frame = bytearray(data)
    chunks = read_all(buffered(fetched(memoryview(frame))), limit)
    ours = [(r.offset, r.key, r.value) for chunk in chunks for r in chunk.records]
    theirs = TheirRecords(KafkaTopicPartition("topic", 0), MemoryRecords(data), None, 0, None, None, True, 1)
    assert ours == [(r.offset, r.key, r.value) for r in theirs]
    assert frame == data


@given(record_sets(), st.data())
@settings(deadline=None)
def test_so_it_does_in_parts_of_any_size_and_unpacked_anew_at_any_time(data: bytes, draw: st.DataObject) -> None:
    buffer = buffered(fetched(memoryview(data)))
    ours: list[Any] = []
    while not buffer.finished:
        room = draw.draw(st.sampled_from([None, 0, 100, 10_000]))
        chunk = buffer.read(draw.draw(st.integers(1, 7)), max_bytes=draw.draw(st.integers(1, 1000)), room=room)
        assert buffer.unpacked_bytes <= (10_000 if room is None else room) or not buffer.is_waiting
        ours += [] if chunk is None else [(r.offset, r.key, r.value) for r in chunk.records]
        if buffer.is_waiting:
            more = buffer.read(7)
            ours += [] if more is None else [(r.offset, r.key, r.value) for r in more.records]
        if draw.draw(st.booleans()):
            buffer.pack()
            assert not buffer.unpacked_bytes
        if draw.draw(st.booleans()):
            buffer.stand_alone()
    theirs = TheirRecords(KafkaTopicPartition("topic", 0), MemoryRecords(data), None, 0, None, None, True, 1)
    assert ours == [(r.offset, r.key, r.value) for r in theirs]


def wrapped(data: bytes, *, offset: int, append_time: int | None = None) -> bytes:
    """Give a compressed message of format 1 an offset, and perhaps the time at which its broker stored it, as brokers do."""
    attributes = data[17] | (0x08 if append_time is not None else 0)
    timestamp = data[18:26] if append_time is None else struct.pack(">q", append_time)
    body = data[16:17] + bytes([attributes]) + timestamp + data[26:]
    return struct.pack(">qiI", offset, len(data) - 12, zlib.crc32(body)) + body


@pytest.mark.parametrize("append_time", [None, 5_000])
@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4])
def test_old_messages_have_the_offsets_and_times_that_aiokafka_gives_them(codec: int, append_time: int | None) -> None:
    data = wrapped(batch_of([b"a", None, b"c"], magic=1, codec=codec), offset=102, append_time=append_time)
    chunks = read_all(buffered(fetched(memoryview(data))))
    ours = [(r.offset, r.timestamp, r.key, r.value) for chunk in chunks for r in chunk.records]
    times = [1000, 1001, 1002] if append_time is None else [append_time] * 3
    assert ours == [(100 + n, times[n], b"key", value) for n, value in enumerate([b"a", None, b"c"])]
    theirs = TheirRecords(KafkaTopicPartition("topic", 0), MemoryRecords(data), None, 0, None, None, True, 1)
    assert ours == [(r.offset, r.timestamp, r.key, r.value) for r in theirs]


@pytest.mark.parametrize(("magic", "codec"), [(0, GZIP), (0, SNAPPY), (1, GZIP), (1, SNAPPY), (1, LZ4)])
def test_an_old_message_is_unpacked_up_to_a_limit_only(magic: int, codec: int) -> None:
    data = batch_of([b"small", bytes(100_000)], magic=magic, codec=codec)
    records = fetched(data)
    buffer = Buffer(TopicPartition("topic", 0), records, 50_000)
    assert buffer.read(9) is None
    assert isinstance(buffer.error, BatchTooLarge)
    assert len(read_all(buffered(fetched(data)))[0].records) == 2


def spoiled(change: Callable[[bytearray], None], *, codec: int = GZIP) -> bytes:
    """A compressed message of format 1 whose checksum is right, and what is in it is not."""
    inside = bytearray(batch_of([b"a", b"b"], magic=1))
    change(inside)
    packed = gzip.compress(inside)
    body = bytes([1, codec]) + bytes(8) + struct.pack(">ii", -1, len(packed)) + packed
    return struct.pack(">qiI", 9, 4 + len(body), zlib.crc32(body)) + body


def shorten(inside: bytearray) -> None:
    del inside[-1:]


def empty(inside: bytearray) -> None:
    inside.clear()


def overlong(inside: bytearray) -> None:
    inside[8:12] = struct.pack(">i", 2**31 - 1)


def negative(inside: bytearray) -> None:
    inside[8:12] = struct.pack(">i", -20)


def twice_compressed(inside: bytearray) -> None:
    inside[17] |= GZIP


@pytest.mark.parametrize("change", [shorten, empty, overlong, negative, twice_compressed])
def test_what_is_wrong_in_an_old_message_is_corrupt(change: Callable[[bytearray], None]) -> None:
    buffer = buffered(fetched(spoiled(change)))
    assert buffer.read(9) is None
    assert isinstance(buffer.error, CorruptBatch)
    assert buffer.next_offset == 0


@pytest.mark.parametrize(("magic", "codec"), [(0, LZ4), (0, ZSTD), (1, ZSTD), (1, 5), (2, 5), (2, 7)])
def test_a_compression_that_a_format_does_not_have_is_said(magic: int, codec: int) -> None:
    data = bytearray(batch_of([b"a"], magic=magic, codec=GZIP))
    if magic < 2:
        data[17] = codec
        data[12:16] = struct.pack(">I", zlib.crc32(data[16:]))
    else:
        data[22] = codec
        data[17:21] = struct.pack(">I", crc32c(data[21:]))
    buffer = buffered(fetched(bytes(data)))
    assert buffer.read(9) is None
    assert isinstance(buffer.error, CorruptBatch)
    assert f"compression {codec}" in str(buffer.error)


every_codec = pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])


@every_codec
def test_a_batch_is_unpacked_only_if_there_is_room_for_what_it_becomes(codec: int) -> None:
    buffer = buffered(fetched(batch_of([bytes(10_000)] * 3, codec=codec)))
    assert buffer.read(1, room=20_000) is None
    assert (buffer.is_waiting, buffer.unpacked_bytes, buffer.error) == (True, 0, None)
    chunk = buffer.read(1, room=200_000)
    assert chunk is not None
    assert len(chunk.records) == 1
    assert 30_000 < buffer.unpacked_bytes < 31_000
    assert not buffer.is_waiting
    assert len(read_all(buffer)[0].records) == 2
    assert (buffer.unpacked_bytes, buffer.finished) == (0, True)


def test_what_is_unpacked_for_nobody_gives_way_and_is_read_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "UNPACKED", 500_000)
    held, hungry = (buffered(fetched(batch_of([bytes(100_000)] * 3, codec=ZSTD)), number) for number in range(2))
    first_part = held.read(1)
    assert first_part is not None
    assert held.unpacked_bytes > 300_000
    assert read_among([held], hungry, {held.partition, hungry.partition}, 1, 1, split=True) is None
    assert held.unpacked_bytes > 300_000, "somebody asks for it"
    assert read_among([held], hungry, {hungry.partition}, 1, 1, split=True) is not None
    assert held.unpacked_bytes == 0
    assert [r.offset for chunk in [first_part, *read_all(held)] for r in chunk.records] == [0, 1, 2]


@every_codec
def test_what_is_read_at_once_ends_behind_the_record_that_makes_it_so_many_bytes(codec: int) -> None:
    data = batch_of([bytes(100_000)] * 5, codec=codec) + batch_of([b"small"] * 5, offset=5, codec=codec)
    buffer = buffered(fetched(data))
    sizes = []
    while (chunk := buffer.read(1000, max_bytes=150_000)) is not None:
        sizes.append(len(chunk.records))
    assert sizes == [2, 2, 6]


def test_batches_are_unpacked_one_after_the_other_and_not_more_than_are_wanted() -> None:
    data = b"".join(batch_of([bytes(1_000_000)], offset=number, codec=ZSTD) for number in range(50))
    buffer = buffered(fetched(data))
    tracemalloc.start()
    try:
        while (chunk := buffer.read(1000, max_bytes=2_000_000)) is not None:
            assert len(chunk.records) == 2
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6_000_000


def test_a_gzip_stream_whose_end_lies_has_no_more_room_than_others() -> None:
    batch = first(batch_of([bytes(1_000_000)], codec=GZIP))[0]
    members = bytes(batch.view[61:]) + gzip.compress(b"")
    data = bytearray(batch.view[:61]) + members
    struct.pack_into(">i", data, 8, len(data) - 12)
    struct.pack_into(">I", data, 17, crc32c(memoryview(data)[21:]))
    buffer = buffered(fetched(bytes(data)))
    assert buffer.read(1, room=500_000) is None
    assert buffer.is_waiting
    assert len(read_all(buffer)[0].records) == 1


def test_a_record_whose_headers_would_take_more_than_a_batch_may_is_refused_unread() -> None:
    builder = DefaultRecordBatchBuilder(2, ZSTD, False, -1, 0, 0, 2**24)
    builder.append(0, 1000, b"key", b"value", [])
    builder.append(1, 1000, b"key", b"value", [("", None)] * 600_000)
    buffer = buffered(fetched(bytes(builder.build())))
    tracemalloc.start()
    try:
        assert buffer.read(10) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(buffer.error, BatchTooLarge)
    assert str(buffer.error).startswith(
        "topic[0]@0 cannot be read: A record has 600000 headers, which would take more than"
    )
    assert peak < 10_000_000


@given(record_sets(), st.integers(1, 7), st.integers(0, 5))
@settings(deadline=None)
def test_what_is_set_aside_lets_go_of_its_frame_and_reads_on_as_before(data: bytes, limit: int, turns: int) -> None:
    frame = bytearray(data)
    buffer = buffered(fetched(memoryview(frame)))
    before = [chunk for _ in range(turns) if (chunk := buffer.read(limit)) is not None]
    for chunk in before:
        if isinstance(chunk.records, Unread):
            chunk.records.stand_alone()
    buffer.stand_alone()
    buffer.stand_alone()
    frame.clear()  # which a view would forbid
    chunks = [*before, *read_all(buffer, limit)]
    expected = read_all(buffered(fetched(data)), limit)
    assert [r.offset for chunk in chunks for r in chunk.records] == [r.offset for c in expected for r in c.records]
    assert buffer.error is None


@given(record_sets(), st.integers(0, 5))
def test_batches_that_are_set_aside_before_they_are_taken_let_go_too(data: bytes, taken: int) -> None:
    frame = bytearray(data)
    batches = FetchedBatches(memoryview(frame))
    first = [bytes(batch.view) for batch in (batches.next() for _ in range(taken)) if batch is not None]
    batches.stand_alone()
    frame.clear()
    rest = []
    while (batch := batches.next()) is not None:
        rest.append(bytes(batch.view))
    assert b"".join(first + rest) == data


def test_aborted_transactions_are_skipped_on_views_too() -> None:
    data = b"".join(batch_of([b"%d" % n], offset=n, producer=n % 2, transactional=True) for n in range(6))
    chunks = read_all(buffered(fetched(memoryview(bytearray(data)), aborted=[(1, 2)])))
    assert [r.value for chunk in chunks for r in chunk.records] == [b"0", b"1", b"2", b"4"]
    assert chunks[-1].next_offset == 6


@pytest.mark.parametrize("codec", [NONE, GZIP])
def test_what_has_been_read_lets_go_of_its_frame_without_a_garbage_collection(codec: int) -> None:
    frame = bytearray(batch_of([b"one", b"two"], codec=codec) + batch_of([b"three"], offset=2, codec=codec))
    gc.disable()
    try:
        buffer = buffered(fetched(memoryview(frame)))
        chunks = read_all(buffer)
        frame.append(0)  # refused as long as there is any view
    finally:
        gc.enable()
    assert [r.value for chunk in chunks for r in chunk.records] == [b"one", b"two", b"three"]
