"""The data directory: topics, names, configuration, ownership, restarts."""

import asyncio
import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from octopus.broker.catalog import FORMAT, IncompatibleFormat
from octopus.broker.codes import BrokerError, Code
from octopus.broker.files import sealed_line
from octopus.broker.lock import LockedError, read_owner
from octopus.broker.offsets import Committed
from octopus.broker.producers import TransactionState
from octopus.broker.storage import Storage
from tests.broker.storage_builders import NOW, all_records, append, batch, keyed, open_storage

DAY = 24 * 3_600_000


def refusal(action: object, *arguments: object, **options: object) -> int:
    with pytest.raises(BrokerError) as refused:
        action(*arguments, **options)  # type: ignore[operator]
    return refused.value.code


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_topics_are_created_grown_and_deleted(tmp_path: Path, kind: str) -> None:
    storage = open_storage(tmp_path / "data" if kind == "disk" else None)
    storage.create_topic("a", 2)
    storage.create_partitions("a", 3)
    assert len(storage.topic("a").partitions) == 3
    assert refusal(storage.create_topic, "a") == Code.TOPIC_ALREADY_EXISTS
    assert refusal(storage.create_topic, "b", 0) == Code.INVALID_PARTITIONS
    assert refusal(storage.create_partitions, "a", 3) == Code.INVALID_PARTITIONS
    assert refusal(storage.log, "a", 3) == Code.UNKNOWN_TOPIC_OR_PARTITION
    assert refusal(storage.log, "a", -1) == Code.UNKNOWN_TOPIC_OR_PARTITION
    assert refusal(storage.delete_topic, "b") == Code.UNKNOWN_TOPIC_OR_PARTITION
    storage.create_topic("z")
    storage.offsets.commit("g", {("a", 0): Committed(1, "", NOW), ("z", 0): Committed(1, "", NOW)})
    storage.delete_topic("a")
    assert set(storage.topics) == {"z"}
    assert list(storage.offsets.fetch("g")) == [("z", 0)]
    assert storage.create_topic("a").partitions[0].end_offset == 0
    storage.close()


def test_names_that_differ_in_dots_and_underscores_only_collide() -> None:
    storage = open_storage(None)
    storage.create_topic("a.b_c")
    assert refusal(storage.create_topic, "a_b.c") == Code.INVALID_TOPIC_EXCEPTION
    storage.create_topic("__internal")
    assert storage.topic("__internal").internal


def test_there_is_a_limit_to_topics_and_partitions() -> None:
    storage = open_storage(None, max_topics=2, max_partitions=5)
    storage.create_topic("a", 4)
    assert refusal(storage.create_topic, "b", 2) == Code.POLICY_VIOLATION
    assert refusal(storage.create_partitions, "a", 10) == Code.POLICY_VIOLATION
    storage.create_topic("b", 1)
    assert refusal(storage.create_topic, "c", 1) == Code.POLICY_VIOLATION


awkward = st.text(st.sampled_from("./\\\0~$%:a*\n\u202e é\ud800"), max_size=12) | st.text(max_size=300)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(awkward)
@example("..")
@example(".")
@example("")
@example("../x")
@example("a/b")
@example("/etc/passwd")
@example("a\0b")
@example("a\n")
@example("x" * 250)
def test_no_name_reaches_the_file_system(tmp_path: Path, name: str) -> None:
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    storage = open_storage(root / "data", durability="os")
    created = is_created(storage, name)
    assert created == (name in storage.topics)
    assert created == (bool(name) and len(name) <= 249 and set(name) <= allowed and name not in {".", ".."})
    storage.offsets.commit(name.encode(errors="replace").decode(), {("t", 0): Committed(1, "", NOW)})
    if created:
        append(storage.log(name, 0), batch(b"x"))
    folders = [path.name for path in (root / "data" / "topics").glob("*")]
    assert folders == (["0"] if created else [])
    assert [path.name for path in root.iterdir()] == ["data"]
    storage.close()


def is_created(storage: Storage, name: str) -> bool:
    try:
        storage.create_topic(name)
    except BrokerError as refused:
        if refused.code == Code.INVALID_TOPIC_EXCEPTION:
            return False
        raise
    return True


allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


@pytest.mark.parametrize(
    "config",
    [
        {"no.such.key": "1"},
        {"retention.ms": "soon"},
        {"retention.ms": "-2"},
        {"segment.bytes": "0"},
        {"cleanup.policy": "shred"},
        {"message.timestamp.type": "createtime"},
        {"compression.type": "rar"},
        {"min.insync.replicas": "0"},
        {"max.message.bytes": "9" * 30},
    ],
    ids=str,
)
def test_bad_configuration_is_refused(config: dict[str, str]) -> None:
    storage = open_storage(None)
    assert refusal(storage.create_topic, "t", 1, config) == Code.INVALID_CONFIG
    storage.create_topic("t")
    assert refusal(storage.alter_config, "t", config) == Code.INVALID_CONFIG


def test_configuration_says_where_it_comes_from_and_applies_at_once() -> None:
    storage = open_storage(None, topic_defaults={"retention.ms": "777"})
    log = storage.create_topic("t", config={"max.message.bytes": "100"}).partitions[0]
    values = storage.config_of("t")
    assert values["retention.ms"] == ("777", "broker")
    assert values["max.message.bytes"] == ("100", "topic")
    assert values["cleanup.policy"] == ("delete", "default")
    assert refusal(log.append, batch(bytes(100)), NOW) == Code.MESSAGE_TOO_LARGE
    storage.alter_config("t", {"cleanup.policy": "compact, delete"}, validate_only=True)
    assert "cleanup.policy" not in storage.topic("t").config
    storage.alter_config("t", {"cleanup.policy": "compact, delete"})
    assert (log.config.compact, log.config.delete) == (True, True)
    append(log, keyed({b"k": bytes(100)}))


@pytest.mark.parametrize("clean", [True, False], ids=["clean stop", "crash"])
def test_everything_is_there_after_a_restart(tmp_path: Path, clean: bool) -> None:
    storage = open_storage(tmp_path / "data")
    storage.create_topic("gone")
    storage.create_topic("t", 2, {"retention.ms": "-1"})
    storage.delete_topic("gone")
    append(storage.log("t", 1), batch(b"x"))
    state = TransactionState(
        "tx",
        storage.producers.allocate(),
        3,
        60_000,
        "ongoing",
        NOW,
        NOW,
        frozenset({("t", 0)}),
        {"g": {("t", 0): Committed(9, "note", NOW)}},
        frozenset({"g"}),
    )
    storage.producers.put(state)
    storage.offsets.commit("g", {("t", 1): Committed(7, "a note", NOW)})
    storage.flush()
    again = restart(storage, clean)
    assert list(again.topics) == ["t"]
    assert again.config_of("t")["retention.ms"] == ("-1", "topic")
    assert len(again.topic("t").partitions) == 2
    assert [record.value for record in all_records(again.log("t", 1))] == [b"x"]
    assert again.offsets.fetch("g") == {("t", 1): Committed(7, "a note", NOW)}
    assert again.producers.get("tx") == state
    assert again.producers.allocate() > state.producer_id
    assert again.cluster_id == storage.cluster_id
    assert len(list((tmp_path / "data" / "topics").iterdir())) == 1
    again.close()


def restart(storage: Storage, clean: bool) -> Storage:
    assert storage._path is not None
    if clean:
        storage.close()
    else:
        storage._release()  # what the kernel does for a dead process
    return open_storage(storage._path)


def test_an_open_transaction_of_nobody_is_aborted_at_the_start(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "data")
    log = storage.create_topic("t").partitions[0]
    append(log, batch(b"ok"))
    append(log, batch(b"open", producer=55, transactional=True))
    again = restart(storage, clean=False)
    log = again.log("t", 0)
    append(log, batch(b"after"))
    assert (log.stable_offset, log.end_offset, log.open_transactions) == (4, 4, {})
    read = log.read(0, 1000, committed=True)
    assert read.aborted == [(55, 1)]
    assert refusal(log.append, batch(b"more", producer=55, sequence=1, transactional=True), NOW) == (
        Code.INVALID_PRODUCER_EPOCH
    )
    assert again.producers.allocate() > 55
    again.close()


@pytest.mark.parametrize("phase", ["ongoing", "prepare_commit", "prepare_abort"])
def test_a_transaction_that_a_coordinator_knows_is_left_to_it(tmp_path: Path, phase: str) -> None:
    storage = open_storage(tmp_path / "data")
    log = storage.create_topic("t").partitions[0]
    append(log, batch(b"open", producer=5, transactional=True))
    storage.producers.put(TransactionState("tx", 5, 0, 1, phase, partitions=frozenset({("t", 0)})))  # type: ignore[arg-type]
    storage.flush()
    again = restart(storage, clean=False)
    assert again.log("t", 0).open_transactions == {5: 0}
    assert again.log("t", 0).stable_offset == 0
    again.close()


def test_nothing_is_written_after_closing(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "data")
    log = storage.create_topic("t").partitions[0]
    storage.close()
    assert refusal(log.append, batch(), NOW) == Code.NOT_LEADER_OR_FOLLOWER
    assert refusal(storage.offsets.commit, "g", {("t", 0): Committed(1, "", NOW)}) == Code.COORDINATOR_NOT_AVAILABLE


def test_producer_ids_never_come_again(tmp_path: Path) -> None:
    seen: set[int] = set()
    for round_ in range(4):
        storage = open_storage(tmp_path / "data")
        ids = [storage.producers.allocate() for _ in range(1500 if round_ == 1 else 3)]
        assert not seen & set(ids)
        assert len(set(ids)) == len(ids)
        seen |= set(ids)
        if round_ % 2:
            storage.close()
        else:
            storage._release()


def test_unfinished_topics_are_removed_at_the_start(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "data")
    append(storage.create_topic("t").partitions[0], batch(b"x"))
    storage.close()
    (tmp_path / "data" / "topics" / "17" / "0").mkdir(parents=True)
    (tmp_path / "data" / "catalog.temp").write_bytes(b"half")
    again = open_storage(tmp_path / "data")
    assert [path.name for path in (tmp_path / "data" / "topics").iterdir()] == ["0"]
    assert len(all_records(again.log("t", 0))) == 1
    again.close()


def test_the_directory_is_for_its_owner_only(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "data")
    append(storage.create_topic("t").partitions[0], batch(b"x"))
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    for path in (tmp_path / "data").rglob("*"):
        assert not path.stat().st_mode & 0o077, path
    storage.close()


def test_a_second_broker_hears_who_owns_the_directory(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "data")
    storage.announce("127.0.0.1:9092")
    with pytest.raises(LockedError, match=r"127\.0\.0\.1:9092") as refused:
        open_storage(tmp_path / "data")
    assert (refused.value.pid, refused.value.address) == (os.getpid(), "127.0.0.1:9092")
    storage.close()
    assert read_owner(tmp_path / "data") == (None, None)
    open_storage(tmp_path / "data").close()


@pytest.mark.process
def test_the_directory_of_a_dead_broker_is_taken_over(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from octopus.broker.storage import Storage\n"
        "storage = Storage.open(pathlib.Path(sys.argv[1])); storage.announce('127.0.0.1:1'); print('up', flush=True)\n"
        "sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "data")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == b"up\n"
    with pytest.raises(LockedError) as refused:
        open_storage(tmp_path / "data")
    assert (refused.value.pid, refused.value.address) == (child.pid, "127.0.0.1:1")
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    assert read_owner(tmp_path / "data") == (child.pid, "127.0.0.1:1")
    open_storage(tmp_path / "data").close()


def test_topics_written_before_there_were_topic_ids_get_one_that_stays(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "data")
    append(storage.create_topic("old", 2, {"retention.ms": "5"}).partitions[1], batch(b"x"))
    storage.close()
    catalog = tmp_path / "data" / "catalog"
    values = json.loads(catalog.read_bytes()[9:])
    before = values | {"format": 1, "topics": [entry[:4] for entry in values["topics"]]}
    catalog.write_bytes(sealed_line(json.dumps(before).encode()))
    ids = []
    for _ in range(2):
        storage = open_storage(tmp_path / "data")
        topic = storage.topics["old"]
        assert (topic.config, topic.partitions[1].end_offset) == ({"retention.ms": "5"}, 1)
        assert storage.name_of(topic.id) == "old"
        ids.append(topic.id)
        storage.close()
    assert ids[0] == ids[1]


def test_a_topic_that_is_made_again_has_another_id_and_each_survives_a_restart(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "data")
    first = storage.create_topic("t").id
    storage.delete_topic("t")
    assert refusal(storage.name_of, first) == Code.UNKNOWN_TOPIC_ID
    second = storage.create_topic("t").id
    storage.close()
    again = open_storage(tmp_path / "data")
    assert first != second == again.topics["t"].id
    again.close()


def test_offsets_of_topics_that_a_crash_half_deleted_are_gone_after_the_start(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "data")
    storage.create_topic("kept")
    storage.create_topic("gone")
    storage.delete_topic("gone")
    storage.offsets.commit("g", {("gone", 0): Committed(5, "", NOW), ("kept", 0): Committed(6, "", NOW)})
    storage.close()
    storage = open_storage(tmp_path / "data")
    storage.create_topic("gone")
    assert storage.offsets.fetch("g") == {("kept", 0): Committed(6, "", NOW)}
    storage.close()


def test_offsets_in_open_transactions_go_with_their_topic(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "data")
    storage.create_topic("kept")
    storage.create_topic("gone")
    offsets = {("kept", 0): Committed(1, "", NOW, 4), ("gone", 0): Committed(2, "", NOW)}
    storage.producers.put(TransactionState("x", 1, 0, 1000, "ongoing", NOW, NOW, offsets={"g": offsets}))
    storage.delete_topic("gone")
    storage.close()
    storage = open_storage(tmp_path / "data")
    state = storage.producers.get("x")
    assert state is not None
    assert state.offsets == {"g": {("kept", 0): Committed(1, "", NOW, 4)}}
    storage.close()


def test_a_newer_format_is_refused_untouched(tmp_path: Path) -> None:
    open_storage(tmp_path / "data").close()
    catalog = tmp_path / "data" / "catalog"
    values = json.loads(catalog.read_bytes()[9:]) | {"format": FORMAT + 1}
    catalog.write_bytes(sealed_line(json.dumps(values).encode()))
    with pytest.raises(IncompatibleFormat, match="newer"):
        open_storage(tmp_path / "data")
    assert (tmp_path / "data" / "clean").exists()


def test_a_foreign_directory_and_a_damaged_catalog_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(IncompatibleFormat, match=r"thesis\.tex"):
        open_storage(tmp_path)
    storage = open_storage(tmp_path / "data")
    append(storage.create_topic("t").partitions[0], batch(b"x"))
    storage.close()
    catalog = tmp_path / "data" / "catalog"
    for damaged in (b"", catalog.read_bytes()[:-5]):
        catalog.write_bytes(damaged)
        with pytest.raises(IncompatibleFormat, match="damaged"):
            open_storage(tmp_path / "data")
    catalog.unlink()
    with pytest.raises(IncompatibleFormat):
        open_storage(tmp_path / "data")
    assert list((tmp_path / "data" / "topics" / "0" / "0").glob("*.log"))


@pytest.mark.parametrize("what", ["something else", "a newer format", "a damaged catalog"])
def test_a_directory_that_is_refused_keeps_its_mode_and_its_content(tmp_path: Path, what: str) -> None:
    content = {
        "something else": b"precious",
        "a newer format": sealed_line(b'{"format": 99}'),
        "a damaged catalog": b"",
    }
    tmp_path.chmod(0o1777)
    (tmp_path / ("thesis.tex" if what == "something else" else "catalog")).write_bytes(content[what])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(IncompatibleFormat):
        open_storage(tmp_path)
    assert tmp_path.stat().st_mode & 0o7777 == 0o1777
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_maintenance_applies_retention_compaction_and_expiry(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "data", offsets_retention_ms=DAY, producer_expiry_ms=DAY)
    short = storage.create_topic("short", config={"retention.ms": "1000"}).partitions[0]
    compacted = storage.create_topic("compacted", config={"cleanup.policy": "compact", "segment.bytes": "100"})
    append(short, batch(b"x", producer=1))
    for number in range(100):
        append(compacted.partitions[0], keyed({b"key%d" % (number % 10): b"x"}))
    storage.offsets.commit("idle", {("short", 0): Committed(1, "", NOW)})
    storage.offsets.commit("active", {("short", 0): Committed(1, "", NOW)})
    storage.maintain(NOW + 2 * DAY, {"active"})
    assert short.start_offset == 1
    assert len(all_records(compacted.partitions[0])) <= 11
    assert storage.offsets.groups() == ["active"]
    append(short, batch(b"y", producer=1, sequence=9))
    storage.close()


async def test_compaction_runs_beside_the_loop(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "data")
    config = {"cleanup.policy": "compact", "segment.bytes": "400"}
    log = storage.create_topic("t", config=config).partitions[0]
    for number in range(60):
        log.append(keyed({b"key%d" % (number % 3): b"%d" % number}), NOW)
    await storage.synced([log])
    storage.maintain(NOW)
    assert len(all_records(log)) == 60
    append(log, keyed({b"key0": b"meanwhile"}))
    async with asyncio.timeout(10):
        while len(all_records(log)) > 15:
            await asyncio.sleep(0.01)
    newest = {record.key: record.value for record in all_records(log)}
    assert newest == {b"key0": b"meanwhile", b"key1": b"58", b"key2": b"59"}
    storage.close()
    again = open_storage(tmp_path / "data")
    assert {record.key: record.value for record in all_records(again.log("t", 0))} == newest
    again.close()


def test_many_partitions_need_few_descriptors(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "data", durability="os")
    logs = storage.create_topic("t", 400).partitions
    for log in logs:
        log.append(batch(b"x"), NOW)
    assert len(storage._environment.descriptors._open) <= 200
    assert all(len(all_records(log)) == 1 for log in logs)
    storage.close()
