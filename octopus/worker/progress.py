"""How far one group is: what became of its records, and what is left before it is caught up."""

from collections.abc import Mapping

from octopus.events import TopicPartition
from octopus.pipeline import Pipeline
from octopus.retrying import RetryPipeline
from octopus.runner import Assignment
from octopus.transports.base import Consumer
from octopus.worker.commits import Commits
from octopus.worker.intake import Intake
from octopus.worker.known_topics import KnownTopics
from octopus.worker.outlook import Outlook
from octopus.worker.status import Totals


class Progress:
    """Reads off the assignments of a group, those that it has and those that it had.

    Args:
        pipeline: What runs.
        consumer: The group member.
        assignments: Those that the group has now.
        intake: Tells which partitions cannot be read on.
        known: Whether topics that are made again are to be read.
        commits: Tell whether what is settled is visible.
        outlook: What is known of the broker.

    Attributes:
        earlier: What the workers counted that the group had before.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        consumer: Consumer,
        assignments: Mapping[TopicPartition, Assignment],
        intake: Intake,
        known: KnownTopics,
        commits: Commits,
        outlook: Outlook,
    ) -> None:
        self.earlier = Totals()
        self._totals = Totals()
        self._pipeline = pipeline
        self._consumer = consumer
        self._assignments = assignments
        self._intake = intake
        self._known = known
        self._commits = commits
        self._outlook = outlook

    def close(self, assignment: Assignment) -> None:
        """Keep what was counted of an assignment that the group has no more."""
        self._totals.add(assignment)

    @property
    def settled(self) -> int:
        """How many records this worker has settled."""
        return self._totals.settled + sum([each.written.settled_count for each in self._assignments.values()])

    @property
    def in_flight(self) -> int:
        """How many records are received and not settled."""
        return sum(each.ledger.in_flight for each in self._assignments.values())

    @property
    def counts(self) -> Totals:
        """What became of records, since the start of the process."""
        return self.earlier.plus(self._totals).with_open(self._assignments.values())

    def lags(self) -> dict[str, int | None]:
        """Records between the committable offsets and the ends; None while an end is not known, or not any more."""
        return {
            str(partition): self._outlook.lag(partition, self._consumer.end_offset(partition), assignment.done_before)
            for partition, assignment in self._assignments.items()
        }

    async def is_caught_up(self) -> bool:
        """Ask the broker whether everything published until now is settled, as far as it can be read."""
        assignments = {**self._assignments}
        if not assignments:
            return False
        readable = assignments.keys() - self._intake.unreadable.keys()
        ends = await self._consumer.offsets(readable, "latest") if readable else {}
        return all(self._is_settled(assignment, ends.get(partition)) for partition, assignment in assignments.items())

    def _is_settled(self, assignment: Assignment, end: int | None) -> bool:
        """Tell whether everything before `end` is settled and visible; None for everything that could be read."""
        begins_anew = assignment.is_outdated and self._known.recreated != "stop"
        if not assignment.is_open or begins_anew or not self._commits.is_visible(assignment):
            return False
        return self._reached(assignment) >= (assignment.ledger.position if end is None else end)

    def _reached(self, assignment: Assignment) -> int:
        """Return the offset before which nothing is left to do now; deferred records that wait are for later."""
        waiting = self._pipeline.waiting if isinstance(self._pipeline, RetryPipeline) else 0
        if waiting and waiting == self.in_flight:
            return assignment.ledger.position
        return assignment.ledger.committable
