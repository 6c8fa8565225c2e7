"""A group member on librdkafka, in the terms of the seam: requests and answers; the work in between is the pump's."""

import asyncio
import contextlib
import re
import time
from collections.abc import Collection, Mapping

import confluent_kafka
from confluent_kafka import Consumer

from octopus.errors import PartitionLost, TransportError
from octopus.events import TopicPartition
from octopus.transports.base import MAX_BYTES, NO_IDS, AssignmentListener, Commit, Fetched, Start
from octopus.transports.kafka.admin import KafkaAdmin
from octopus.transports.kafka.settings import KafkaSettings
from octopus.transports.librdkafka.pump import Pump
from octopus.transports.librdkafka.requests import check_each
from octopus.transports.librdkafka.settings import client_options, fetch_options, group_options

MOST_METADATA = 4096
"""Bytes that brokers store beside an offset, by default."""

ANSWER_WAIT = 2.0
"""Seconds that one request for offsets may take before it is made again; messages wait meanwhile."""

LEAVE_TIMEOUT = 2.5
"""Seconds that the coordinator has to hear that we leave."""

_LATEST = -1  # Kafka's word for it in a request for a time


class LibrdkafkaConsumer:
    """A member of a consumer group. Its arguments are those of `KafkaConsumer`, apart from the ones below.

    Args:
        session_timeout: With `group_protocol="consumer"` the brokers decide it, and the heartbeat interval.
        assignor: How partitions are assigned: `cooperative-sticky` when None, or the brokers' choice.
        group_protocol: `classic`, or `consumer` for the protocol of KIP-848 (Kafka 4).
        max_partition_fetch_bytes: One fetch of one partition; at least two of them may be held for each.
        fetch_max_bytes: For one fetch of one broker, for librdkafka's queue, and for the backlogs of all partitions together.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        group: str,
        topics: "Collection[str] | re.Pattern[str]",
        *,
        session_timeout: float = 45.0,
        heartbeat_interval: float | None = None,
        rebalance_timeout: float = 60.0,
        group_instance_id: str | None = None,
        keeps_place: bool = True,
        assignor: str | None = None,
        group_protocol: str = "classic",
        isolation: str = "read_committed",
        max_partition_fetch_bytes: int = 1024 * 1024,
        fetch_max_bytes: int = 50 * 1024 * 1024,
        fetch_max_wait: float = 0.5,
    ) -> None:
        self._settings = settings
        self._group = group
        self._instance = group_instance_id
        self._stays = group_instance_id is not None and keeps_place
        self._is_classic = group_protocol == "classic"
        options = group_options(
            group,
            session_timeout=session_timeout,
            heartbeat_interval=heartbeat_interval,
            rebalance_timeout=rebalance_timeout,
            group_instance_id=group_instance_id,
            assignor=assignor,
            group_protocol=group_protocol,
        ) | fetch_options(
            settings,
            isolation=isolation,
            max_partition_fetch_bytes=max_partition_fetch_bytes,
            fetch_max_bytes=fetch_max_bytes,
            fetch_max_wait=fetch_max_wait,
        )
        self._pump = Pump(
            client_options(settings) | options,
            settings,
            topics if isinstance(topics, re.Pattern) else sorted({topics} if isinstance(topics, str) else topics),
            incremental=options.get("partition.assignment.strategy", "cooperative-sticky") == "cooperative-sticky",
            most_bytes=fetch_max_bytes,
            least_bytes=2 * max_partition_fetch_bytes,
        )
        self._reader = KafkaAdmin(settings)
        self._is_running = False

    # life

    async def start(self, listener: AssignmentListener) -> None:
        """Connect and take part in the group; the first assignment comes when the group has agreed on it."""
        self._is_running = True
        try:
            await self._reader.start()
            if self._instance is not None and not self._is_classic:
                # With KIP-848 a name is taken until the session of the last one to have it ends, killed or not.
                await self._reader.remove_members(self._group, [("", self._instance)])
            await self._pump.start(listener)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Leave the group and close. Calls no listener."""
        if self._is_running:
            self._is_running = False
            await asyncio.gather(self._pump.stop(self._settings.request_timeout), self._leave())
            await self._reader.stop()

    async def _leave(self) -> None:
        """Leave over a connection that the coordinator reads also while we join.

        librdkafka 2.16 uses its own, where the request waits behind the join; as a static member, or when it closes
        without partitions under the cooperative protocol, it does not leave at all. The others would wait for it until
        its session ends.
        """
        if self._stays or (self._instance is None and not self._is_classic):
            return
        with contextlib.suppress(TransportError, TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT):
                member = await self._pump.last_id_known()
                if member or self._instance is not None:
                    await self._reader.remove_members(self._group, [(member, self._instance)])

    # records

    async def fetch(
        self,
        partitions: Collection[TopicPartition],
        *,
        max_records: int,
        timeout: float,
        max_bytes: int = MAX_BYTES,
    ) -> list[Fetched]:
        """Return records of these partitions, waiting up to `timeout` seconds for the first.

        At most `max_records` in all, and none behind the one that makes them `max_bytes`; partitions take turns. Nothing is taken
        before it is returned, so cancelling loses nothing.
        """
        wanted = frozenset(partitions)  # another thread looks at it
        deadline = time.monotonic() + timeout
        while True:
            self._check_running()
            if self._pump.failure is not None:
                raise self._pump.failure
            if found := self._pump.take(wanted, max_records, max_bytes):
                return found
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return []
            await self._pump.arrival(remaining)

    # offsets

    async def commit(self, offsets: Mapping[TopicPartition, Commit]) -> None:
        """Store offsets of partitions that are ours; after storing those, raise `PartitionLost` for the others.

        A `ConnectionFailed` leaves open whether the offsets were stored: commit the newest ones again.
        """
        self._check_running()
        held = dict(self._pump.held)
        own = {partition: commit for partition, commit in offsets.items() if partition in held}
        if own:

            def still_own() -> list[confluent_kafka.TopicPartition]:
                # An attempt for an assignment that is over would put back the next owner's offsets.
                if any(self._pump.held.get(partition) != held[partition] for partition in own):
                    raise PartitionLost(
                        f"Partitions of group {self._group!r} were taken away before they were committed."
                    )
                return [
                    confluent_kafka.TopicPartition(*partition, commit.offset, _fitting(commit.metadata))
                    for partition, commit in own.items()
                ]

            doing = f"committing offsets of group {self._group!r}"
            await self._pump.requests.commit(still_own, doing, self._settings.commit_timeout)
        if foreign := sorted(partition for partition in offsets if partition not in own):
            raise PartitionLost(
                f"{', '.join(map(str, foreign))} belong to another member of group {self._group!r} now."
            )

    async def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Commit | None]:
        """Return committed offsets.

        Asked through aiokafka's client: librdkafka 2.16 hands metadata over without the zero at their end, and
        confluent-kafka reads on behind them.
        """
        self._check_running()
        asked = frozenset(partitions)
        if not asked:
            return {}

        return await self._reader.committed(self._group, asked)

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str | None]:
        """Ask which topics these names stand for now, through aiokafka's client: librdkafka does not tell."""
        self._check_running()
        return await self._reader.topic_ids(frozenset(topics))

    async def seek(self, offsets: Mapping[TopicPartition, int], topic_ids: Mapping[str, str | None] = NO_IDS) -> None:
        """Set positions; messages fetched from elsewhere are dropped.

        librdkafka goes on in a topic that was made again, and cannot be told not to.
        """
        self._check_running()
        if foreign := sorted(offsets.keys() - self._pump.held.keys()):
            raise PartitionLost(
                f"{', '.join(map(str, foreign))} are not assigned to this member of group {self._group!r}."
            )

        def position(_client: Consumer) -> None:
            for partition, offset in offsets.items():
                self._pump.seek(partition, offset)

        await self._pump.requests.ask(
            position, f"positioning {', '.join(map(str, offsets))}", self._settings.commit_timeout
        )

    async def offsets(self, partitions: Collection[TopicPartition], start: Start) -> dict[TopicPartition, int]:
        """Resolve a start to offsets."""
        self._check_running()
        asked = frozenset(partitions)
        if start == "earliest":
            # librdkafka gives up at once where a topic that was away is not in its metadata yet
            return await self._reader.offsets(asked, start)
        moment = _LATEST if start == "latest" else int(float(start) * 1000)

        def look_up(client: Consumer) -> dict[TopicPartition, int]:
            found = _offsets_at(client, asked, moment)
            if beyond := {partition for partition, offset in found.items() if offset < 0}:
                found |= _offsets_at(client, beyond, _LATEST)
            return found

        topics = ", ".join(sorted({partition.topic for partition in asked}))
        return await self._pump.requests.ask(look_up, f"looking up offsets of {topics}", self._settings.commit_timeout)

    def end_offset(self, partition: TopicPartition) -> int | None:
        """Return the end as the last fetch reported it: the last record's, open transactions included."""
        return self._pump.end_offset(partition)

    def known_partitions(self) -> set[TopicPartition]:
        """Return the partitions of the subscribed topics in the last metadata."""
        self._check_running()
        return {*self._pump.known}

    # small things

    def _check_running(self) -> None:
        if not self._is_running:
            raise TransportError(f"The consumer of group {self._group!r} is not running.")


def _fitting(metadata: str) -> str:
    """Return metadata, or none if they do not fit with the zero that librdkafka sends behind them."""
    return metadata if len(metadata.encode()) < MOST_METADATA else ""


def _offsets_at(client: Consumer, partitions: Collection[TopicPartition], moment: int) -> dict[TopicPartition, int]:
    places = [confluent_kafka.TopicPartition(*partition, moment) for partition in partitions]
    answers = client.offsets_for_times(places, timeout=ANSWER_WAIT)
    check_each(answers)
    return {TopicPartition(each.topic, each.partition): each.offset for each in answers}
