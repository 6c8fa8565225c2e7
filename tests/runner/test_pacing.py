"""The pace: how rare looks at the clock become, when the loop's turn is late, and how long claims grow."""

import pytest

from octopus.runner.pacing import LAST_LOOK, SHARE, YIELD_AFTER, Pacing, paced


@pytest.mark.parametrize(
    ("stride", "elapsed", "expected"),
    [
        (1, 0.0, 2),
        (LAST_LOOK, 0.0, LAST_LOOK),
        (64, 64e-6, 128),
        (64, 64 * YIELD_AFTER, 1),
        (100, SHARE * YIELD_AFTER, 100),
        (100, 2 * SHARE * YIELD_AFTER, 50),
    ],
    ids=[
        "of no length",
        "at the limit",
        "quick ones double it",
        "slow ones end it",
        "as it should be",
        "twice as slow",
    ],
)
def test_looks_come_so_often_that_the_loop_is_not_much_too_late(stride: int, elapsed: float, expected: int) -> None:
    assert paced(stride, elapsed) == expected


def test_claims_grow_while_nothing_suspends_and_are_of_one_record_once_something_does() -> None:
    pacing = Pacing()
    lengths = []
    for _ in range(10):
        pacing.end_claim(pacing.begin_claim())
        lengths.append(pacing.claim_limit)
    assert lengths == [2, 4, 8, 16, 32, 64, 128, 256, 256, 256]
    suspended = pacing.begin_claim()
    pacing.begin_claim()  # by another slot, meanwhile
    pacing.end_claim(suspended)
    assert pacing.claim_limit == 1


def test_a_look_is_late_when_the_turn_was_awaited_for_too_long() -> None:
    pacing = Pacing()
    assert pacing.await_turn(10.0)
    assert not pacing.await_turn(10.001), "one turn is awaited already"
    assert pacing.look(10.004, 8, 10.003)[1] is False
    assert pacing.look(10.006, 8, 10.004)[1] is True


def test_looks_become_rarer_while_the_loop_has_its_turns_anyway() -> None:
    pacing = Pacing()
    pacing.await_turn(0.0)
    pacing.have_turn()
    assert pacing.look(0.001, 8, 0.0) == (16, False)
    assert pacing.look(0.1, 16, 0.001) == (16, True)


def test_how_long_records_take_is_an_average_of_the_last_looks_and_unknown_while_handlers_suspend() -> None:
    pacing, now, known = Pacing(), 0.0, []
    for takes in [0.001] * 20 + [0.002] * 20:
        pacing.await_turn(now)
        now += 8 * takes
        pacing.look(now, 8, now - 8 * takes)
        known.append(pacing.seconds)
    assert known[19] == pytest.approx(0.001, rel=0.01)
    assert known[19] < known[21] < known[25] < 0.002
    assert known[39] == pytest.approx(0.002, rel=0.01)
    pacing.have_turn()
    pacing.look(now + 1.0, 8, now)
    assert pacing.seconds == 0.0
