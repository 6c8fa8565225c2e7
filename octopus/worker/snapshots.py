"""Snapshots of one group, put together from its parts."""

from collections.abc import Mapping

import msgspec

from octopus.errors import HandlerStopped, OctopusError
from octopus.events import TopicPartition
from octopus.pipeline import Pipeline
from octopus.runner import Assignment, Runner
from octopus.worker.committing import CommitHealth
from octopus.worker.intake import Intake
from octopus.worker.outlook import Outlook
from octopus.worker.progress import Progress
from octopus.worker.rescue import NoRescue, Rescue
from octopus.worker.status import GroupStatus, total_lag


class Snapshots:
    """Takes snapshots of one group, also when it has left.

    Args:
        pipeline: Its handlers.
        runner: Tells what runs and what is delayed.
        assignments: Those that the group has now.
        intake: Tells which partitions cannot be read on.
        progress: Tells what became of records.
        health: Tells whether commits succeed.
        rescue: Tells which records are in memory only.
        outlook: What is known of the broker.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        runner: Runner,
        assignments: Mapping[TopicPartition, Assignment],
        intake: Intake,
        progress: Progress,
        health: CommitHealth,
        rescue: Rescue | NoRescue,
        outlook: Outlook,
    ) -> None:
        self._pipeline = pipeline
        self._runner = runner
        self._assignments = assignments
        self._intake = intake
        self._progress = progress
        self._health = health
        self._rescue = rescue
        self._outlook = outlook
        self._last: GroupStatus | None = None

    def keep(self, last: GroupStatus) -> None:
        """Show the group from now on as it was before its partitions were given back; only how it ended may change."""
        self._last = last

    def take(
        self,
        now: float,
        *,
        stopped: HandlerStopped | None,
        failure: OctopusError | None,
        waits_for: str | None,
        joined_at: float | None,
        fetched_at: float,
    ) -> GroupStatus:
        """Return a snapshot.

        Args:
            now: In loop time, like the other moments.
            stopped: Why processing stopped, or None.
            failure: What the consumer broke with, or None.
            waits_for: The members for which the group waits, or None.
            joined_at: When the consumer connected, or None while it is not connected.
            fetched_at: When the last fetch came back.
        """
        return msgspec.structs.replace(
            self._last or self._of_member(now, waits_for, joined_at),
            stopped=str(stopped) if stopped else None,
            failure=str(failure) if failure else None,
            since_fetch=now - fetched_at,
            since_commit=now - self._health.at,
            stranded=self._rescue.stranded,
        )

    def _of_member(self, now: float, waits_for: str | None, joined_at: float | None) -> GroupStatus:
        """Return what is true only while the group has its partitions."""
        totals, lags, assignments = self._progress.counts, self._progress.lags(), self._assignments
        return GroupStatus(
            group=self._pipeline.group,
            handlers=self._pipeline.handlers,
            partitions=tuple(sorted(assignments)),
            waits_for=waits_for,
            since_join=None if joined_at is None else now - joined_at,
            unreadable={str(each): str(error) for each, error in sorted(self._intake.unreadable.items())},
            silent={str(each): why for each, why in self._outlook.silent.items() if each in assignments},
            settled=totals.settled,
            skipped=totals.skipped,
            retried=totals.retried,
            dead=totals.dead_lettered,
            deferred=totals.deferred,
            in_flight=self._progress.in_flight,
            running=len(self._runner.running),
            delayed=self._runner.delayed,
            lag=total_lag(lags),
            lags=lags,
            commit_error=str(self._health.error) if self._health.error else None,
        )
