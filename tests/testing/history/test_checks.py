"""The history checker finds each anomaly that is planted, and none in histories of systems that keep their word."""

from collections.abc import Sequence

import msgspec
import pytest

from octopus.events import TopicPartition
from octopus.testing.history import (
    DeadLettered,
    Ended,
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
from tests.testing.history.telling import P0, Telling, a_good_run


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


OUT = TopicPartition("out", 0)


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
