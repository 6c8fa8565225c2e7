"""Where to read from and to: `earliest`, `latest`, an offset, a time, or that long ago."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

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
    """

    text: str
    start: str | float | None = None
    offset: int | None = None

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
        return Moment(text, offset=int(word))
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
