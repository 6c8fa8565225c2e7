"""Records that run one after the other, and how far they are: what a runner hands to a pipeline.

Invariants, for the code that runs a claim and for the code that looks at it meanwhile:

- Records begin in the order of `records`, each by being taken from `cursor`; only `end` takes what has not begun.
- Of those taken, all but the last are finished: done or skipped. Only the last may be running.
- `skipped` counts all skipped records whenever the running one suspends, so a smaller number cannot be seen.
- After `end` nothing more begins, and what it returned belongs to the caller.
"""

from collections.abc import Iterator, Sequence
from operator import length_hint

from octopus.events import StoredRecord


class Claim:
    """Records that run one after the other without a look at anything else, and how far they are.

    Where they are is read off the iterator, so keeping count costs a record nothing.

    Attributes:
        records: What was claimed.
        cursor: Goes over them; the record it gave last is the one that runs. A driver may put another in its place that
            gives the same records, or the first of them only, as it takes them from this one.
        attempt: Of the first; the others are at their first.
        skipped: How many of them the filter dropped; right whenever the one that runs suspends.
        noted: How many are in the ledger already.
    """

    __slots__ = ("_left", "attempt", "cursor", "noted", "records", "skipped")

    def __init__(self, records: Sequence[StoredRecord], attempt: int = 1) -> None:
        self.begin(records, attempt)

    def begin(self, records: Sequence[StoredRecord], attempt: int) -> None:
        """Start over with other records."""
        self.records = records
        self.cursor: Iterator[StoredRecord] = iter(records)
        self._left = self.cursor
        self.attempt = attempt
        self.skipped = self.noted = 0

    @property
    def taken(self) -> int:
        """How many have begun; all but the last of them are finished, and the last one may be."""
        return len(self.records) - length_hint(self._left)

    @property
    def current(self) -> StoredRecord:
        """The record that runs."""
        return self.current_of(self.records)

    def current_of(self, records: Sequence[StoredRecord]) -> StoredRecord:
        """Return the record that runs, of the claim's records as the caller has read them.

        A watchdog asks from another thread, where the claim may meanwhile have begun with others, or with none.
        """
        return records[min(max(self.taken, 1), len(records)) - 1]

    def attempt_of(self, record: StoredRecord) -> int:
        """Return the attempt that a record of the claim is at."""
        return self.attempt if record is self.records[0] else 1

    def end(self) -> list[StoredRecord]:
        """Let nothing more of it begin; return what has not."""
        begun = self.taken
        left = list(self._left)
        self.records = self.records[:begun]
        return left

    def keep_last(self) -> None:
        """Forget those that are finished, after `end`."""
        self.records = self.records[-1:]
        self.noted = self.skipped = 0
