"""Leader epochs (KIP-320): how clients notice that a partition's leader changed, or that records were cut off behind them.

Here one broker leads every partition from its first day on, so there is one epoch. A topic that is made again begins with
it too, as in Kafka: its id tells it from the one before.
"""

from octopus.broker.codes import Code, require
from octopus.broker.log import Log

LEADER_EPOCH = 0
UNKNOWN = -1
"""In place of an epoch: the client does not say; there is none."""


def check_current(epoch: int) -> None:
    """Refuse a client that knows another leader of the partition.

    Raises:
        BrokerError: 74 an earlier one, 75 a later one.
    """
    require(epoch == UNKNOWN or epoch >= LEADER_EPOCH, Code.FENCED_LEADER_EPOCH)
    require(epoch <= LEADER_EPOCH, Code.UNKNOWN_LEADER_EPOCH)


def end_of(log: Log, epoch: int) -> tuple[int, int]:
    """Return the epoch and where its records end; -1 and -1 for an epoch that never was."""
    return (LEADER_EPOCH, log.end_offset) if epoch == LEADER_EPOCH else (UNKNOWN, -1)


def has_diverged(log: Log, epoch: int, offset: int) -> bool:
    """Say whether a client that fetches from `offset`, its last record from a leader of `epoch`, has records that are not here.

    Raises:
        BrokerError: 1 the end of that epoch is unknown.
    """
    known, end = end_of(log, epoch)
    require(known != UNKNOWN and offset >= log.start_offset, Code.OFFSET_OUT_OF_RANGE)
    return end < offset
