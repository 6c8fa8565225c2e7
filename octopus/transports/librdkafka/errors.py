"""librdkafka's errors as ours: brokers' codes by the table of the other engine, its own codes by the one here."""

from confluent_kafka import KafkaError, KafkaException

from octopus.errors import (
    ConnectionFailed,
    CorruptBatch,
    NotAuthorized,
    OffsetOutOfRange,
    PartitionLost,
    TransportError,
)
from octopus.transports.kafka.errors import is_retryable, translated_code

_OWN: dict[int, tuple[type[TransportError], str]] = {
    KafkaError._AUTO_OFFSET_RESET: (OffsetOutOfRange, "Choose where to go on; nothing is skipped by itself."),
    KafkaError._AUTHENTICATION: (NotAuthorized, "Check the credentials and what this principal may do."),
    KafkaError._SSL: (NotAuthorized, "Check ca_file."),
    KafkaError._BAD_MSG: (CorruptBatch, "Restore the partition from a replica, or skip the batch on purpose."),
    KafkaError._BAD_COMPRESSION: (CorruptBatch, "Restore the partition from a replica, or skip the batch on purpose."),
    KafkaError._NOT_IMPLEMENTED: (CorruptBatch, "Nothing here reads it; skip the batch on purpose."),
    KafkaError._ASSIGNMENT_LOST: (PartitionLost, "The group has moved on without this member."),
}
_MOVED_ON = (
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.FENCED_MEMBER_EPOCH,
    KafkaError.STALE_MEMBER_EPOCH,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.GROUP_ID_NOT_FOUND,
)
_PASSING = (
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._WAIT_COORD,
    KafkaError._WAIT_CACHE,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._RETRY,
)


GENERATION_CHANGES = (
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.STALE_MEMBER_EPOCH,
)
"""Errors of a commit while the group agrees on a new generation. A member that keeps partitions commits in the next one."""


def error_of(exception: KafkaException) -> KafkaError:
    """Return the error that an exception carries."""
    error: KafkaError = exception.args[0]
    return error


def is_passing(error: KafkaError) -> bool:
    """Tell whether asking again may help."""
    code = error.code()
    if code in (*_PASSING, KafkaError.UNRELEASED_INSTANCE_ID):
        return True
    return code > 0 and is_retryable(code)


def ours(error: KafkaError, doing: str, address: str) -> TransportError:
    """Return our error for one of librdkafka's.

    Args:
        error: librdkafka's.
        doing: The attempt, as it reads after "Kafka at … failed while".
        address: The brokers.
    """
    code, reason = error.code(), error.str().rstrip(".")
    what = f"Kafka at {address} failed while {doing}: {reason}."
    if code in _OWN:
        kind, advice = _OWN[code]
        return kind(f"{what} {advice}")
    if code in _MOVED_ON:
        return PartitionLost(f"{what} The group has moved on without this member.")
    if code in _PASSING:
        return ConnectionFailed(f"{what} Check that the broker runs and that this address reaches it.")
    if code > 0:
        found = translated_code(code, reason, doing, address)
        assert isinstance(found, TransportError)
        return found
    return TransportError(what, retryable=is_passing(error))
