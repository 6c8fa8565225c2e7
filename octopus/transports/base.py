"""The seam to a broker: consumer, producer, admin. Memory, embedded and Kafka pass one conformance suite.

Times are seconds, sizes bytes. Only `transports/kafka/` and `transports/librdkafka/` know Kafka's milliseconds; the one exception is a
record's `timestamp`, which stays as stored.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from octopus.errors import TransportError
from octopus.events import Headers, Published, TopicPartition
from octopus.unread import Records


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """An encoded message.

    Attributes:
        topic: Where to.
        value: Bytes; None is a tombstone.
        key: Chooses the partition (murmur2, as every Kafka client does) unless one is given.
        headers: Name and value pairs.
        partition: A fixed partition, or None.
        timestamp: Milliseconds since the epoch, or None for now.
        source: Topic of the event that this is a copy of, a dead letter or a retry: the copy is taken where the event was.
    """

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    partition: int | None = None
    timestamp: int | None = None
    source: str | None = None


class Chunk(NamedTuple):
    """Consecutive records of one partition, as fetched.

    Attributes:
        partition: Where they are from.
        records: In offset order; offsets may have gaps (compaction, transactions). May be empty when only the position moved.
            To be read once when they are `Unread`.
        next_offset: Where the next fetch of this partition starts, past control records and aborted transactions.
        size_bytes: Memory of the records, approximately; back-pressure counts it.
        large: Of those, the bytes of each record that is far larger than others, by offset: they are not to vanish in an average.
    """

    partition: TopicPartition
    records: Records
    next_offset: int
    size_bytes: int
    large: Mapping[int, int] = MappingProxyType({})


class Unreadable(NamedTuple):
    """A partition that cannot be read on: corrupt or oversized batch, offset out of range, topic gone, not authorized.

    Everything before the bad place was delivered; other partitions are not affected.
    """

    partition: TopicPartition
    error: TransportError


Fetched = Chunk | Unreadable

LARGE = 64 * 1024
"""Bytes from which a record is counted by itself: so much at most an average can hide."""

MAX_BYTES = 16 * 1024 * 1024
"""Most bytes of one `fetch`, unless the caller says otherwise. One record may be larger."""


class Commit(NamedTuple):
    """A committed offset.

    Attributes:
        offset: The next offset to process.
        metadata: Free text kept beside it (Kafka's limit: 4,096 bytes).
    """

    offset: int
    metadata: str = ""


Start = Literal["earliest", "latest"] | float
"""Where a new group starts: an end of the log, or a time in seconds since the epoch."""


NO_IDS: Mapping[str, str | None] = {}
"""Of topics of which nothing is known but their names."""


class AssignmentListener(Protocol):
    """Told of every change of assignment, in order, one call at a time; awaited by the consumer.

    An exception raised here must surface from the next `fetch`.
    """

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """These partitions are ours now. Positions must be set (`Consumer.seek`) before returning."""
        ...

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """These partitions go to another member when this returns; commits are still accepted until then."""
        ...

    async def lost(self, partitions: Collection[TopicPartition]) -> None:
        """These partitions are another member's already; commits are refused."""
        ...


class Consumer(Protocol):
    """A member of a consumer group. Never commits on its own."""

    async def start(self, listener: AssignmentListener) -> None:
        """Connect, subscribe and take part in the group."""
        ...

    async def stop(self) -> None:
        """Leave the group and close. Calls no listener: drain and commit first."""
        ...

    async def fetch(
        self,
        partitions: Collection[TopicPartition],
        *,
        max_records: int,
        timeout: float,
        max_bytes: int = MAX_BYTES,
    ) -> list[Fetched]:
        """Return the records at hand for these partitions, waiting up to `timeout` seconds for the first.

        At most `max_records` in all, and none behind the one that makes them `max_bytes`, decompressed; partitions with more take
        turns. Partitions that are not named keep their prefetched records. An empty collection only gives the group
        machinery its turn (errors surface, the call waits up to `timeout`). Cancelling it loses nothing.

        Raises:
            TransportError: The whole consumer is affected.
        """
        ...

    async def commit(self, offsets: Mapping[TopicPartition, Commit]) -> None:
        """Store offsets.

        Raises:
            PartitionLost: Some of the partitions are another member's; the offsets of the others were stored.
            TransportError: Unknown whether they were stored when `.retryable`: commit the newest again.
        """
        ...

    async def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Commit | None]:
        """Return committed offsets, None where there is none. An error while reading is never "none"."""
        ...

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str | None]:
        """Ask the broker which topics these names stand for now.

        A topic that was deleted and made again has another id. One that is not there is left out; None where the broker has
        no ids. Several brokers agree on a new id before it is returned.
        """
        ...

    async def seek(self, offsets: Mapping[TopicPartition, int], topic_ids: Mapping[str, str | None] = NO_IDS) -> None:
        """Set positions; records prefetched from elsewhere are dropped.

        Args:
            offsets: Where to read on.
            topic_ids: The topics that these offsets are of, by name. A topic with another id is not read, and in the end
                `Unreadable`, where the client can fetch by id; elsewhere only `topic_ids` tells.
        """
        ...

    async def offsets(self, partitions: Collection[TopicPartition], start: Start) -> dict[TopicPartition, int]:
        """Resolve a start to offsets; a time after the last record resolves to the end."""
        ...

    def end_offset(self, partition: TopicPartition) -> int | None:
        """Return the partition's end as last heard from the broker, without asking; None when not known yet."""
        ...

    def known_partitions(self) -> set[TopicPartition]:
        """Return every partition of the subscribed topics that the last metadata listed."""
        ...


class Producer(Protocol):
    """Publishes with acknowledgement by all in-sync replicas, idempotently."""

    async def start(self) -> None:
        """Connect."""
        ...

    async def stop(self) -> None:
        """Deliver the queued messages, then close."""
        ...

    def queue(self, messages: Sequence[Outgoing]) -> "asyncio.Future[list[Published]]":
        """Publish many in order per partition, behind everything that was queued or sent before; return at once.

        Never raises for what is wrong with a message, or because the broker refuses one or is away: the future has the error.
        It is done when all are acknowledged. When some of them cannot be stored, the others still are; then it has the
        first error, whose `published` says which. Cancelling it takes nothing back, and an error that is never asked for is no
        complaint. Order holds while a topic is made again, and while the producer gets a new id: nothing that is queued
        later to the same partition overtakes what is sent again. After any other error the caller has it to send again.

        Nothing bounds what is queued but its caller: see `queued_bytes`.
        """
        ...

    def queue_one(self, message: Outgoing) -> "asyncio.Future[Published]":
        """Publish one message, as `queue`."""
        ...

    @property
    def queued_bytes(self) -> int:
        """Bytes of the keys and values that are queued or on their way."""
        ...

    async def send(self, message: Outgoing) -> Published:
        """Queue one message; return when it is acknowledged. Concurrent sends share batches.

        Raises:
            TransportError: With `.retryable`; `RecordTooLarge`, `TopicNotFound`, `NotAuthorized` among them.
        """
        ...

    async def send_many(self, messages: Sequence[Outgoing]) -> list[Published]:
        """Queue many; return when all are acknowledged. Far cheaper than `send` for each. Raises what the future of `queue` has."""
        ...


SIZE_LIMIT = "max.message.bytes"
"""Kafka's name of a topic's setting for the largest batch, as stored."""


class TransactionalProducer(Producer, Protocol):
    """Publishes, and commits a group's offsets, all or nothing.

    `start` fences: the producer that had this transactional id before can do nothing more, its open transaction is ended
    (aborted, or committed if that was decided already), and offsets that are read from now on are final. After any
    failure but that of `send_many` the outcome is unknown and nothing more is possible; only a new producer of the same
    id may go on.
    """

    async def begin(self) -> None:
        """Begin a transaction; messages published from now on belong to it.

        Raises:
            PartitionLost: Another producer has this transactional id now. So do all others.
        """
        ...

    async def send_offsets(self, group: str, offsets: Mapping[TopicPartition, Commit]) -> None:
        """Make a group's offsets part of the transaction.

        Raises:
            TopicNotFound: A topic of theirs is not there. The transaction can only be aborted.
        """
        ...

    async def commit(self) -> None:
        """Make everything of the transaction visible and stored at once."""
        ...

    async def abort(self) -> None:
        """Drop everything of the transaction."""
        ...


class TopicInfo(msgspec.Struct, frozen=True):
    """A topic as the cluster describes it."""

    name: str
    partitions: int
    replication: int
    internal: bool = False


class GroupInfo(msgspec.Struct, frozen=True):
    """A consumer group as the cluster describes it.

    Attributes:
        name: Group id.
        state: Empty, PreparingRebalance, CompletingRebalance, Stable or Dead.
        members: Client id, host and partitions of each member.
    """

    name: str
    state: str
    members: tuple["GroupMember", ...] = ()


class GroupMember(msgspec.Struct, frozen=True):
    """One member of a group."""

    member_id: str
    client_id: str
    host: str
    partitions: tuple[TopicPartition, ...] = ()


class Admin(Protocol):
    """Looks at and changes topics and groups."""

    async def start(self) -> None:
        """Connect."""
        ...

    async def stop(self) -> None:
        """Close."""
        ...

    async def topics(self) -> list[TopicInfo]:
        """Return all topics this principal may see, sorted by name."""
        ...

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str | None]:
        """Return the ids of those topics that are there, as `Consumer.topic_ids`."""
        ...

    async def create_topic(
        self, name: str, *, partitions: int = 1, replication: int = -1, config: Mapping[str, str] | None = None
    ) -> bool:
        """Create a topic; return False when it was there already."""
        ...

    async def delete_topic(self, name: str) -> None:
        """Delete a topic and its records. Raises `TopicNotFound`."""
        ...

    async def topic_config(self, name: str) -> dict[str, str]:
        """Return a topic's settings under Kafka's own names."""
        ...

    async def alter_topic(
        self, name: str, *, config: Mapping[str, str] | None = None, partitions: int | None = None
    ) -> None:
        """Change settings or raise the number of partitions."""
        ...

    async def offsets(self, partitions: Collection[TopicPartition], start: Start) -> dict[TopicPartition, int]:
        """Resolve earliest, latest or a time to offsets."""
        ...

    async def groups(self) -> list[GroupInfo]:
        """Return all groups with state and members, sorted by name."""
        ...

    async def group(self, name: str) -> GroupInfo:
        """Return one group with state and members; one that does not exist is Dead."""
        ...

    async def group_offsets(self, group: str) -> dict[TopicPartition, Commit]:
        """Return everything a group has committed."""
        ...

    async def set_group_offsets(self, group: str, offsets: Mapping[TopicPartition, Commit]) -> None:
        """Overwrite a group's offsets. Raises `TransportError` while the group has members."""
        ...

    async def remove_members(self, group: str, members: Sequence[tuple[str, str | None]]) -> None:
        """Take members out of a group, each named by its id, its instance, or both. Members that are gone already are no error."""
        ...

    async def delete_group(self, group: str) -> None:
        """Forget a group without members, its offsets included."""
        ...


class Transport(Protocol):
    """A way to a broker. Cheap to make; connects when its parts are started.

    Attributes:
        name: `memory`, `embedded` or `kafka`.
        address: For messages, e.g. `127.0.0.1:9092`.
    """

    name: str

    @property
    def address(self) -> str: ...

    async def open(self) -> None:
        """Make sure there is a broker to talk to."""
        ...

    async def close(self) -> None:
        """Release the resources of `open`."""
        ...

    def consumer(self, group: str, topics: Collection[str] | Any, **options: Any) -> Consumer:
        """Return a consumer for topic names or a compiled regular expression over them."""
        ...

    def producer(self, **options: Any) -> Producer:
        """Return a producer."""
        ...

    def transactional_producer(self, transactional_id: str, **options: Any) -> TransactionalProducer:
        """Return a producer that shares its fate with the offsets it commits."""
        ...

    def admin(self) -> Admin:
        """Return an admin client."""
        ...
