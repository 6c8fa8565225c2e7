"""Which partitions a topic has, with a short patience for topics that do not exist, and which offsets those have."""

import asyncio
import time
from collections.abc import Collection

import aiokafka.errors as kafka
from aiokafka.protocol.offset import OffsetRequest

from octopus.events import TopicPartition
from octopus.transports.base import Start
from octopus.transports.kafka.engine import Client

_LATEST, _EARLIEST = -1, -2  # Kafka's words for them in a request for a time


async def partitions_of(client: Client, topic: str, timeout: float) -> set[int]:
    """Return a topic's partitions, asking the cluster when they are not known yet.

    Args:
        client: One of ours.
        topic: Topic name.
        timeout: How long it may be unknown, in seconds: a new topic takes a moment to reach every broker.

    Raises:
        UnknownTopicOrPartitionError: It still is.
        TopicAuthorizationFailedError: It may not be seen.
    """
    deadline = time.monotonic() + timeout
    pause = client.retry_backoff
    while True:
        partitions: set[int] | None = client.cluster.partitions_for_topic(topic)
        if partitions:
            return partitions
        client.followed_topics.add(topic)
        await client.force_metadata_update()
        if client.cluster.partitions_for_topic(topic):
            continue
        unauthorized = topic in client.cluster.unauthorized_topics
        if unauthorized or time.monotonic() >= deadline:
            client.followed_topics.discard(topic)  # or every later refresh asks, and complains, again
            kind = kafka.TopicAuthorizationFailedError if unauthorized else kafka.UnknownTopicOrPartitionError
            raise kind(f"topic {topic!r}")
        await asyncio.sleep(pause)
        pause = min(2 * pause, 1.0)


async def offsets_of(
    client: Client, partitions: Collection[TopicPartition], start: Start, timeout: float, *, committed_only: bool
) -> dict[TopicPartition, int]:
    """Resolve a start to offsets, asking each partition's leader.

    A time after the last record resolves to the end; `committed_only` takes the first open transaction for the end.

    Raises:
        KafkaError: A topic is unknown, or leaders could not be asked within `timeout` seconds.
    """
    if start == "earliest":
        return await _ask_leaders(client, partitions, _EARLIEST, timeout, committed_only)
    if start == "latest":
        return await _ask_leaders(client, partitions, _LATEST, timeout, committed_only)
    found = await _ask_leaders(client, partitions, int(float(start) * 1000), timeout, committed_only)
    if beyond := [partition for partition, offset in found.items() if offset < 0]:
        found |= await _ask_leaders(client, beyond, _LATEST, timeout, committed_only)
    return found


async def _ask_leaders(
    client: Client, partitions: Collection[TopicPartition], timestamp: int, timeout: float, committed_only: bool
) -> dict[TopicPartition, int]:
    for topic in {partition.topic for partition in partitions}:
        await partitions_of(client, topic, timeout)
    found: dict[TopicPartition, int] = {}
    deadline = time.monotonic() + timeout
    while open_partitions := [partition for partition in partitions if partition not in found]:
        by_leader: dict[int | None, dict[str, list[tuple[int, int]]]] = {}
        for partition in open_partitions:
            topics = by_leader.setdefault(client.cluster.leader_for_partition(partition), {})
            topics.setdefault(partition.topic, []).append((partition.partition, timestamp))
        error: Exception = kafka.LeaderNotAvailableError(f"no leader for {', '.join(map(str, open_partitions))}")
        for leader, wanted in by_leader.items():
            if leader is None or leader == -1:
                continue
            try:
                reply = await client.send(leader, OffsetRequest(-1, int(committed_only), list(wanted.items())))
            except kafka.KafkaError as failed:
                error = failed
                continue
            for topic, answers in reply.topics:
                for number, code, *_, offset in answers:
                    if code:
                        error = kafka.for_code(code)(f"{topic}[{number}]")
                    else:
                        found[TopicPartition(topic, number)] = offset
        if len(found) < len(set(partitions)):
            if not getattr(error, "retriable", False) or time.monotonic() >= deadline:
                raise error
            await asyncio.sleep(client.retry_backoff)
            await client.force_metadata_update()
    return found
