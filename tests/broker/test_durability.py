"""Acknowledged means durable; a disk that refuses leaves nothing half done."""

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from octopus.broker.codes import BrokerError, Code
from octopus.broker.faults import Faults
from octopus.broker.offsets import Committed
from octopus.broker.storage import Storage
from tests.broker.storage_builders import NOW, all_records, batch, open_storage, settle


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(tmp_path / "data")


async def test_records_are_visible_once_they_are_durable(storage: Storage) -> None:
    log = storage.create_topic("t").partitions[0]
    log.append(batch(b"x"), NOW)
    assert log.end_offset == 0
    await storage.synced([log])
    assert log.end_offset == 1
    storage.close()


async def test_records_become_visible_though_nobody_waits_for_the_disk(storage: Storage) -> None:
    log = storage.create_topic("t").partitions[0]
    woken = asyncio.Event()
    log.add_waiter(woken.set)
    log.append(batch(b"x"), NOW)
    async with asyncio.timeout(10):
        await woken.wait()
    assert log.end_offset == 1
    storage.close()


async def test_one_sync_serves_all_who_wait(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    log = storage.create_topic("t").partitions[0]
    count = 0
    original = log.begin_sync

    def counted() -> Callable[[], None]:
        nonlocal count
        count += 1
        return original()

    monkeypatch.setattr(log, "begin_sync", counted)
    storage.faults.sync_delay = 0.05

    async def produce() -> None:
        log.append(batch(b"x"), NOW)
        await storage.synced([log])

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(produce())
        await settle()
        for _ in range(50):
            tasks.create_task(produce())
    assert log.end_offset == 51
    assert count == 2
    storage.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="tells files by their descriptors")
async def test_what_is_acknowledged_is_covered_by_a_sync_that_has_ended(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill leaves the kernel's copy; a power cut leaves of each file what its last sync covered when it began."""
    covered: dict[str, int] = {}
    sync = os.fdatasync

    def noted(descriptor: int) -> None:
        size = os.fstat(descriptor).st_size  # appends that arrive meanwhile may be on the disk, or not
        sync(descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        covered[path] = max(covered.get(path, 0), size)

    monkeypatch.setattr(os, "fdatasync", noted)
    logs = storage.create_topic("t", 2).partitions
    storage.faults.sync_delay = 0.002
    acknowledged: list[tuple[int, int, bytes]] = []

    async def produce(producer: int) -> None:
        for number in range(20):
            partition, value = number % 2, b"%d-%d" % (producer, number)
            offset = logs[partition].append(batch(value), NOW).base_offset
            await storage.synced([logs[partition]])
            acknowledged.append((partition, offset, value))
            if number % 7 == producer % 7:
                check_after_a_power_cut(tmp_path / "cut", dict(covered), list(acknowledged))

    def check_after_a_power_cut(place: Path, sizes: dict[str, int], kept: list[tuple[int, int, bytes]]) -> None:
        shutil.copytree(tmp_path / "data", place)
        for file in place.glob("topics/**/*.log"):
            os.truncate(file, sizes.get(str(tmp_path / "data" / file.relative_to(place)), 0))
        again = open_storage(place)
        found = {
            (partition, record.offset, record.value)
            for partition in range(2)
            for record in all_records(again.log("t", partition))
        }
        again.close()
        shutil.rmtree(place)
        assert found.issuperset(kept)

    async with asyncio.TaskGroup() as tasks:
        for producer in range(8):
            tasks.create_task(produce(producer))
    assert len(acknowledged) == 160
    storage.close()


async def test_a_slow_disk_does_not_stop_the_loop(storage: Storage) -> None:
    log = storage.create_topic("t").partitions[0]
    storage.faults.sync_delay = 0.2
    log.append(batch(b"x"), NOW)
    waiting = asyncio.ensure_future(storage.synced([log]))
    await settle()
    assert not waiting.done()
    assert log.read(0, 100).parts == []
    await waiting
    storage.close()


@pytest.mark.parametrize("kind", ["memory", "disk"])
async def test_without_a_wait_for_the_disk_records_are_visible_at_once(tmp_path: Path, kind: str) -> None:
    storage = open_storage(tmp_path / "data" if kind == "disk" else None, durability="os")
    log = storage.create_topic("t").partitions[0]
    storage.faults.sync_error = errno.EIO
    log.append(batch(b"x"), NOW)
    assert log.end_offset == 1
    await storage.synced([log, storage.offsets])
    storage.faults.sync_error = 0
    storage.close()


@pytest.mark.parametrize("space", [0, 1, 30, 61, 70])
async def test_a_full_disk_refuses_and_recovers_by_itself(tmp_path: Path, space: int) -> None:
    storage = open_storage(tmp_path / "data")
    log = storage.create_topic("t").partitions[0]
    log.append(batch(b"before"), NOW)
    await storage.synced([log])
    size = log.size_bytes
    storage.faults.space = space
    for _ in range(2):
        with pytest.raises(BrokerError) as refused:
            log.append(batch(b"refused"), NOW)
        assert refused.value.code == Code.KAFKA_STORAGE_ERROR
        assert [record.value for record in all_records(log)] == [b"before"]
        assert next((tmp_path / "data").glob("topics/*/0/*.log")).stat().st_size == size
    storage.faults.space = None
    assert log.append(batch(b"after"), NOW).base_offset == 1
    await storage.synced([log])
    assert [record.value for record in all_records(log)] == [b"before", b"after"]
    storage.close()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
async def test_what_a_failed_sync_covered_is_taken_back(tmp_path: Path, error: int) -> None:
    storage = open_storage(tmp_path / "data")
    log = storage.create_topic("t").partitions[0]
    log.append(batch(b"before", producer=1), NOW)
    await storage.synced([log])
    storage.faults.sync_error = error
    refused = batch(b"refused", producer=1, sequence=1, transactional=True)
    log.append(refused, NOW)
    with pytest.raises(BrokerError) as answer:
        await storage.synced([log])
    assert answer.value.code == Code.KAFKA_STORAGE_ERROR
    with pytest.raises(BrokerError):
        log.append(refused, NOW)  # still failing
    assert [record.value for record in all_records(log)] == [b"before"]
    storage.faults.sync_error = 0
    repeated = log.append(refused, NOW)
    assert (repeated.base_offset, repeated.duplicate) == (1, False)
    await storage.synced([log])
    assert log.stable_offset == 1
    assert len(all_records(log)) == 2
    storage.close()
    again = open_storage(tmp_path / "data")
    assert len(all_records(again.log("t", 0))) == 2
    again.close()


async def test_everyone_who_waits_hears_of_a_failed_sync(storage: Storage) -> None:
    log = storage.create_topic("t").partitions[0]
    storage.faults.sync_delay, storage.faults.sync_error = 0.05, errno.EIO

    async def produce() -> None:
        log.append(batch(b"x"), NOW)
        await storage.synced([log])

    first = asyncio.ensure_future(produce())
    await settle()
    others = [asyncio.ensure_future(produce()) for _ in range(5)]  # appended while the sync runs: taken back as well
    answers = await asyncio.gather(first, *others, return_exceptions=True)
    assert [getattr(answer, "code", None) for answer in answers] == [Code.KAFKA_STORAGE_ERROR] * 6
    storage.faults.sync_error = 0
    assert log.append(batch(b"y"), NOW).base_offset == 0
    await storage.synced([log])
    storage.close()


async def test_rolled_segments_taken_back_leave_no_trace(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "data")
    log = storage.create_topic("t", config={"segment.bytes": "100"}).partitions[0]
    log.append(batch(b"before"), NOW)
    await storage.synced([log])
    storage.faults.sync_error = errno.EIO
    for _ in range(5):
        log.append(batch(b"refused"), NOW)
    with pytest.raises(BrokerError):
        await storage.synced([log])
    storage.faults.sync_error = 0
    for _ in range(3):
        log.append(batch(b"after"), NOW)
        await storage.synced([log])
    assert [record.value for record in all_records(log)] == [b"before"] + [b"after"] * 3
    storage.close()


async def test_offset_commits_survive_a_full_disk(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "data")
    storage.create_topic("t", 2)
    storage.offsets.commit("g", {("t", 0): Committed(5, "", NOW)})
    await storage.synced([storage.offsets])
    storage.faults.space = 20
    with pytest.raises(BrokerError):
        storage.offsets.commit("g", {("t", 0): Committed(6, "", NOW)})
    storage.faults.space = None
    storage.faults.sync_error = errno.EIO
    with pytest.raises(BrokerError):
        storage.offsets.commit("g", {("t", 0): Committed(7, "", NOW)})  # which writes the journal anew
    storage.faults.sync_error = 0
    storage.offsets.commit("g", {("t", 1): Committed(8, "", NOW)})
    await storage.synced([storage.offsets])
    crashed = open_storage_copy(tmp_path)
    assert crashed.offsets.fetch("g")["t", 1].offset == 8
    assert crashed.offsets.fetch("g")["t", 0].offset >= 5
    storage.close()


def open_storage_copy(tmp_path: Path) -> Storage:
    """What a start after a power cut at this moment would find."""
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    return open_storage(tmp_path / "copy")


async def test_a_broker_starts_and_reads_on_a_full_disk(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "data")
    log = storage.create_topic("t", config={"segment.bytes": "100"}).partitions[0]
    for number in range(5):
        log.append(batch(b"%d" % number), NOW)
        await storage.synced([log])
    storage.offsets.commit("g", {("t", 0): Committed(5, "", NOW)})
    await storage.synced([storage.offsets])
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    storage.close()
    faults = Faults()
    faults.space = 0
    again = Storage.open(tmp_path / "copy", now=NOW, faults=faults)
    assert len(all_records(again.log("t", 0))) == 5
    assert again.offsets.fetch("g")["t", 0].offset == 5
    with pytest.raises(BrokerError):
        again.create_topic("u")
    faults.space = None
    again.create_topic("u")
    again.log("t", 0).append(batch(b"5"), NOW)
    await again.synced([again.log("t", 0)])
    again.close()


async def test_deleting_a_topic_answers_those_who_wait_for_its_disk(storage: Storage) -> None:
    log = storage.create_topic("t").partitions[0]
    storage.faults.sync_delay = 0.05
    log.append(batch(b"x"), NOW)
    await settle()
    log.append(batch(b"y"), NOW)
    waiting = asyncio.ensure_future(storage.synced([log]))
    await settle()
    storage.delete_topic("t")
    with pytest.raises(BrokerError) as refused:
        await waiting
    assert refused.value.code == Code.UNKNOWN_TOPIC_OR_PARTITION
    storage.faults.sync_delay = 0
    storage.close()


async def test_closing_waits_for_running_syncs(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "data")
    log = storage.create_topic("t").partitions[0]
    storage.faults.sync_delay = 0.05
    log.append(batch(b"x"), NOW)
    waiting = asyncio.ensure_future(storage.synced([log]))
    await settle()
    log.append(batch(b"y"), NOW)
    storage.close()
    await waiting
    again = open_storage(tmp_path / "data")
    assert len(all_records(again.log("t", 0))) == 2
    again.close()
