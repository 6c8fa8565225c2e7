"""Where a group begins to read the partitions that it was given."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from octopus.errors import PartitionLost, TransportError
from octopus.events import TopicPartition
from octopus.logs import get_logger
from octopus.routing import StartAt
from octopus.runner.commit_metadata import with_topic_id
from octopus.transports.base import Commit, Consumer
from octopus.worker.anchors import Anchor, anchors_of, starts_of
from octopus.worker.known_topics import KnownTopics, is_another

logger = get_logger("octopus.worker")

Committed = Mapping[TopicPartition, Commit | None]


class Beginning(NamedTuple):
    """Where one partition begins.

    Attributes:
        commit: What is committed for it, by now.
        is_stored: Whether that is sure.
        topic_id: The topic that this offset is of.
        there: The topic of this name that is there, None when that is unknown.
    """

    commit: Commit
    is_stored: bool
    topic_id: str | None
    there: str | None

    @property
    def is_outdated(self) -> bool:
        """Whether the topic was made again, and the new one is not to be read."""
        return is_another(self.topic_id, self.there)


class Starts:
    """Finds where to begin, makes that the committed offset of partitions that have none, and positions the consumer there.

    Args:
        group: Whose partitions.
        consumer: The group member.
        known: The topics that the group has read.
        start: As registered.
    """

    def __init__(self, group: str, consumer: Consumer, known: KnownTopics, start: StartAt) -> None:
        self._group = group
        self._consumer = consumer
        self._known = known
        self._start = start

    async def find(self, partitions: Collection[TopicPartition], now: float) -> dict[TopicPartition, Beginning]:
        """Return where each partition begins. Those whose topic was made again begin at its beginning, or are outdated.

        Args:
            partitions: Which.
            now: Seconds since the epoch.

        Raises:
            TransportError: The broker does not say, or does not take the anchors.
        """
        there = await self._consumer.topic_ids({partition.topic for partition in partitions})
        committed = await self._consumer.committed(partitions)
        siblings = await self._siblings([each for each in partitions if committed[each] is None])
        expected = {each: self._known.expected(each, committed[each], siblings) for each in partitions}
        outdated = {each for each in partitions if is_another(expected[each], there.get(each.topic))}
        stopped = outdated if self._known.recreated == "stop" else set()
        topic_ids = {each: expected[each] if each in stopped else there.get(each.topic) for each in partitions}
        commits = {
            each: commit
            for each, commit in committed.items()
            if commit is not None and (each in stopped or each not in outdated)
        }
        anchors = await self._anchor(
            [each for each in partitions if each not in commits], outdated, siblings, topic_ids, now
        )
        unstored = anchors.keys() if anchors and not await self._store(anchors) else ()
        commits |= anchors
        await self._consumer.seek({each: commit.offset for each, commit in commits.items()}, there)
        # The next member that begins with a new topic must still see that it is one, unless what is committed says so.
        unsaid = {each.topic for each in unstored if each in outdated}
        for each in {*partitions} - stopped:
            if each.topic not in unsaid:
                self._known.note(each.topic, there.get(each.topic))
        return {
            each: Beginning(commit, each not in unstored, topic_ids[each], there.get(each.topic))
            for each, commit in commits.items()
        }

    async def mark(self, outdated: Mapping[TopicPartition, str | None], timeout: float) -> Collection[TopicPartition]:
        """Commit the beginning of partitions whose topic was made again, as offsets of the old one.

        So a restart and other members notice, too, and a client that knows nothing of topic ids begins there. Not being able to is no
        error: some brokers keep what was committed before, which says the same.

        Args:
            outdated: The ids of their old topics.
            timeout: Seconds.

        Returns:
            Those that are marked. The new topic may have fewer partitions, which costs the others nothing.
        """
        starts: dict[TopicPartition, int] = {}
        try:
            async with asyncio.timeout(timeout):
                there = await self._consumer.topic_ids({partition.topic for partition in outdated})
                starts = await self._starts_of(outdated, timeout / 2)
                marks = {each: Commit(at, with_topic_id("", outdated[each])) for each, at in starts.items()}
                await self._consumer.commit(marks)
                await self._consumer.seek(starts, there)  # fetches in the old topic would be refused on and on
        except (TransportError, TimeoutError) as error:
            logger.debug("%s: no mark at %s: %s", self._group, ", ".join(map(str, outdated)), error)
            return ()
        return starts.keys()

    async def _starts_of(self, partitions: Collection[TopicPartition], timeout: float) -> dict[TopicPartition, int]:
        """Return where partitions begin, of those that are there."""
        found: dict[TopicPartition, int] = {}

        async def ask(partition: TopicPartition) -> None:
            with contextlib.suppress(TransportError, TimeoutError):
                async with asyncio.timeout(timeout):
                    found.update(await self._consumer.offsets([partition], "earliest"))

        await asyncio.gather(*map(ask, partitions))
        return found

    async def _siblings(self, fresh: Collection[TopicPartition]) -> Committed:
        """Return what is committed for all partitions of the topics of those for which nothing is."""
        if not fresh:
            return {}
        counts = self._counts(fresh)
        return await self._consumer.committed(
            [TopicPartition(topic, number) for topic in {p.topic for p in fresh} for number in range(counts[topic])]
        )

    def _counts(self, partitions: Collection[TopicPartition]) -> Counter[str]:
        """Return how many partitions topics have."""
        return Counter(partition.topic for partition in self._consumer.known_partitions() | {*partitions})

    async def _anchor(
        self,
        fresh: Collection[TopicPartition],
        outdated: Collection[TopicPartition],
        siblings: Committed,
        topic_ids: Mapping[TopicPartition, str | None],
        now: float,
    ) -> dict[TopicPartition, Commit]:
        """Resolve the start of partitions without a commit of their topic.

        An anchor says when the group began with the topic, how many partitions there were, and the topic's id. One of an
        outdated partition is a mark for the next owner, where brokers forgot what was committed with the topic.
        """
        if not fresh:
            return {}
        counts = self._counts(fresh)
        first = {partition.topic: Anchor(counts[partition.topic], now) for partition in fresh}
        known = anchors_of(siblings)
        starts = starts_of([each for each in fresh if each not in outdated], known, self._start, first)
        if anew := [each for each in fresh if each in outdated]:
            starts.setdefault("earliest", []).extend(anew)
        anchors: dict[TopicPartition, Commit] = {}
        for start, partitions in starts.items():
            for partition, offset in (await self._consumer.offsets(partitions, start)).items():
                anchor = known.get(partition.topic, first[partition.topic])
                if partition in outdated:
                    anchor = Anchor(0, now)  # all partitions of the new topic appeared when the group was there
                anchors[partition] = Commit(
                    offset, with_topic_id(anchor.text if anchor is not None else "", topic_ids[partition])
                )
        return anchors

    async def _store(self, anchors: Mapping[TopicPartition, Commit]) -> bool:
        try:
            await self._consumer.commit(anchors)
        except PartitionLost as error:
            # The group moves on already: these partitions are about to be revoked, or lost, and anchored by their owner.
            logger.info("%s: not anchored: %s", self._group, error)
            return False
        return True
