"""Every exception of Octopus.

    OctopusError
    ├─ ConfigurationError        bad setting, bad import string, unknown transport URL
    ├─ PatternError              an event pattern does not compile: .path, .pattern
    ├─ DecodeError               bytes are not a T: .reason, .field
    ├─ ResultRefused             a handler or middleware returned an unusable value
    ├─ HandlerStopped            too much is dying, or nothing may be lost: processing stops
    ├─ OperationFailed           an operation cannot be done: its object is missing, or another one is there
    ├─ TransportError            .retryable
    │  ├─ ConnectionFailed
    │  ├─ QueueFull              too much is queued already: nothing was sent
    │  ├─ NotAuthorized
    │  ├─ TopicNotFound
    │  ├─ TopicRecreated
    │  ├─ CodecUnavailable       a service that a codec of the app needs is away
    │  ├─ RecordTooLarge
    │  ├─ RecordRefused
    │  ├─ BatchTooLarge
    │  ├─ CorruptBatch
    │  ├─ OffsetOutOfRange
    │  └─ PartitionLost
    └─ AuthError
       ├─ LoginRequired          says which command to run
       └─ TokenExpired

`RetryLater` and `Reject` (octopus.outcomes) live beside the tree: they are answers, not failures.
Messages are sentences: what was wrong, the value, where, and what to do.
"""

from collections.abc import Sequence
from typing import Any


class OctopusError(Exception):
    """Base of every error that Octopus itself raises.

    Attributes:
        published: Of messages that were sent together, where each was stored, None for one that was not. None as a
            whole where that is unknown.
    """

    published: Sequence[Any | None] | None = None  # `Published`, of a module above this one


class ConfigurationError(OctopusError):
    """A setting, an import string or a transport URL cannot be used."""


class PatternError(OctopusError):
    """An event pattern does not compile.

    Attributes:
        path: Where in the pattern, as a dotted path; empty for the root.
        pattern: The pattern as it was given.
    """

    def __init__(self, reason: str, *, path: str = "", pattern: object = None) -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.reason = reason
        self.path = path
        self.pattern = pattern


class DecodeError(OctopusError):
    """Bytes do not fit the handler's annotation. Never retried: the same bytes fail again.

    Attributes:
        reason: The fault, with its field where one is known.
        field: JSON path of the offending field (`$.size`), or empty.
    """

    def __init__(self, reason: str, *, field: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field


class ResultRefused(OctopusError):
    """A handler or middleware returned an unusable value. Never retried: it would return the same again."""


class HandlerStopped(OctopusError):
    """Processing stopped for a handler, because going on would lose or give up too many events."""

    @classmethod
    def by(cls, error: BaseException) -> "HandlerStopped":
        """Return why processing stops: at SystemExit and its kind from a handler, and at any error of ours.

        Nothing may be settled then, since other parts may be broken, too.
        """
        stopped = cls(f"{type(error).__name__} is not a failure to retry: {error}")
        stopped.__cause__ = error
        return stopped


class OperationFailed(OctopusError):
    """An operation cannot be done, for a reason that is neither usage nor the broker's."""


class TransportError(OctopusError):
    """A broker could not carry out a request.

    Attributes:
        retryable: Whether the same request may succeed later without any change.
    """

    retryable = False

    def __init__(self, message: str, *, retryable: bool | None = None) -> None:
        super().__init__(message)
        if retryable is not None:
            self.retryable = retryable


class ConnectionFailed(TransportError):
    """No broker answered."""

    retryable = True


class QueueFull(TransportError):
    """So much is queued or on its way already that there is no room for one event more: it is not sent."""

    retryable = True


class CodecUnavailable(TransportError):
    """A service that a codec of the app needs, such as a schema registry, is away: no fault of the record's."""

    retryable = True


class NotAuthorized(TransportError):
    """The broker knows the principal and refuses it."""


class TopicNotFound(TransportError):
    """The topic or partition does not exist and was not created on demand."""


class TopicRecreated(TransportError):
    """The topic was deleted and made again: offsets of the old one mean nothing in the new one."""


class RecordTooLarge(TransportError):
    """One record exceeds the broker's limit."""


class RecordRefused(TransportError):
    """The topic does not take one record: it has no key and the topic is compacted, or its time is out of range."""


class BatchTooLarge(TransportError):
    """A batch decompresses to more than the configured limit."""


class CorruptBatch(TransportError):
    """A batch fails its checksum, its codec is unknown, or its framing is broken."""


class OffsetOutOfRange(TransportError):
    """The offset to read from is not in the partition's log (deleted, truncated or never written)."""


class PartitionLost(TransportError):
    """The partition belongs to another member of the group now; nothing may be committed for it."""


class AuthError(OctopusError):
    """A credential is missing, malformed or was refused."""


class LoginRequired(AuthError):
    """No user is logged in; the message names the command to run."""


class TokenExpired(AuthError):
    """A token's life ended and it could not be renewed."""
