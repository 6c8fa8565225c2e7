"""Old records go, whole segments at a time."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from octopus.broker.codes import BrokerError, Code
from octopus.broker.faults import Faults
from octopus.broker.log import Log, LogConfig
from tests.broker.storage_builders import NOW, all_records, append, batch, disk_log

HOUR = 3_600_000


@pytest.fixture(params=["memory", "disk"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    log = Log() if request.param == "memory" else disk_log(tmp_path / "log")
    yield log
    log.close()


def test_segments_roll_by_size_and_by_age(log: Log) -> None:
    size = len(batch())
    log.config = LogConfig(segment_bytes=2 * size, segment_ms=1000, retention_bytes=0)
    for now in (0, 10, 20, 30, 1500):
        append(log, batch(), NOW + now)
    log.retain(NOW)  # leaves the active segment only
    assert (log.start_offset, log.end_offset) == (4, 5)


def test_segments_go_when_their_newest_record_is_too_old(log: Log) -> None:
    log.config = LogConfig(segment_bytes=1, retention_ms=HOUR)
    for number in range(10):
        append(log, batch(timestamp=NOW + number * HOUR), NOW)
    log.retain(NOW + 5 * HOUR)
    assert log.start_offset == 4
    with pytest.raises(BrokerError) as refused:
        log.read(3, 100)
    assert refused.value.code == Code.OFFSET_OUT_OF_RANGE
    assert [record.offset for record in all_records(log)] == list(range(4, 10))


def test_the_active_segment_goes_too_when_all_of_it_is_too_old(log: Log) -> None:
    log.config = LogConfig(retention_ms=1000)
    for _ in range(100):
        append(log, batch())
    log.retain(NOW + 500)
    assert log.start_offset == 0
    log.retain(NOW + 8000)
    assert (log.start_offset, log.end_offset, log.size_bytes) == (100, 100, 0)
    assert append(log, batch()) == 100


def test_segments_go_while_the_rest_is_large_enough(log: Log) -> None:
    size = len(batch())
    log.config = LogConfig(segment_bytes=2 * size, retention_bytes=5 * size)
    for _ in range(10):
        append(log, batch())
    assert log.retain(NOW) == 4 * size
    assert log.size_bytes == 6 * size
    assert log.start_offset == 4


def test_nothing_goes_without_limits_or_without_the_policy(log: Log) -> None:
    log.config = LogConfig(segment_bytes=1, retention_ms=-1)
    for _ in range(5):
        append(log, batch(timestamp=5))
    assert log.retain(NOW) == 0
    log.config = replace(log.config, retention_ms=0, delete=False, compact=True)
    assert log.retain(NOW) == 0


def test_an_open_transaction_is_not_deleted_by_retention(log: Log) -> None:
    log.config = LogConfig(segment_bytes=1, retention_ms=0)
    append(log, batch())
    append(log, batch(producer=1, transactional=True))
    append(log, batch())
    log.retain(NOW + HOUR)
    assert log.start_offset == 1
    log.append_control(1, 0, True, NOW)
    log.flush()
    log.retain(NOW + HOUR)
    assert log.start_offset == log.end_offset == 4


def test_files_are_gone_after_retention_and_stay_so(tmp_path: Path) -> None:
    log = disk_log(tmp_path / "log", segment_bytes=1, retention_bytes=0)
    for _ in range(5):
        append(log, batch())
    log.retain(NOW)
    assert [path.name for path in (tmp_path / "log").glob("*.log")] == ["00000000000000000004.log"]
    assert len(list((tmp_path / "log").iterdir())) <= 3
    again = disk_log(tmp_path / "log")
    assert (again.start_offset, again.end_offset) == (4, 5)


def test_deleting_records_answers_the_new_start(log: Log) -> None:
    for _ in range(10):
        append(log, batch())
    assert log.delete_before(4) == 4
    assert log.delete_before(2) == 4
    assert log.delete_before(-1) == 10
    with pytest.raises(BrokerError) as refused:
        log.delete_before(11)
    assert refused.value.code == Code.OFFSET_OUT_OF_RANGE


def test_nothing_goes_before_what_it_told_of_its_producers_is_safe_elsewhere(tmp_path: Path) -> None:
    faults = Faults()
    log = disk_log(tmp_path / "log", faults, segment_bytes=1)
    log.append(batch(b"x", producer=7), NOW)
    log.append(batch(b"y"), NOW)
    faults.space = 0  # enough to sync, not to write the producers' states
    log.flush()
    log.config = replace(log.config, retention_bytes=0)
    assert log.retain(NOW) == 0
    faults.space = None
    append(log, batch(b"z"))
    assert log.retain(NOW) > 0
    again = disk_log(tmp_path / "log")
    assert again.append(batch(b"x", producer=7), NOW).duplicate
