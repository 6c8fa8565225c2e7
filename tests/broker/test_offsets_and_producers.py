"""Committed offsets and transaction states in their journals."""

import json
import logging
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octopus.broker.environment import Environment
from octopus.broker.files import sealed_line
from octopus.broker.offsets import Committed, OffsetStore
from tests.broker.storage_builders import NOW

text = st.text(max_size=20)
commits = st.lists(
    st.tuples(st.sampled_from(["g", "h", "a group\n"]), st.sampled_from(["t", "u"]), st.integers(0, 2), text),
    max_size=20,
)


def opened(path: Path | None) -> OffsetStore:
    return OffsetStore(path, Environment(is_durable=False))


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(commits, st.booleans())
def test_the_last_commit_of_each_partition_is_found_again(
    tmp_path: Path, entries: list[tuple[str, str, int, str]], forget: bool
) -> None:
    path = Path(tempfile.mkdtemp(dir=tmp_path)) / "offsets"
    store = opened(path)
    for number, (group, topic, partition, metadata) in enumerate(entries):
        store.commit(group, {(topic, partition): Committed(number, metadata, NOW)})
    if forget:
        store.delete("g")
        store.keep_topics(["t"])
    again = opened(path)
    assert {group: dict(again.fetch(group)) for group in again.groups()} == {
        group: dict(store.fetch(group)) for group in store.groups()
    }
    if forget:
        assert "g" not in again.groups()


@pytest.mark.parametrize("tail", [b"", b"0", b"abcdef01 [", b"\0" * 50])
def test_an_unfinished_last_line_is_dropped(tmp_path: Path, tail: bytes, caplog: pytest.LogCaptureFixture) -> None:
    store = opened(tmp_path / "offsets")
    store.commit("g", {("t", 0): Committed(5, "note", NOW)})
    with (tmp_path / "offsets").open("ab") as file:
        file.write(tail)
    with caplog.at_level(logging.WARNING):
        again = opened(tmp_path / "offsets")
    assert again.fetch("g") == {("t", 0): Committed(5, "note", NOW)}
    assert ("unfinished" in caplog.text) == bool(tail)
    again.commit("g", {("t", 1): Committed(6, "", NOW)})
    assert len(opened(tmp_path / "offsets").fetch("g")) == 2


def test_offsets_written_before_there_were_leader_epochs_are_read(tmp_path: Path) -> None:
    line = json.dumps(["commit", "g", [["t", 0, 5, "note", NOW], ["t", 1, 6, "", NOW, 3]]]).encode()
    (tmp_path / "offsets").write_bytes(sealed_line(line))
    assert opened(tmp_path / "offsets").fetch("g") == {
        ("t", 0): Committed(5, "note", NOW),
        ("t", 1): Committed(6, "", NOW, leader_epoch=3),
    }


def test_a_damaged_line_costs_itself_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = opened(tmp_path / "offsets")
    for number in range(3):
        store.commit("g", {("t", number): Committed(number, "", NOW)})
    lines = (tmp_path / "offsets").read_bytes().splitlines(keepends=True)
    (tmp_path / "offsets").write_bytes(lines[0] + lines[1].replace(b"t", b"u") + lines[2])
    with caplog.at_level(logging.WARNING):
        assert list(opened(tmp_path / "offsets").fetch("g")) == [("t", 0), ("t", 2)]
    assert "damaged" in caplog.text


def test_the_journal_stays_small(tmp_path: Path) -> None:
    store = opened(tmp_path / "offsets")
    for number in range(30_000):
        store.commit("g", {("t", number % 3): Committed(number, "", NOW)})
    assert (tmp_path / "offsets").stat().st_size < 1_200_000
    assert opened(tmp_path / "offsets").fetch("g")["t", 2].offset == 29_999


def test_old_offsets_expire_and_those_of_active_groups_do_not() -> None:
    store = opened(None)
    store.commit("old", {("t", 0): Committed(1, "", NOW - 10)})
    store.commit("active", {("t", 0): Committed(1, "", NOW - 10)})
    store.commit("both", {("t", 0): Committed(1, "", NOW - 10), ("t", 1): Committed(1, "", NOW)})
    assert store.expire(NOW, {"active"}) == ["old"]
    assert list(store.fetch("both")) == [("t", 1)]
    assert store.groups() == ["active", "both"]
