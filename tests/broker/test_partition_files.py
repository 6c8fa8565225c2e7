"""A partition has files from its first record on; before, it is a number in the catalog."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from octopus.broker.codes import BrokerError, Code
from octopus.broker.faults import Faults
from octopus.broker.files import sealed_line
from octopus.broker.log.recovery import segment_path
from octopus.broker.storage import Storage
from tests.broker.storage_builders import NOW, all_records, append, batch, open_storage


class Watched(Faults):
    """Counts syncs; the one with the given number fails."""

    count = 0
    failing = 0

    def before_sync(self) -> None:
        self.count += 1
        if self.count == self.failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def faults() -> Watched:
    return Watched()


@pytest.fixture
def storage(tmp_path: Path, faults: Faults) -> Storage:
    return Storage.open(tmp_path / "data", now=NOW, faults=faults)


def values(storage: Storage, topic: str = "t", partition: int = 0) -> list[bytes | None]:
    return [record.value for record in all_records(storage.log(topic, partition))]


def folders(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_dir())


CHANGES: dict[str, Callable[[Storage], object]] = {
    "created": lambda storage: storage.create_topic("large", 9_000),
    "grown": lambda storage: storage.create_partitions("t", 9_000),
    "deleted": lambda storage: storage.delete_topic("unused"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_topic_is_changed_in_one_replacement_of_the_catalog_however_many_partitions_it_has(
    storage: Storage, faults: Watched, tmp_path: Path, change: Callable[[Storage], object]
) -> None:
    storage.create_topic("t")
    storage.create_topic("unused", 500)
    faults.count = 0
    change(storage)
    assert faults.count == 2, "the file, and its name"
    assert folders(tmp_path / "data") == ["topics"]
    assert storage.topic_store.logs() == []
    storage.close()


def test_partitions_that_nobody_wrote_to_cost_nothing_at_stop_and_start(
    storage: Storage, faults: Watched, tmp_path: Path
) -> None:
    storage.create_topic("t", 9_000)
    append(storage.log("t", 4_711), batch(b"x"))
    assert storage.log("t", 17).end_offset == 0
    faults.count = 0
    storage.close()
    assert faults.count < 10
    assert folders(tmp_path / "data") == ["topics", "topics/0", "topics/0/4711"]
    again = open_storage(tmp_path / "data")
    assert len(again.topic("t").partitions) == 9_000
    assert list(again.topic("t").partitions.opened) == [4_711]
    assert values(again, partition=4_711) == [b"x"]
    assert values(again, partition=17) == []
    again.close()


async def test_the_first_record_is_acknowledged_once_the_names_of_its_folders_are_durable(
    storage: Storage, faults: Watched
) -> None:
    storage.create_topic("t", 2)
    for partition, needed in ((0, 4), (0, 1), (1, 4)):
        faults.count = 0
        storage.log("t", partition).append(batch(b"x"), NOW)
        await storage.synced([storage.log("t", partition)])
        assert faults.count == needed
    storage.close()


@pytest.mark.parametrize("failing", [1, 2, 3, 4], ids=["the file", "its folder", "the topic's", "that of all topics"])
async def test_a_first_record_that_cannot_be_made_durable_is_taken_back_and_the_next_one_is_the_first(
    storage: Storage, faults: Watched, tmp_path: Path, failing: int
) -> None:
    log = storage.create_topic("t").partitions[0]
    log.append(batch(b"lost"), NOW)
    faults.count, faults.failing = 0, failing
    with pytest.raises(BrokerError) as refused:
        await storage.synced([log])
    assert refused.value.code == Code.KAFKA_STORAGE_ERROR
    assert log.end_offset == 0
    log.append(batch(b"kept"), NOW)
    faults.count, faults.failing = 0, 0
    await storage.synced([log])
    assert faults.count == 4, "nothing of it was durable"
    assert values(storage) == [b"kept"]
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    storage.close()
    again = open_storage(tmp_path / "copy")
    assert values(again) == [b"kept"]
    again.close()


def test_a_folder_that_cannot_be_made_refuses_the_record_and_nothing_else(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.create_topic("t", 2)
    append(storage.log("t", 1), batch(b"other"))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", full)
        with pytest.raises(BrokerError) as refused:
            storage.log("t", 0).append(batch(b"x"), NOW)
        assert refused.value.code == Code.KAFKA_STORAGE_ERROR
        assert append(storage.log("t", 1), batch(b"another")) == 1
    assert append(storage.log("t", 0), batch(b"x")) == 0
    storage.close()
    again = open_storage(tmp_path / "data")
    assert (values(again), values(again, partition=1)) == ([b"x"], [b"other", b"another"])
    again.close()


LEFT: dict[str, Callable[[Path], object]] = {
    "nothing": lambda _: None,
    "the topic's folder": lambda folder: folder.mkdir(),
    "the partition's folder": lambda folder: (folder / "0").mkdir(parents=True),
    "an empty file": lambda folder: ((folder / "0").mkdir(parents=True), segment_path(folder / "0", 0).touch()),
    "half a batch": lambda folder: (
        (folder / "0").mkdir(parents=True),
        segment_path(folder / "0", 0).write_bytes(batch(b"x")[:50]),
    ),
}


@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
def test_what_a_kill_leaves_of_a_first_append_is_an_empty_partition(
    storage: Storage, tmp_path: Path, left: Callable[[Path], object]
) -> None:
    topic = storage.create_topic("t", 2, {"retention.ms": "5"})
    storage._release()
    left(tmp_path / "data" / "topics" / str(topic.folder))
    again = open_storage(tmp_path / "data")
    assert again.topic("t").id == topic.id
    assert (again.log("t", 0).start_offset, again.log("t", 0).end_offset) == (0, 0)
    assert append(again.log("t", 0), batch(b"first")) == 0
    again._release()
    last = open_storage(tmp_path / "data")
    assert values(last) == [b"first"]
    last.close()


def test_the_beginning_that_was_set_stays_also_where_no_record_is_left(storage: Storage, tmp_path: Path) -> None:
    log = storage.create_topic("t").partitions[0]
    assert log.delete_before(-1) == 0
    append(log, batch(b"a", b"b"))
    assert log.delete_before(-1) == 2
    storage.close()
    again = open_storage(tmp_path / "data")
    assert (again.log("t", 0).start_offset, append(again.log("t", 0), batch(b"c"))) == (2, 2)
    again.close()


def test_a_partition_of_a_deleted_topic_is_not_opened_and_makes_no_folder(storage: Storage, tmp_path: Path) -> None:
    gone = storage.create_topic("t", 3)
    append(gone.partitions[0], batch(b"x"))
    storage.delete_topic("t")
    storage.create_topic("t", 3)
    with pytest.raises(BrokerError) as refused:
        gone.partitions[1]
    assert refused.value.code == Code.UNKNOWN_TOPIC_ID
    assert folders(tmp_path / "data") == ["topics"]
    assert values(storage) == []
    storage.close()


def test_a_partition_that_is_opened_late_has_the_settings_of_now(storage: Storage) -> None:
    topic = storage.create_topic("t", 2, {"max.message.bytes": "100"})
    storage.alter_config("t", {"max.message.bytes": "200"})
    storage.create_partitions("t", 3)
    assert [log.config.max_message_bytes for log in topic.partitions] == [200, 200, 200]
    storage.close()


def test_a_directory_of_the_former_format_is_read_and_its_empty_folders_are_used(
    storage: Storage, tmp_path: Path
) -> None:
    topic = storage.create_topic("t", 2)
    append(topic.partitions[1], batch(b"x"))
    storage.close()
    catalog = tmp_path / "data" / "catalog"
    catalog.write_bytes(sealed_line(json.dumps(json.loads(catalog.read_bytes()[9:]) | {"format": 2}).encode()))
    empty = tmp_path / "data" / "topics" / str(topic.folder) / "0"
    empty.mkdir()
    segment_path(empty, 0).touch()
    again = open_storage(tmp_path / "data")
    assert again.topic("t").id == topic.id
    assert values(again, partition=1) == [b"x"]
    assert append(again.log("t", 0), batch(b"y")) == 0
    again.close()


def test_upkeep_takes_turns_with_others_and_passes_over_topics_deleted_meanwhile(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("gone", "t"):
        for log in storage.create_topic(name, 100, {"retention.ms": "1000"}).partitions:
            append(log, batch(b"old"))
    turns = 0
    for work in storage.maintaining(NOW + 10_000):
        assert work is None
        turns += 1
        if turns == 1:
            storage.delete_topic("gone")
    assert turns >= 200 // 16
    assert {log.size_bytes for log in storage.topic("t").partitions} == {0}
    assert not caplog.records
    storage.close()
