"""What the next transaction of a partition consists of. Pure.

The invariant, at every commit: the outputs that are visible are those of the records that the commit names, by its offset
or by its map. A member that begins there repeats no output and misses none.
"""

from collections.abc import Sequence
from typing import NamedTuple

from octopus.pipeline.outputs import Contribution, Outbox
from octopus.runner.commit_metadata import MAP_LIMIT, encode_map
from octopus.runner.ledger import OffsetLedger
from octopus.transports.base import Commit


class Plan(NamedTuple):
    """What a transaction consists of.

    Attributes:
        outputs: Of the records that it settles.
        commit: The offset, with the map of what is settled beyond it.
        ahead: What the map says.
        ahead_count: Records settled beyond the offset, when this was taken.
    """

    outputs: list[Contribution]
    commit: Commit
    ahead: Sequence[tuple[int, int]]
    ahead_count: int


def plan_transaction(
    ledger: OffsetLedger,
    outbox: Outbox,
    committed: int | None,
    committed_ahead: Sequence[tuple[int, int]],
    *,
    map_limit: int = MAP_LIMIT,
) -> Plan | None:
    """Take what the next transaction consists of, at one moment; None when there is nothing it could bring.

    Args:
        ledger: What is settled.
        outbox: What settled records publish; what the plan contains is taken out of it.
        committed: The offset of the last transaction.
        committed_ahead: What its map said.
        map_limit: How long a map may be, in bytes.
    """
    offset, ahead, count = ledger.committable, ledger.settled_ahead(), ledger.ahead
    metadata = encode_map(offset, ahead, map_limit)
    if metadata or not ahead:
        return Plan(outbox.take(), Commit(offset, metadata), ahead, count)
    # The map does not fit. Elsewhere that means that some records run twice after a crash; here their outputs wait until
    # the gaps close. What was committed ahead stays so.
    if offset == committed or outbox.straddles(offset):
        return None
    ahead = [(max(first, offset), last) for first, last in committed_ahead if last >= offset]
    metadata = encode_map(offset, ahead, map_limit)
    if ahead and not metadata:
        return None  # a part of a map that fitted, but its base has a digit more
    return Plan(outbox.take(offset), Commit(offset, metadata), ahead, count)
