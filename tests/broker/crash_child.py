"""Appends and commits until it is killed, and says on its output what was acknowledged: one line each, after the sync.

python -m tests.broker.crash_child DIRECTORY ROUND KILL_AFTER_BYTES
"""

import asyncio
import json
import random
import sys
from pathlib import Path

from octopus.broker.codes import BrokerError
from octopus.broker.offsets import Committed
from octopus.broker.producers import TransactionState
from octopus.broker.storage import Storage
from tests.broker.storage_builders import NOW, batch

CONFIG = {"segment.bytes": "4000"}


def say(*what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def append_plain(storage: Storage, partition: int, round_: int) -> None:
    log = storage.log("t", partition)
    for number in range(10**6):
        values = [b"%d-%d-%d" % (round_, number, each) for each in range(random.randint(1, 4))]
        appended = log.append(batch(*values, bytes(random.randint(0, 300))), NOW)
        await storage.synced([log])
        say("append", partition, appended.base_offset, [value.decode() for value in values])


async def append_in_sequence(storage: Storage, producer: int) -> None:
    log = storage.log("t", 2)
    for number in range(10**6):
        data = batch(b"%d" % number, producer=producer, sequence=number)
        offset = log.append(data, NOW).base_offset
        await storage.synced([log])
        say("sequence", producer, number, offset)


async def commit_offsets(storage: Storage, round_: int) -> None:
    for number in range(10**6):
        group = f"group-{number % 3}"
        storage.offsets.commit(group, {("t", number % 2): Committed(round_ * 10**6 + number, "note", NOW)})
        await storage.synced([storage.offsets])
        say("commit", group, number % 2, round_ * 10**6 + number)


async def transact(storage: Storage, producer: int) -> None:
    log = storage.log("t", 3)
    for number in range(10**6):
        value = b"%d-%d" % (producer, number)
        log.append(batch(value, producer=producer, sequence=number, transactional=True), NOW)
        await storage.synced([log])
        commit = number % 3 != 0
        log.append_control(producer, 0, commit, NOW)
        storage.producers.put(TransactionState(f"tx-{producer}", producer, 0, 1, "complete_commit", updated=number))
        await storage.synced([log, storage.producers])
        say("transaction", value.decode(), commit, producer, number)


async def create_and_delete(storage: Storage, round_: int) -> None:
    for number in range(10**6):
        name = f"topic-{round_}-{number}"
        storage.create_topic(name, 3)
        say("created", name)
        storage.log(name, 1).append(batch(name.encode()), NOW)
        await storage.synced([storage.log(name, 1)])
        say("first", name)
        storage.log("t", 0).delete_before(max(0, storage.log("t", 0).end_offset - 200))
        say("start", storage.log("t", 0).start_offset)
        if number % 2:
            say("deleting", name)
            storage.delete_topic(name)
        await asyncio.sleep(0.01)


async def main(directory: Path, round_: int, kill_after: int) -> None:
    storage = Storage.open(directory, now=NOW)
    storage.faults.kill_after = kill_after or None
    try:
        storage.create_topic("t", 4, CONFIG)
    except BrokerError:
        assert len(storage.topic("t").partitions) == 4
    say("ready")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(append_plain(storage, 0, round_))
        tasks.create_task(append_plain(storage, 1, round_))
        tasks.create_task(append_in_sequence(storage, storage.producers.allocate()))
        tasks.create_task(transact(storage, storage.producers.allocate()))
        tasks.create_task(commit_offsets(storage, round_))
        tasks.create_task(create_and_delete(storage, round_))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
