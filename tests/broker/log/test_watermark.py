"""How far consumers may read a log: markers end transactions once they are visible, and readers are woken."""

import pytest

from octopus.broker.log.watermark import Watermark

OPEN_FROM = 20
"""A transaction without a marker begins here."""


def test_a_transaction_is_open_for_readers_until_its_marker_is_visible() -> None:
    visible = Watermark(0)
    visible.note_marker(9, 4)
    visible.show(9)
    assert visible.stable(OPEN_FROM) == 4
    visible.show(10)
    assert visible.stable(OPEN_FROM) == 10


def test_the_oldest_of_several_transactions_holds_readers() -> None:
    visible = Watermark(0)
    visible.note_marker(9, 4)
    visible.note_marker(10, 2)
    visible.show(10)
    assert visible.stable(OPEN_FROM) == 2
    visible.show(30)
    assert visible.stable(OPEN_FROM) == OPEN_FROM


def test_a_log_that_was_recovered_has_no_marker_to_wait_for() -> None:
    visible = Watermark(0)
    visible.note_marker(9, 4)
    visible.begin_again(5)
    assert visible.stable(5) == 5


def test_a_reader_is_woken_once_and_one_that_left_is_not() -> None:
    visible, woken = Watermark(0), list[str]()
    stays, leaves = lambda: woken.append("stays"), lambda: woken.append("leaves")
    visible.add_waiter(stays)
    visible.add_waiter(leaves)
    visible.remove_waiter(leaves)
    visible.remove_waiter(leaves)
    visible.show(1)
    visible.show(2)
    assert woken == ["stays"]


def test_a_marker_that_is_visible_already_breaks_an_invariant() -> None:
    visible = Watermark(10)
    with pytest.raises(AssertionError):
        visible.note_marker(9, 4)
