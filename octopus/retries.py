"""From a failure to a decision: again, later, or never. Pure: chance is an argument."""

import math
from typing import Final

import msgspec

from octopus.arguments import LONGEST, is_count, is_number
from octopus.errors import CodecUnavailable, DecodeError, ResultRefused
from octopus.outcomes import DeadLetter, Outcome, Reject, Retry, RetryLater

CODEC_WAIT = 5.0
"""Seconds, at most, before a record is decoded again whose codec could not reach a service. It counts as no attempt: an
outage is no reason to give up on a record."""


_RANGES: Final = {
    "attempts": (0, math.inf, "a whole number of runs, or 0 for any number of them"),
    "backoff": (0, LONGEST, "seconds, 0 or more"),
    "factor": (1, LONGEST, "a number, 1 or more"),
    "maximum": (0, math.inf, "seconds, 0 or more"),
    "jitter": (0, 1, "a fraction, 0 to 1"),
    "defer_beyond": (0, math.inf, "seconds, 0 or more"),
}
"""The least and the most that a policy's number can be, and how to give it."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often and when a failed event runs again before it goes to the dead-letter topic.

    The wait before attempt n+1 is `backoff * factor ** (n - 1)`, at most `maximum`, made shorter at random by up to the
    fraction `jitter` so that events that failed together do not come back together.

    Attributes:
        attempts: Runs in all, the first included; 0 means for ever.
        backoff: Seconds before the second attempt.
        factor: Growth of the wait from one attempt to the next.
        maximum: Longest wait, seconds.
        jitter: Fraction of the wait that chance may take away, 0 to 1.
        on: Exceptions that are worth another attempt.
        never: Exceptions that are not, even when they are among `on`.
        defer_beyond: Seconds; a longer wait is spent in the handler's retry topic, if it has one (`retry_topic=`), also
            one that `RetryLater` asks for. Shorter ones hold their lane.

    Raises:
        ValueError: A number is out of range.
        TypeError: A number is none, or `on` or `never` is no tuple of exceptions.
    """

    attempts: int = 5
    backoff: float = 0.5
    factor: float = 2.0
    maximum: float = 60.0
    jitter: float = 0.5
    on: tuple[type[Exception], ...] = (Exception,)
    never: tuple[type[Exception], ...] = ()
    defer_beyond: float = 10.0

    def __post_init__(self) -> None:
        for name, (least, most, meaning) in _RANGES.items():
            number = getattr(self, name)
            if not isinstance(number, int | float) or isinstance(number, bool):
                raise TypeError(f"{name}={number!r} of a RetryPolicy is no number: give {meaning}")
            if not is_number(number, least, most) or (name == "attempts" and not is_count(number, 0)):
                raise ValueError(f"{name}={number!r} of a RetryPolicy is out of range: give {meaning}")
        for name in ("on", "never"):
            try:
                isinstance(None, getattr(self, name))
            except TypeError as error:
                raise TypeError(
                    f"{name}={getattr(self, name)!r} of a RetryPolicy is no tuple of exceptions, such as (ConnectionError,)"
                ) from error

    def wait(self, attempt: int, chance: float) -> float:
        """Return the seconds to wait after a failed attempt.

        Args:
            attempt: The attempt that failed, from 1.
            chance: A random number, 0 to 1.
        """
        # The exponent is bounded so that an endless retry cannot overflow a float.
        full = min(self.maximum, self.backoff * self.factor ** min(attempt - 1, 64))
        return full * (1 - self.jitter * chance)

    def decide(self, attempt: int, error: Exception, chance: float) -> Outcome:
        """Return the outcome of a record whose handling raised.

        Args:
            attempt: The attempt that failed, from 1.
            error: The exception.
            chance: A random number, 0 to 1.
        """
        match error:
            case RetryLater():
                return Retry(error.after, counted=False)
            case Reject():
                return DeadLetter(error.reason, rejected=True)
            case CodecUnavailable():
                return Retry(min(self.maximum, CODEC_WAIT) * (1 - self.jitter * chance), error, counted=False)
            case DecodeError():
                return DeadLetter(f"cannot be decoded: {error.reason}", error)
            case ResultRefused():
                return DeadLetter(str(error), error)
        if not isinstance(error, self.on) or isinstance(error, self.never):
            return DeadLetter(f"{type(error).__name__} is not retried: {error}", error)
        if self.attempts and attempt >= self.attempts:
            how = "failed once, with" if attempt == 1 else f"failed {attempt} times, at last with"
            return DeadLetter(f"{how} {type(error).__name__}: {error}", error)
        return Retry(self.wait(attempt, chance), error)
