"""Which segments of a log are full, which go, and which are worth compacting. Pure: time comes as an argument."""

from collections.abc import Iterable, Sequence

from octopus.broker.log.segment import Segment
from octopus.broker.log.values import LogConfig


def is_full(active: Segment, more: int, config: LogConfig, now: int) -> bool:
    """Tell whether a segment takes no more.

    Args:
        active: The segment that is appended to.
        more: Bytes that are to be appended.
        config: The log's.
        now: ms since the epoch.
    """
    return bool(active.size) and (
        active.size + more > config.segment_bytes or now - active.created >= config.segment_ms
    )


def is_expired(segment: Segment, config: LogConfig, now: int) -> bool:
    """Tell whether the newest record of a segment is too old to be kept."""
    newest = segment.max_timestamp if segment.max_timestamp >= 0 else segment.modified
    return config.retention_ms >= 0 and now - newest > config.retention_ms


def surplus(segments: Iterable[Segment], size_bytes: int, config: LogConfig, now: int) -> int:
    """Return how many of a log's first segments are too old or too many.

    Args:
        segments: Those that may go.
        size_bytes: The size of the log.
        config: The log's.
        now: ms since the epoch.
    """
    excess = size_bytes - config.retention_bytes if config.retention_bytes >= 0 else 0
    count = 0
    for segment in segments:
        if not is_expired(segment, config, now) and (segment.size > excess or not segment.size):
            break
        excess -= segment.size
        count += 1
    return count


def are_worth_compacting(segments: Sequence[Segment], compacted: int) -> bool:
    """Tell whether enough of segments is new.

    Args:
        segments: Those that may be rewritten.
        compacted: The offset up to which they have been.
    """
    dirty = sum(segment.size for segment in segments if segment.next_offset > compacted)
    # Half must be new (Kafka's `min.cleanable.dirty.ratio`): so rewriting costs a constant factor, not the square.
    return bool(dirty) and 2 * dirty >= sum(segment.size for segment in segments)
