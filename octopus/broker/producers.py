"""Producer ids and the state of transactions, kept durably for the transaction coordinator."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from octopus.broker.codes import BrokerError
from octopus.broker.environment import Environment
from octopus.broker.journal import Journal
from octopus.broker.offsets import Committed, Partition

Phase: TypeAlias = Literal["empty", "ongoing", "prepare_commit", "prepare_abort", "complete_commit", "complete_abort"]


@dataclass(frozen=True)
class TransactionState:
    """The coordinator's knowledge of one transactional id.

    Attributes:
        transactional_id: The client's name for its line of transactions.
        producer_id: The producer id it was given.
        producer_epoch: Its current epoch; older ones are fenced.
        timeout_ms: How long a transaction may stay open.
        phase: Where the transaction is; `prepare_…` is the decision, from which there is no way back.
        started: When the open transaction began, or the last one of this epoch, ms since the epoch; -1 for none.
        updated: When this state was last changed, ms since the epoch.
        partitions: Partitions in the transaction.
        offsets: Offsets to commit with it: group → partition → offset.
        groups: Groups added to the transaction (`AddOffsetsToTxn`).
    """

    transactional_id: str
    producer_id: int
    producer_epoch: int
    timeout_ms: int
    phase: Phase = "empty"
    started: int = -1
    updated: int = -1
    partitions: frozenset[Partition] = frozenset()
    offsets: Mapping[str, Mapping[Partition, Committed]] = field(default_factory=dict)
    groups: frozenset[str] = frozenset()


_RESERVED = 1000


class ProducerStore:
    """Producer ids and transaction states; durable after `await storage.synced([producers])`.

    Args:
        path: The journal's file; None keeps everything in memory.
        environment: Shared by all that is stored.

    Raises:
        OSError: The file cannot be read or written.
    """

    def __init__(self, path: Path | None = None, environment: Environment | None = None) -> None:
        self._next_id = 0
        self._reserved = 0
        self._transactions: dict[str, TransactionState] = {}
        self.journal = Journal(path, environment or Environment(), self._replay, self._snapshot)
        self._next_id = self._reserved

    def allocate(self) -> int:
        """Return a producer id that was never returned before; give it away only after a sync.

        Raises:
            BrokerError: 56 the disk refused.
        """
        if self._next_id >= self._reserved or self.journal.is_broken:
            # Reserved ahead, so that the journal gets one line for a thousand ids.
            before, self._reserved = self._reserved, self._next_id + _RESERVED
            try:
                self.journal.write(["reserved", self._reserved])
            except BrokerError:
                self._reserved = before
                raise
        self._next_id += 1
        return self._next_id - 1

    def skip_to(self, producer_id: int) -> None:
        """Never return an id below `producer_id`: some log knows it (the journal may have been damaged)."""
        self._next_id = max(self._next_id, producer_id)

    def get(self, transactional_id: str) -> TransactionState | None:
        """Return the state of a transactional id."""
        return self._transactions.get(transactional_id)

    def put(self, state: TransactionState) -> None:
        """Store a new state.

        Raises:
            BrokerError: 56 the disk refused; the old state stays.
        """
        before = self._transactions.get(state.transactional_id)
        self._transactions[state.transactional_id] = state
        try:
            self.journal.write(_put_entry(state))
        except BrokerError:
            if before is None:
                del self._transactions[state.transactional_id]
            else:
                self._transactions[state.transactional_id] = before
            raise

    def pending(self, group: str) -> set[Partition]:
        """Name the partitions for which transactions that are not over hold offsets of a group."""
        return {place for state in self._transactions.values() for place in state.offsets.get(group, ())}

    def forget_topic(self, topic: str) -> None:
        """Take a deleted topic's offsets out of every transaction: they must not reach another topic of that name.

        Its partitions stay: as in Kafka, a producer may go on with a topic that was made again.

        Raises:
            BrokerError: 56 the disk refused.
        """
        for state in self.transactions():
            kept = {
                group: {place: each for place, each in offsets.items() if place[0] != topic}
                for group, offsets in state.offsets.items()
            }
            if kept != state.offsets:
                self.put(replace(state, offsets=kept))

    def remove(self, transactional_id: str) -> None:
        """Forget a transactional id.

        Raises:
            BrokerError: 56 the disk refused.
        """
        if self._transactions.pop(transactional_id, None) is not None:
            self.journal.write(["remove", transactional_id])

    def transactions(self) -> list[TransactionState]:
        """Return every state."""
        return list(self._transactions.values())

    def _replay(self, entry: Any) -> None:
        match entry:
            case ["reserved", int(reserved)]:
                self._reserved = reserved
            case ["put", values]:
                state = _state(values)
                self._transactions[state.transactional_id] = state
            case ["remove", transactional_id]:
                self._transactions.pop(transactional_id, None)

    def _snapshot(self) -> Iterator[Any]:
        yield ["reserved", max(self._reserved, self._next_id)]
        for state in self._transactions.values():
            yield _put_entry(state)


def _put_entry(state: TransactionState) -> Any:
    offsets = [
        [group, [[*partition, *committed] for partition, committed in offsets.items()]]
        for group, offsets in state.offsets.items()
    ]
    lists = {"partitions": sorted(state.partitions), "groups": sorted(state.groups), "offsets": offsets}
    return ["put", vars(state) | lists]


def _state(values: dict[str, Any]) -> TransactionState:
    return TransactionState(
        **values
        | {
            "partitions": frozenset((topic, partition) for topic, partition in values["partitions"]),
            "groups": frozenset(values["groups"]),
            "offsets": {
                group: {(topic, partition): Committed(*rest) for topic, partition, *rest in offsets}
                for group, offsets in values["offsets"]
            },
        }
    )
