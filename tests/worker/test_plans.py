"""Plans of transactions: what is visible is what the commit names, whatever settles when and whoever goes on."""

from collections.abc import Sequence
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from octopus.events import TopicPartition
from octopus.pipeline.outputs import Contribution, Outbox
from octopus.runner.commit_metadata import MAP_LIMIT, decode_map, encode_map
from octopus.runner.ledger import OffsetLedger
from octopus.transports.base import Commit, Outgoing
from octopus.worker.plans import Plan, plan_transaction

PARTITION = TopicPartition("t", 0)
SHORT = 34
"""Bytes: room for the prefix, a base of two digits and one range."""


async def unasked(error: Exception) -> Contribution:
    """What is planned here is refused by nobody."""
    raise error


class Owner:
    """One assignment of the partition, from a commit on.

    Args:
        log: The offsets that exist, in order.
        commit: Where the one before it ended.
    """

    def __init__(self, log: Sequence[int], commit: Commit) -> None:
        ahead = decode_map(commit.offset, commit.metadata)
        self.ledger = OffsetLedger(commit.offset, ahead)
        self.outbox = Outbox(PARTITION)
        self.committed: int | None = commit.offset
        self.ahead: Sequence[tuple[int, int]] = self.ledger.settled_ahead()
        self._coming = [offset for offset in log if offset >= commit.offset]
        self._open: list[list[int]] = []  # records, or batches of them, that run

    def receive(self, count: int, batches: Sequence[tuple[int, int]]) -> None:
        """Take the next records, and let them run in batches: so many, every so-manieth (of one key, say)."""
        arrived, self._coming = self._coming[:count], self._coming[count:]
        if not arrived:
            return
        known = self.ledger.receive(arrived, arrived[-1] + 1)
        new = [offset for offset in arrived if offset not in known]
        for size, stride in batches:
            if batch := new[: size * stride : stride]:
                self._open.append(batch)
                new = [offset for offset in new if offset not in batch]
        self._open += [[offset] for offset in new]

    def settle(self, which: int) -> None:
        """Let one of those that run end, and its outputs wait for a transaction."""
        if self._open:
            offsets = self._open.pop(which % len(self._open))
            messages = [Outgoing("out", str(offset).encode()) for offset in offsets]
            self.outbox._keep(messages, offsets[0], offsets[-1], unasked)  # as a successful attempt does
            self.outbox._release(offsets[0])
            for offset in offsets:
                self.ledger.settle(offset)

    def plan(self, limit: int) -> Plan | None:
        plan = plan_transaction(self.ledger, self.outbox, self.committed, self.ahead, map_limit=limit)
        if plan is not None:
            self.committed, self.ahead = plan.commit.offset, plan.ahead
        return plan

    @property
    def is_done(self) -> bool:
        return not self._open and not self._coming


def named(commit: Commit, log: Sequence[int]) -> list[int]:
    """Return the records that a commit says are settled."""
    ahead = decode_map(commit.offset, commit.metadata)
    return [each for each in log if each < commit.offset or any(first <= each <= last for first, last in ahead)]


steps = st.one_of(
    st.tuples(
        st.just("receive"), st.integers(1, 12), st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), max_size=3)
    ),
    st.tuples(st.just("settle"), st.integers(0, 50)),
    st.tuples(st.just("settle"), st.integers(0, 50)),
    st.tuples(st.just("settle"), st.integers(0, 50)),
    st.tuples(st.just("commit")),
    st.tuples(st.just("commit")),
    st.tuples(st.just("crash")),
)


@settings(max_examples=300)
@given(
    st.lists(st.integers(1, 2), min_size=20, max_size=60),
    st.lists(steps, min_size=30, max_size=80),
    st.sampled_from([SHORT, SHORT + 4, MAP_LIMIT]),
    st.sampled_from([0, 95, 990]),
)
def test_visible_outputs_are_those_of_the_records_that_the_commit_names(
    gaps: list[int], course: list[tuple[Any, ...]], limit: int, first: int
) -> None:
    log = [first + sum(gaps[:index]) for index in range(len(gaps))]
    commit = Commit(log[0])
    owner = Owner(log, commit)
    visible: list[int] = []

    def transact() -> None:
        nonlocal commit
        plan = owner.plan(limit)
        if plan is None:
            event("nothing to commit, or it has to wait")
            return
        commit = plan.commit
        assert len(commit.metadata) <= limit
        visible.extend(int(message.value or b"") for each in plan.outputs for message in each.messages)
        assert sorted(visible) == named(commit, log), "what is visible and what is committed differ"

    for name, *arguments in course:
        match name:
            case "receive":
                owner.receive(*arguments)
            case "settle":
                owner.settle(*arguments)
            case "commit":
                transact()
            case "crash":
                owner = Owner(log, commit)
    while not owner.is_done:  # the rest, in order
        owner.receive(1, [])
        owner.settle(0)
        transact()
    transact()
    assert sorted(visible) == log
    assert commit == Commit(log[-1] + 1)


def test_a_map_whose_base_gains_a_digit_waits_instead_of_being_forgotten() -> None:
    ledger, outbox = OffsetLedger(9), Outbox(PARTITION)
    ledger.receive(range(9, 40), 40)
    for offset in (11, 13):
        ledger.settle(offset)
    ahead = ledger.settled_ahead()
    limit = len(encode_map(9, ahead))
    assert plan_transaction(ledger, outbox, 9, [], map_limit=limit) is not None
    for offset in (9, *range(15, 40, 2)):
        ledger.settle(offset)
    assert ledger.committable == 10
    assert plan_transaction(ledger, outbox, 9, ahead, map_limit=limit) is None


def test_the_rest_of_a_range_that_was_received_in_part_stays_in_the_map() -> None:
    ledger = OffsetLedger(10, [(11, 20)])
    ledger.receive(range(10, 16), 16)
    assert ledger.settled_ahead() == [(11, 15), (16, 20)]
