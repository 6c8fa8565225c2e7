"""What a check of a history says."""

from typing import Literal, NamedTuple

import msgspec

Kind = Literal[
    "lost-write",
    "unseen",
    "duplicate",
    "duplicate-write",
    "poll-skip",
    "nonmonotonic-poll",
    "inconsistent-offsets",
    "aborted-read",
    "precommitted-read",
    "committed-past-unfinished",
    "commit-went-backwards",
    "order-broken",
    "ran-twice-at-once",
    "lost-output",
    "torn-transaction",
]


class Anomaly(NamedTuple):
    """What must not happen and did.

    Attributes:
        kind: Jepsen's word where there is one.
        message: One sentence with the coordinates.
    """

    kind: Kind
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class Report(msgspec.Struct, kw_only=True):
    """What `check` found.

    Attributes:
        anomalies: In the order of the checks.
        records: Acknowledged or seen.
        finished: Records with an effect.
        dead_lettered: Records in the dead-letter topic.
        duplicates: Effects beyond the first of a record.
        events: All of them.
        notes: How often each `Note.what` was noted.
        outputs: Outputs and dead letters that readers of committed records saw.
        hidden: Those that only readers of uncommitted ones saw.
        transactions: Whose commit was acknowledged.
        undecided: Transactions that were given up, or whose commit was not confirmed.
    """

    anomalies: list[Anomaly]
    records: int
    finished: int
    dead_lettered: int
    duplicates: int
    events: int
    notes: dict[str, int]
    outputs: int = 0
    hidden: int = 0
    transactions: int = 0
    undecided: int = 0
