"""Carries out the decisions of `transactions.py`: durable states, markers in the logs, offsets applied or dropped."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from weakref import WeakValueDictionary

from octopus.broker import transactions
from octopus.broker.codes import BrokerError, Code
from octopus.broker.limits import Limits
from octopus.broker.log import Log
from octopus.broker.offsets import Committed, Partition
from octopus.broker.producers import TransactionState
from octopus.broker.storage import Storage
from octopus.logs import get_logger

_log = get_logger(__name__)

_SHORTEST_PAUSE_MS = 100

Step = Callable[[TransactionState | None], TransactionState]


class TransactionCoordinator:
    """Transactions of one broker. Requests for one transactional id are carried out one after the other."""

    def __init__(self, storage: Storage, limits: Limits, clock: Callable[[], int]) -> None:
        self._storage = storage
        self._limits = limits
        self._clock = clock
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._planned: int | None = None  # when `watch` looks next
        self._is_early = asyncio.Event()  # some transaction ends before that

    async def initialize(self, transactional_id: str, timeout_ms: int) -> TransactionState:
        """Give a producer its id and epoch, aborting and fencing its predecessor's open transaction.

        Raises:
            BrokerError: 50 bad time-out, 44 too many transactional ids, 56 the disk refused.
        """
        store = self._storage.producers
        async with self._alone(transactional_id):
            state = store.get(transactional_id)
            if state is None and len(store.transactions()) >= self._limits.max_transactional_ids:
                raise BrokerError(Code.POLICY_VIOLATION, "this broker knows too many transactional ids")
            if state is not None:
                state = await self._closed(state)
            longest = self._limits.max_transaction_timeout_ms
            fresh = transactions.initialize(state, transactional_id, timeout_ms, longest, self._clock(), store.allocate)
            await self._put(fresh)
            return fresh

    async def new_producer_id(self) -> int:
        """Allocate a producer id for an idempotent producer.

        Raises:
            BrokerError: 56 the disk refused.
        """
        producer_id = self._storage.producers.allocate()
        await self._storage.synced([self._storage.producers])
        return producer_id

    async def add_partitions(
        self, transactional_id: str, producer_id: int, epoch: int, partitions: list[Partition]
    ) -> None:
        """Put partitions into the transaction. Raises as `transactions.add_partitions`, and 56."""
        await self._change(
            transactional_id,
            lambda state: transactions.add_partitions(state, producer_id, epoch, partitions, self._clock()),
        )

    async def add_group(self, transactional_id: str, producer_id: int, epoch: int, group: str) -> None:
        """Announce a group whose offsets the transaction will commit. Raises as `transactions.add_group`, and 56."""
        await self._change(
            transactional_id, lambda state: transactions.add_group(state, producer_id, epoch, group, self._clock())
        )

    async def add_offsets(
        self, transactional_id: str, producer_id: int, epoch: int, group: str, offsets: Mapping[Partition, Committed]
    ) -> None:
        """Keep offsets until the transaction ends. Raises as `transactions.add_offsets`, and 56."""
        await self._change(
            transactional_id,
            lambda state: transactions.add_offsets(state, producer_id, epoch, group, offsets, self._clock()),
        )

    async def end(self, transactional_id: str, producer_id: int, epoch: int, commit: bool) -> None:
        """Commit or abort, all of it durable and visible on return. Raises as `transactions.end`, and 56."""
        async with self._alone(transactional_id):
            state = self._storage.producers.get(transactional_id)
            decided = transactions.end(state, producer_id, epoch, commit, self._clock())
            if decided is not state:
                await self._put(decided)
            await self._carry_out(decided)

    def check_write(self, transactional_id: str | None, partition: Partition) -> Callable[[int, int], None]:
        """Return the check that a log makes of a transactional batch's producer id and epoch."""

        def check(producer_id: int, epoch: int) -> None:
            if transactional_id is None:
                raise BrokerError(Code.INVALID_TXN_STATE, "a transactional batch without a transactional id")
            state = self._storage.producers.get(transactional_id)
            transactions.check_write(state, producer_id, epoch, partition)

        return check

    async def recover(self) -> None:
        """End the transactions that a crash left: carry out decisions, abort and fence open transactions. Call before serving."""
        for state in self._storage.producers.transactions():
            async with self._alone(state.transactional_id):
                await self._closed(state)

    async def expire(self) -> None:
        """Abort transactions past their time, retry decisions a full disk held up, forget idle transactional ids."""
        for each in self._storage.producers.transactions():
            now = self._clock()
            is_idle = transactions.has_expired(each, now, self._limits.transactional_id_expiry_ms)
            if not (is_idle or transactions.is_decided(each) or transactions.has_timed_out(each, now)):
                continue
            async with self._alone(each.transactional_id):
                state = self._storage.producers.get(each.transactional_id)
                if state is not each:
                    continue  # the producer was quicker
                if is_idle:
                    self._storage.producers.remove(each.transactional_id)
                    await self._storage.synced([self._storage.producers])
                    continue
                try:
                    await self._closed(state)
                except BrokerError as error:
                    _log.warning("transaction %r cannot be ended yet: %s", each.transactional_id, error)

    async def watch(self) -> None:
        """End transactions when their time is up; runs until cancelled."""
        while True:
            self._is_early.clear()
            await self.expire()
            deadlines = [transactions.deadline(each) for each in self._storage.producers.transactions()]
            self._planned = min((each for each in deadlines if each is not None), default=None)
            # A full disk may keep an overdue transaction open: try again, but not in a tight loop.
            pause = None if self._planned is None else max(self._planned - self._clock(), _SHORTEST_PAUSE_MS) / 1000
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._is_early.wait()

    async def _closed(self, state: TransactionState) -> TransactionState:
        """End an open or decided transaction of any producer, and return the state after it."""
        if state.phase == "ongoing":
            state = transactions.fence(state, self._clock())
            await self._put(state)
        return await self._carry_out(state)

    async def _carry_out(self, state: TransactionState) -> TransactionState:
        """Write the markers and apply the offsets of a decision; may be repeated after a failure or a crash."""
        # Without the offsets of topics deleted since.
        state = self._storage.producers.get(state.transactional_id) or state
        if not transactions.is_decided(state):
            return state
        now, commit = self._clock(), state.phase == "prepare_commit"
        changed: list[Log] = []
        for topic, partition in sorted(state.partitions):
            try:
                log = self._storage.log(topic, partition)
                log.append_control(state.producer_id, state.producer_epoch, commit, now)
            except BrokerError as error:
                if error.code != Code.UNKNOWN_TOPIC_OR_PARTITION:  # deleted meanwhile: nothing left to decide there
                    raise
            else:
                changed.append(log)
        if commit:
            for group, offsets in state.offsets.items():
                self._storage.offsets.commit(group, offsets)
        # Only when markers and offsets are durable may the decision be forgotten: a crash in between carries it out again.
        await self._storage.synced([*changed, self._storage.offsets])
        done = transactions.completed(state, now)
        await self._put(done)
        return done

    async def _change(self, transactional_id: str, step: Step) -> None:
        async with self._alone(transactional_id):
            await self._put(step(self._storage.producers.get(transactional_id)))

    async def _put(self, state: TransactionState) -> None:
        self._storage.producers.put(state)
        deadline = transactions.deadline(state)
        if deadline is not None and (self._planned is None or deadline < self._planned):
            self._is_early.set()
        await self._storage.synced([self._storage.producers])

    @asynccontextmanager
    async def _alone(self, transactional_id: str) -> AsyncIterator[None]:
        # The tasks that hold or await the lock keep it alive; no other task needs it.
        lock = self._locks.setdefault(transactional_id, asyncio.Lock())
        async with lock:
            yield
