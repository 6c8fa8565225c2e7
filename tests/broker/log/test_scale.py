"""What a large log costs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from octopus.broker.batch import read_header
from octopus.broker.log import Log
from tests.broker.storage_builders import NOW, batch, disk_log

CHILD = "tests.broker.log.scale_child"


@pytest.mark.process
def test_five_million_records_need_little_memory_and_no_time_to_start(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", CHILD, str(tmp_path / "data")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    megabytes, seconds = map(float, done.stdout.split())
    assert megabytes <= 64
    assert seconds < 0.2


def test_many_small_batches_have_few_index_entries() -> None:
    log = Log()
    data = batch(b"small")
    for _ in range(20_000):
        log.append(data, NOW)
    (segment,) = log._chain.segments
    assert len(segment._positions) < 2 * segment.size / 4096
    assert read_header(log.read(12_345, 1).parts[0]).base_offset == 12_345


def test_a_read_is_one_system_call_and_one_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = disk_log(tmp_path / "log")
    for _ in range(1000):
        log.append(batch(bytes(500)), NOW)
    log.flush()
    reads: list[int] = []
    original = os.pread

    def counted(descriptor: int, size: int, position: int) -> bytes:
        reads.append(size)
        return original(descriptor, size, position)

    monkeypatch.setattr(os, "pread", counted)
    read = log.read(123, 100_000)
    assert len(reads) == 1
    assert read.size > 90_000
    (part,) = read.parts
    assert isinstance(part, memoryview)  # of what the system call returned: the offset lies within the first group
    assert len(part.obj) == reads[0]  # type: ignore[arg-type]
    log.close()
