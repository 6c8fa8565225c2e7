"""What a log accepts, and where it puts it."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from octopus.broker.batch import MAXIMUM_SEQUENCE, checksum_of, control_batch, read_header
from octopus.broker.codes import BrokerError, Code
from octopus.broker.log import Appended, Log, LogConfig
from tests.broker.storage_builders import NOW, append, batch, batches_of, disk_log, records_of


@pytest.fixture(params=["memory", "disk"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    log = Log() if request.param == "memory" else disk_log(tmp_path / "log")
    yield log
    log.close()


def test_batches_are_stored_as_sent_but_for_offset_and_epoch(log: Log) -> None:
    first, second = batch(b"a", b"b"), batch(b"c", attributes=1)
    append(log, first)
    append(log, second)
    stored = [data for part in log.read(0, 10_000).parts for data in batches_of(part)]
    assert [read_header(data).base_offset for data in stored] == [0, 2]
    assert [data[:8] + data[16:] for data in stored] == [first[:8] + first[16:], bytes(7) + b"\x02" + second[16:]]
    assert all(data[12:16] == bytes(4) for data in stored)


def test_offsets_count_every_record(log: Log) -> None:
    assert [append(log, batch(*[b"x"] * count)) for count in (1, 100, 7)] == [0, 1, 101]
    assert log.end_offset == 108


def changed(position: int, replacement: bytes, *, summed: bool = True) -> bytes:
    data = bytearray(batch(b"a", b"b"))
    data[position : position + len(replacement)] = replacement
    if summed:
        data[17:21] = checksum_of(bytes(data)).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"", Code.CORRUPT_MESSAGE, id="nothing"),
        pytest.param(bytes(60), Code.CORRUPT_MESSAGE, id="less than a header"),
        pytest.param(bytes(61), Code.UNSUPPORTED_FOR_MESSAGE_FORMAT, id="zeros"),
        pytest.param(changed(16, b"\x01"), Code.UNSUPPORTED_FOR_MESSAGE_FORMAT, id="old format"),
        pytest.param(changed(16, b"\x03"), Code.CORRUPT_MESSAGE, id="unknown format"),
        pytest.param(batch()[:-1], Code.CORRUPT_MESSAGE, id="cut"),
        pytest.param(batch() + batch(), Code.INVALID_RECORD, id="two batches"),
        pytest.param(changed(8, struct.pack(">i", -1)), Code.CORRUPT_MESSAGE, id="negative length"),
        pytest.param(changed(8, struct.pack(">i", 48)), Code.CORRUPT_MESSAGE, id="length within the header"),
        pytest.param(changed(70, b"\xff", summed=False), Code.CORRUPT_MESSAGE, id="wrong checksum"),
        pytest.param(changed(22, b"\x07"), Code.UNKNOWN_SERVER_ERROR, id="unknown codec"),
        pytest.param(control_batch("commit", 1, 0, NOW), Code.INVALID_RECORD, id="marker"),
        pytest.param(changed(57, struct.pack(">i", 3)), Code.INVALID_RECORD, id="wrong count"),
        pytest.param(changed(57, bytes(4)), Code.INVALID_RECORD, id="no records"),
        pytest.param(changed(22, b"\x10"), Code.INVALID_RECORD, id="transaction of nobody"),
        pytest.param(changed(43, struct.pack(">q", 5)), Code.INVALID_RECORD, id="producer without sequence"),
        pytest.param(batch(bytes(1001)), Code.MESSAGE_TOO_LARGE, id="too large"),
    ],
)
def test_what_is_no_batch_of_a_client_is_refused(log: Log, data: bytes, code: Code) -> None:
    log.config = LogConfig(max_message_bytes=1000)
    with pytest.raises(BrokerError) as refused:
        log.append(data, NOW)
    assert refused.value.code == code
    assert log.end_offset == 0
    assert append(log, batch()) == 0


def test_the_log_can_stamp_records_with_its_own_time(log: Log) -> None:
    log.config = LogConfig(log_append_time=True)
    appended = log.append(batch(b"a", timestamp=5), NOW)
    log.flush()
    assert appended.append_time == NOW
    (part,) = log.read(0, 1000).parts
    assert checksum_of(part) == read_header(part).crc
    assert records_of(log.read(0, 1000))[0].timestamp == NOW


def test_a_repeated_batch_gets_its_original_offset(log: Log) -> None:
    append(log, batch(b"other"))
    for number in range(7):
        append(log, batch(b"x", b"y", producer=9, sequence=2 * number))
    for number in range(2, 7):
        repeated = log.append(batch(b"x", b"y", producer=9, sequence=2 * number), NOW)
        assert repeated == Appended(1 + 2 * number, -1, True, 0)
    assert log.end_offset == 15
    with pytest.raises(BrokerError) as refused:
        log.append(batch(b"x", b"y", producer=9, sequence=2), NOW)  # older than the five that are remembered
    assert refused.value.code == Code.OUT_OF_ORDER_SEQUENCE_NUMBER


@pytest.mark.parametrize(
    ("epoch", "sequence", "code"),
    [
        pytest.param(4, 4, Code.OUT_OF_ORDER_SEQUENCE_NUMBER, id="gap"),
        pytest.param(4, 2, Code.OUT_OF_ORDER_SEQUENCE_NUMBER, id="overlap"),
        pytest.param(3, 3, Code.INVALID_PRODUCER_EPOCH, id="older epoch"),
        pytest.param(3, 0, Code.INVALID_PRODUCER_EPOCH, id="older epoch from its start"),
        pytest.param(5, 3, Code.OUT_OF_ORDER_SEQUENCE_NUMBER, id="new epoch not from zero"),
        pytest.param(4, 3, None, id="next"),
        pytest.param(5, 0, None, id="new epoch"),
    ],
)
def test_sequence_numbers_must_follow(log: Log, epoch: int, sequence: int, code: Code | None) -> None:
    append(log, batch(b"a", b"b", b"c", producer=9, epoch=4))
    data = batch(b"d", producer=9, epoch=epoch, sequence=sequence)
    if code is None:
        assert append(log, data) == 3
    else:
        with pytest.raises(BrokerError) as refused:
            log.append(data, NOW)
        assert refused.value.code == code
        assert log.end_offset == 3


def test_sequence_numbers_wrap_to_zero(log: Log) -> None:
    append(log, batch(b"a", producer=9, sequence=MAXIMUM_SEQUENCE - 2))
    wrapping = batch(b"b", b"c", b"d", producer=9, sequence=MAXIMUM_SEQUENCE - 1)
    assert append(log, wrapping) == 1
    assert append(log, batch(b"e", producer=9, sequence=1)) == 4
    assert log.append(wrapping, NOW).base_offset == 1


def test_an_unknown_producer_may_start_anywhere(log: Log) -> None:
    assert append(log, batch(b"a", producer=9, sequence=77)) == 0


def test_silent_producers_are_forgotten_unless_in_a_transaction(log: Log) -> None:
    append(log, batch(b"a", producer=1), NOW)
    append(log, batch(b"a", producer=2, transactional=True), NOW)
    append(log, batch(b"a", producer=3), NOW + 10)
    log.expire_producers(NOW + 5)
    append(log, batch(b"b", producer=1, sequence=9))
    for producer in (2, 3):
        with pytest.raises(BrokerError):
            log.append(batch(b"b", producer=producer, sequence=9), NOW)


def test_waiters_are_called_once_when_records_come(log: Log) -> None:
    calls: list[str] = []
    log.add_waiter(lambda: calls.append("first"))
    forgotten = lambda: calls.append("forgotten")  # noqa: E731
    log.add_waiter(forgotten)
    log.remove_waiter(forgotten)
    append(log, batch())
    append(log, batch())
    assert calls == ["first"]


def test_waiters_are_called_when_the_log_is_deleted_and_nobody_can_use_it_then(log: Log) -> None:
    calls: list[str] = []
    append(log, batch())
    log.add_waiter(lambda: calls.append("woken"))
    log.abandon()
    assert calls == ["woken"]
    for use in (lambda: log.read(0, 100), lambda: log.append(batch(), NOW), lambda: log.delete_before(0)):
        with pytest.raises(BrokerError) as refused:
            use()
        assert refused.value.code == Code.UNKNOWN_TOPIC_OR_PARTITION
