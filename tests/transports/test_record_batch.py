"""Batches that we write are those that Kafka's clients read, byte for byte what aiokafka writes where times agree."""

import time

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch

from octopus.transports.kafka.record_batch import APART, RecordBatch

RECORDS = [
    (1_700_000_000_000, b"key", b"value", []),
    (1_700_000_000_005, None, b"", [("h", b"1"), ("null", None), ("ünï", b"x" * 5000)]),
    (1_699_999_999_000, b"", None, [("h", b"1")]),
    (1_700_009_999_999, b"k" * 70, b"v" * 70_000, [("h", b"1")]),
    (1_700_000_000_000, b"k" * 5000, b"v" * 4096, []),
]


@pytest.mark.parametrize("is_transactional", [False, True])
@pytest.mark.parametrize("repeats", [1, 1000], ids=["few", "many"])
def test_a_batch_is_byte_for_byte_what_aiokafka_writes(is_transactional: bool, repeats: int) -> None:
    records = RECORDS[:3] * repeats + RECORDS
    ours, theirs = (
        RecordBatch(2**30, is_transactional=is_transactional),
        BatchBuilder(2**30, 0, is_transactional=is_transactional),
    )
    for number, (timestamp, key, value, headers) in enumerate(records):
        assert ours.append(number, timestamp, key, value, headers)
        assert theirs.append(timestamp=timestamp, key=key, value=value, headers=headers)
    ours.begin_at(7, 3, 11)
    theirs._set_producer_state(7, 3, 11)
    assert b"".join(ours.encoded()) == bytes(theirs._build())
    assert ours.size == len(b"".join(ours.encoded()))
    assert ours.encoded() is ours.encoded()


def test_records_without_a_time_have_that_of_their_batch() -> None:
    batch = RecordBatch(10_000, is_transactional=False)
    for number in range(3):
        batch.append(number, None, None, b"x", [])
    read = list(DefaultRecordBatch(b"".join(batch.encoded())))
    assert [record.offset for record in read] == [0, 1, 2]
    assert len({record.timestamp for record in read}) == 1


@pytest.mark.parametrize("given", [0, 1_700_000_000_000, 4_000_000_000_000], ids=["1970", "years ago", "years ahead"])
def test_records_without_a_time_do_not_get_that_of_the_first_which_has_one(given: int) -> None:
    batch, before = RecordBatch(10_000, is_transactional=False), time.time() * 1000 - 1000
    for number, timestamp in enumerate((given, None, given + 5, None)):
        batch.append(number, timestamp, None, b"x", [])
    whole = DefaultRecordBatch(b"".join(batch.encoded()))
    first, second, third, fourth = [record.timestamp for record in whole]
    assert (first, third) == (given, given + 5)
    assert before < second == fourth < time.time() * 1000 + 1000
    assert whole.max_timestamp == max(second, third)


def test_a_full_batch_takes_no_more_but_always_one() -> None:
    batch = RecordBatch(1000, is_transactional=False)
    assert batch.append(0, None, None, b"x" * 5000, [])
    size = batch.size
    assert batch.append(1, None, None, b"x", []) is None
    assert batch.size == size
    batch, count = RecordBatch(1000, is_transactional=False), 0
    while batch.append(count, None, b"key", b"x" * 50, [("h", b"1")]):
        count += 1
    assert count > 10
    assert len(b"".join(batch.encoded())) <= 1000


@pytest.mark.parametrize(("size", "is_apart"), [(APART - 1, False), (APART, True), (20 * APART, True)])
def test_a_large_value_goes_to_the_socket_as_it_is(size: int, is_apart: bool) -> None:
    batch, values = RecordBatch(2**30, is_transactional=False), [b"small", b"x" * size, b"small", b"y" * size]
    for number, value in enumerate(values):
        batch.append(number, None, b"key", value, [("h", b"1")])
    assert [any(piece is value for piece in batch.encoded()) for value in values] == [False, is_apart] * 2
    read = DefaultRecordBatch(b"".join(batch.encoded()))
    assert read.validate_crc()
    assert [record.value for record in read] == values
