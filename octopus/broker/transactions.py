"""The transaction coordinator's rules: a state, a request and `now` (ms) go in, the next state comes out.

    empty ─add─▶ ongoing ─end─▶ prepare_commit ─markers written─▶ complete_commit
                    │  ▲  └───▶ prepare_abort  ─markers written─▶ complete_abort
                    │  └────────────────add───────────────────────────┘
                    └─time-out, or a new producer with the id: prepare_abort with the next epoch (the old one is fenced)

Pure: `transaction_coordinator.py` applies the states to logs and offsets. A prepared state is the decision; it is
carried out in any case. Rules: KIP-98, as in Kafka's TransactionCoordinator.scala.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from octopus.broker.codes import BrokerError, Code
from octopus.broker.offsets import Committed, Partition
from octopus.broker.producers import TransactionState

LAST_EPOCH = 32_766
"""One below the largest i16: a fencing abort may still use the largest."""


def is_decided(state: TransactionState) -> bool:
    """Say whether the end was decided and not yet carried out."""
    return state.phase in {"prepare_commit", "prepare_abort"}


def initialize(
    state: TransactionState | None,
    transactional_id: str,
    timeout_ms: int,
    longest_ms: int,
    now: int,
    allocate: Callable[[], int],
) -> TransactionState:
    """Give a (re)started producer its id and an epoch above all earlier ones; no transaction may be open any more.

    Raises:
        BrokerError: 50 the time-out is not positive or too long; 51 a transaction is not ended yet.
    """
    if not 0 < timeout_ms <= longest_ms:
        raise BrokerError(Code.INVALID_TRANSACTION_TIMEOUT)
    if state is None or state.producer_epoch >= LAST_EPOCH:
        return TransactionState(transactional_id, allocate(), 0, timeout_ms, updated=now)
    if state.phase == "ongoing" or is_decided(state):
        raise BrokerError(Code.CONCURRENT_TRANSACTIONS)
    return TransactionState(transactional_id, state.producer_id, state.producer_epoch + 1, timeout_ms, updated=now)


def add_partitions(
    state: TransactionState | None, producer_id: int, epoch: int, partitions: Iterable[Partition], now: int
) -> TransactionState:
    """Put partitions into the transaction, beginning one if none is open.

    Raises:
        BrokerError: 47, 49, 51 as `identify`.
    """
    known = _begun(identify(state, producer_id, epoch), now)
    return replace(known, partitions=known.partitions.union(partitions), updated=now)


def add_group(state: TransactionState | None, producer_id: int, epoch: int, group: str, now: int) -> TransactionState:
    """Announce that the transaction will commit offsets of `group`.

    Raises:
        BrokerError: 47, 49, 51 as `identify`.
    """
    known = _begun(identify(state, producer_id, epoch), now)
    return replace(known, groups=known.groups | {group}, updated=now)


def add_offsets(
    state: TransactionState | None,
    producer_id: int,
    epoch: int,
    group: str,
    offsets: Mapping[Partition, Committed],
    now: int,
) -> TransactionState:
    """Keep offsets that the transaction's end will commit or drop.

    Raises:
        BrokerError: 47, 49, 51 as `identify`; 48 the group was not announced.
    """
    known = identify(state, producer_id, epoch)
    if known.phase != "ongoing" or group not in known.groups:
        raise BrokerError(Code.INVALID_TXN_STATE)
    pending = {**known.offsets, group: {**known.offsets.get(group, {}), **offsets}}
    return replace(known, offsets=pending, updated=now)


def end(state: TransactionState | None, producer_id: int, epoch: int, commit: bool, now: int) -> TransactionState:
    """Decide the transaction; repeating a decision is success.

    Raises:
        BrokerError: 47, 49 as `identify`; 48 there is no transaction, or it was decided the other way.
    """
    known = identify(state, producer_id, epoch, may_be_decided=True)
    wanted = "commit" if commit else "abort"
    if known.phase == "ongoing":
        return replace(known, phase="prepare_commit" if commit else "prepare_abort", updated=now)
    if known.phase.endswith(f"_{wanted}"):
        return known
    raise BrokerError(Code.INVALID_TXN_STATE)


def fence(state: TransactionState, now: int) -> TransactionState:
    """Abort an open transaction over its producer's head: the next epoch makes everything the producer sends fail (47)."""
    return replace(state, phase="prepare_abort", producer_epoch=min(state.producer_epoch + 1, 32_767), updated=now)


def completed(state: TransactionState, now: int) -> TransactionState:
    """Note that a decision was carried out."""
    return TransactionState(
        state.transactional_id,
        state.producer_id,
        state.producer_epoch,
        state.timeout_ms,
        phase="complete_commit" if state.phase == "prepare_commit" else "complete_abort",
        started=state.started,
        updated=now,
    )


def deadline(state: TransactionState) -> int | None:
    """Say until when an open transaction may stay open (ms), or None if none is open."""
    return state.started + state.timeout_ms if state.phase == "ongoing" else None


def has_timed_out(state: TransactionState, now: int) -> bool:
    """Say whether an open transaction has been open for too long."""
    until = deadline(state)
    return until is not None and until <= now


def has_expired(state: TransactionState, now: int, expiry_ms: int) -> bool:
    """Say whether a transactional id was idle for so long that it may be forgotten."""
    return state.phase not in {"ongoing", "prepare_commit", "prepare_abort"} and state.updated + expiry_ms <= now


def check_write(state: TransactionState | None, producer_id: int, epoch: int, partition: Partition) -> None:
    """Refuse a transactional batch that no open transaction covers.

    Raises:
        BrokerError: 47, 49 as `identify`; 48 the partition is not in an open transaction.
    """
    known = identify(state, producer_id, epoch, may_be_decided=True)
    if known.phase != "ongoing" or partition not in known.partitions:
        raise BrokerError(Code.INVALID_TXN_STATE)


def identify(
    state: TransactionState | None, producer_id: int, epoch: int, *, may_be_decided: bool = False
) -> TransactionState:
    """Check that the caller is the current producer of the transactional id.

    Raises:
        BrokerError: 49 not this producer id; 47 an older epoch (fenced); 51 the previous transaction is still ending.
    """
    if state is None or state.producer_id != producer_id:
        raise BrokerError(Code.INVALID_PRODUCER_ID_MAPPING)
    if state.producer_epoch != epoch:
        raise BrokerError(Code.INVALID_PRODUCER_EPOCH)
    if is_decided(state) and not may_be_decided:
        raise BrokerError(Code.CONCURRENT_TRANSACTIONS)
    return state


def _begun(state: TransactionState, now: int) -> TransactionState:
    return state if state.phase == "ongoing" else replace(state, phase="ongoing", started=now)
