"""Commits that fail are news only if that goes on and no outage explains it."""

import logging

import pytest

from octopus.errors import ConnectionFailed
from octopus.worker.committing import SAY_AFTER, CommitHealth
from octopus.worker.outlook import Answer, Outlook


@pytest.mark.parametrize(
    ("lasts", "is_out", "said"),
    [
        pytest.param(SAY_AFTER - 1, False, [], id="for a moment"),
        pytest.param(SAY_AFTER + 30, True, [], id="in an outage"),
        pytest.param(
            SAY_AFTER + 30,
            False,
            ["WARNING g: commits fail and are repeated: refused", "WARNING g commits again, after 38.0 s"],
            id="without an explanation",
        ),
    ],
)
def test_commits_that_fail_are_said_once_if_that_goes_on_and_nothing_explains_it(
    lasts: float, is_out: bool, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    outlook, commits = Outlook(), CommitHealth("g", 8.0)
    outlook.note_outage("gone", 9.0) if is_out else outlook.note_answer(Answer({}, {}), 9.0)
    for second in range(int(lasts) + 1):
        commits.fail(ConnectionFailed("refused"), outlook, 10.0 + second)
    assert commits.error is not None
    commits.succeed(10.0 + lasts)
    assert (commits.error, commits.at) == (None, 10.0 + lasts)
    assert [f"{record.levelname} {record.message}" for record in caplog.records] == said
