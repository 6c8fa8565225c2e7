"""The state of the in-process broker: partitions, groups and a place to inject faults.

Several event loops in several threads may share one broker (a worker can keep its client in a thread of its own), so
state changes hold a lock, briefly, and waiters are woken on their own loop.
"""

import asyncio
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from uuid import uuid4

from octopus.errors import OctopusError, PartitionLost, RecordRefused, RecordTooLarge, TopicNotFound, TransportError
from octopus.events import Published, Record, TopicPartition
from octopus.transports.base import SIZE_LIMIT, Commit, Outgoing, Start
from octopus.transports.partitioner import Partitioner

Subscription = frozenset[str] | re.Pattern[str]


class Signal:
    """Tells waiters, on any loop and thread, about a change."""

    def __init__(self) -> None:
        self.version = 0
        self._lock = threading.Lock()
        self._waiters: set[asyncio.Future[None]] = set()

    async def changed(self, since: int, timeout: float | None) -> None:
        """Return when the version is beyond `since`, or after `timeout` seconds of the running loop."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self.version != since:
                return
            self._waiters.add(future)
        try:
            await asyncio.wait([future], timeout=timeout)
        finally:
            with self._lock:
                self._waiters.discard(future)

    def notify(self) -> None:
        """Wake all waiters."""
        with self._lock:
            self.version += 1
            waiters = list(self._waiters)
        for future in waiters:
            loop = future.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake, future)


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


class Faults:
    """The next errors, for tests.

    Attributes:
        unreadable: From this offset on, a partition cannot be read: fetching it ends with this error.
    """

    def __init__(self) -> None:
        self.unreadable: dict[TopicPartition, tuple[int, TransportError]] = {}
        self._queued: dict[str, deque[OctopusError]] = {}

    def fail_next(self, what: str, error: OctopusError, *, times: int = 1) -> None:
        """Let the next `times` calls of `what` raise `error`.

        `what` is `fetch`, `commit`, `committed`, `topic_ids` or `send`; of transactions `begin`, `send_offsets`, `end` (it had no
        effect) or `ended` (it is committed, or aborted, and the answer is lost).
        """
        self._queued.setdefault(what, deque()).extend([error] * times)

    def check(self, what: str) -> None:
        """Raise the next error queued for `what`."""
        if queued := self._queued.get(what):
            raise queued.popleft()


class Log:
    """One partition. A hole (None) is an offset without a record: compacted, aborted, or a transaction's end.

    Attributes:
        open: Where each open transaction began to write.
    """

    def __init__(self) -> None:
        self.start = 0
        self.records: list[Record | None] = []
        self.open: dict[str, int] = {}

    @property
    def end(self) -> int:
        return self.start + len(self.records)

    @property
    def stable_end(self) -> int:
        """The offset up to which everything is decided: no reader gets further."""
        return min(self.open.values()) if self.open else self.end

    def read(self, offset: int, limit: int) -> tuple[list[Record], int]:
        """Return up to `limit` records from `offset` on, and the offset after the last place looked at."""
        found: list[Record] = []
        end = self.stable_end
        while offset < end and len(found) < limit:
            if (record := self.records[offset - self.start]) is not None:
                found.append(record)
            offset += 1
        return found, offset

    def at_time(self, timestamp: int) -> int:
        """Return the first offset stored with this timestamp (milliseconds) or a later one, or the end."""
        return next((r.offset for r in self.records if r is not None and r.timestamp >= timestamp), self.end)


class Member:
    """One member of a group. Changed by the group only; its consumer looks at it whenever it is woken."""

    def __init__(self, member_id: str, client_id: str, subscription: Subscription) -> None:
        self.member_id = member_id
        self.client_id = client_id
        self.subscription = subscription
        self.generation = 0
        self.partitions: frozenset[TopicPartition] = frozenset()
        self.ready = False  # has given its partitions back and waits for the next generation
        self.expelled = False


class Group:
    """Membership and committed offsets. Rebalances are eager: every member gives all partitions back first."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.generation = 0
        self.rebalancing = False
        self.members: dict[str, Member] = {}
        self.offsets: dict[TopicPartition, Commit] = {}

    @property
    def state(self) -> str:
        if not self.members:
            return "Empty"
        return "PreparingRebalance" if self.rebalancing else "Stable"

    def begin(self) -> None:
        """Ask every member to give its partitions back."""
        self.rebalancing = bool(self.members)
        for member in self.members.values():
            member.ready = not member.partitions

    def finish(self, matching: Callable[[Subscription], Iterable[TopicPartition]]) -> None:
        """Deal the partitions out, one each in turn, once every member is ready."""
        if not self.rebalancing or not all(member.ready for member in self.members.values()):
            return
        self.rebalancing = False
        self.generation += 1
        members = [self.members[member_id] for member_id in sorted(self.members)]
        wanted = {member.member_id: set(matching(member.subscription)) for member in members}
        dealt: dict[str, set[TopicPartition]] = {member.member_id: set() for member in members}
        for partition in sorted(set().union(*wanted.values())):
            takers = [m.member_id for m in members if partition in wanted[m.member_id]]
            dealt[min(takers, key=lambda taker: len(dealt[taker]))].add(partition)
        for member in members:
            member.ready = False
            member.generation = self.generation
            member.partitions = frozenset(dealt[member.member_id])


class Transaction:
    """The broker's state of one transactional id: its producer, and its open transaction.

    Attributes:
        epoch: Of the producer that may use it; earlier ones are fenced.
        is_open: Whether a transaction is under way.
        written: Offsets it has written, by partition.
        offsets: To be committed, by group.
    """

    def __init__(self, transactional_id: str) -> None:
        self.transactional_id = transactional_id
        self.epoch = 0
        self.is_open = False
        self.written: dict[TopicPartition, list[int]] = {}
        self.offsets: dict[str, dict[TopicPartition, Commit]] = {}


class MemoryBroker:
    """Topics and groups in memory.

    Args:
        clock: Seconds since the epoch, for timestamps; a virtual clock in tests.
        auto_create: Partitions of a topic that is created by its first use; 0 turns that off.
        max_record_bytes: Key, value and headers of one record at most, unless its topic says otherwise.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.time, auto_create: int = 1, max_record_bytes: int = 1_048_576
    ) -> None:
        self.clock = clock
        self.auto_create = auto_create
        self.max_record_bytes = max_record_bytes
        self.faults = Faults()
        self.changed = Signal()
        self.topics: dict[str, list[Log]] = {}
        self.topic_ids: dict[str, str] = {}
        self.configs: dict[str, dict[str, str]] = {}
        self.groups: dict[str, Group] = {}
        self.transactions: dict[str, Transaction] = {}
        self._partitioner = Partitioner()
        self._joined = 0
        self.lock = threading.RLock()

    # topics

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> bool:
        """Create a topic; False when it exists."""
        with self.lock:
            if name in self.topics:
                return False
            self.topics[name] = [Log() for _ in range(partitions)]
            self.topic_ids[name] = uuid4().hex
            self.configs[name] = dict(config or {})
            self._topics_changed(name)
        return True

    def add_partitions(self, name: str, partitions: int) -> None:
        """Raise the number of partitions."""
        with self.lock:
            logs = self.logs(name)
            logs.extend(Log() for _ in range(partitions - len(logs)))
            self._topics_changed(name)

    def delete_topic(self, name: str) -> None:
        """Delete a topic with its records and committed offsets."""
        with self.lock:
            self.logs(name)
            del self.topics[name], self.configs[name], self.topic_ids[name]
            for group in self.groups.values():
                group.offsets = {place: commit for place, commit in group.offsets.items() if place.topic != name}
            self._topics_changed(name)

    def delete_records(self, partition: TopicPartition, before: int) -> None:
        """Forget records before an offset, as retention does."""
        with self.lock:
            log = self.log(partition)
            del log.records[: max(0, before - log.start)]
            log.start = max(log.start, before)

    def remove(self, partition: TopicPartition, offset: int) -> None:
        """Leave a hole at an offset, as compaction does."""
        with self.lock:
            log = self.log(partition)
            log.records[offset - log.start] = None

    def logs(self, topic: str) -> list[Log]:
        """Return a topic's partitions. Raises `TopicNotFound`."""
        logs = self.topics.get(topic)
        if logs is None:
            raise TopicNotFound(f"There is no topic {topic!r} on the in-memory broker. Create it first.")
        return logs

    def log(self, partition: TopicPartition) -> Log:
        """Return one partition. Raises `TopicNotFound`."""
        logs = self.logs(partition.topic)
        if not 0 <= partition.partition < len(logs):
            raise TopicNotFound(f"Topic {partition.topic!r} has {len(logs)} partitions; there is no {partition}.")
        return logs[partition.partition]

    def ensure_topic(self, name: str) -> list[Log]:
        """Return a topic's partitions, creating it when that is allowed."""
        if name not in self.topics and self.auto_create:
            self.create_topic(name, self.auto_create)
        return self.logs(name)

    def matching(self, subscription: Subscription) -> list[TopicPartition]:
        """Return the partitions a subscription covers."""
        if isinstance(subscription, re.Pattern):
            names = [name for name in self.topics if subscription.match(name)]
        else:
            names = [name for name in subscription if name in self.topics]
        return [TopicPartition(name, number) for name in names for number in range(len(self.topics[name]))]

    def ids_of(self, topics: Collection[str]) -> dict[str, str | None]:
        """Return the ids of those topics that are there."""
        return {topic: self.topic_ids[topic] for topic in topics if topic in self.topic_ids}

    def offset_of(self, partition: TopicPartition, start: Start) -> int:
        """Resolve earliest, latest or a time in seconds."""
        log = self.log(partition)
        if start == "earliest":
            return log.start
        if start == "latest":
            return log.stable_end
        return log.at_time(int(float(start) * 1000))

    def append(self, messages: Iterable[Outgoing], transaction: Transaction | None = None) -> list[Published]:
        """Store messages in order. One that cannot be stored keeps none of the others from it; then its error is raised."""
        published: list[Published] = []
        attempted: list[Published | None] = []
        errors: list[TransportError] = []
        with self.lock:
            self.faults.check("send")
            for message in messages:
                try:
                    last = self._append(message)
                    if transaction is not None:
                        place = TopicPartition(last.topic, last.partition)
                        transaction.written.setdefault(place, []).append(last.offset)
                        self.log(place).open.setdefault(transaction.transactional_id, last.offset)
                    published.append(last)
                    attempted.append(last)
                except TransportError as error:
                    errors.append(error)
                    attempted.append(None)
        self.changed.notify()
        if errors:
            errors[0].published = attempted
            raise errors[0]
        return published

    def _append(self, message: Outgoing) -> Published:
        self._check_record(message)
        logs = self.ensure_topic(message.topic)
        number = message.partition
        if number is None:
            number = self._partitioner.partition(message.key, len(logs))
        log = self.log(TopicPartition(message.topic, number))
        timestamp = int(self.clock() * 1000) if message.timestamp is None else message.timestamp
        headers = tuple((name, value) for name, value in message.headers)
        offset = log.end
        log.records.append(Record(message.topic, number, offset, timestamp, message.key, message.value, headers))
        return Published(message.topic, number, offset)

    def check(self, message: Outgoing) -> None:
        """Raise the error of storing a message, if any."""
        self._check_record(message)
        self.ensure_topic(message.topic)
        if message.partition is not None:
            self.log(TopicPartition(message.topic, message.partition))

    def _check_record(self, message: Outgoing) -> None:
        if message.key is None and "compact" in self.configs.get(message.topic, {}).get("cleanup.policy", ""):
            raise RecordRefused(
                f"A record without a key is none for topic {message.topic!r}, which is compacted. Give it a key."
            )
        size = len(message.key or b"") + len(message.value or b"")
        size += sum(len(name) + len(value or b"") for name, value in message.headers)
        limit = self.max_record_bytes_of(message.topic)
        if size > limit:
            raise RecordTooLarge(
                f"A record of {size} bytes for topic {message.topic!r} is over the limit of {limit} bytes. "
                "Store the payload elsewhere and publish a reference."
            )

    def max_record_bytes_of(self, topic: str) -> int:
        """Return the most of one record: as set for its topic, else the broker's."""
        return int(self.configs.get(topic, {}).get(SIZE_LIMIT, self.max_record_bytes))

    # groups

    def group(self, name: str) -> Group:
        """Return a group, a new one at its first use."""
        return self.groups.setdefault(name, Group(name))

    def join(self, group: str, client_id: str, subscription: Subscription) -> Member:
        """Add a member and start a rebalance."""
        with self.lock:
            self._joined += 1
            member = Member(f"{client_id}-{self._joined}", client_id, subscription)
            self.group(group).members[member.member_id] = member
            self._rebalance(self.group(group))
        return member

    def leave(self, group: str, member: Member) -> None:
        """Remove a member; the others share its partitions."""
        with self.lock:
            if self.group(group).members.pop(member.member_id, None) is not None:
                self._rebalance(self.group(group))

    def expel(self, group: str, member_id: str | None = None) -> None:
        """Throw a member out (all without a name), as a session time-out does: it loses its partitions unasked."""
        with self.lock:
            members = self.group(group).members
            for key in [member_id] if member_id is not None else list(members):
                members.pop(key).expelled = True
            self._rebalance(self.group(group))

    def give_back(self, group: str, member: Member) -> None:
        """Tell the group that a member has drained and may get its next assignment."""
        with self.lock:
            member.partitions = frozenset()
            member.ready = True
            self.group(group).finish(self.matching)
        self.changed.notify()

    def commit(self, group: str, member: Member, offsets: Mapping[TopicPartition, Commit]) -> None:
        """Store a member's offsets. Raises `PartitionLost` for partitions that are not its own; the rest is stored."""
        with self.lock:
            self.faults.check("commit")
            current = member.member_id in self.group(group).members
            foreign = [p for p in offsets if not current or p not in member.partitions]
            self.group(group).offsets.update({p: c for p, c in offsets.items() if p not in foreign})
        if foreign:
            raise PartitionLost(
                f"{', '.join(map(str, sorted(foreign)))} belong to another member of group {group!r} now."
            )

    def _rebalance(self, group: Group) -> None:
        group.begin()
        group.finish(self.matching)
        self.changed.notify()

    def _topics_changed(self, name: str) -> None:
        for group in self.groups.values():
            if any(_covers(member.subscription, name) for member in group.members.values()):
                group.begin()
                group.finish(self.matching)
        self.changed.notify()


def _covers(subscription: Subscription, topic: str) -> bool:
    return bool(subscription.match(topic)) if isinstance(subscription, re.Pattern) else topic in subscription


def as_subscription(topics: "Collection[str] | re.Pattern[str]") -> Subscription:
    """Make one value of topic names or a pattern over them."""
    return topics if isinstance(topics, re.Pattern) else frozenset([topics] if isinstance(topics, str) else topics)
