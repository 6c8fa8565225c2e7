"""Transactions of the in-process broker: fencing by epoch, and an end that shows everything or nothing."""

from collections.abc import Mapping, Sequence

from octopus.errors import PartitionLost, TransportError
from octopus.events import Published, TopicPartition
from octopus.transports.base import Commit, Outgoing
from octopus.transports.memory.broker import MemoryBroker, Transaction
from octopus.transports.memory.storing import StoringProducer


class MemoryTransactionalProducer(StoringProducer):
    """Publishes to the in-process broker in transactions.

    Args:
        broker: Where to.
        transactional_id: Starting a producer of this id fences the one before.
    """

    def __init__(self, broker: MemoryBroker, transactional_id: str) -> None:
        self._broker = broker
        self._id = transactional_id
        self._epoch = 0

    async def start(self) -> None:
        """Fence the producer that had the id before, and abort its open transaction."""
        with self._broker.lock:
            transaction = self._broker.transactions.setdefault(self._id, Transaction(self._id))
            transaction.epoch += 1
            self._epoch = transaction.epoch
            self._end(transaction, commit=False)

    async def stop(self) -> None:
        """Do nothing: the next producer of this id aborts an open transaction."""

    async def begin(self) -> None:
        """Begin a transaction."""
        with self._broker.lock:
            self._broker.faults.check("begin")
            self._current(is_open=False).is_open = True

    def store(self, messages: Sequence[Outgoing]) -> list[Published]:
        """Store messages as part of the transaction, invisible so far."""
        with self._broker.lock:
            return self._broker.append(messages, self._current())

    async def send_offsets(self, group: str, offsets: Mapping[TopicPartition, Commit]) -> None:
        """Make a group's offsets part of the transaction."""
        with self._broker.lock:
            self._broker.faults.check("send_offsets")
            for partition in offsets:
                self._broker.log(partition)
            self._current().offsets.setdefault(group, {}).update(offsets)

    async def commit(self) -> None:
        """Make the messages visible and store the offsets."""
        self._finish(commit=True)

    async def abort(self) -> None:
        """Drop the messages and the offsets."""
        self._finish(commit=False)

    def _finish(self, *, commit: bool) -> None:
        with self._broker.lock:
            self._broker.faults.check("end")
            self._end(self._current(), commit=commit)
        self._broker.changed.notify()
        self._broker.faults.check("ended")

    def _end(self, transaction: Transaction, *, commit: bool) -> None:
        for partition, offsets in transaction.written.items():
            logs = self._broker.topics.get(partition.topic, [])
            log = logs[partition.partition] if partition.partition < len(logs) else None
            if log is None or transaction.transactional_id not in log.open:
                continue  # the topic has been deleted, perhaps made again
            for offset in offsets if not commit else ():
                if offset >= log.start:
                    log.records[offset - log.start] = None
            log.records.append(None)  # where Kafka writes the end of a transaction
            log.open.pop(transaction.transactional_id, None)
        for group, stored in transaction.offsets.items() if commit else ():
            self._broker.group(group).offsets.update(stored)
        transaction.written, transaction.offsets, transaction.is_open = {}, {}, False

    def _current(self, *, is_open: bool = True) -> Transaction:
        transaction = self._broker.transactions[self._id]
        if transaction.epoch != self._epoch:
            raise PartitionLost(f"Another producer has the transactional id {self._id!r} now.")
        if transaction.is_open != is_open:
            raise TransportError(f"A transaction of {self._id!r} is {'not ' if is_open else ''}under way.")
        return transaction
