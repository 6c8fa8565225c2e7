"""Compaction keeps the newest record of each key."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octopus.broker.batch import Record, checksum_of, encode_batch, read_header
from octopus.broker.environment import Environment
from octopus.broker.faults import Faults
from octopus.broker.log import Log, LogConfig
from tests.broker.storage_builders import (
    NOW,
    all_records,
    append,
    batch,
    batches_of,
    committed_records,
    disk_log,
    keyed,
)

DAY = 24 * 3_600_000
EVERY_BATCH = {"segment_bytes": 1, "compact": True, "delete": False}


@pytest.fixture(params=["memory", "disk"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    log = Log() if request.param == "memory" else disk_log(tmp_path / "log")
    log.config = LogConfig(**EVERY_BATCH)  # type: ignore[arg-type]
    yield log
    log.close()


def put(log: Log, **values: bytes | None) -> None:
    append(log, keyed({key.encode(): value for key, value in values.items()}))


def content(log: Log) -> list[tuple[int, bytes | None, bytes | None]]:
    return [(record.offset, record.key, record.value) for record in all_records(log)]


def test_the_newest_value_of_each_key_stays_at_its_offset(log: Log) -> None:
    put(log, a=b"1", b=b"1")
    put(log, a=b"2", c=b"1")
    put(log, b=b"2")
    put(log, a=b"active")  # never compacted
    log.compact(NOW)
    assert content(log) == [
        (2, b"a", b"2"),
        (3, b"c", b"1"),
        (4, b"b", b"2"),
        (5, b"a", b"active"),
    ]
    assert (log.start_offset, log.end_offset) == (0, 6)
    assert log.read(0, 1000).parts  # an offset whose record is gone can still be read from
    for value in (b"1", b"2", b"3", b"4"):
        put(log, d=value)
    log.compact(NOW)
    assert [offset for offset, _, _ in content(log)] == [3, 4, 5, 8, 9]


@pytest.mark.parametrize("attributes", [pytest.param(0, id="plain"), pytest.param(1, id="gzip")])
def test_batches_are_kept_valid_and_keep_their_form(log: Log, attributes: int) -> None:
    append(log, keyed({b"a": b"1", b"b": b"1"}, attributes=attributes))
    append(log, keyed({b"a": b"2"}, attributes=attributes))
    append(log, keyed({b"z": b"2"}))
    log.compact(NOW)
    first = next(batches_of(log.read(0, 1000).parts[0]))
    header = read_header(first)
    assert checksum_of(first) == header.crc
    assert (header.base_offset, header.next_offset, header.count, header.codec) == (0, 2, 1, attributes)


def test_tombstones_delete_their_key_and_go_after_their_time(log: Log) -> None:
    log.config = LogConfig(**EVERY_BATCH, delete_retention_ms=DAY)  # type: ignore[arg-type]
    put(log, a=b"1")
    put(log, a=None)
    put(log, b=b"1")
    log.compact(NOW + 1000)
    assert content(log) == [(1, b"a", None), (2, b"b", b"1")]
    append(log, keyed({b"c": b"1"}), NOW + 2 * DAY)
    append(log, keyed({b"d": b"1"}), NOW + 2 * DAY)
    log.compact(NOW + 2 * DAY)
    assert [key for _, key, _ in content(log)] == [b"b", b"c", b"d"]


def test_records_without_a_key_from_before_the_topic_was_compacted_are_kept(log: Log) -> None:
    compacted, log.config = log.config, replace(log.config, compact=False)
    append(log, batch(b"x"))
    append(log, batch(b"y"))
    log.config = compacted
    put(log, a=b"1")
    log.compact(NOW)
    assert [value for _, _, value in content(log)] == [b"x", b"y", b"1"]


def test_batches_that_cannot_be_unpacked_are_kept(log: Log) -> None:
    data = bytearray(keyed({b"a": b"1"}))
    data[22] = 4
    data[17:21] = checksum_of(bytes(data)).to_bytes(4, "big")
    append(log, bytes(data))
    put(log, a=b"2")
    put(log, b=b"2")
    log.compact(NOW)
    assert read_header(log.read(0, 1000).parts[0]).codec == 4


def transactional(key: bytes, value: bytes, producer: int, sequence: int) -> bytes:
    records = [Record(0, NOW, key, value)]
    return encode_batch(records, attributes=0x10, producer_id=producer, producer_epoch=0, base_sequence=sequence)


def test_an_aborted_value_supersedes_nothing_and_goes(log: Log) -> None:
    put(log, a=b"committed")
    append(log, transactional(b"a", b"aborted", 1, 0))
    log.append_control(1, 0, False, NOW)
    append(log, transactional(b"b", b"committed", 1, 1))
    log.append_control(1, 0, True, NOW)
    put(log, z=b"last")
    before = committed_records(log)
    log.compact(NOW)
    assert committed_records(log) == before
    assert [value for _, _, value in content(log)] == [b"committed", b"committed", b"last"]
    put(log, y=b"last")
    log.compact(NOW + 9 * DAY)  # commit markers go as well
    assert committed_records(log)[:-1] == before
    assert log.open_transactions == {}


def test_transactions_stay_decided_when_their_markers_are_gone_and_the_states_lost(tmp_path: Path) -> None:
    log = disk_log(tmp_path / "log", **EVERY_BATCH)
    for number in range(4):
        append(log, transactional(b"key%d" % number, b"x", 1, number))
        log.append_control(1, 0, number % 2 == 0, NOW)
    for number in range(2):
        put(log, **{f"last{number}": b"x"})
    before = committed_records(log)
    log.compact(NOW + 9 * DAY)
    assert committed_records(log) == before
    for path in (tmp_path / "log").glob("*.state"):
        path.unlink()
    again = disk_log(tmp_path / "log")
    assert again.open_transactions == {}
    assert again.stable_offset == again.end_offset == 10
    assert committed_records(again) == before


def test_nothing_undecided_is_compacted(log: Log) -> None:
    put(log, a=b"1")
    append(log, transactional(b"a", b"open", 1, 0))
    put(log, a=b"3")
    put(log, a=b"4")
    log.compact(NOW)
    assert [value for _, _, value in content(log)] == [b"1", b"open", b"3", b"4"]


def test_small_segments_are_joined(tmp_path: Path) -> None:
    log = disk_log(tmp_path / "log", **EVERY_BATCH)
    for number in range(50):
        put(log, **{f"key{number % 10}": b"%d" % number})
    log.config = LogConfig(segment_bytes=10_000, compact=True, delete=False)
    log.compact(NOW)
    assert len(list((tmp_path / "log").glob("*.log"))) == 2
    assert [record.offset for record in all_records(log)] == [*range(39, 49), 49]
    again = disk_log(tmp_path / "log")
    assert all_records(again) == all_records(log)


def test_a_log_is_compacted_again_only_when_half_of_it_is_new(log: Log) -> None:
    for number in range(20):
        put(log, **{f"key{number}": b"x"})
    assert log.compaction(NOW) is not None
    log.compact(NOW)
    assert log.compaction(NOW) is None
    put(log, key0=b"y")
    assert log.compaction(NOW) is None


@pytest.mark.parametrize("budget", range(0, 4000, 97))
def test_a_full_disk_during_compaction_changes_nothing(tmp_path: Path, budget: int) -> None:
    faults = Faults()
    log = disk_log(tmp_path / "log", faults, **EVERY_BATCH)
    for number in range(10):
        put(log, **{f"key{number % 3}": bytes(100) + b"%d" % number})
    newest = {record.key: record for record in all_records(log)}
    faults.space = budget
    try:
        log.compact(NOW)
    except OSError:
        assert len(all_records(log)) == 10
    faults.space = None
    assert {record.key: record for record in all_records(log)} == newest
    again = disk_log(tmp_path / "log")
    assert {record.key: record for record in all_records(again)} == newest


def test_a_crash_in_the_middle_of_the_exchange_is_finished_at_the_next_start(tmp_path: Path) -> None:
    log = disk_log(tmp_path / "log", **EVERY_BATCH)
    for number in range(10):
        put(log, **{f"key{number % 3}": b"%d" % number})
    log.config = LogConfig(segment_bytes=10_000, compact=True, delete=False)
    compaction = log.compaction(NOW)
    assert compaction is not None
    compaction.run()
    newest = {record.key: record for record in all_records(log)}
    unfinished = next((tmp_path / "log").glob("*.compacted.temp"))
    crashed = disk_log_copy(tmp_path / "log", tmp_path / "before")
    assert len(all_records(crashed)) == 10
    unfinished.rename(tmp_path / "log" / f"{0:020d}-{9:020d}.swap")
    for removed in (3, 7):
        (tmp_path / "log" / f"{removed:020d}.log").unlink()
    again = disk_log(tmp_path / "log")
    assert {record.key: record for record in all_records(again)} == newest
    assert len(all_records(again)) == 4
    assert not list((tmp_path / "log").glob("*.swap"))


def disk_log_copy(source: Path, target: Path) -> Log:
    shutil.copytree(source, target)
    return disk_log(target)


def test_a_log_deleted_meanwhile_is_not_brought_back(tmp_path: Path) -> None:
    log = disk_log(tmp_path / "log", **EVERY_BATCH)
    for _ in range(5):
        put(log, a=b"x")
    compaction = log.compaction(NOW)
    assert compaction is not None
    compaction.run()
    log.abandon()
    shutil.rmtree(tmp_path / "log")
    log.swap(compaction)
    assert not (tmp_path / "log").exists()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([b"a", b"b", b"a long key of many bytes", None]), st.none() | st.binary(max_size=3)),
        min_size=1,
        max_size=60,
    ),
    st.integers(1, 6),
    st.integers(1, 2000),
)
def test_the_last_value_of_every_key_is_never_lost(
    writes: list[tuple[bytes | None, bytes | None]], per_batch: int, segment_bytes: int
) -> None:
    config = LogConfig(segment_bytes=segment_bytes, compact=True, delete=False, delete_retention_ms=10**9)
    log = Log(config=config, environment=Environment())
    for start in range(0, len(writes), per_batch):
        records = [Record(i, NOW, key, value) for i, (key, value) in enumerate(writes[start : start + per_batch])]
        log.config = replace(config, compact=False)  # so that there are records without a key
        log.append(encode_batch(records), NOW)
        log.config = config
        if start % 4 == 0:
            log.compact(NOW)
    log.compact(NOW)
    expected = {key: (offset, value) for offset, (key, value) in enumerate(writes) if key is not None}
    found = {record.key: (record.offset, record.value) for record in all_records(log) if record.key is not None}
    assert found == expected
    offsets = [record.offset for record in all_records(log)]
    assert offsets == sorted(set(offsets))
