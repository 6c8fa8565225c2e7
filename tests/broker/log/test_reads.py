"""What a log returns."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octopus.broker.batch import checksum_of, read_header
from octopus.broker.codes import BrokerError, Code
from octopus.broker.log import Log, LogConfig
from tests.broker.storage_builders import NOW, all_records, append, batch, batches_of, disk_log, records_of


@pytest.fixture(params=["memory", "disk"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    log = Log() if request.param == "memory" else disk_log(tmp_path / "log")
    yield log
    log.close()


def offsets(log: Log, offset: int, max_bytes: int, **options: bool) -> list[int]:
    """Base offsets of the batches read."""
    parts = log.read(offset, max_bytes, **options).parts
    return [read_header(data).base_offset for part in parts for data in batches_of(part)]


def test_an_offset_inside_a_batch_yields_the_whole_batch(log: Log) -> None:
    append(log, batch(*[b"x"] * 10))
    append(log, batch(*[b"x"] * 10))
    assert offsets(log, 7, 10_000) == [0, 10]
    assert offsets(log, 13, 10_000) == [10]


def test_the_end_yields_nothing_and_beyond_is_out_of_range(log: Log) -> None:
    append(log, batch())
    assert log.read(1, 100).parts == []
    for offset in (-1, 2):
        with pytest.raises(BrokerError) as refused:
            log.read(offset, 100)
        assert refused.value.code == Code.OFFSET_OUT_OF_RANGE


def test_at_least_one_batch_comes_even_if_it_exceeds_the_limit(log: Log) -> None:
    append(log, batch(bytes(5000)))
    append(log, batch(b"small"))
    assert offsets(log, 0, 1) == [0]
    assert offsets(log, 0, 1, at_least_one=False) == []
    assert offsets(log, 1, 1000, at_least_one=False) == [1]


def test_a_read_never_exceeds_its_limit_otherwise(log: Log) -> None:
    size = len(batch(b"v"))
    for _ in range(200):
        append(log, batch(b"v"))
    for count in (1, 2, 59, 60, 61, 150):
        assert offsets(log, 20, count * size) == list(range(20, 20 + count))[: len(offsets(log, 20, count * size))]
        assert 0 < log.read(20, count * size + size // 2).size <= count * size
    assert len(all_records(log)) == 200


def test_a_read_goes_on_into_the_next_segments(log: Log) -> None:
    log.config = LogConfig(segment_bytes=300)
    for number in range(20):
        append(log, batch(b"%d" % number))
    read = log.read(3, 10_000)
    assert [record.value for record in records_of(read)] == [b"%d" % number for number in range(3, 20)]
    assert len(read.parts) > 3


def test_what_is_read_is_passed_on_without_being_joined(tmp_path: Path) -> None:
    log = disk_log(tmp_path / "log")
    append(log, batch(bytes(10_000)))
    (part,) = log.read(0, 20_000).parts
    assert isinstance(part, bytes)  # as it came from the file
    log.close()


@pytest.mark.parametrize("attributes", [pytest.param(0, id="plain"), pytest.param(1, id="gzip")])
def test_a_timestamp_is_found_to_the_record(log: Log, attributes: int) -> None:
    log.config = LogConfig(segment_bytes=1000)
    for number in range(20):
        append(log, batch(*[b"x"] * 10, timestamp=NOW + number * 10, attributes=attributes))
    assert log.find_timestamp(0) == (0, NOW)
    assert log.find_timestamp(NOW + 45) == (45, NOW + 45)
    assert log.find_timestamp(NOW + 199) == (199, NOW + 199)
    assert log.find_timestamp(NOW + 200) is None
    log.delete_before(50)
    assert log.find_timestamp(NOW + 45) == (50, NOW + 50)


def test_times_may_go_backwards(log: Log) -> None:
    for timestamp in (100, 50, 300, 200):
        append(log, batch(b"x", timestamp=timestamp))
    assert [log.find_timestamp(time) for time in (60, 101, 301)] == [(0, 100), (2, 300), None]


def test_the_newest_record_is_the_first_with_the_largest_time(log: Log) -> None:
    assert log.find_newest() is None
    log.config = LogConfig(segment_bytes=100)
    for timestamp in (100, 50, 300, 300, 200):
        append(log, batch(b"x", timestamp=timestamp))
    found = []
    for start in (0, 3, 4, 5):
        log.delete_before(start)
        found.append(log.find_newest())
    assert found == [(2, 300), (3, 300), (4, 200), None]


def test_a_batch_that_cannot_be_unpacked_is_found_as_a_whole(log: Log) -> None:
    data = bytearray(batch(b"x", b"y", timestamp=100))
    data[22] = 4
    data[17:21] = checksum_of(bytes(data)).to_bytes(4, "big")
    append(log, bytes(data))
    assert log.find_timestamp(101) == (0, 101)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6000), min_size=1, max_size=40),
    reads=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 20_000)), max_size=10),
    segment_bytes=st.integers(100, 30_000),
)
def test_any_read_starts_at_its_batch_and_keeps_its_limit(
    sizes: list[int], reads: list[tuple[float, int]], segment_bytes: int
) -> None:
    log = Log(config=LogConfig(segment_bytes=segment_bytes))
    for size in sizes:
        log.append(batch(bytes(size), b""), NOW)
    for fraction, max_bytes in reads:
        offset = int(fraction * (log.end_offset - 1))
        read = log.read(offset, max_bytes)
        found = offsets(log, offset, max_bytes)
        assert found == list(range(offset // 2 * 2, offset // 2 * 2 + 2 * len(found), 2))
        assert found
        assert read.size <= max_bytes or len(found) == 1
