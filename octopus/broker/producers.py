"""Producer ids and the state of transactions, kept durably for the transaction coordinator."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from octopus.broker.offsets import Committed, Partition

Phase: TypeAlias = Literal["empty", "ongoing", "prepare_commit", "prepare_abort", "complete_commit", "complete_abort"]


@dataclass(frozen=True)
class TransactionState:
    """What the coordinator knows of one transactional id.

    Attributes:
        transactional_id: The client's name for its line of transactions.
        producer_id: The producer id it was given.
        producer_epoch: Its current epoch; older ones are fenced.
        timeout_ms: How long a transaction may stay open.
        phase: Where the transaction is; `prepare_…` is the decision, from which there is no way back.
        started: When the open transaction began, ms since the epoch; -1 for none.
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


class ProducerStore:
    """Producer ids and transaction states; durable after `await storage.synced([producers])`."""

    def __init__(self) -> None:
        self._next_id = 0
        self._transactions: dict[str, TransactionState] = {}

    def allocate(self) -> int:
        """Return a producer id that was never returned before, also not before a crash."""
        self._next_id += 1
        return self._next_id - 1

    def get(self, transactional_id: str) -> TransactionState | None:
        """Return the state of a transactional id."""
        return self._transactions.get(transactional_id)

    def put(self, state: TransactionState) -> None:
        """Store a new state.

        Raises:
            BrokerError: 56 the disk refused.
        """
        self._transactions[state.transactional_id] = state

    def remove(self, transactional_id: str) -> None:
        """Forget a transactional id."""
        self._transactions.pop(transactional_id, None)

    def transactions(self) -> list[TransactionState]:
        """Return every state."""
        return list(self._transactions.values())
