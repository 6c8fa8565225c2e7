"""Batches whose partition has no leader, or is gone: what aiokafka's producer does with them too long, or too often."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiokafka.errors as kafka

from octopus.events import TopicPartition
from octopus.transports.kafka.client_name import ClientName
from octopus.transports.kafka.producer_engine import Accumulator, Producer

LOOK_AFTER, LOOK_CLOSELY = 2.0, 0.5
"""Seconds between two looks at a batch without an answer: as long as its partition is known, and when it is missing."""

MISSING_FOR = 2.0
"""Seconds that a partition must be missing before its batches fail: not every broker knows of a new one at once."""

ASK_EVERY = 0.1
"""Seconds between two questions for an unknown leader."""


class BatchWatch:
    """Looks after a batch that is not acknowledged: its topic may have vanished, or it takes too long.

    aiokafka would send it to a topic that is gone for as long as it takes, and keep those of others waiting for it.

    Args:
        engine: Whose it is.
        batch: aiokafka's.
        deadline: Time of the loop when it is too late.
        too_late: Gets the client's name then.
        is_gone: Is told when the batch was taken back because its partition is gone, and why.
    """

    __slots__ = ("_batch", "_deadline", "_engine", "_is_gone", "_loop", "_missing_since", "_timer", "_too_late")

    def __init__(
        self,
        engine: Producer,
        batch: Any,
        deadline: float,
        *,
        too_late: Callable[[ClientName], None],
        is_gone: Callable[[kafka.UnknownTopicOrPartitionError], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._engine = engine
        self._batch = batch
        self._too_late = too_late
        self._is_gone = is_gone
        self._deadline = deadline
        self._missing_since: float | None = None
        self._timer = self._loop.call_at(min(self._loop.time() + LOOK_AFTER, deadline), self._look)

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
        gone = kafka.UnknownTopicOrPartitionError(f"{TopicPartition(*self._batch.tp)} is no longer there")
        if not self._engine.take_back(self._batch, gone):
            return False
        self._is_gone(gone)
        return True


def pace(accumulator: Accumulator) -> None:
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
                waking = accumulator.wake_sender_in(wait)
            else:
                asked_at = loop.time()
        return batches, is_leader_unknown

    accumulator.drain_by_nodes = drain_paced
