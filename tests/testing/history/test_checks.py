"""The history checker finds each anomaly that is planted, and none in histories of systems that keep their word."""

import random
from collections.abc import Sequence
from itertools import count

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octopus.events import TopicPartition
from octopus.testing.history import (
    Began,
    Committing,
    DeadLettered,
    Ended,
    Event,
    Finished,
    Note,
    Offered,
    Polled,
    Refused,
    Stored,
    check,
    read_lines,
    write_line,
)

P0, P1 = TopicPartition("t", 0), TopicPartition("t", 1)


class Telling:
    """Builds a history: every event is a second after the one before."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._runs = count()

    @property
    def time(self) -> float:
        return float(len(self.events))

    def add(self, *kinds: type, **given: object) -> None:
        for kind in kinds:
            self.events.append(kind(time=self.time, **given))

    def stored(self, *offsets: int, at: TopicPartition = P0, key: str | None = None, wanted: bool = True) -> None:
        for offset in offsets:
            name = f"{at.partition}-{offset}"
            self.add(Offered, id=name, topic="t", key=key, wanted=wanted)
            self.add(Stored, id=name, at=at, offset=offset)

    def polled(self, *offsets: int, reader: str = "a", at: TopicPartition = P0) -> None:
        self.add(
            Polled, reader=reader, at=at, records=tuple((offset, f"{at.partition}-{offset}") for offset in offsets)
        )

    def began(self, *offsets: int, worker: str = "a", at: TopicPartition = P0) -> int:
        run = next(self._runs)
        for offset in offsets:
            self.add(Began, worker=worker, at=at, offset=offset, id=f"{at.partition}-{offset}", run=run)
        return run

    def ended(self, run: int, *offsets: int, worker: str = "a", at: TopicPartition = P0, failed: bool = False) -> None:
        for offset in offsets:
            name = f"{at.partition}-{offset}"
            self.add(Finished, worker=worker, at=at, offset=offset, id=name, run=run, failed=failed)

    def done(self, *offsets: int, worker: str = "a", at: TopicPartition = P0) -> None:
        for offset in offsets:
            self.ended(self.began(offset, worker=worker, at=at), offset, worker=worker, at=at)

    def committed(self, offset: int, at: TopicPartition = P0, who: str = "") -> None:
        self.add(Committing, group="g", offsets=((at, offset),), who=who)

    def kinds(self, **options: object) -> list[str]:
        return [anomaly.kind for anomaly in check(self.events, **options).anomalies]


def a_good_run() -> Telling:
    told = Telling()
    told.stored(0, 1, 2)
    told.polled(0, 1)
    told.done(0)
    told.committed(1, who="a")
    told.done(1)
    told.committed(1)
    told.polled(2)
    told.done(2)
    told.committed(3, who="a")
    told.committed(3)
    return told


def test_a_run_that_went_well_is_not_accused() -> None:
    assert a_good_run().kinds(ordering="partition") == []
    report = check(a_good_run().events)
    assert (report.records, report.finished, report.dead_lettered, report.duplicates) == (3, 3, 0, 0)


def test_a_record_without_effect_or_dead_letter_is_lost() -> None:
    told = Telling()
    told.stored(0, 1, 2)
    told.polled(0, 1, 2)
    told.done(0)
    told.add(DeadLettered, at=P0, offset=2, id="0-2")
    assert told.kinds() == ["lost-write"]
    assert told.kinds(complete=False) == []


def test_a_record_that_nobody_read_is_unseen() -> None:
    told = Telling()
    told.stored(0, 1)
    told.polled(0)
    told.done(0)
    assert told.kinds() == ["unseen"]


def test_what_no_handler_wants_need_not_have_an_effect() -> None:
    told = Telling()
    told.stored(0)
    told.stored(1, wanted=False)
    told.polled(0, 1)
    told.done(0)
    told.committed(2)
    assert told.kinds(ordering="partition") == []


def test_effects_are_repeated_as_often_as_is_excused() -> None:
    told = a_good_run()
    told.done(1, 1)
    assert told.kinds(duplicates=1) == ["duplicate"]
    assert told.kinds(duplicates=2) == told.kinds(duplicates=None) == []


def test_one_record_at_two_offsets() -> None:
    told = a_good_run()
    told.add(Polled, reader="a", at=P0, records=((3, "0-2"),))
    told.add(Finished, worker="a", at=P0, offset=3, id="0-2", run=99)
    assert told.kinds() == ["duplicate-write"]


def test_two_records_at_one_offset() -> None:
    told = a_good_run()
    told.add(Polled, reader="b", at=P0, records=((0, "other"),))
    assert told.kinds() == ["inconsistent-offsets"]


@pytest.mark.parametrize("pieces", [[(0, 2)], [(0,), (2,)]], ids=["within one poll", "from poll to poll"])
def test_a_reader_that_skips_a_record(pieces: Sequence[Sequence[int]]) -> None:
    told = Telling()
    told.stored(0, 1, 2)
    for piece in pieces:
        told.polled(*piece)
    told.polled(1, reader="b")
    told.done(0, 1, 2)
    assert told.kinds() == ["poll-skip"]


def test_offsets_that_never_existed_and_aborted_records_are_not_skipped() -> None:
    told = Telling()
    told.stored(0, 5)
    told.add(Offered, id="gone", topic="t", transaction="x")
    told.add(Ended, transaction="x", committed=False)
    told.add(Stored, id="gone", at=P0, offset=3)
    told.polled(0, 5)
    told.done(0, 5)
    assert told.kinds(ordering="partition") == []


@pytest.mark.parametrize("pieces", [[(0, 1, 1)], [(0, 1), (0,)]], ids=["within one poll", "from poll to poll"])
def test_a_reader_that_goes_back(pieces: Sequence[Sequence[int]]) -> None:
    told = Telling()
    told.stored(0, 1)
    for piece in pieces:
        told.polled(*piece)
    told.done(0, 1)
    assert told.kinds() == ["nonmonotonic-poll"]


def test_another_reader_may_begin_earlier() -> None:
    told = a_good_run()
    told.polled(1, 2, reader="b")
    assert told.kinds() == []


@pytest.mark.parametrize("how", ["refused", "aborted"])
def test_a_record_that_must_not_be_seen(how: str) -> None:
    told = a_good_run()
    told.add(Offered, id="0-3", topic="t", transaction="x" if how == "aborted" else None)
    if how == "aborted":
        told.add(Ended, transaction="x", committed=False)
    else:
        told.add(Refused, id="0-3")
    told.polled(3)
    told.done(3)
    assert told.kinds() == ["aborted-read"]


def test_a_record_that_is_read_before_its_transaction_is_committed() -> None:
    told = a_good_run()
    told.add(Offered, id="0-3", topic="t", transaction="x")
    told.polled(3)
    told.add(Ended, transaction="x", committed=True)
    told.done(3)
    assert told.kinds() == ["precommitted-read"]


@pytest.mark.parametrize("who", ["", "a"], ids=["seen at the broker", "asked for by a worker"])
def test_a_commit_past_a_record_that_runs(who: str) -> None:
    told = Telling()
    told.stored(0, 1)
    told.polled(0, 1)
    run = told.began(0)
    told.done(1)
    told.committed(2, who=who)
    told.ended(run, 0)
    told.committed(2, who=who)
    assert told.kinds() == ["committed-past-unfinished"]


def test_a_commit_past_a_record_that_failed() -> None:
    told = Telling()
    told.stored(0)
    told.polled(0)
    told.ended(told.began(0), 0, failed=True)
    told.committed(1)
    told.add(DeadLettered, at=P0, offset=0, id="0-0")
    assert told.kinds() == ["committed-past-unfinished"]


def test_a_commit_that_goes_backwards() -> None:
    told = a_good_run()
    told.committed(2)
    assert told.kinds() == ["commit-went-backwards"]


def test_a_record_that_overtakes_its_predecessor() -> None:
    told = Telling()
    told.stored(0, key="x")
    told.stored(1, key="y")
    told.stored(2, key="x")
    told.polled(0, 1, 2)
    told.done(1, 2, 0)
    assert told.kinds(ordering="partition") == ["order-broken", "order-broken"]
    assert told.kinds(ordering="key") == ["order-broken"]
    assert told.kinds(ordering="none") == []


def test_a_record_that_begins_while_its_predecessor_runs_or_waits_for_its_retry() -> None:
    told = Telling()
    told.stored(0, 1)
    told.polled(0, 1)
    told.ended(told.began(0), 0, failed=True)
    told.done(1, 0)
    assert told.kinds(ordering="partition") == ["order-broken"]


def test_a_repeated_record_breaks_no_order() -> None:
    told = a_good_run()
    told.done(1, 2, worker="b")
    assert told.kinds(ordering="partition", duplicates=None) == []


def test_the_records_of_a_batch_are_free_among_themselves() -> None:
    told = Telling()
    told.stored(0, 1, 2)
    told.polled(0, 1, 2)
    run = told.began(0, 1)
    told.ended(run, 1, 0)
    told.done(2)
    assert told.kinds(ordering="batch") == []
    early = Telling()
    early.stored(0, 1, 2)
    early.polled(0, 1, 2)
    run = early.began(0, 1)
    early.done(2)
    early.ended(run, 0, 1)
    assert early.kinds(ordering="batch") == ["order-broken"]


def test_a_record_that_runs_twice_at_once() -> None:
    told = Telling()
    told.stored(0)
    told.polled(0)
    first = told.began(0)
    told.ended(told.began(0), 0)
    told.ended(first, 0)
    assert told.kinds(duplicates=1) == ["ran-twice-at-once"]


def test_a_run_that_a_kill_ended_is_not_at_once_with_the_next() -> None:
    told = Telling()
    told.stored(0)
    told.polled(0)
    told.began(0, worker="a")
    told.done(0, worker="b")
    assert told.kinds() == []


# ── exactly once: outputs are effects ─────────────────────────────────────────────────────────────────────────────────

OUT, DEAD_LETTERS = TopicPartition("out", 0), TopicPartition("t.dead-letter", 0)


class Transacting(Telling):
    """Tells of transactions, whose outputs are then read by a reader of committed records and by one of all."""

    def __init__(self) -> None:
        super().__init__()
        self._written: dict[TopicPartition, list[tuple[int, str]]] = {OUT: [], DEAD_LETTERS: []}

    def transaction(
        self,
        name: str,
        *offsets: int,
        end: str | None = "acknowledged",
        offset: int | None = 0,
        dead_lettered: Sequence[int] = (),
    ) -> None:
        for at, each in [*((OUT, each) for each in offsets), *((DEAD_LETTERS, each) for each in dead_lettered)]:
            write = f"{name}/{each}"
            self.add(Offered, id=write, topic=at.topic, transaction=name, of=f"0-{each}")
            self.add(Stored, id=write, at=at, offset=len(self._written[at]))
            self._written[at].append((len(self._written[at]), write))
        if offset is not None:
            self.add(Committing, group="g", offsets=((P0, offset),), who="a", transaction=name)
        if end is not None:
            self.add(Ended, transaction=name, committed=end != "aborted")
        if end == "acknowledged":
            self.add(Ended, transaction=name, committed=True, acknowledged=True)

    def seen(self, *hidden: str) -> None:
        for at, written in self._written.items():
            visible = tuple(each for each in written if each[1].split("/")[0] not in hidden and each[1] not in hidden)
            self.add(Polled, reader="all", at=at, records=tuple(written), uncommitted=True)
            self.add(Polled, reader="committed", at=at, records=visible)

    def kinds(self, **options: object) -> list[str]:
        return super().kinds(**{"outputs": ("out",), "ordering": "partition", **options})


def a_good_run_of_transactions() -> Transacting:
    told = Transacting()
    told.stored(0, 1, 2, 3)
    told.polled(0, 1, 2, 3)
    told.done(0, 1)
    told.transaction("x", 0, end=None)  # its worker was killed
    told.done(0, 1)
    told.transaction("y", 0, 1, offset=2)
    told.committed(2)
    told.transaction("z", 2, dead_lettered=[3], offset=4)
    told.committed(4)
    return told


def test_a_run_of_transactions_that_went_well_is_not_accused() -> None:
    told = a_good_run_of_transactions()
    told.seen("x")
    assert told.kinds() == []
    report = check(told.events, outputs=("out",))
    assert (report.finished, report.dead_lettered, report.outputs, report.hidden) == (3, 1, 4, 1)
    assert (report.transactions, report.undecided) == (2, 1)


def test_a_commit_that_nobody_confirmed_may_have_gone_either_way_but_not_half() -> None:
    told = Transacting()
    told.stored(0, 1)
    told.polled(0, 1)
    told.transaction("x", 0, 1, end="asked", offset=2)
    before = [*told.events]
    told.seen()
    assert told.kinds() == []
    told.events = [*before]
    told.seen("x/1")
    assert told.kinds() == ["lost-write", "committed-past-unfinished", "torn-transaction"]
    told.events = before
    told.transaction("y", 0, 1)
    told.seen("x")
    assert told.kinds() == []


def test_an_output_that_is_visible_twice() -> None:
    told = a_good_run_of_transactions()
    told.seen()
    assert "precommitted-read" in told.kinds()
    told = a_good_run_of_transactions()
    told.transaction("again", 1)
    told.seen("x")
    assert told.kinds(ordering="none") == ["torn-transaction", "duplicate"]


def test_a_run_that_ended_well_is_no_effect_where_outputs_are() -> None:
    told = Transacting()
    told.stored(0)
    told.polled(0)
    told.done(0)
    assert told.kinds() == ["lost-write"]


def test_an_output_of_an_aborted_transaction_and_one_that_is_read_too_early() -> None:
    told = Transacting()
    told.stored(0, 1)
    told.polled(0, 1)
    told.transaction("x", 0, end="aborted")
    told.transaction("y", 1, end=None)
    told.seen()
    told.add(Ended, transaction="y", committed=True)
    assert told.kinds(complete=False) == ["aborted-read", "precommitted-read"]


def test_offsets_that_are_stored_before_their_transaction_ends() -> None:
    told = Transacting()
    told.stored(0)
    told.polled(0)
    told.committed(1)
    told.transaction("x", 0, offset=1)
    told.seen()
    assert told.kinds() == ["committed-past-unfinished"]


def test_outputs_in_a_transaction_without_offsets() -> None:
    told = Transacting()
    told.stored(0)
    told.polled(0)
    told.transaction("x", 0, offset=None)
    told.seen()
    assert told.kinds() == ["torn-transaction"]


def test_offsets_in_a_transaction_without_the_outputs() -> None:
    told = Transacting()
    told.stored(0, 1)
    told.polled(0, 1)
    told.transaction("x", 0, offset=2)
    told.transaction("y", 1)
    told.seen()
    assert told.kinds() == ["committed-past-unfinished"]


def test_an_acknowledged_transaction_that_is_not_there() -> None:
    told = Transacting()
    told.stored(0)
    told.polled(0)
    told.transaction("x", 0)
    told.transaction("y", 0)
    told.seen("x")
    assert told.kinds() == ["lost-output"]


def test_an_output_that_is_missing_in_one_of_two_topics_and_one_beside_a_dead_letter() -> None:
    told = Transacting()
    told.stored(0, 1)
    told.polled(0, 1)
    told.transaction("x", 0, dead_lettered=[1])
    told.seen()
    assert told.kinds() == []
    assert told.kinds(outputs=("out", "side")) == ["lost-output"]
    told = Transacting()
    told.stored(0)
    told.polled(0)
    told.transaction("x", 0)
    told.transaction("y", dead_lettered=[0])
    told.seen()
    assert told.kinds() == ["torn-transaction", "torn-transaction"]  # both ends, and apart


def test_outputs_in_another_order_than_their_records() -> None:
    told = Transacting()
    told.stored(0, key="x")
    told.stored(1, key="y")
    told.polled(0, 1)
    told.transaction("x", 1, 0, offset=2)
    told.seen()
    assert told.kinds() == ["order-broken"]
    assert told.kinds(ordering="key") == told.kinds(ordering="none") == []


# ── at least once: a record is settled when its output is acknowledged ────────────────────────────────────────────────


class Publishing(Telling):
    """Tells of outputs and their acknowledgements, and of one who reads them."""

    def __init__(self) -> None:
        super().__init__()
        self._places: dict[str, int] = {}
        self._kept: list[tuple[int, str]] = []

    def published(self, offset: int, write: str, key: str | None = None) -> None:
        self.add(Offered, id=write, topic="out", of=f"0-{offset}", key=key)
        self._places[write] = len(self._places)
        self._kept.append((self._places[write], write))

    def acknowledged(self, write: str) -> None:
        self.add(Stored, id=write, at=OUT, offset=self._places[write])

    def seen(self, *hidden: str) -> None:
        found = tuple(each for each in self._kept if each[1] not in hidden)
        self.add(Polled, reader="outputs", at=OUT, records=found, uncommitted=True)
        self.add(Polled, reader="outputs of a transaction", at=OUT, records=found)

    def kinds(self, **options: object) -> list[str]:
        return super().kinds(**{"published": {"t": ("out",)}, "ordering": "partition", **options})


def outputs_in_flight() -> Publishing:
    """Two records: the second begins before the output of the first is acknowledged."""
    told = Publishing()
    told.stored(0, 1)
    told.polled(0, 1)
    told.done(0)
    told.published(0, "a/0")
    told.done(1)
    told.published(1, "a/1")
    return told


def test_a_lane_may_go_on_before_outputs_are_acknowledged_and_a_commit_may_follow() -> None:
    told = outputs_in_flight()
    told.acknowledged("a/0")
    told.committed(1, who="a")
    told.acknowledged("a/1")
    told.committed(2, who="a")
    told.seen()
    assert told.kinds() == []


def test_a_commit_past_an_output_that_is_not_acknowledged() -> None:
    told = outputs_in_flight()
    told.acknowledged("a/0")
    told.committed(2, who="a")
    told.acknowledged("a/1")
    told.seen()
    assert told.kinds() == ["committed-past-unfinished"]
    assert told.kinds(published={}) == []  # the handlers had finished


def test_a_dead_letter_stands_for_an_output() -> None:
    told = outputs_in_flight()
    told.acknowledged("a/0")
    told.add(DeadLettered, at=P0, offset=1, id="0-1")
    told.committed(2, who="a")
    told.seen()
    assert told.kinds() == []


def test_a_record_that_is_done_and_whose_output_no_broker_has() -> None:
    told = outputs_in_flight()
    told.acknowledged("a/0")
    told.seen("a/1")
    assert set(told.kinds()) == {"lost-write", "lost-output"}


def test_an_output_that_was_acknowledged_and_cannot_be_read() -> None:
    told = outputs_in_flight()
    told.acknowledged("a/0")
    told.acknowledged("a/1")
    told.seen("a/1")
    assert set(told.kinds()) == {"lost-output"}


def test_first_outputs_of_a_lane_stand_in_its_order_and_repeated_ones_anywhere() -> None:
    told = outputs_in_flight()
    told.acknowledged("a/0")
    told.acknowledged("a/1")
    told.done(0)  # after a kill
    told.published(0, "b/0")
    told.acknowledged("b/0")
    told.seen()
    assert told.kinds(duplicates=1) == []
    told = Publishing()
    told.stored(0, 1)
    told.polled(0, 1)
    told.done(0, 1)
    told.published(1, "a/1")
    told.published(0, "a/0")
    told.acknowledged("a/1")
    told.acknowledged("a/0")
    told.seen()
    assert told.kinds() == ["order-broken"]
    assert told.kinds(ordering="none") == []


def test_lines_read_back_as_they_were_written_and_a_torn_one_did_not_happen() -> None:
    told = a_good_run()
    told.add(Note, what="kill worker", who="a")
    lines = [write_line(event) for event in told.events]
    assert [*read_lines([*lines, lines[0][:-5]])] == told.events
    assert check(told.events).notes == {"kill worker": 1}
    with pytest.raises(msgspec.ValidationError):
        next(read_lines([b'{"event":"stranger","time":1}\n']))


class Honest:
    """A system that keeps its word, told at random: workers take over from each other and repeat what was not committed."""

    def __init__(self, chance: random.Random, ordering: str) -> None:
        self.told = Telling()
        self.repeated = 0
        self._chance = chance
        self._ordering = ordering

    def tell(self) -> None:
        told, chance = self.told, self._chance
        for at in (P0, P1):
            offset = 0
            offsets = []
            for _ in range(chance.randrange(12)):
                offset += chance.choice([1, 1, 1, 3])
                told.stored(offset, at=at, key=chance.choice("xyz"))
                offsets.append(offset)
            done: set[int] = set()
            committed = 0
            for number in range(4):
                last = number == 3
                committed = self._work(
                    f"w{number}", at, [each for each in offsets if each >= committed], done, last, committed
                )

    def _work(self, worker: str, at: TopicPartition, offsets: list[int], done: set[int], last: bool, base: int) -> int:
        told, chance = self.told, self._chance
        for offset in offsets:
            told.polled(offset, reader=worker, at=at)
        settled: set[int] = set()
        order = [*offsets]
        if self._ordering == "none":
            chance.shuffle(order)
        for offset in order:
            if not last and chance.random() < 0.2:
                told.began(offset, worker=worker, at=at)  # and is killed
                break
            if chance.random() < 0.2:
                told.ended(told.began(offset, worker=worker, at=at), offset, worker=worker, at=at, failed=True)
            if chance.random() < 0.1:
                told.add(DeadLettered, at=at, offset=offset, id=f"{at.partition}-{offset}")
            else:
                told.done(offset, worker=worker, at=at)
                self.repeated += offset in done
                done.add(offset)
            settled.add(offset)
            if chance.random() < 0.3:
                told.committed(self._committable(offsets, settled, base), at=at, who=worker)
                told.committed(self._committable(offsets, settled, base), at=at)
        committed = self._committable(offsets, settled, base)
        if chance.random() < 0.5 or last:
            told.committed(committed, at=at, who=worker)
            told.committed(committed, at=at)
            return committed
        seen = [each.offsets[0][1] for each in told.events if isinstance(each, Committing) and each.offsets[0][0] == at]
        return seen[-1] if seen else 0

    @staticmethod
    def _committable(offsets: list[int], settled: set[int], base: int) -> int:
        left = [offset for offset in offsets if offset not in settled]
        return left[0] if left else (offsets[-1] + 1 if offsets else base)


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(["partition", "key", "none"]))
def test_no_honest_history_is_accused(chance: random.Random, ordering: str) -> None:
    honest = Honest(chance, ordering)
    honest.tell()
    report = check(honest.told.events, ordering=ordering, duplicates=honest.repeated)
    assert report.anomalies == []
    assert report.duplicates == honest.repeated


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False))
def test_every_effect_that_is_taken_out_of_an_honest_history_is_missed(chance: random.Random) -> None:
    honest = Honest(chance, "none")
    honest.tell()
    effects = {(event.at, event.offset) for event in honest.told.events if isinstance(event, Finished)}
    if not effects:
        return
    at, offset = chance.choice(sorted(effects))
    left = [
        event
        for event in honest.told.events
        if not (isinstance(event, Finished | DeadLettered) and (event.at, event.offset) == (at, offset))
    ]
    kinds = {anomaly.kind for anomaly in check(left, duplicates=None).anomalies}
    assert "lost-write" in kinds
    assert "committed-past-unfinished" in kinds
