"""Where to read from and to: `earliest`, `latest`, an offset, a time, or that long ago."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

from octopus.config.units import duration
from octopus.errors import ConfigurationError
from octopus.events import TopicPartition
from octopus.transports.base import Admin


@dataclass(frozen=True)
class Moment:
    """A place in a topic.

    Attributes:
        text: As it was given.
        start: `earliest`, `latest` or seconds since the epoch; None where an offset is meant.
        offset: An offset; negative counts from the end.
        option: Which option gave it.
    """

    text: str
    start: str | float | None = None
    offset: int | None = None
    option: str = field(default="", compare=False)

    async def refuse_beyond(self, admin: Admin, partitions: Collection[TopicPartition], *, reads: bool = False) -> None:
        """Refuse an offset that is yet to come: what was meant is a date or a time, mostly, and the rest would be skipped.

        Args:
            admin: Whom to ask.
            partitions: Where it is to hold.
            reads: Nothing moves: refuse only what may be meant as a date, and is beyond the end of all of them.

        Raises:
            ConfigurationError: It is beyond the end; the sentence says what to write instead.
        """
        if self.offset is None or self.offset <= 0:
            return
        ends = await admin.offsets(partitions, "latest")
        beyond = {place: end for place, end in ends.items() if self.offset > end}
        meant = _date_in(self.text.strip())
        if not beyond or (reads and (meant is None or len(beyond) < len(ends))):
            return
        place, end = min(beyond.items(), key=lambda item: item[1])
        hint = f"If that time is meant, write {meant}" if meant else "A time is written 2026-01-31T12:00"
        raise ConfigurationError(
            f"{self.option} {self.text.strip()} is an offset, and {place} ends at {end:,}. {hint}; for the end, latest."
        )

    async def resolve(self, admin: Admin, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the offset in each partition, never outside of what is stored."""
        match self.start:
            case "earliest" | "latest" as end:
                return await admin.offsets(partitions, end)
            case float():
                return await admin.offsets(partitions, self.start)
        assert self.offset is not None
        first = await admin.offsets(partitions, "earliest")
        last = await admin.offsets(partitions, "latest")
        wanted = {p: self.offset if self.offset >= 0 else last[p] + self.offset for p in partitions}
        return {partition: min(max(offset, first[partition]), last[partition]) for partition, offset in wanted.items()}


def read_moment(text: str, now: float, option: str) -> Moment:
    """Understand what `--from` and `--to` take.

    Args:
        text: `earliest`, `latest` or `now`; an offset, `-10` for the last ten of each partition; `-5m` for five minutes
            ago (units s, m, h, d); or a date and time in ISO 8601, local unless it says otherwise.
        now: Seconds since the epoch.
        option: For the error message.

    Raises:
        ConfigurationError: It is none of these.
    """
    word = text.strip()
    if word in ("earliest", "beginning"):
        return Moment(text, "earliest")
    if word in ("latest", "end", "now"):
        return Moment(text, "latest")
    if re.fullmatch(r"-?\d+", word):
        return Moment(text, offset=int(word), option=option)
    if word.startswith("-"):
        try:
            return Moment(text, now - duration(word[1:]))
        except ValueError:
            pass
    else:
        try:
            return Moment(text, datetime.fromisoformat(word).timestamp())
        except ValueError:
            pass
    raise ConfigurationError(
        f"{option} {text!r} is no place in a topic: earliest, latest, an offset (120; -10 for the last ten of each "
        "partition), a time (2026-01-31T12:00) or that long ago (-5m, -2h, -7d)."
    )


_DATES: tuple[tuple[int, Callable[[str], str]], ...] = (
    (8, lambda digits: datetime.strptime(digits, "%Y%m%d").date().isoformat()),
    (10, lambda digits: f"{datetime.fromtimestamp(int(digits), UTC):%Y-%m-%dT%H:%M:%SZ}"),
    (13, lambda digits: f"{datetime.fromtimestamp(int(digits) // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"),
)
"""What numbers of so many digits may be: a date without dashes; seconds or milliseconds since the epoch."""


def _date_in(digits: str) -> str | None:
    """Return the date or time that a number may be meant as, as it is to be written; None when there is none."""
    for length, written in _DATES:
        if len(digits) == length:
            try:
                return written(digits)
            except ValueError:
                return None
    return None
