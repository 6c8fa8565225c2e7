"""Kafka's errors as ours: one table, one context manager."""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiokafka.errors as kafka

from octopus.errors import (
    AuthError,
    BatchTooLarge,
    ConnectionFailed,
    CorruptBatch,
    NotAuthorized,
    OctopusError,
    OffsetOutOfRange,
    PartitionLost,
    RecordRefused,
    RecordTooLarge,
    TopicNotFound,
    TransportError,
)
from octopus.transports.kafka.client_name import ClientName


class InvalidRecordError(kafka.BrokerResponseError):
    """The topic does not take a record; aiokafka does not know this error."""

    errno = 87
    message = "INVALID_RECORD"


_KINDS: tuple[tuple[tuple[type[BaseException], ...], type[TransportError], str], ...] = (
    (
        (
            kafka.TopicAuthorizationFailedError,
            kafka.GroupAuthorizationFailedError,
            kafka.ClusterAuthorizationFailedError,
            kafka.TransactionalIdAuthorizationFailed,
            kafka.SaslAuthenticationFailed,
            kafka.AuthenticationFailedError,
            kafka.UnsupportedSaslMechanismError,
            kafka.IllegalSaslStateError,
        ),
        NotAuthorized,
        "Check the credentials and what this principal may do.",
    ),
    (
        (kafka.UnknownTopicOrPartitionError,),
        TopicNotFound,
        "Create it, or check its name and that this principal may see it.",
    ),
    (
        (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError),
        RecordTooLarge,
        "Store the payload elsewhere and publish a reference, or raise max.message.bytes of the topic.",
    ),
    (
        (InvalidRecordError, kafka.InvalidTimestampError),
        RecordRefused,
        "Give it a key if the topic is compacted, and a time that message.timestamp.before.max.ms and .after.max.ms of the topic admit.",
    ),
    (
        (
            kafka.CommitFailedError,
            kafka.UnknownMemberIdError,
            kafka.IllegalGenerationError,
            kafka.RebalanceInProgressError,
        ),
        PartitionLost,
        "The group has moved on without this member.",
    ),
    ((kafka.OffsetOutOfRangeError,), OffsetOutOfRange, "Choose where to go on; nothing is skipped by itself."),
    ((kafka.RecordTooLargeError,), BatchTooLarge, "Raise max_partition_fetch_bytes."),
    (
        (kafka.CorruptRecordException, kafka.UnsupportedCodecError),
        CorruptBatch,
        "Restore the partition from a replica, or skip the batch on purpose.",
    ),
    (
        (
            kafka.KafkaConnectionError,
            kafka.NodeNotReadyError,
            kafka.KafkaTimeoutError,
            kafka.RequestTimedOutError,
            kafka.BrokerNotAvailableError,
            kafka.NoBrokersAvailable,
            kafka.KafkaUnavailableError,
            OSError,
            TimeoutError,
        ),
        ConnectionFailed,
        "Check that the broker runs and that this address reaches it.",
    ),
)

NOT_TRUSTED = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "TLSV1_ALERT_ACCESS_DENIED",
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    }
)
"""OpenSSL's names of the alerts (RFC 8446, section 6.2) by which a broker says that it does not accept our certificate."""

FOREIGN: tuple[type[BaseException], ...] = (
    kafka.KafkaError,
    kafka.IllegalOperation,
    kafka.ConsumerStoppedError,
    OSError,
    TimeoutError,
)
"""What aiokafka raises on purpose."""


@contextmanager
def mapped(doing: str, address: str, name: ClientName | None = None) -> Iterator[None]:
    """Turn aiokafka's errors into ours.

    Args:
        doing: What was tried, as it reads after "Kafka at … failed while": `committing offsets of group 'a'`.
        address: The brokers.
        name: The client's name, which remembers why connecting failed.

    Raises:
        TransportError: Or the `AuthError` of our own token provider.
    """
    try:
        yield
    except FOREIGN as error:
        raise translated(error, doing, address, name) from error


def translated(error: BaseException, doing: str, address: str, name: ClientName | None = None) -> OctopusError:
    """Return our error for one of aiokafka's."""
    failure = name.failure if name is not None else None
    if type(error) is kafka.KafkaError and isinstance(error.__cause__, FOREIGN):
        error = error.__cause__  # aiokafka has one error around all that it does not expect in its background tasks
    if isinstance(error, kafka.KafkaConnectionError | kafka.NodeNotReadyError) and failure is not None:
        error = failure
    if (ours := _refusal(error)) is not None:
        return ours
    if isinstance(error, ssl.SSLCertVerificationError):
        return NotAuthorized(f"No trusted TLS connection to {address} while {doing}: {error}. Check ca_file.")
    if isinstance(error, ssl.SSLError) and getattr(error, "reason", None) in NOT_TRUSTED:
        return NotAuthorized(
            f"Kafka at {address} does not accept our certificate while {doing}: {error}. Check certificate_file."
        )
    for foreign, kind, advice in _KINDS:
        if isinstance(error, foreign):
            return kind(f"Kafka at {address} failed while {doing}: {_reason(error)}. {advice}")
    retryable = bool(getattr(error, "retriable", False))
    return TransportError(f"Kafka at {address} failed while {doing}: {_reason(error)}.", retryable=retryable)


def end_of(task: "asyncio.Task[Any]") -> BaseException:
    """Return what it means that a background task has ended, which none should.

    Where it ended by a mistake of the client itself, or without a word, nothing is wrong with the broker or with us: a new client
    will do better.
    """
    error = None if task.cancelled() else task.exception()
    mistake = error.__cause__ if type(error) is kafka.KafkaError else error
    if error is not None and (mistake is None or isinstance(mistake, (*FOREIGN, OctopusError))):
        return error
    how = "without a word" if mistake is None else f"by a mistake of its own ({mistake!r})"
    ended = ConnectionFailed(f"One of the background tasks of the Kafka client ended {how}.")
    ended.__cause__ = error
    return ended


def _refusal(failure: BaseException) -> OctopusError | None:
    """Return our own error behind a failed connection: of a token provider, or of who looks for the broker."""
    cause = failure.__cause__
    return cause if isinstance(cause, AuthError | ConnectionFailed) else None


def translated_code(code: int, reason: str, doing: str, address: str) -> OctopusError:
    """Return our error for a broker's error code (https://kafka.apache.org/protocol#protocol_error_codes)."""
    return translated(kafka.for_code(code)(reason), doing, address)


def is_retryable(code: int) -> bool:
    """Tell whether a broker's error code stands for what passes."""
    return bool(getattr(kafka.for_code(code), "retriable", False))


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).rstrip(".")
