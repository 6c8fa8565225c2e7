"""Notices topics that are deleted, and made again, under a group's assignments."""

import asyncio
import contextlib
import math
from collections.abc import Callable, Collection, Mapping

from octopus.errors import OffsetOutOfRange, TransportError
from octopus.events import TopicPartition
from octopus.logs import get_logger
from octopus.runner import Assignment
from octopus.text import first_few
from octopus.transports.base import Consumer
from octopus.worker.intake import Intake
from octopus.worker.known_topics import KnownTopics, is_another
from octopus.worker.starts import Starts

logger = get_logger("octopus.worker")

LOOK_WAIT = 5.0
"""Seconds between looks at the topics while nothing is committed."""


class TopicWatch:
    """Asks for topic ids, and takes assignments out whose topic is another one: nothing more is read, nothing more committed.

    What was read of the old topic is still handled, since it cannot be read again.

    Args:
        group: Whose.
        consumer: The group member.
        known: What the group has read; says what to do with a topic that was made again.
        starts: Leaves word for the next owner.
        intake: What is asked for.
        assignments: By partition, as they are now.
        patience: Seconds that brokers have for an answer.
        clock: Seconds since the epoch.

    Attributes:
        outdated: The assignments that were taken out, and when, in loop time.
        missing: Of the topics that were looked at last, those that were not there.
    """

    def __init__(
        self,
        group: str,
        consumer: Consumer,
        known: KnownTopics,
        starts: Starts,
        intake: Intake,
        assignments: Mapping[TopicPartition, Assignment],
        *,
        patience: float,
        clock: Callable[[], float],
    ) -> None:
        self.outdated: dict[Assignment, float] = {}
        self.missing: set[str] = set()
        self._group = group
        self._consumer = consumer
        self._known = known
        self._starts = starts
        self._intake = intake
        self._assignments = assignments
        self._patience = patience
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._unmarked: set[Assignment] = set()  # outdated, and what is committed does not say so
        self._doubtful: dict[Assignment, TransportError] = {}
        self._gone: set[str] = set()  # topics, as last said
        # which new topic each is of, as last said; rebalances change nothing
        self._said: dict[TopicPartition, str | None] = {}
        self._looked_at = self._loop.time()
        self._mark_again_at = -math.inf

    def doubt(self, assignment: Assignment, error: TransportError) -> None:
        """Ask no more for a partition whose offset, or topic, is not there; its topic may have been made again, which is another
        thing to say. The next `tend` says which."""
        self._intake.refuse(assignment.partition, error)
        self._doubtful[assignment] = error

    def forget(self, assignment: Assignment, *, is_kept: bool) -> None:
        """Let go of an assignment; say what goes with its topic, unless it is kept elsewhere."""
        self._doubtful.pop(assignment, None)
        self._unmarked.discard(assignment)
        is_outdated = self.outdated.pop(assignment, None) is not None
        if is_outdated and not is_kept and (lost := assignment.ledger.in_flight):
            text = "%s: %d events of %s were not finished before their topic was deleted; they do not come again"
            logger.error(text, self._group, lost, assignment.partition)

    async def same(self, assignments: Collection[Assignment]) -> list[Assignment]:
        """Return those whose topic is there, and the one that they read: their offsets may be committed.

        Between this and the commit the topic may still change; then the id in the commit's metadata tells its reader.

        Raises:
            TransportError: No broker says which topics they are.
        """
        gone = await self._look({assignment.partition.topic for assignment in assignments})
        return [each for each in assignments if each.counts and each.partition.topic not in gone]

    async def tend(self) -> None:
        """Look at all topics now and then, also while nothing is committed; say what was found."""
        if self._doubtful or self._loop.time() - self._looked_at >= LOOK_WAIT:
            self._looked_at = self._loop.time()
            with contextlib.suppress(TransportError, TimeoutError):  # an outage is the business of fetches and commits
                async with asyncio.timeout(self._patience):
                    gone = await self._look(self._known.topics)
                    for topic in gone - self._gone:
                        logger.error("%s: topic %r is gone. It is looked for on and on.", self._group, topic)
                    self._gone = gone
            self._say_doubtful()
        if self._loop.time() >= self._mark_again_at:
            await self.mark()

    async def mark(self) -> None:
        """Leave word for the next owner: brokers forget what was committed together with the topic."""
        self._unmarked = {each for each in self._unmarked if each.is_open}
        if unmarked := {each.partition: each for each in self._unmarked}:
            old = {partition: each.topic_id for partition, each in unmarked.items()}
            marked = await self._starts.mark(old, self._patience)
            # Not before: who is cancelled in between tries again when it leaves.
            self._unmarked.difference_update(unmarked[each] for each in marked)
            self._mark_again_at = self._loop.time() + LOOK_WAIT

    def take_out(self, outdated: Mapping[Assignment, str | None], *, is_marked: bool = False) -> None:
        """Read no more of partitions whose topic was made again, and commit no more for them. It is said once for each topic.

        Args:
            outdated: Assignments of old topics, and the ids of the new ones.
            is_marked: Whether what is committed says that it is of the old one.
        """
        now = self._clock()
        together: dict[tuple[str, str | None, str | None], list[TopicPartition]] = {}
        for assignment, there in outdated.items():
            assignment.is_outdated = True
            self.outdated[assignment] = self._loop.time()
            if not is_marked:
                self._unmarked.add(assignment)
                self._mark_again_at = -math.inf
            which = (assignment.partition.topic, assignment.topic_id, there)
            together.setdefault(which, []).append(assignment.partition)
        for (topic, read, there), partitions in together.items():
            error = self._known.refusal(self._group, topic, read, there, now)
            for partition in partitions:
                self._intake.refuse(partition, error)
            unsaid = [each for each in partitions if self._said.get(each) != there]
            self._said.update(dict.fromkeys(unsaid, there))
            if unsaid and self._known.recreated == "stop":
                say_unreadable(self._group, unsaid, error)
            elif unsaid:
                logger.warning("%s: %s: %s", self._group, first_few(sorted(unsaid)), error)

    def _say_doubtful(self) -> None:
        doubtful, self._doubtful = self._doubtful, {}
        outside: dict[str, dict[TopicPartition, OffsetOutOfRange]] = {}
        for assignment, error in doubtful.items():
            if isinstance(error, OffsetOutOfRange) and assignment.counts:
                outside.setdefault(assignment.partition.topic, {})[assignment.partition] = error
            elif assignment.counts:
                self._refuse([assignment.partition], error)
        for errors in outside.values():
            self._refuse(errors, _without_a_place(self._group, errors))

    def _refuse(self, partitions: Collection[TopicPartition], error: TransportError) -> None:
        for partition in partitions:
            self._intake.refuse(partition, error)
        say_unreadable(self._group, partitions, error)

    async def _look(self, topics: Collection[str]) -> set[str]:
        """Take out what is of topics that were made again; return the topics that are not there."""
        found = await self._consumer.topic_ids(topics)
        self.take_out(
            {
                assignment: there
                for assignment in self._assignments.values()
                if assignment.counts and is_another(assignment.topic_id, there := found.get(assignment.partition.topic))
            }
        )
        self.missing = {*topics} - found.keys()
        return self.missing


def _without_a_place(group: str, errors: Mapping[TopicPartition, OffsetOutOfRange]) -> OffsetOutOfRange:
    """Say first what to do: the client library's words about an offset outside the log come behind, as the reason."""
    (topic,) = {partition.topic for partition in errors}
    only = " ".join(f"--partition {each.partition}" for each in sorted(errors))
    reasons = first_few([str(error).rstrip(".") for _, error in sorted(errors.items())])
    return OffsetOutOfRange(
        f"the offset where the group goes on is not in the log: its events were deleted, or the log was cut short. Nothing is "
        f"skipped by itself. Stop the group's workers, say where it goes on (octopus groups reset {group} --topic {topic} "
        f"{only} --to earliest), and start them again. ({reasons})"
    )


def say_unreadable(group: str, partitions: Collection[TopicPartition], error: TransportError) -> None:
    """Say that partitions are not read on."""
    why = str(error).rstrip(".")
    logger.error("%s stops reading %s: %s. The other partitions go on.", group, first_few(sorted(partitions)), why)
