"""Whatever was acknowledged is there after the process was killed, at whatever moment, in the middle of whatever write.

`OCTOPUS_CRASHES` sets how often the process is killed.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from octopus.broker.storage import Storage
from tests.broker.storage_builders import NOW, all_records, batch, committed_records, open_storage

CHILD = "tests.broker.crash_child"
CRASHES = int(os.environ.get("OCTOPUS_CRASHES", "15"))


@dataclass
class Acknowledged:
    """What the child said, over all its lives."""

    appends: dict[tuple[int, int], list[str]] = field(default_factory=dict)
    offsets: dict[tuple[str, int], int] = field(default_factory=dict)
    sequences: dict[int, list[int]] = field(default_factory=dict)
    transactions: dict[str, bool] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)
    topics: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    start: int = 0
    count: int = 0

    def hear(self, line: str) -> None:
        self.count += 1
        match json.loads(line):
            case ["append", partition, offset, values]:
                self.appends[partition, offset] = values
            case ["commit", group, partition, offset]:
                self.offsets[group, partition] = offset
            case ["sequence", producer, number, offset]:
                self.sequences.setdefault(producer, []).append(offset)
                assert len(self.sequences[producer]) == number + 1
            case ["transaction", value, commit, producer, number]:
                self.transactions[value] = commit
                self.states[f"tx-{producer}"] = number
            case ["created", name]:
                self.topics.add(name)
            case ["first", name]:
                self.written.add(name)
            case ["deleting", name]:
                self.topics.discard(name)
                self.written.discard(name)
            case ["start", offset]:
                self.start = max(self.start, offset)


@pytest.mark.process
def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    chance = random.Random(os.environ.get("OCTOPUS_CRASH_SEED"))
    known = Acknowledged()
    for round_ in range(CRASHES):
        torn = chance.randint(1, 40_000) if round_ % 3 else 0
        for line in lines_until_killed(tmp_path / "data", round_, torn, chance.uniform(0, 0.25)):
            known.hear(line)
        # Every few lives the next child recovers by itself what this one left.
        if round_ % 3 == 2 or round_ == CRASHES - 1:
            storage = open_storage(tmp_path / "data")
            check(storage, known)
            if chance.random() < 0.3:
                storage.close()
            else:
                storage._release()
    assert known.count > CRASHES


def lines_until_killed(directory: Path, round_: int, torn: int, seconds: float) -> Iterator[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-m", CHILD, str(directory), str(round_), str(torn)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert child.stdout is not None
    deadline = None
    with child.stdout:
        for line in child.stdout:
            if not line.endswith("\n"):
                break
            yield line
            deadline = deadline or time.monotonic() + seconds
            if time.monotonic() > deadline and child.poll() is None:
                child.kill()
    assert child.wait() == -9


def check(storage: Storage, known: Acknowledged) -> None:
    for partition in (0, 1):
        log = storage.log("t", partition)
        assert log.start_offset >= (known.start if partition == 0 else 0)
        records = all_records(log)
        assert [record.offset for record in records] == list(range(log.start_offset, log.end_offset))
        values = {record.offset: record.value for record in records}
        for (place, base), expected in known.appends.items():
            for delta, value in enumerate(expected):
                if place == partition and base + delta >= log.start_offset:
                    assert values[base + delta] == value.encode()
    numbers = {record.offset: record.value for record in all_records(storage.log("t", 2))}
    for producer, offsets in known.sequences.items():
        assert [numbers[offset] for offset in offsets] == [b"%d" % number for number in range(len(offsets))]
        last = len(offsets) - 1
        repeated = storage.log("t", 2).append(batch(b"%d" % last, producer=producer, sequence=last), NOW)
        assert (repeated.base_offset, repeated.duplicate) == (offsets[-1], True)
    log = storage.log("t", 3)
    assert log.open_transactions == {}
    assert log.stable_offset == log.end_offset
    committed = {(record.value or b"").decode() for record in committed_records(log)}
    for value, commit in known.transactions.items():
        assert (value in committed) == commit
    for name, number in known.states.items():
        state = storage.producers.get(name)
        assert state is not None
        assert state.updated >= number
    for (group, partition), offset in known.offsets.items():
        assert storage.offsets.fetch(group)["t", partition].offset >= offset
    assert known.topics <= set(storage.topics)
    for name in known.topics:
        assert len(storage.topic(name).partitions) == 3
    for name in known.written:
        assert [record.value for record in all_records(storage.log(name, 1))] == [name.encode()]
