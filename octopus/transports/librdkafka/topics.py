"""Which topics are subscribed to, and which partitions they have. Used in the pump's thread."""

import contextlib
import re
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException

from octopus.errors import ConnectionFailed, TopicNotFound
from octopus.events import TopicPartition
from octopus.transports.kafka.settings import KafkaSettings
from octopus.transports.librdkafka.errors import error_of, is_passing, ours

UNKNOWN = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)


class Topics:
    """Names, or a pattern that is looked at again and again: Python's patterns are not librdkafka's, nor the brokers'.

    Args:
        wanted: Names, or a pattern that names match from their start.
        settings: Where the cluster is, and how patient to be with it.

    Attributes:
        known: Partitions of the subscribed topics in the last metadata.
        is_anybody_there: False once no broker could be reached.
    """

    def __init__(self, wanted: "Sequence[str] | re.Pattern[str]", settings: KafkaSettings) -> None:
        self.known: set[TopicPartition] = set()
        self.is_anybody_there = True
        self._wanted = wanted
        self._settings = settings
        self._look_again_at = 0.0
        self._is_outdated = False

    def find(self, client: Consumer, check: Callable[[], None]) -> Sequence[str]:
        """Return the first subscription; `check` raises errors of callbacks, or when there is no need any more.

        Raises:
            TopicNotFound: A topic is still unknown after `metadata_timeout`: a new one takes a moment to reach every broker.
        """
        if isinstance(self._wanted, re.Pattern):
            self._ask(client, None, check)
            return self.matching(client) or ()
        for topic in self._wanted:
            self._ask(client, topic, check)
        return self._wanted

    def hear_of(self, partitions: Collection[TopicPartition]) -> None:
        """Take partitions that were assigned for known, inside a callback of the group, where nothing can be looked up."""
        self._is_outdated = self._is_outdated or not self.known.issuperset(partitions)
        self.known = self.known.union(partitions)

    def refresh(self, client: Consumer) -> None:
        """Look up the partitions of subscribed topics if some were new; a topic that cannot be looked up now stays as it was."""
        if not self._is_outdated:
            return
        self._is_outdated = False
        for topic in {each.topic for each in self.known}:
            with contextlib.suppress(KafkaException):
                found = client.list_topics(topic, timeout=self._settings.metadata_timeout).topics[topic]
                if found.error is None:
                    self._note(found)

    def matching(self, client: Consumer) -> Sequence[str] | None:
        """Return the topics of a pattern when there are others than before, and it is time to look."""
        if not isinstance(self._wanted, re.Pattern) or time.monotonic() < self._look_again_at:
            return None
        self._look_again_at = time.monotonic() + min(self._settings.metadata_max_age, 60.0)
        try:
            found = client.list_topics(timeout=self._settings.metadata_timeout).topics
        except KafkaException:
            return None
        before, self.known = {each.topic for each in self.known}, set()
        for name, topic in found.items():
            if self._wanted.match(name) and topic.error is None and not name.startswith("__"):
                self._note(topic)
        names = {each.topic for each in self.known}
        return sorted(names) if names != before else None

    def _ask(self, client: Consumer, topic: str | None, check: Callable[[], None]) -> None:
        """Wait until a topic is known, or for any answer."""
        now = time.monotonic()
        reachable_until, known_until = now + self._settings.request_timeout, now + self._settings.metadata_timeout
        while True:
            client.poll(0)  # for the callbacks
            check()
            try:
                topics = client.list_topics(topic, timeout=0.5).topics
            except KafkaException as exception:
                if not is_passing(error_of(exception)) or time.monotonic() > reachable_until:
                    raise
                if not self.is_anybody_there:
                    raise ConnectionFailed(
                        f"No broker answers at {self._settings.brokers}. "
                        "Check that the broker runs and that this address reaches it."
                    ) from exception
                continue
            if topic is None:
                return
            error = topics[topic].error
            if error is None and topics[topic].partitions:
                self._note(topics[topic])
                return
            if error is not None and error.code() not in UNKNOWN and not is_passing(error):
                raise ours(error, f"looking for topic {topic!r}", self._settings.brokers)
            if time.monotonic() > known_until:
                raise TopicNotFound(
                    f"Kafka at {self._settings.brokers} knows no topic {topic!r}. "
                    "Create it, or check its name and that this principal may see it."
                )
            time.sleep(0.05)

    def _note(self, topic: Any) -> None:
        others = {each for each in self.known if each.topic != topic.topic}
        self.known = others | {TopicPartition(topic.topic, number) for number in topic.partitions}
