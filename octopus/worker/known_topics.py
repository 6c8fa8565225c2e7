"""Topics that are deleted and made again under a group: an offset in the old one means nothing in the new one. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from octopus.errors import TopicRecreated
from octopus.events import TopicPartition
from octopus.runner.commit_metadata import topic_id_of
from octopus.transports.base import Commit

Recreated = Literal["stop", "earliest"]


class KnownTopics:
    """Which topics a group of this process has read, by name.

    It outlives the group's consumers: brokers forget committed offsets with their topic, so that nothing else may be left to
    tell an old topic from a new one.

    Args:
        recreated: What to do when a topic was made again: stop, or begin the new one at its beginning.
    """

    def __init__(self, recreated: Recreated = "stop") -> None:
        self.recreated = recreated
        self._ids: dict[str, str] = {}

    @property
    def topics(self) -> set[str]:
        """Names of all that was read, also of what is gone."""
        return {*self._ids}

    def note(self, topic: str, topic_id: str | None) -> None:
        """Note what is being read under a name."""
        if topic_id is not None:
            self._ids[topic] = topic_id

    def expected(
        self,
        partition: TopicPartition,
        commit: Commit | None,
        siblings: Mapping[TopicPartition, Commit | None] = {},
    ) -> str | None:
        """Return the id of the topic in which a partition was read last, None when that is unknown.

        Args:
            partition: Which.
            commit: What the group has committed for it: what that says comes first, since others know more than we.
            siblings: What it has committed for others; asked last, if there is no commit.
        """
        if commit is not None and (of := topic_id_of(commit.metadata)) is not None:
            return of
        if partition.topic in self._ids:
            return self._ids[partition.topic]
        if commit is not None:
            return None
        of_others = (
            topic_id_of(each.metadata)
            for p, each in siblings.items()
            if each is not None and p.topic == partition.topic
        )
        return next((of for of in of_others if of is not None), None)

    def refusal(self, group: str, topic: str, expected: str | None, found: str | None, now: float) -> TopicRecreated:
        """Return why a partition is not read on.

        Args:
            group: Whose.
            topic: Which topic.
            expected: The id of the one that was read.
            found: The id of the one that is there.
            now: Seconds since the epoch.
        """
        moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        what = f"topic {topic!r} was deleted and made again: its id was {expected}, and at {moment} it is {found}"
        if self.recreated == "earliest":
            return TopicRecreated(
                f"{what}. It is read from its beginning once what was read of the old one is finished."
            )
        return TopicRecreated(
            f"{what}. What group {group!r} has committed was of the old one, so nothing of the new one is read. Stop the "
            f"group's workers, say where it begins (octopus groups reset {group} --topic {topic} --to earliest), and start "
            'them again; with consumer.recreated_topics = "earliest" a new topic is always read from its beginning.'
        )


def is_another(expected: str | None, found: str | None) -> bool:
    """Tell whether a topic was made again; without both ids that is unknown."""
    return expected is not None and found is not None and expected != found
