"""What the checker says of transactions: outputs are effects, visible once."""

from collections.abc import Sequence

from octopus.events import TopicPartition
from octopus.testing.history import (
    Committing,
    Ended,
    Offered,
    Polled,
    Stored,
    check,
)
from tests.testing.history.telling import P0, Telling

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
