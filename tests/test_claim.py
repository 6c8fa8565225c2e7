"""A claim as others see it while it runs."""

from octopus.claim import Claim
from octopus.events import Record

FIRST, SECOND = Record("t", 0, 7, 0), Record("t", 0, 8, 0)


def test_the_record_that_runs_is_the_one_that_was_taken_last() -> None:
    claim = Claim([FIRST, SECOND])
    assert claim.current is FIRST
    for stored in claim.cursor:
        assert claim.current is stored
    assert claim.current is SECOND


def test_a_thread_that_has_read_the_records_gets_one_of_them_although_the_claim_holds_none_any_more() -> None:
    claim = Claim([FIRST, SECOND])
    seen = claim.records
    claim.begin((), 1)
    assert claim.current_of(seen) is FIRST
