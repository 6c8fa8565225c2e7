"""Coordinates, records, events, messages.

A **record** is bytes at a coordinate, as stored. An **event** is a decoded record as a handler sees it.
A **message** is a value to be published.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

import msgspec

T = TypeVar("T")

Headers = Sequence[tuple[str, bytes | None]]
"""Kafka headers: order and duplicates count, so never a mapping."""


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class StoredRecord(Protocol):
    """A record inside its partition, as a client library hands it over, without a copy into an object of ours.

    On the hot path only `value` and `offset` are touched; the other fields are fetched on demand.

    Attributes:
        offset: Position in the partition.
        timestamp: Milliseconds since the epoch, as Kafka stores it.
        key: Key bytes, or None.
        value: Value bytes; None is a tombstone.
        headers: Name and value pairs.
    """

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record with its full coordinates. It is also a valid `StoredRecord`.

    Attributes:
        topic: Topic name.
        partition: Partition number.
        offset: Position in the partition.
        timestamp: Milliseconds since the epoch, as Kafka stores it.
        key: Key bytes, or None.
        value: Value bytes; None is a tombstone.
        headers: Name and value pairs.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = ()

    @classmethod
    def at(cls, partition: TopicPartition, stored: StoredRecord) -> "Record":
        """Give a stored record its coordinates."""
        if isinstance(stored, Record):
            return stored
        return cls(
            partition.topic,
            partition.partition,
            stored.offset,
            stored.timestamp,
            stored.key,
            stored.value,
            tuple(stored.headers),
        )

    @property
    def coordinates(self) -> str:
        """`topic[partition]@offset`, as messages and logs spell it."""
        return f"{self.topic}[{self.partition}]@{self.offset}"


class DeferredRecord(Record, frozen=True, gc=False, kw_only=True):
    """A record that came back from a retry topic, with the coordinates that it had at first.

    Attributes:
        settles_at: Its offset in the retry topic.
        due: When it may run, seconds since the epoch.
        next_attempt: Which run that will be, from 1.
        handler: Whose it is.
    """

    settles_at: int
    due: float
    next_attempt: int
    handler: str


def settles_at(stored: StoredRecord) -> int:
    """Return the offset at which a record settles, in the partition that it was read from."""
    return stored.settles_at if isinstance(stored, DeferredRecord) else stored.offset


class Batch(list[StoredRecord]):
    """Consecutive records of one partition, handed over together; stands for its first record where one is asked for."""

    __slots__ = ()

    @property
    def topic(self) -> str:
        """The topic of its records, which middleware gets as whole `Record`s."""
        return cast("Record", self[0]).topic

    @property
    def partition(self) -> int:
        """The partition of its records, which middleware gets as whole `Record`s."""
        return cast("Record", self[0]).partition

    @property
    def offset(self) -> int:
        """Offset of the first record."""
        return self[0].offset

    @property
    def timestamp(self) -> int:
        """Timestamp of the first record."""
        return self[0].timestamp

    @property
    def key(self) -> bytes | None:
        """Key of the first record."""
        return self[0].key

    @property
    def value(self) -> bytes | None:
        """Value of the first record."""
        return self[0].value

    @property
    def headers(self) -> Headers:
        """Headers of the first record."""
        return self[0].headers


class Event(Generic[T]):
    """A decoded record, for handlers that want more than the value.

    Attributes:
        value: The decoded value.
        record: The bytes it came from, with coordinates.
        attempt: 1 for the first delivery to the handler.
    """

    __slots__ = ("attempt", "record", "value")

    def __init__(self, value: T, record: Record, attempt: int = 1) -> None:
        self.value = value
        self.record = record
        self.attempt = attempt

    @property
    def key(self) -> bytes | None:
        """The record's key."""
        return self.record.key

    @property
    def headers(self) -> Headers:
        """The record's headers, in order, duplicates kept."""
        return self.record.headers

    @property
    def topic(self) -> str:
        """The topic the event came from."""
        return self.record.topic

    @property
    def partition(self) -> int:
        """The partition the event came from."""
        return self.record.partition

    @property
    def offset(self) -> int:
        """The position in its partition."""
        return self.record.offset

    @property
    def timestamp(self) -> float:
        """Seconds since the epoch."""
        return self.record.timestamp / 1000

    def header(self, name: str) -> bytes | None:
        """Return the last value of the header `name`, or None."""
        return next((value for key, value in reversed(self.record.headers) if key == name), None)

    def __repr__(self) -> str:
        return f"Event({self.value!r}, {self.record.coordinates}, attempt={self.attempt})"


class Message(Generic[T]):
    """Something to publish, with more than a value.

    Attributes:
        value: Encoded by the app's codec; bytes go as they are; None is a tombstone.
        key: Bytes, or text that is sent as UTF-8.
        headers: Name and value pairs, or a mapping of them; text values are sent as UTF-8.
        topic: Where to, when that differs from `to=`.
        partition: A fixed partition; otherwise chosen by key.
        timestamp: Seconds since the epoch; now when None.
    """

    __slots__ = ("headers", "key", "partition", "timestamp", "topic", "value")

    def __init__(
        self,
        value: T,
        *,
        key: bytes | str | None = None,
        headers: Any = (),
        topic: str | None = None,
        partition: int | None = None,
        timestamp: float | None = None,
    ) -> None:
        self.value = value
        self.key = key
        self.headers = headers
        self.topic = topic
        self.partition = partition
        self.timestamp = timestamp

    def __repr__(self) -> str:
        return f"Message({self.value!r}, key={self.key!r}, topic={self.topic!r})"


class Published(msgspec.Struct, frozen=True, gc=False):
    """Where a message was stored, once acknowledged. Unpacks like a tuple; `json.dumps` takes `dict(published)`.

    msgspec, pydantic and FastAPI take it as it is, also as a field and as a return annotation.

    Attributes:
        topic: Topic name.
        partition: Partition number.
        offset: Position in the partition.
    """

    topic: str
    partition: int
    offset: int

    def __iter__(self) -> Iterator[Any]:
        return iter((self.topic, self.partition, self.offset))

    def keys(self) -> tuple[str, ...]:
        """Return the names of its fields: with them `dict()` makes a dict of it, and so does FastAPI for an answer."""
        return self.__struct_fields__

    def __getitem__(self, field: str) -> Any:
        if field not in self.__struct_fields__:
            raise KeyError(field)
        return getattr(self, field)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Tell pydantic, when it asks, that this is an object with three fields."""
        from pydantic_core import core_schema  # the caller is pydantic

        fields = core_schema.typed_dict_schema(
            {
                "topic": core_schema.typed_dict_field(core_schema.str_schema()),
                "partition": core_schema.typed_dict_field(core_schema.int_schema()),
                "offset": core_schema.typed_dict_field(core_schema.int_schema()),
            }
        )
        read = core_schema.no_info_after_validator_function(lambda given: cls(**given), fields)
        return core_schema.json_or_python_schema(
            read,
            core_schema.union_schema([core_schema.is_instance_schema(cls), read]),
            serialization=core_schema.plain_serializer_function_ser_schema(dict, return_schema=fields),
        )
