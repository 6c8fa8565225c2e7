"""What a log is after a stop or a crash."""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octopus.broker.batch import read_header
from octopus.broker.checksum import crc32c
from octopus.broker.codes import BrokerError, Code
from octopus.broker.environment import Environment
from octopus.broker.log import Log, LogConfig
from tests.broker.storage_builders import NOW, all_records, append, batch, committed_records, disk_log


def written(directory: Path, count: int = 10, **config: object) -> Log:
    log = disk_log(directory, **config)
    for number in range(count):
        append(log, batch(b"value-%d" % number))
    return log


def last_file(directory: Path) -> Path:
    return max(directory.glob("*.log"))


def cut(tail: bytes) -> bytes:
    return tail[: len(tail) // 2]


def flipped(tail: bytes) -> bytes:
    return tail[:-3] + bytes([tail[-3] ^ 4]) + tail[-2:]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(cut, id="torn"),
        pytest.param(lambda tail: tail[:20], id="torn in the header"),
        pytest.param(lambda tail: bytes(len(tail)), id="zeros in place of the last batch"),
        pytest.param(flipped, id="a flipped bit"),
        pytest.param(lambda tail: tail[:16] + b"\x01" + tail[17:], id="another format"),
        pytest.param(lambda tail: bytes(8) + tail[8:], id="an offset that was there before"),
        pytest.param(lambda tail: tail[:8] + bytes(4) + tail[12:], id="a length of zero"),
    ],
)
def test_a_damaged_tail_is_cut_off_and_said(
    tmp_path: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    written(tmp_path / "log")
    path = last_file(tmp_path / "log")
    content = path.read_bytes()
    size = len(content) // 10
    path.write_bytes(content[:-size] + damage(content[-size:]))
    with caplog.at_level(logging.WARNING):
        log = disk_log(tmp_path / "log")
    assert [record.value for record in all_records(log)] == [b"value-%d" % number for number in range(9)]
    assert "after offset 8" in caplog.text
    assert path.stat().st_size == 9 * size
    assert append(log, batch(b"new")) == 9


@pytest.mark.parametrize(
    "tail", [pytest.param(bytes(100_000), id="zeros"), pytest.param(b"\xff" * 1000, id="ones"), b"x"]
)
def test_what_follows_the_last_batch_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    written(tmp_path / "log")
    with last_file(tmp_path / "log").open("ab") as file:
        file.write(tail)
    log = disk_log(tmp_path / "log")
    assert log.end_offset == 10
    assert append(log, batch()) == 10


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.data())
def test_any_damage_to_the_active_segment_leaves_a_whole_prefix(tmp_path: Path, data: st.DataObject) -> None:
    directory = Path(tempfile.mkdtemp(dir=tmp_path))
    written(directory)
    path = last_file(directory)
    content = bytearray(path.read_bytes())
    size = len(content) // 10
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[position:]
    # Base offset and leader epoch are outside of the checksum: changes there may go unseen.
    elif position % size >= 16:
        content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    log = disk_log(directory)
    values = [record.value for record in all_records(log)]
    assert values == [b"value-%d" % number for number in range(len(values))]
    assert (
        len(values) >= position // (len(content) // 10 or 1) if len(values) < 10 and len(content) > position else True
    )
    assert append(log, batch()) == len(values)


def test_a_clean_stop_spares_the_scan(tmp_path: Path) -> None:
    log = written(tmp_path / "log", 100, segment_bytes=2000)
    append(log, batch(b"mine", producer=5, sequence=3))
    log.close()

    def count(data: bytes | memoryview) -> int:
        raise AssertionError("read again")

    again = Log(tmp_path / "log", LogConfig(), environment=Environment(checksum=count), now=NOW, clean=True)
    assert len(all_records(again)) == 101
    assert again.open_transactions == {}
    assert again.largest_producer_id == 5
    again.close()


def test_after_a_crash_only_the_active_segment_is_scanned(tmp_path: Path) -> None:
    log = written(tmp_path / "log", 100, segment_bytes=2000)
    summed: list[int] = []

    def count(data: bytes | memoryview) -> int:
        summed.append(len(data))
        return crc32c(data)

    again = Log(tmp_path / "log", LogConfig(), environment=Environment(checksum=count), now=NOW)
    assert sum(summed) <= 2000
    assert all_records(again) == all_records(log)


@pytest.mark.parametrize("suffix", ["index", "state"])
@pytest.mark.parametrize("clean", [True, False], ids=["clean stop", "crash"])
@pytest.mark.parametrize("damage", ["removed", "emptied", "altered"])
def test_files_that_only_save_time_may_be_lost(tmp_path: Path, suffix: str, clean: bool, damage: str) -> None:
    log = written(tmp_path / "log", 60, segment_bytes=1000)
    append(log, batch(b"a", producer=1, transactional=True))
    append(log, batch(b"b", producer=2, transactional=True))
    log.append_control(2, 0, False, NOW)
    log.flush()
    before = all_records(log), committed_records(log), log.stable_offset, log.open_transactions
    if clean:
        log.close()
    for path in (tmp_path / "log").glob(f"*.{suffix}"):
        if damage == "removed":
            path.unlink()
        elif damage == "emptied":
            path.write_bytes(b"")
        else:
            content = bytearray(path.read_bytes())
            content[-3] ^= 1
            path.write_bytes(content)
    again = disk_log(tmp_path / "log", clean=clean)
    assert (all_records(again), committed_records(again), again.stable_offset, again.open_transactions) == before
    with pytest.raises(BrokerError) as refused:
        again.append(batch(b"c", producer=1, sequence=5), NOW)
    assert refused.value.code == Code.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert again.append(batch(b"a", producer=1, transactional=True), NOW).duplicate


@pytest.mark.parametrize("clean", [True, False], ids=["clean stop", "crash"])
@pytest.mark.parametrize("segment_bytes", [10**6, 300], ids=["one segment", "many segments"])
def test_repeated_batches_are_known_after_a_restart(tmp_path: Path, clean: bool, segment_bytes: int) -> None:
    log = disk_log(tmp_path / "log", segment_bytes=segment_bytes)
    sent = [batch(b"x", producer=4, sequence=number) for number in range(8)]
    for data in sent:
        append(log, data)
    if clean:
        log.close()
    again = disk_log(tmp_path / "log", clean=clean, segment_bytes=segment_bytes)
    assert [again.append(data, NOW).base_offset for data in sent[3:]] == [3, 4, 5, 6, 7]
    assert append(again, batch(b"y", producer=4, sequence=8)) == 8


def test_unfinished_files_are_removed(tmp_path: Path) -> None:
    log = written(tmp_path / "log")
    log.close()
    for name in ("log-start.temp", "00000000000000000000.compacted.temp", "00000000000000000077.index"):
        (tmp_path / "log" / name).write_bytes(b"half")
    log = disk_log(tmp_path / "log")
    assert len(all_records(log)) == 10
    assert {path.suffix for path in (tmp_path / "log").iterdir()} <= {".log", ".index", ".state"}


def test_deleted_records_stay_deleted(tmp_path: Path) -> None:
    log = written(tmp_path / "log", 30, segment_bytes=500)
    assert log.delete_before(13) == 13
    for again in (disk_log(tmp_path / "log"), disk_log(tmp_path / "log")):
        assert (again.start_offset, again.end_offset) == (13, 30)
        assert [record.offset for record in all_records(again)] == list(range(13, 30))


def test_a_log_emptied_by_deletion_goes_on_where_it_was(tmp_path: Path) -> None:
    log = written(tmp_path / "log")
    assert log.delete_before(-1) == 10
    assert log.size_bytes == 0
    log.flush()
    again = disk_log(tmp_path / "log")
    assert (again.start_offset, again.end_offset) == (10, 10)
    assert append(again, batch()) == 10


def test_offsets_come_from_the_files_so_gaps_are_kept(tmp_path: Path) -> None:
    log = written(tmp_path / "log", 30, segment_bytes=500)
    bases = sorted(int(path.stem) for path in (tmp_path / "log").glob("*.log"))
    (tmp_path / "log" / f"{bases[1]:020d}.log").unlink()
    again = disk_log(tmp_path / "log")
    assert [record.offset for record in all_records(again)] == [*range(bases[1]), *range(bases[2], 30)]
    assert read_header(again.read(bases[1], 100).parts[0]).base_offset == bases[2]
    del log
