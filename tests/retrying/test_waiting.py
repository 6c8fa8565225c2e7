"""Which deferred records wait in memory, and which make room."""

from octopus.retrying.waiting import LONGEST_STAY, LOOK_AGAIN, MOST_PASSED, WaitingPartition, WaitingRoom

HOUR = 3600.0


def room(records: int = 100, size: int = 10_000) -> WaitingRoom:
    return WaitingRoom(records, size)


def look(
    partition: WaitingPartition, offset: int, due: float, now: float, *, size: int = 10, stored: float = 0.0
) -> object:
    return partition.look(offset, due, stored, size, now)


def test_a_record_waits_until_it_is_due_and_not_a_moment_less() -> None:
    partition = room().open()
    assert look(partition, 0, due=30.0, now=0.0) == 30.0
    assert look(partition, 0, due=30.0, now=29.999) == 30.0 - 29.999
    assert look(partition, 0, due=30.0, now=30.0) == "run"


def test_a_long_wait_is_looked_at_again_in_between_so_that_a_clock_that_is_set_is_noticed() -> None:
    partition = room().open()
    assert look(partition, 0, due=HOUR, now=0.0) == LOOK_AGAIN
    assert look(partition, 0, due=HOUR, now=2 * HOUR, stored=2 * HOUR) == "run"


def test_what_runs_is_held_no_longer() -> None:
    waiting = room()
    partition = waiting.open()
    look(partition, 0, due=30.0, now=0.0)
    assert len(waiting) == 1
    look(partition, 0, due=30.0, now=31.0)
    assert len(waiting) == 0


def test_nothing_makes_room_while_there_is_some() -> None:
    waiting = room(records=100)
    partition = waiting.open()
    for now in (0.0, 60.0, 120.0):
        assert {look(partition, offset, HOUR, now) for offset in range(100)} == {LOOK_AGAIN}


def test_a_crowd_makes_room_for_what_is_behind_it_the_later_half_first() -> None:
    waiting = room(records=100)
    partition = waiting.open()
    for offset in range(200):
        assert look(partition, offset, HOUR + offset, 0.0) == LOOK_AGAIN, "nothing is written anew at first sight"
    moved = []
    for minute in range(1, 4):
        for offset in [*partition.held]:
            if look(partition, offset, HOUR + offset, minute * LOOK_AGAIN) == "move":
                partition.leave(offset)
                moved.append(offset)
    assert 50 <= len(waiting) <= 100, "half of the limit is left"
    assert min(moved) >= 45, "what is due first stays"


def test_large_records_make_room_too() -> None:
    partition = room(records=100, size=1000).open()
    for offset in range(3):
        look(partition, offset, HOUR, 0.0, size=500)
    assert look(partition, 0, HOUR, LOOK_AGAIN, size=500) == "move"


def test_what_is_due_soon_is_never_written_anew() -> None:
    partition = room(records=1).open()
    for offset in range(10):
        look(partition, offset, 90.0, 0.0)
    assert look(partition, 0, 90.0, 60.0) == 30.0


def test_a_record_that_many_have_passed_goes_behind_them() -> None:
    partition = room().open()
    look(partition, 0, HOUR, 0.0)
    for _ in range(MOST_PASSED):
        partition.settled()
    look(partition, 1, HOUR, LOOK_AGAIN)
    assert look(partition, 0, HOUR, LOOK_AGAIN) == "move"
    assert look(partition, 1, HOUR, LOOK_AGAIN) == LOOK_AGAIN, "nobody has passed the one that came later"


def test_a_record_is_written_anew_before_retention_takes_it() -> None:
    partition = room().open()
    assert look(partition, 0, 9 * LONGEST_STAY, LONGEST_STAY, stored=0.0) == LOOK_AGAIN
    assert look(partition, 0, 9 * LONGEST_STAY, LONGEST_STAY + 1, stored=0.0) == "move"


def test_a_partition_that_is_given_back_takes_what_it_held_along() -> None:
    waiting = room()
    partition = waiting.open()
    look(partition, 0, HOUR, 0.0)
    assert len(waiting) == 1
    del partition
    assert len(waiting) == 0
