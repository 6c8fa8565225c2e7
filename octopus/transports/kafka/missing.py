"""Partitions that have no leader, or are gone: what aiokafka's producer does with them too long, or too often."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiokafka.errors as kafka
from aiokafka.client import CoordinationType
from aiokafka.producer.sender import TxnOffsetCommitHandler

from octopus.events import TopicPartition
from octopus.transports.kafka.connection import ClientName

LOOK_AFTER, LOOK_CLOSELY = 2.0, 0.5
"""Seconds between two looks at a batch without an answer: as long as its partition is known, and when it is missing."""

MISSING_FOR = 2.0
"""Seconds that a partition must be missing before its batches fail: not every broker knows of a new one at once."""

ASK_EVERY = 0.1
"""Seconds between two questions for a leader that nobody knows."""


class BatchWatch:
    """Looks after a batch that is not acknowledged: its topic may have vanished, or it takes too long.

    aiokafka would send it to a topic that is gone for as long as it takes, and keep those of others waiting for it.

    Args:
        engine: Whose it is.
        batch: aiokafka's.
        delivery_timeout: Seconds until it is too late.
        too_late: Gets the client's name then; the batch stays with the engine, which may yet store it.
    """

    __slots__ = ("_batch", "_deadline", "_engine", "_loop", "_missing_since", "_timer", "_too_late")

    def __init__(
        self, engine: Any, batch: Any, delivery_timeout: float, too_late: Callable[[ClientName], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._engine = engine
        self._batch = batch
        self._too_late = too_late
        now = self._loop.time()
        self._deadline = now + delivery_timeout
        self._missing_since: float | None = None
        self._timer = self._loop.call_later(min(LOOK_AFTER, delivery_timeout), self._look)

    def stop(self) -> None:
        """It is acknowledged, or failed."""
        self._timer.cancel()

    def _look(self) -> None:
        now, client = self._loop.time(), self._engine.client
        if now >= self._deadline:
            self._too_late(ClientName.of(client))
            return
        known = client.cluster.partitions_for_topic(self._batch.tp.topic)
        if known is not None and self._batch.tp.partition in known:
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = now
        if self._missing_since is not None and now - self._missing_since >= MISSING_FOR and self._take_back():
            return
        client.force_metadata_update()  # what it says is seen at the next look
        wait = LOOK_AFTER if self._missing_since is None else LOOK_CLOSELY
        self._timer = self._loop.call_later(min(wait, self._deadline - now), self._look)

    def _take_back(self) -> bool:
        """Fail the batch, unless it is on its way to a broker just now."""
        batch, accumulator = self._batch, self._engine._message_accumulator
        queued = accumulator._batches.get(batch.tp, ())
        if batch not in queued:
            return False
        queued.remove(batch)
        if not queued:
            del accumulator._batches[batch.tp]
        self._engine._txn_manager._pending_txn_partitions.discard(batch.tp)
        if batch.retry_count:
            accumulator._pending_batches.add(batch)  # from where its callback takes it
        batch.failure(kafka.UnknownTopicOrPartitionError(f"{TopicPartition(*batch.tp)} is no longer there"))
        if batch._drain_waiter.done():
            batch._drain_waiter.exception()  # looked at, or asyncio would complain that nobody did
        return True


def pace(accumulator: Any) -> None:
    """Let a producer ask for unknown leaders only so often: aiokafka asks again as soon as it has the answer, without end."""
    drain, loop = accumulator.drain_by_nodes, asyncio.get_running_loop()
    asked_at = -ASK_EVERY
    waking: asyncio.TimerHandle | None = None

    def drain_paced(*arguments: Any, **options: Any) -> tuple[Any, bool]:
        nonlocal asked_at, waking
        batches, is_leader_unknown = drain(*arguments, **options)
        if waking is not None:
            waking.cancel()
            waking = None
        if is_leader_unknown:
            if (wait := asked_at + ASK_EVERY - loop.time()) > 0:
                is_leader_unknown = False
                waking = loop.call_later(wait, accumulator._wakeup, accumulator._waiter_future)
            else:
                asked_at = loop.time()
        return batches, is_leader_unknown

    accumulator.drain_by_nodes = drain_paced


class _CommitOfOffsets(TxnOffsetCommitHandler):
    """Fails where a topic is not there: aiokafka asks again until the transaction has taken too long, and is lost."""

    def handle_response(self, resp: Any) -> float | None:
        gone = [
            TopicPartition(topic, partition)
            for topic, codes in resp.errors
            for partition, code in codes
            if code == kafka.UnknownTopicOrPartitionError.errno
        ]
        if not gone:
            wait: float | None = super().handle_response(resp)  # type: ignore[no-untyped-call]
            return wait
        manager = self._sender._txn_manager
        manager.error_transaction(kafka.UnknownTopicOrPartitionError(", ".join(map(str, gone))))
        # That forgets the group; but the broker has it in the transaction, which has to be ended there, too.
        manager.consumer_group_added(self._group_id)
        return None


def refuse_offsets(sender: Any) -> None:
    """Let a transaction fail whose offsets are of a topic that is gone."""

    async def commit(offsets: Any, group: str) -> None:
        if not offsets:
            return
        try:
            node = await sender._find_coordinator(CoordinationType.GROUP, group)
        except kafka.GroupAuthorizationFailedError as error:
            sender._txn_manager.error_transaction(error)
        else:
            handler: Any = _CommitOfOffsets(sender, offsets, group)  # type: ignore[no-untyped-call]
            await handler.do(node)

    sender._do_txn_offset_commit = commit
