"""The messages that librdkafka delivered for one partition and the consumer has not taken yet."""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import accumulate, islice, takewhile
from typing import cast

import msgspec
from confluent_kafka import Message

from octopus.errors import TransportError
from octopus.events import Headers, TopicPartition
from octopus.transports.base import LARGE, MAX_BYTES, Chunk, Fetched, Unreadable


class StoredMessage(msgspec.Struct, frozen=True, gc=False):
    """A `StoredRecord`: the fields that handlers always touch are here, the others are asked for.

    Attributes:
        offset: Position in the partition.
        value: Value bytes; None is a tombstone.
        message: librdkafka's own.
    """

    offset: int
    value: bytes | None
    message: Message

    @property
    def timestamp(self) -> int:
        """Milliseconds since the epoch."""
        return self.message.timestamp()[1]

    @property
    def key(self) -> bytes | None:
        """Key bytes."""
        return self.message.key()

    @property
    def headers(self) -> Headers:
        """Name and value pairs."""
        found: Headers = self.message.headers() or ()  # type: ignore[assignment]  # bytes are stored
        return found


class Backlog:
    """A partition's messages in order, and how far they go.

    Args:
        partition: The partition of the messages.
        position: Where reading starts.

    Attributes:
        position: The next offset to hand out.
        end: The next offset to come, past records without a message (aborted records, control records).
        size: Bytes of values held.
        high: The partition's end as last heard, None before that.
        error: Why it cannot be read on, until it was handed out.
        is_broken: There was an error; nothing is taken in before the partition was positioned again.
        ask_again_at: Monotonic seconds from which a caller that names a broken partition has it read again.
        is_paused: librdkafka was told to fetch nothing.
    """

    __slots__ = (
        "_messages",
        "ask_again_at",
        "end",
        "error",
        "high",
        "is_broken",
        "is_paused",
        "partition",
        "position",
        "size",
    )

    def __init__(self, partition: TopicPartition, position: int) -> None:
        self.partition = partition
        self.high: int | None = None
        self.is_paused = False
        self.restart(position)

    def restart(self, position: int) -> None:
        """Drop everything and begin at an offset."""
        self.position = self.end = position
        self.size = 0
        self.error: TransportError | None = None
        self.is_broken = False
        self.ask_again_at = 0.0
        self._messages: deque[Message] = deque()

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def has_news(self) -> bool:
        """Whether `read` would return something."""
        return bool(self._messages) or self.end > self.position or self.error is not None

    def add(self, messages: Sequence[Message]) -> None:
        """Take in consecutive messages; repeated ones are left out."""
        if self.is_broken:
            return
        if messages[0].offset() < self.end:  # type: ignore[operator]  # every fetched message has one
            messages = [message for message in messages if message.offset() >= self.end]  # type: ignore[operator]
        if messages:
            self._messages.extend(messages)
            self.size += sum(map(len, messages))
            self.end = messages[-1].offset() + 1  # type: ignore[operator]

    def advance(self, end: int) -> None:
        """Note that there is nothing before `end` that was not delivered."""
        if not self.is_broken:
            self.end = max(self.end, end)

    def fail(self, error: TransportError) -> None:
        """Read no further; messages at hand are handed out first."""
        if not self.is_broken:
            self.is_broken, self.error = True, error

    def read(self, limit: int, max_bytes: int = MAX_BYTES) -> list[Fetched]:
        """Hand out up to `limit` records, up to the one that makes them `max_bytes`, and the error behind the last."""
        found: list[Fetched] = []
        taken = list(islice(self._messages, limit))
        if self.size > max_bytes:
            sizes = accumulate(map(len, taken))
            taken = taken[: 1 + sum(1 for _ in takewhile(max_bytes.__gt__, sizes))]
        if len(taken) == len(self._messages):
            self._messages.clear()
            next_offset = self.end
        else:
            for _ in taken:
                self._messages.popleft()
            next_offset = taken[-1].offset() + 1 if taken else self.position  # type: ignore[operator]
        if taken or next_offset > self.position:
            size = sum(map(len, taken))
            self.size -= size
            self.position = next_offset
            offsets = cast("Iterable[int]", map(Message.offset, taken))  # every one has an offset
            records = list(map(StoredMessage, offsets, map(Message.value, taken), taken))
            large = {record.offset: len(record.message) for record in records if len(record.message) >= LARGE}
            found.append(Chunk(self.partition, records, next_offset, size, large))
        if self.error is not None and not self._messages:
            found.append(Unreadable(self.partition, self.error))
            self.error = None
        return found
