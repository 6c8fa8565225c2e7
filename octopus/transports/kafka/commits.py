"""Stores and reads a group's offsets through aiokafka's coordinator, where its own ways lose or mistake them."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

import aiokafka.errors as kafka
from aiokafka.structs import OffsetAndMetadata

from octopus.events import TopicPartition
from octopus.transports.base import Commit
from octopus.transports.kafka.engine import Coordinator
from octopus.transports.kafka.stable import UNSTABLE, StableOffsetFetch, entries

_NOT_COORDINATOR = 16


async def store(
    coordinator: Coordinator, assignment: Any, offsets: Mapping[TopicPartition, Commit], owned: Callable[[], object]
) -> None:
    """Commit offsets, again and again until that works or cannot work.

    As `GroupCoordinator.commit_offsets`, but no attempt outlives the assignment it was made for: the engine retries with
    the generation it has by then, and would put back the next owner's offsets.

    Args:
        coordinator: The engine's `GroupCoordinator`.
        assignment: The engine's assignment that the offsets belong to.
        offsets: What to store.
        owned: Whether the partitions have not been given back yet.

    Raises:
        CommitFailedError: The partitions were taken away.
        KafkaError: Anything else that trying again does not help.
    """
    stored = {partition: OffsetAndMetadata(*commit) for partition, commit in offsets.items()}
    while True:
        await coordinator.ensure_coordinator_known()
        async with coordinator.commit_lock:
            if not assignment.active or not owned():
                raise kafka.CommitFailedError("the partitions were taken away meanwhile")
            try:
                # a request that was sent cannot be taken back; the lock keeps the next one behind it
                request = asyncio.ensure_future(coordinator.commit(assignment, stored))
                request.add_done_callback(_forget)
                await asyncio.shield(request)
                return
            except kafka.KafkaError as error:
                if not error.retriable:
                    raise
        await asyncio.sleep(coordinator.retry_backoff)


def _forget(request: "asyncio.Future[Any]") -> None:
    """Retrieve the failure of a request whose caller has gone, so that asyncio does not report it."""
    if not request.cancelled():
        request.exception()


async def read(
    coordinator: Coordinator, group: str, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, Commit | None]:
    """Return what a group has committed, None where it has not.

    The engine's own way hides the metadata and takes errors of single partitions for "nothing".

    Raises:
        KafkaError: Something was not answered, or answered with an error that trying again does not help.
    """
    found: dict[TopicPartition, Commit | None] = dict.fromkeys(partitions)
    if not found:
        return found
    topics: dict[str, list[int]] = {}
    for topic, number in found:
        topics.setdefault(topic, []).append(number)
    unanswered = set(found)
    reply = await _ask(coordinator, group, StableOffsetFetch(group, list(topics.items())))
    for partition, offset, metadata, _ in entries(reply):
        unanswered.discard(partition)
        if offset >= 0:
            found[partition] = Commit(offset, metadata)
    if unanswered:
        raise kafka.KafkaError(f"the broker did not answer for {', '.join(map(str, sorted(unanswered)))}")
    return found


async def _ask(coordinator: Coordinator, group: str, request: Any) -> Any:
    while True:
        await coordinator.ensure_coordinator_known()
        try:
            reply = await coordinator.ask(request)
            codes = [code for *_, code in entries(reply) if code]
            if _NOT_COORDINATOR in codes:
                coordinator.coordinator_dead()
            if not codes:
                return reply
            if codes[0] != UNSTABLE:
                raise kafka.for_code(codes[0])(f"group {group!r}")
        except kafka.KafkaError as error:
            if not error.retriable:
                raise
        await asyncio.sleep(coordinator.retry_backoff)
