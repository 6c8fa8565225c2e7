"""What becomes of a record whose outputs were refused in some of its handlers."""

from collections.abc import Sequence

import pytest

from octopus.outcomes import DONE, SKIPPED, DeadLetter, Deferred, Outcome, Retry
from octopus.runner.refusals import verdict

SOON, LATER = Retry(1.0), Retry(5.0)
DEAD = DeadLetter("refused")
DEFERRED = Deferred(Retry(60.0))


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        pytest.param([DEFERRED], DEFERRED, id="one handler, its own outcome"),
        pytest.param([SOON, LATER, SOON], LATER, id="several retries, the longest wait"),
        pytest.param([DEAD, SOON], SOON, id="a retry before what is final"),
        pytest.param([DEFERRED, DEAD], DEAD, id="a dead letter before what goes on elsewhere"),
        pytest.param([DONE, SKIPPED], DONE, id="else the first"),
        pytest.param([], None, id="batches only, nothing"),
    ],
)
def test_a_refused_record_comes_to_one_outcome_of_those_in_its_handlers(
    outcomes: Sequence[Outcome], expected: Outcome | None
) -> None:
    assert verdict(outcomes) is expected
