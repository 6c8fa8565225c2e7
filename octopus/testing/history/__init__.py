"""A history checker, in the manner of Jepsen's workload for Kafka, with our own promises added. Pure.

Producers, workers and the tests that watch them write events, one JSON object a line; `check` finds the anomalies.

    lost-write                  stored, and neither handled nor in the dead-letter topic at the end
    unseen                      the same, and never read at all, at the end of the log
    duplicate                   more repeated effects than the faults of the run excuse
    duplicate-write             one record at two offsets
    poll-skip                   a reader went past a record
    nonmonotonic-poll           a reader went back
    inconsistent-offsets        two records at one offset
    aborted-read                a record that was refused or aborted was read
    precommitted-read           a record was read before its transaction was committed
    committed-past-unfinished   an offset was committed while a record before it was not finished
    commit-went-backwards       the committed offset of a partition became lower
    order-broken                a record began before its predecessor in its lane was settled
    ran-twice-at-once           one process ran a record twice at the same time

Where handlers deliver exactly once, an effect is an output that a reader of committed records saw, and a record is
settled when the commit of its transaction was asked for. So all of the above is asked of outputs, and

    lost-output                 one of the outputs of a record, or a whole acknowledged transaction, is not there
    torn-transaction            a part of a transaction is visible, or its outputs without offsets; a record has its outputs
                                in several, or outputs and a dead letter

Where handlers publish at least once, a record is settled when an output of it is acknowledged in each topic; one that was acknowledged and
cannot be read is a `lost-output`, too, and the first outputs of a lane's records stand in the order of the records.
"""

from octopus.testing.history.checks import check
from octopus.testing.history.events import (
    Began,
    Committing,
    DeadLettered,
    Ended,
    Event,
    Finished,
    Note,
    Offered,
    Polled,
    Refused,
    Stored,
    read_lines,
    write_line,
)
from octopus.testing.history.report import Anomaly, Kind, Report

__all__ = [
    "Anomaly",
    "Began",
    "Committing",
    "DeadLettered",
    "Ended",
    "Event",
    "Finished",
    "Kind",
    "Note",
    "Offered",
    "Polled",
    "Refused",
    "Report",
    "Stored",
    "check",
    "read_lines",
    "write_line",
]
