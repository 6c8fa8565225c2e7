"""The runner against a model, over random schedules: what is promised holds at every step, not only at the end."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octopus.events import Record, StoredRecord, TopicPartition
from octopus.outcomes import DONE, SKIPPED, DeadLetter, Outcome, Retry
from octopus.pipeline.claims import in_turn
from octopus.routing import Ordering
from octopus.runner import Assignment, Runner
from octopus.runner.commit_metadata import decode_map, encode_map
from octopus.testing import VirtualTimeLoop
from octopus.types import RunClaim
from octopus.unacknowledged import Unacknowledged
from tests.staged import P0, P1, unread

FINAL = {"done": DONE, "skipped": SKIPPED, "dead": DeadLetter("no")}

plans = st.fixed_dictionaries(
    {
        "final": st.sampled_from(sorted(FINAL)),
        "retries": st.integers(0, 2),
        "naps": st.lists(st.sampled_from([0.0, 0.1, 1.0, 20.0]), max_size=2),
        "key": st.sampled_from([None, b"a", b"b", b"c"]),
        "gap": st.sampled_from([1, 1, 1, 1, 2, 3]),
        "looks": st.booleans(),  # whoever looks at a ledger has it written up: nobody may do so for a while, too
    }
)
steps = st.one_of(
    st.tuples(st.just("submit"), st.sampled_from([P0, P1]), st.integers(1, 6)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.05, 0.5, 30.0]), st.just(0)),
    st.tuples(st.just("revoke"), st.sampled_from([P0, P1]), st.sampled_from([0.0, 0.5, 100.0])),
    st.tuples(st.just("lose"), st.sampled_from([P0, P1]), st.just(0)),
)


class Model:
    """The log of two partitions, what became of each record, and everything the runner must never do."""

    def __init__(self, ordering: Ordering, plan: Sequence[dict]) -> None:
        self.ordering = ordering
        self.logs: dict[TopicPartition, list[Record]] = {P0: [], P1: []}
        self.plans: dict[tuple[TopicPartition, int], dict] = {}
        for number, each in enumerate(plan):
            partition = (P0, P1)[number % 2]
            log = self.logs[partition]
            offset = (log[-1].offset if log else -1) + each["gap"]
            log.append(Record(partition.topic, partition.partition, offset, 0, each["key"], b"{}"))
            self.plans[partition, offset] = each
        self.running: set[tuple[TopicPartition, int]] = set()
        self.concluded: Counter[tuple[int, TopicPartition, int]] = Counter()
        self.finished: dict[TopicPartition, set[int]] = {P0: set(), P1: set()}
        self.assignment: dict[TopicPartition, Assignment] = {}
        self.epoch: Counter[TopicPartition] = Counter()
        self.submitted: dict[TopicPartition, int] = {P0: 0, P1: 0}
        self.committed: dict[TopicPartition, tuple[int, str]] = {P0: (0, ""), P1: (0, "")}

    def bind(self, partition: TopicPartition, unacknowledged: Unacknowledged) -> RunClaim:
        self.epoch[partition] += 1
        epoch = self.epoch[partition]
        order: dict[object, int] = {}

        async def run(stored: StoredRecord, attempt: int) -> Outcome:
            plan = self.plans[partition, stored.offset]
            me = partition, stored.offset
            assert me not in self.running, "one record runs twice at once"
            assert not self.concluded[epoch, *me], "a record runs after its outcome was final"
            lane = self.lane_of(stored)
            if lane is not None:
                assert order.get(lane, -1) <= stored.offset, "a record overtook its predecessor"
                order[lane] = stored.offset
                same = [
                    each for each in self.running if each[0] == partition and self.lane_of(self.find(*each)) == lane
                ]
                assert not same, "two records of one lane run at once"
            self.running.add(me)
            try:
                if plan["looks"]:
                    self.check()
                for nap in plan["naps"]:
                    await asyncio.sleep(nap)
                    self.check()
            finally:
                self.running.discard(me)
            if attempt <= plan["retries"]:
                return Retry(float(attempt))
            self.concluded[epoch, *me] += 1
            if epoch == self.epoch[partition]:
                self.finished[partition].add(stored.offset)
            return FINAL[plan["final"]]

        return in_turn(run)

    def lane_of(self, stored: StoredRecord) -> object:
        return {"partition": "all", "key": stored.key, "none": None}[self.ordering]

    def find(self, partition: TopicPartition, offset: int) -> Record:
        return next(each for each in self.logs[partition] if each.offset == offset)

    def check(self) -> None:
        """No commit passes a record that is not finished, and none goes backwards."""
        for partition, assignment in self.assignment.items():
            if not assignment.is_open:
                continue
            committable = assignment.ledger.committable
            for each in self.logs[partition]:
                if each.offset < committable:
                    assert each.offset in self.finished[partition], f"{partition}: {each.offset} < {committable}"
            assert committable >= self.committed[partition][0]

    def open(self, runner: Runner, partition: TopicPartition) -> None:
        offset, metadata = self.committed[partition]
        # What was finished but neither committed nor mapped may come again.
        known = {each.offset for each in self.logs[partition] if each.offset < offset}
        ahead = decode_map(offset, metadata)
        known |= {o for first, last in ahead for o in range(first, last + 1)}
        self.finished[partition] &= known
        self.assignment[partition] = runner.open(partition, offset, ahead)
        self.submitted[partition] = sum(each.offset < offset for each in self.logs[partition])

    def submit(self, runner: Runner, partition: TopicPartition, count: int, as_unread: bool) -> None:
        log, begin = self.logs[partition], self.submitted[partition]
        chunk = log[begin : begin + count]
        if chunk:
            self.submitted[partition] += len(chunk)
            consecutive = chunk[-1].offset - chunk[0].offset + 1 == len(chunk)
            handed_over = unread(chunk) if as_unread and consecutive else chunk
            runner.submit(self.assignment[partition], handed_over, chunk[-1].offset + 1, 2 * len(chunk))
            if count % 2:
                self.assignment[partition].lanes.stand_alone()

    def commit(self, partition: TopicPartition) -> None:
        ledger = self.assignment[partition].ledger
        self.check()
        self.committed[partition] = ledger.committable, encode_map(ledger.committable, ledger.settled_ahead())


async def play(model: Model, schedule: Sequence[tuple], concurrency: int, *, as_unread: bool) -> None:
    """Follow a schedule, then hand over the rest and wait for the end."""
    runner = Runner(model, ordering=model.ordering, concurrency=concurrency)
    failed = runner.stopped
    for partition in (P0, P1):
        model.open(runner, partition)
    for what, subject, amount in schedule:
        match what:
            case "submit":
                model.submit(runner, subject, amount, as_unread)
            case "wait":
                await asyncio.sleep(subject)
            case "revoke":
                assignment = model.assignment[subject]
                await runner.drain([assignment], amount)
                model.commit(subject)
                runner.revoke([assignment])
                model.open(runner, subject)
            case "lose":
                runner.revoke([model.assignment[subject]])
                model.open(runner, subject)
        model.check()
        assert not failed.done(), failed.result().__cause__
    for partition in (P0, P1):
        model.submit(runner, partition, 1000, as_unread)
    async with asyncio.timeout(10_000):
        while any(assignment.ledger.in_flight for assignment in model.assignment.values()):
            assert not failed.done(), failed.result().__cause__
            await asyncio.sleep(1)
    for partition, log in model.logs.items():
        assignment = model.assignment[partition]
        assert assignment.ledger.committable == (log[-1].offset + 1 if log else 0)
        assert model.finished[partition] == {each.offset for each in log}
    assert set(model.concluded.values()) <= {1}
    await runner.quiet()
    await runner.close()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["partition", "key", "none"]),
    st.integers(1, 6),
    st.lists(plans, min_size=1, max_size=24),
    st.lists(steps, max_size=12),
    st.booleans(),
)
def test_nothing_is_lost_repeated_or_overtaken(
    ordering: Ordering, concurrency: int, plan: list[dict], schedule: list[tuple], as_unread: bool
) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as loop:
        loop.run(play(Model(ordering, plan), schedule, concurrency, as_unread=as_unread))


@pytest.mark.parametrize("ordering", ["partition", "key", "none"])
@pytest.mark.parametrize("often", [0.05, 0.2])
def test_long_claims_that_some_handlers_interrupt_settle_what_they_ran(ordering: Ordering, often: float) -> None:
    for seed in range(100):
        chance = Random(seed)
        keys = chance.choice([3, 8, 23])
        plan = [
            {
                "final": "done",
                "retries": 0,
                "naps": [chance.choice([0.0, 0.1, 1.0])] if chance.random() < often else [],
                "key": b"%d" % chance.randrange(keys),
                "gap": chance.choice([*[1] * 8, 2]),
                "looks": False,
            }
            for _ in range(100)
        ]
        schedule = [
            step
            for _ in range(6)
            for step in (
                *[("submit", partition, chance.randint(1, 16)) for partition in (P0, P1)],
                ("wait", chance.choice([0.0, 0.05, 0.3]), 0),
            )
        ]
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as loop:
            loop.run(play(Model(ordering, plan), schedule, chance.choice([2, 6, 16]), as_unread=bool(seed % 2)))
