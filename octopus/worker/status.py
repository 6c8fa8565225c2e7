"""Snapshots of what a worker is doing."""

from collections.abc import Iterable, Mapping

import msgspec

from octopus.events import TopicPartition
from octopus.runner import Assignment
from octopus.text import first_few


class Totals(msgspec.Struct):
    """Counts of closed assignments, so that nothing is forgotten at a rebalance."""

    settled: int = 0
    skipped: int = 0
    retried: int = 0
    dead_lettered: int = 0
    deferred: int = 0

    def add(self, assignment: Assignment) -> None:
        """Take over the counts of an assignment."""
        self.settled += assignment.ledger.settled_count
        self.skipped += assignment.skipped
        self.retried += assignment.retried
        self.dead_lettered += assignment.dead_lettered
        self.deferred += assignment.deferred

    def plus(self, other: "Totals") -> "Totals":
        """Return the sum of two counts."""
        return Totals(*map(sum, zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)))

    def with_open(self, assignments: Iterable[Assignment]) -> "Totals":
        """Return these counts and those of assignments that are still open."""
        totals = Totals(self.settled, self.skipped, self.retried, self.dead_lettered, self.deferred)
        for assignment in assignments:
            totals.add(assignment)
        return totals


class GroupStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One consumer group of this process.

    Attributes:
        group: Its name.
        handlers: Names of its handlers.
        partitions: What it reads now.
        stopped: Why its processing stopped, or None.
        failure: What its consumer broke with, or None; unless that is final, another one is on its way.
        waits_for: The members for which the group waits before it assigns partitions again, or None.
        since_join: Seconds since its consumer connected, or None while it does not.
        unreadable: Partitions that cannot be read on, with the reason.
        silent: Partitions of which the broker says nothing now (no leader, for example), with the reason.
        settled: Records whose outcome is final, since the start of the process.
        skipped: Of these, those the filter dropped.
        retried: Attempts that ended in a retry.
        dead: Records sent to the dead-letter topic.
        deferred: Records sent to the retry topic; in a group that reads one, those written anew to wait on.
        in_flight: Records received and not settled.
        running: Handlers running now.
        delayed: Records waiting for their next attempt.
        stranded: Records that wait for their retry in memory only, because their topic is gone; with the process they are lost.
        lag: Records behind the end of the log, or None when it cannot be known now.
        lags: The same for each partition.
        since_fetch: Seconds since the last fetch came back.
        since_commit: Seconds since the committed offsets were last right.
        commit_error: What the last commit failed with, if it did.
    """

    group: str
    handlers: tuple[str, ...]
    partitions: tuple[TopicPartition, ...] = ()
    stopped: str | None = None
    failure: str | None = None
    waits_for: str | None = None
    since_join: float | None = None
    unreadable: dict[str, str] = {}
    silent: dict[str, str] = {}
    settled: int = 0
    skipped: int = 0
    retried: int = 0
    dead: int = 0
    deferred: int = 0
    in_flight: int = 0
    running: int = 0
    delayed: int = 0
    stranded: int = 0
    lag: int | None = None
    lags: dict[str, int | None] = {}
    since_fetch: float = 0.0
    since_commit: float = 0.0
    commit_error: str | None = None

    @property
    def done(self) -> int:
        """Records a handler has finished."""
        return self.settled - self.skipped - self.dead - self.deferred


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A worker process.

    Attributes:
        app: The app's name.
        broker: What it is connected to.
        uptime: Seconds.
        groups: Its consumer groups.
        slowest: The handler that ran longest in the last seconds, and for how long (seconds), or None.
        outage: Why the broker does not answer, or None when it does.
        away: Seconds for which it has not answered.
    """

    app: str
    broker: str
    uptime: float
    groups: tuple[GroupStatus, ...]
    slowest: tuple[str, float] | None = None
    outage: str | None = None
    away: float = 0.0


def total_lag(lags: Mapping[str, int | None]) -> int | None:
    """Return the lag of all partitions, None where there are none or one of them is not known."""
    known = [lag for lag in lags.values() if lag is not None]
    return sum(known) if lags and len(known) == len(lags) else None


def together(partitions: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return partitions and what is said of them; those of which the same is said in one row."""
    found: dict[str, list[str]] = {}
    for partition, reason in partitions.items():
        found.setdefault(reason, []).append(partition)
    return [(first_few(names), reason) for reason, names in found.items()]


def unreadable_of(status: "WorkerStatus") -> list[str]:
    """Return a sentence for each reason for which partitions cannot be read on."""
    return [
        f"{group.group} cannot read {partitions}: {reason.rstrip('.')}"
        for group in status.groups
        for partitions, reason in together(group.unreadable)
    ]


def summary(status: WorkerStatus) -> str:
    """Say in one line what a worker did."""
    groups = status.groups
    done, skipped = sum(group.done for group in groups), sum(group.skipped for group in groups)
    others = {
        "retried": sum(group.retried for group in groups),
        "deferred": sum(group.deferred for group in groups),
        "dead": sum(group.dead for group in groups),
    }
    parts = [
        f"{done:,} done",
        f"{skipped:,} skipped",
        *(f"{count:,} {name}" for name, count in others.items() if count),
        *_left(groups),
    ]
    return f"{', '.join(parts)} in {spell_seconds(status.uptime)}"


def _left(groups: Iterable[GroupStatus]) -> list[str]:
    """Say how many records are left, as far as that is known."""
    reading = [group for group in groups if group.partitions]
    known = sum(group.lag or 0 for group in reading)
    if any(group.lag is None for group in reading):
        return [f"at least {known:,} left" if known else "unknown how many left"]
    return [f"{known:,} left"] if known else []


def last_line(status: WorkerStatus, is_well: bool, is_caught_up: bool) -> str:
    """Say in one line how a run ended: what was done and is left, which groups stopped, what cannot be read or reached.

    Args:
        status: How the worker left.
        is_well: Whether nothing went wrong.
        is_caught_up: Whether it ended because there was nothing left to do.
    """
    how = "caught up" if is_well and is_caught_up else "ended"
    troubles = [f"{group.group} stopped" for group in status.groups if group.stopped]
    troubles += [f"{group.group} failed" for group in status.groups if group.failure and not group.stopped]
    troubles += [
        f"{group.group} lost {group.stranded:,} events that waited for their retry, whose topic is gone"
        for group in status.groups
        if group.stranded
    ]
    for group in status.groups:
        if group.unreadable:
            troubles.append(f"{group.group} cannot read {', '.join(group.unreadable)}")
    return "; ".join([f"{how}: {summary(status)}", *troubles])


def spell_seconds(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
