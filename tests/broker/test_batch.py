"""Record batches: headers, markers, and the records inside."""

import zlib
from contextlib import suppress

import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from octopus.broker.batch import (
    LOG_APPEND_TIME,
    Record,
    checksum_of,
    control_batch,
    decode_records,
    encode_batch,
    is_commit,
    placed,
    read_header,
    stamped,
)
from octopus.broker.codecs import Codec, UnreadableBatch
from tests.broker.storage_builders import NOW, batch

content = st.none() | st.binary(max_size=40)
a_record = st.tuples(
    st.integers(0, 2**42), content, content, st.lists(st.tuples(st.text(max_size=5), content), max_size=3)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(a_record, min_size=1, max_size=8), st.sampled_from([0, 1]))
def test_what_a_client_library_encodes_is_decoded_the_same(records: list, codec: int) -> None:
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 2**20)
    for number, (timestamp, key, value, headers) in enumerate(records):
        builder.append(number, timestamp, key, value, headers)
    decoded = list(decode_records(bytes(builder.build())))
    assert decoded == [
        Record(number, timestamp, key, value, tuple((name.encode(), inner) for name, inner in headers))
        for number, (timestamp, key, value, headers) in enumerate(records)
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(a_record, min_size=1, max_size=8), st.sampled_from([0, 1]))
def test_what_we_encode_a_client_library_decodes_the_same(records: list, codec: int) -> None:
    data = encode_batch(
        [
            Record(100 + number, timestamp, key, value, tuple((name.encode(), inner) for name, inner in headers))
            for number, (timestamp, key, value, headers) in enumerate(records)
        ],
        attributes=codec,
    )
    theirs = DefaultRecordBatch(bytearray(data))
    assert theirs.validate_crc()
    assert [(each.offset, each.timestamp, each.key, each.value, list(each.headers)) for each in theirs] == [
        (100 + number, *rest[:3], rest[3]) for number, rest in enumerate(records)
    ]


def test_a_commit_marker_has_the_bytes_that_kafka_writes() -> None:
    marker = control_batch("commit", 7, 3, NOW)
    header = read_header(marker)
    assert len(marker) == 78
    assert marker[61:] == bytes.fromhex("20 00 00 00 08 0000 0001 0c 0000 00000000 00")
    assert (header.attributes, header.base_sequence, header.producer_id, header.producer_epoch) == (0x30, -1, 7, 3)
    assert checksum_of(marker) == header.crc


def test_markers_tell_commit_from_abort() -> None:
    assert is_commit(control_batch("commit", 7, 3, NOW))
    assert not is_commit(control_batch("abort", 7, 3, NOW))


def test_placing_a_batch_leaves_its_checksum_valid() -> None:
    data = batch(b"a", b"b")
    stored = placed(read_header(data), 4711) + data[16:]
    assert read_header(stored).base_offset == 4711
    assert checksum_of(stored) == read_header(stored).crc


def test_stamping_changes_the_time_of_every_record_and_the_checksum() -> None:
    data = stamped(batch(b"a", b"b", timestamp=5), NOW)
    header = read_header(data)
    assert header.attributes & LOG_APPEND_TIME
    assert checksum_of(data) == header.crc
    assert [record.timestamp for record in decode_records(data)] == [NOW, NOW]


def test_a_gzip_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = encode_batch([Record(0, NOW, None, bytes(10_000_000))], attributes=1)
    assert len(bomb) < 20_000
    with pytest.raises(UnreadableBatch, match="more than 1000 bytes"):
        list(decode_records(bomb, 1000))


def test_codecs_of_the_environment_are_used() -> None:
    plain = encode_batch([Record(0, NOW, b"key", b"value")])
    packed = bytearray(plain[:61] + zlib.compress(plain[61:]))
    packed[22] = 4
    packed[8:12] = (len(packed) - 12).to_bytes(4, "big")
    (record,) = decode_records(
        bytes(packed),
        codecs={4: Codec(lambda data, limit: zlib.decompress(data), lambda data, level: zlib.compress(data))},
    )
    assert record.value == b"value"
    with pytest.raises(UnreadableBatch, match="codec 4"):
        list(decode_records(bytes(packed)))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_altered_records_are_refused_or_decoded_but_nothing_else(data: st.DataObject) -> None:
    original = bytearray(batch(b"first", b"second", key=b"key"))
    for _ in range(data.draw(st.integers(1, 4))):
        original[data.draw(st.integers(61, len(original) - 1))] = data.draw(st.integers(0, 255))
    with suppress(UnreadableBatch):
        assert len(list(decode_records(bytes(original)))) == 2
