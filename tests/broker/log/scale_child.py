"""Stores five million records and prints what that cost: largest memory in MB, then seconds to start again.

python -m tests.broker.log.scale_child DIRECTORY
"""

import resource
import sys
import time
from pathlib import Path

from octopus.broker.batch import checksum_of
from octopus.broker.settings import StorageSettings
from octopus.broker.storage import Storage
from tests.broker.storage_builders import NOW, batch

STATUS = Path("/proc/self/status")
SETTINGS = StorageSettings(durability="os")


def largest_memory() -> float:
    """Megabytes; from /proc where there is one, because `getrusage` counts what the parent had when it forked."""
    if STATUS.exists():
        return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    records = batch(*[b"x" * 10] * 100)
    known = checksum_of(records)
    storage = Storage.open(directory, SETTINGS, now=NOW, checksum=lambda data: known)
    log = storage.create_topic("t", config={"segment.bytes": str(2**24)}).partitions[0]
    for _ in range(50_000):
        log.append(records, NOW)
    assert log.end_offset == 5_000_000
    storage.close()
    started = time.perf_counter()
    storage = Storage.open(directory, SETTINGS, now=NOW)
    seconds = time.perf_counter() - started
    assert storage.log("t", 0).end_offset == 5_000_000
    assert storage.log("t", 0).read(4_999_950, 2**20).parts
    print(largest_memory())
    print(seconds)
