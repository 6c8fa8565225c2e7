"""Transactions on a real storage: markers, offsets, crashes, time-outs."""

import asyncio
from pathlib import Path

import pytest

from octopus.broker import transactions
from octopus.broker.codes import BrokerError, Code
from octopus.broker.limits import Limits
from octopus.broker.log import Log
from octopus.broker.offsets import Committed
from octopus.broker.settings import StorageSettings
from octopus.broker.storage import Storage
from octopus.broker.transaction_coordinator import TransactionCoordinator
from tests.broker.requests_and_answers import batch
from tests.broker.wire_client import eventually

PLACE = ("t", 0)


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now


class Stage:
    """A coordinator on a data directory that can be taken away as a crash would."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path, self.clock = path, clock
        self.storage = Storage.open(path, StorageSettings(durability="os"), now=clock())
        self.coordinator = TransactionCoordinator(self.storage, Limits(), clock)

    @property
    def log(self) -> Log:
        return self.storage.log(*PLACE)

    async def begin(self, *values: bytes) -> int:
        """Begin a transaction, write into it, and return the producer id."""
        state = await self.coordinator.initialize("x", 60_000)
        await self.coordinator.add_partitions("x", state.producer_id, state.producer_epoch, [PLACE])
        self.write(state.producer_id, state.producer_epoch, *values)
        return state.producer_id

    def write(self, producer_id: int, epoch: int, *values: bytes, sequence: int = 0) -> None:
        records = batch(*values, attributes=0x10, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)
        self.log.append(records, self.clock(), transactional_check=self.coordinator.check_write("x", PLACE))

    async def restart(self) -> "Stage":
        self.storage.close()
        stage = Stage(self.path, self.clock)
        await stage.coordinator.recover()
        return stage

    def visible(self) -> tuple[int, list[tuple[int, int]]]:
        """Return the last stable offset and the aborted transactions of everything below it."""
        read = self.log.read(0, 2**20, committed=True)
        return read.stable, read.aborted


@pytest.fixture
async def stage(tmp_path: Path) -> Stage:
    stage = Stage(tmp_path / "data", Clock())
    stage.storage.create_topic("t")
    return stage


@pytest.mark.parametrize("commit", [True, False], ids=["commit", "abort"])
async def test_the_end_of_a_transaction_moves_the_stable_offset_and_names_the_aborted(
    stage: Stage, commit: bool
) -> None:
    producer = await stage.begin(b"a", b"b")
    assert stage.visible() == (0, [])
    await stage.coordinator.end("x", producer, 0, commit)
    assert stage.visible() == (3, [] if commit else [(producer, 0)])


@pytest.mark.parametrize(("commit", "expected"), [(True, 7), (False, None)], ids=["commit", "abort"])
async def test_offsets_are_committed_or_dropped_with_their_transaction(
    stage: Stage, commit: bool, expected: int | None
) -> None:
    producer = await stage.begin(b"a")
    await stage.coordinator.add_group("x", producer, 0, "g")
    await stage.coordinator.add_offsets("x", producer, 0, "g", {PLACE: Committed(7, "note", stage.clock())})
    assert PLACE not in stage.storage.offsets.fetch("g")
    await stage.coordinator.end("x", producer, 0, commit)
    found = stage.storage.offsets.fetch("g").get(PLACE)
    assert (found.offset if found else None) == expected


async def test_a_new_producer_aborts_what_the_old_one_left_open_and_fences_it(stage: Stage) -> None:
    producer = await stage.begin(b"a")
    successor = await stage.coordinator.initialize("x", 60_000)
    assert successor.producer_id == producer
    assert successor.producer_epoch > 0
    assert stage.visible() == (2, [(producer, 0)])
    with pytest.raises(BrokerError) as caught:
        stage.write(producer, 0, b"late", sequence=1)
    assert caught.value.code == Code.INVALID_PRODUCER_EPOCH
    with pytest.raises(BrokerError) as caught:
        await stage.coordinator.end("x", producer, 0, True)
    assert caught.value.code == Code.INVALID_PRODUCER_EPOCH
    await stage.coordinator.add_partitions("x", producer, successor.producer_epoch, [PLACE])
    stage.write(producer, successor.producer_epoch, b"new")
    await stage.coordinator.end("x", producer, successor.producer_epoch, True)
    assert stage.visible() == (4, [(producer, 0)])


async def test_a_transaction_open_at_a_crash_is_aborted_and_its_producer_fenced(stage: Stage) -> None:
    producer = await stage.begin(b"a")
    again = await stage.restart()
    assert again.visible() == (2, [(producer, 0)])
    with pytest.raises(BrokerError) as caught:
        again.write(producer, 0, b"late", sequence=1)
    assert caught.value.code == Code.INVALID_PRODUCER_EPOCH


async def test_a_decision_taken_before_a_crash_is_carried_out_after_it(stage: Stage) -> None:
    producer = await stage.begin(b"a")
    await stage.coordinator.add_group("x", producer, 0, "g")
    await stage.coordinator.add_offsets("x", producer, 0, "g", {PLACE: Committed(7, "", stage.clock())})
    state = stage.storage.producers.get("x")
    stage.storage.producers.put(transactions.end(state, producer, 0, True, stage.clock()))
    again = await stage.restart()
    assert again.visible() == (2, [])
    assert again.storage.offsets.fetch("g")[PLACE].offset == 7
    await again.coordinator.end("x", producer, 0, True)
    assert again.visible() == (2, []), "the producer's own repetition changes nothing"


async def test_a_transaction_survives_the_deletion_of_one_of_its_topics(stage: Stage) -> None:
    stage.storage.create_topic("other")
    producer = await stage.begin(b"a")
    await stage.coordinator.add_partitions("x", producer, 0, [("other", 0)])
    stage.storage.delete_topic("other")
    await stage.coordinator.end("x", producer, 0, True)
    assert stage.visible() == (2, [])


async def test_a_transaction_past_its_time_is_aborted_and_its_producer_fenced(stage: Stage) -> None:
    producer = await stage.begin(b"a")
    stage.clock.now += 59_999
    await stage.coordinator.expire()
    assert stage.visible() == (0, [])
    stage.clock.now += 1
    await stage.coordinator.expire()
    assert stage.visible() == (2, [(producer, 0)])
    with pytest.raises(BrokerError) as caught:
        await stage.coordinator.end("x", producer, 0, True)
    assert caught.value.code == Code.INVALID_PRODUCER_EPOCH


async def test_the_watch_ends_a_transaction_that_began_after_it_went_to_sleep(stage: Stage) -> None:
    watch = asyncio.create_task(stage.coordinator.watch())
    await asyncio.sleep(0)
    producer = await stage.begin(b"a")
    stage.clock.now += 60_000
    stage.coordinator._is_early.set()  # the clock of the test does not ring by itself
    await eventually(lambda: stage.visible() == (2, [(producer, 0)]))
    watch.cancel()


async def test_requests_for_one_id_are_carried_out_one_after_the_other(stage: Stage) -> None:
    states = await asyncio.gather(*(stage.coordinator.initialize("x", 60_000) for _ in range(10)))
    assert [state.producer_epoch for state in states] == list(range(10))


async def test_idle_ids_are_forgotten_and_start_again_with_another_producer(stage: Stage) -> None:
    first = await stage.coordinator.initialize("x", 60_000)
    stage.clock.now += Limits().transactional_id_expiry_ms
    await stage.coordinator.expire()
    assert stage.storage.producers.get("x") is None
    assert (await stage.coordinator.initialize("x", 60_000)).producer_id != first.producer_id


async def test_more_transactional_ids_than_the_cap_are_refused(tmp_path: Path) -> None:
    coordinator = TransactionCoordinator(Storage.open(None), Limits(max_transactional_ids=1), Clock())
    await coordinator.initialize("x", 60_000)
    with pytest.raises(BrokerError) as caught:
        await coordinator.initialize("y", 60_000)
    assert caught.value.code == Code.POLICY_VIOLATION
    await coordinator.initialize("x", 60_000)
