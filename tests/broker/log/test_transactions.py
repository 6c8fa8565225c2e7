"""Transactions in one partition: what is stable, what was aborted."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from octopus.broker.codes import BrokerError, Code
from octopus.broker.log import Log
from tests.broker.storage_builders import NOW, append, batch, committed_records, disk_log, records_of


@pytest.fixture(params=["memory", "disk"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    log = Log() if request.param == "memory" else disk_log(tmp_path / "log")
    yield log
    log.close()


def end(log: Log, producer: int, *, commit: bool, epoch: int = 0) -> int:
    offset = log.append_control(producer, epoch, commit, NOW)
    log.flush()
    return offset


def values(log: Log, offset: int | None = None) -> list[bytes | None]:
    return [record.value for record in committed_records(log, offset)]


def test_an_open_transaction_hides_itself_and_what_follows(log: Log) -> None:
    append(log, batch(b"before"))
    append(log, batch(b"open", producer=1, transactional=True))
    append(log, batch(b"after"))
    assert (log.stable_offset, log.end_offset) == (1, 3)
    assert values(log) == [b"before"]
    assert log.read(1, 1000, committed=True).parts == []
    assert [record.value for record in records_of(log.read(0, 1000))] == [b"before", b"open", b"after"]
    end(log, 1, commit=True)
    assert values(log) == [b"before", b"open", b"after"]
    assert log.stable_offset == log.end_offset == 4


def test_aborted_records_are_named_and_interleaved_commits_are_not(log: Log) -> None:
    append(log, batch(b"aborted-1", producer=1, transactional=True))
    append(log, batch(b"committed", producer=2, transactional=True))
    append(log, batch(b"aborted-2", producer=1, sequence=1, transactional=True))
    assert end(log, 2, commit=True) == 3
    assert log.stable_offset == 0
    assert end(log, 1, commit=False) == 4
    append(log, batch(b"next", producer=1, sequence=2, transactional=True))
    end(log, 1, commit=True)
    assert log.read(0, 10_000, committed=True).aborted == [(1, 0)]
    assert log.read(4, 10_000, committed=True).aborted == [(1, 0)]
    assert log.read(5, 10_000, committed=True).aborted == []
    assert values(log) == [b"committed", b"next"]


def test_only_aborted_transactions_in_what_is_returned_are_named(log: Log) -> None:
    for number in range(10):
        append(log, batch(bytes(5000), producer=1, sequence=number, transactional=True))
        end(log, 1, commit=False)
    assert log.read(4, 1, committed=True).aborted == [(1, 4)]
    assert len(log.read(4, 21_000, committed=True).aborted) == 4


def test_a_marker_counts_one_offset_and_wakes_those_who_wait(log: Log) -> None:
    append(log, batch(b"x", producer=1, transactional=True))
    calls: list[int] = []
    log.add_waiter(lambda: calls.append(log.stable_offset))
    assert end(log, 1, commit=True) == 1
    assert calls == [2]


def test_a_marker_of_a_newer_epoch_fences_the_producer(log: Log) -> None:
    append(log, batch(b"x", producer=1, transactional=True))
    end(log, 1, commit=False, epoch=1)
    with pytest.raises(BrokerError) as refused:
        log.append(batch(b"y", producer=1, sequence=1, transactional=True), NOW)
    assert refused.value.code == Code.INVALID_PRODUCER_EPOCH
    append(log, batch(b"z", producer=1, epoch=1, transactional=True))
    end(log, 1, commit=True, epoch=1)
    assert values(log) == [b"z"]


def test_the_partition_must_be_in_the_transaction(log: Log) -> None:
    asked: list[tuple[int, int]] = []

    def check(producer_id: int, epoch: int) -> None:
        asked.append((producer_id, epoch))
        raise BrokerError(Code.INVALID_TXN_STATE)

    with pytest.raises(BrokerError) as refused:
        log.append(batch(producer=7, epoch=2, transactional=True), NOW, transactional_check=check)
    assert refused.value.code == Code.INVALID_TXN_STATE
    log.append(batch(producer=8), NOW, transactional_check=check)
    assert asked == [(7, 2)]


def test_a_decision_shows_only_when_its_marker_is_durable(tmp_path: Path) -> None:
    log = disk_log(tmp_path / "log")
    append(log, batch(b"x", producer=1, transactional=True))
    log.append_control(1, 0, True, NOW)
    assert (log.stable_offset, log.end_offset) == (0, 1)
    log.flush()
    assert (log.stable_offset, log.end_offset) == (2, 2)
    log.close()


def test_deleting_records_may_go_past_the_begin_of_a_transaction(log: Log) -> None:
    append(log, batch(b"x", b"y", producer=1, transactional=True))
    assert log.delete_before(1) == 1
    assert log.stable_offset == 1
