"""A group member on aiokafka's engine, with its traps fenced off.

Everything that decides where reading starts and what counts as processed belongs to the caller: no automatic commit, no
automatic reset, no deserializer. The engine's tasks are watched, since it does not report their deaths.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, Literal

import aiokafka.errors as kafka
from aiokafka.abc import ConsumerRebalanceListener

from octopus.errors import BatchTooLarge, ConfigurationError, ConnectionFailed, PartitionLost, TransportError
from octopus.events import TopicPartition
from octopus.transports.base import MAX_BYTES, NO_IDS, AssignmentListener, Commit, Fetched, Start, Unreadable
from octopus.transports.kafka import commits
from octopus.transports.kafka.client_name import ClientName
from octopus.transports.kafka.clients import Consumer
from octopus.transports.kafka.engine import ASSIGNORS, error_in, records_in
from octopus.transports.kafka.errors import FOREIGN, end_of, mapped, translated
from octopus.transports.kafka.membership import Membership
from octopus.transports.kafka.metadata import offsets_of, partitions_of
from octopus.transports.kafka.reader import Buffer, read_among
from octopus.transports.kafka.settings import KafkaSettings
from octopus.transports.kafka.topic_ids import TopicIds
from octopus.transports.kafka.watch import FetchWatch

Assignor = Literal["range", "roundrobin", "sticky"]
Isolation = Literal["read_committed", "read_uncommitted"]

_UNKNOWN_MEMBER = ""
_FOREVER_MILLISECONDS = 10 * 365 * 86_400_000

STOP_TIMEOUT = 5.0
"""Seconds for leaving the group and closing; a broker that does not answer will notice the silence."""

LITTLE = 64 * 1024
"""Bytes up to which an answer is what came in since the last one: to ask at once would bring next to nothing, for the same price."""


class KafkaConsumer:
    """A member of a consumer group.

    Args:
        settings: Where the cluster is.
        group: Group id.
        topics: Names, or a compiled pattern that topic names match from their start.
        session_timeout: How long the broker waits for a heartbeat before it gives the partitions away.
        heartbeat_interval: How often to tell the broker that we live, and hear of rebalances; 3 s or a third of the above.
        rebalance_timeout: How long `revoked` may take; longer than the caller's drain budget.
        group_instance_id: A name that survives restarts, so that a quick one causes no rebalance.
        keeps_place: Whether a member with such a name keeps its partitions when it stops, for the next of that name.
        assignor: How the group's leader deals partitions out.
        isolation: Whether records of open and aborted transactions are seen.
        max_partition_fetch_bytes: One fetch of one partition; at most two of them per partition are held.
        fetch_max_bytes: One fetch of one broker.
        fetch_max_wait: How long a broker may wait for data before it answers an idle fetch.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        group: str,
        topics: "Collection[str] | re.Pattern[str]",
        *,
        session_timeout: float = 45.0,
        heartbeat_interval: float | None = None,
        rebalance_timeout: float = 60.0,
        group_instance_id: str | None = None,
        keeps_place: bool = True,
        assignor: Assignor = "roundrobin",
        isolation: Isolation = "read_committed",
        max_partition_fetch_bytes: int = 1024 * 1024,
        fetch_max_bytes: int = 50 * 1024 * 1024,
        fetch_max_wait: float = 0.5,
    ) -> None:
        if assignor not in ASSIGNORS:
            raise ConfigurationError(f"assignor is {assignor!r}; it must be one of {', '.join(ASSIGNORS)}.")
        self._settings = settings
        self._group = group
        self._topics = (
            topics if isinstance(topics, re.Pattern) else sorted({topics} if isinstance(topics, str) else topics)
        )
        self._instance = group_instance_id
        self._stays = group_instance_id is not None and keeps_place
        self._options: dict[str, Any] = {
            "group_id": group,
            "group_instance_id": group_instance_id,
            "session_timeout_ms": int(session_timeout * 1000),
            "heartbeat_interval_ms": int((heartbeat_interval or min(3.0, session_timeout / 3)) * 1000),
            "rebalance_timeout_ms": int(max(rebalance_timeout, session_timeout) * 1000),
            # the sticky assignor keeps its memory in its class: every consumer gets a class of its own
            "partition_assignment_strategy": (type("Assignor", (ASSIGNORS[assignor],), {}),),
            "isolation_level": isolation,
            "max_partition_fetch_bytes": max_partition_fetch_bytes,
            "fetch_max_bytes": fetch_max_bytes,
            "fetch_max_wait_ms": int(fetch_max_wait * 1000),
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            # progress is the caller's business: the engine must not leave the group because getmany is not called
            "max_poll_interval_ms": _FOREVER_MILLISECONDS,
        }
        self._committed_only = isolation == "read_committed"
        self._engine: Consumer | None = None
        self._watch: FetchWatch | None = None
        self._topic_ids: TopicIds | None = None
        self._is_to_ask = False  # all that a broker sent is taken, and it has not been asked for more
        self._failure: BaseException | None = None
        self._membership: Membership | None = None
        self._told = asyncio.Event()  # unset while the listener is being told of a change
        self._told.set()
        self._held: dict[TopicPartition, TopicPartition] = {}  # told to the listener and not taken back
        self._readable: dict[TopicPartition, TopicPartition] = {}  # of those, the ones with a position
        self._positioned: set[TopicPartition] = set()
        self._buffers: dict[TopicPartition, Buffer] = {}

    # life

    async def start(self, listener: AssignmentListener) -> None:
        """Connect and take part in the group; the first assignment comes while `fetch` is called."""
        options = self._settings.client_options() | self._options
        with self._mapped("connecting", options["client_id"]):
            self._engine = Consumer(**options)
            try:
                await self._engine.start()
                self._membership = Membership(self._engine, self._instance, stays=self._stays)
                bridge = _Listener(self, listener)
                if isinstance(self._topics, re.Pattern):
                    self._engine.subscribe(pattern=self._topics, listener=bridge)
                else:
                    for topic in self._topics:
                        await partitions_of(self._engine.client, topic, self._settings.metadata_timeout)
                    self._engine.subscribe(topics=self._topics, listener=bridge)
                self._watch = FetchWatch.on(self._engine.fetcher, self._settings.metadata_timeout)
                self._topic_ids = TopicIds(self._engine.client, self._engine.coordinator)
            except BaseException:
                await self._engine.stop()
                raise

    async def stop(self) -> None:
        """Leave the group and close, within `STOP_TIMEOUT`. Calls no listener."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        engine.drop_listener()
        self._readable = {}
        self._buffers.clear()
        try:
            async with asyncio.timeout(min(STOP_TIMEOUT, self._settings.request_timeout)):
                if self._membership is not None:
                    await self._membership.leave(self._told)
                await engine.stop()
        except FOREIGN:
            # a dead engine task is raised here again, having been raised by fetch; the sockets still need closing
            await _close_sockets(engine)
        except asyncio.CancelledError:
            await _close_sockets(engine)
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # else the engine awaited a fetch that it cancelled itself, which must not cancel us

    # records

    async def fetch(
        self,
        partitions: Collection[TopicPartition],
        *,
        max_records: int,
        timeout: float,
        max_bytes: int = MAX_BYTES,
    ) -> list[Fetched]:
        """Return records of these partitions, waiting up to `timeout` seconds for the first.

        At most `max_records` in all, and none behind the one that makes them `max_bytes`; partitions take turns. Nothing is
        taken from the engine's buffers before it is returned, so cancelling loses nothing.
        """
        wanted = partitions if isinstance(partitions, set | frozenset | dict) else frozenset(partitions)
        deadline = time.monotonic() + timeout
        while True:
            engine = self._check()
            if wanted:
                self._ask_for_more(engine)
            readable = wanted and not engine.is_rebalancing
            if readable and (found := self._collect(engine, wanted, max_records, max_bytes)):
                return found
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return []
            waiter = engine.fetcher.create_waiter()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(remaining):
                    try:
                        with self._mapped("coordinating the group"):
                            await waiter
                    except TransportError:
                        if failure := self._failure_behind():
                            raise failure from None
                        raise

    def _failure_behind(self) -> BaseException | None:
        """Return what went wrong, in our own words, where the engine has others for it or none."""
        return self._failure or (self._membership.failure if self._membership is not None else None)

    def _check(self) -> Consumer:
        """Raise the error of a background task since the last turn, if there is one; return the engine."""
        engine = self._running()
        if failure := self._failure_behind():
            raise failure
        with self._mapped(f"reading as a member of group {self._group!r}"):
            for task in engine.tasks:
                if task is not None and task.done():
                    raise end_of(task)
            engine.coordinator.check_errors()
            failure = ClientName.of(engine.client).failure
            if isinstance(failure, kafka.SaslAuthenticationFailed):
                raise failure
        engine.is_read()
        return engine

    def _collect(
        self, engine: Consumer, wanted: Collection[TopicPartition], max_records: int, max_bytes: int
    ) -> list[Fetched]:
        """Take what is there; being cancelled here would lose what was taken."""
        found: list[Fetched] = []
        fetched = engine.fetcher.results
        begun: dict[TopicPartition, Buffer] = {}
        most, most_bytes = max_records, max_bytes
        for key in fetched.keys() - self._buffers.keys():
            partition = self._readable.get(key)
            if partition is not None and partition in wanted:
                taken = self._take(engine, partition)
                if isinstance(taken, Unreadable):
                    found.append(taken)
                elif taken is not None:
                    self._buffers[partition] = taken
        for key in [*self._buffers, *fetched]:
            if max_records <= 0 or max_bytes <= 0:
                break
            partition = self._readable.get(key)
            if partition is None or partition not in wanted:
                self._set_aside(key, fetched)
                continue
            buffer = self._buffers.pop(partition, None)
            if buffer is None:
                continue
            others = [*self._buffers.values(), *begun.values()]
            chunk = read_among(others, buffer, wanted, max_records, max_bytes, split=max_records == most)
            if chunk is not None:
                max_records -= len(chunk.records)
                max_bytes -= chunk.size_bytes
                found.append(chunk)
            if buffer.error is not None:
                engine.fetcher.seek_to(partition, buffer.next_offset)
                found.append(Unreadable(partition, buffer.error))
            elif not buffer.finished:
                (self._buffers if chunk is None else begun)[partition] = buffer
        self._buffers |= begun  # at the end: the others go first next time
        if self._buffers or not found or most_bytes - max_bytes > LITTLE:
            self._ask_for_more(engine)
        if max_records > 0 and self._watch is not None and self._watch.errors:
            found.extend(self._persistent_errors(wanted))
        return found

    def _ask_for_more(self, engine: Consumer) -> None:
        if self._is_to_ask:
            self._is_to_ask = False
            engine.fetcher.ask_for_more()

    def _set_aside(self, partition: Any, fetched: Mapping[Any, Any]) -> None:
        """Release the frames of records that are not asked for now: a partition that hangs would keep them."""
        if (buffer := self._buffers.get(partition)) is not None:
            buffer.stand_alone()
        if (result := fetched.get(partition)) is not None and (records := records_in(result)) is not None:
            records.batches.stand_alone()

    def _take(self, engine: Consumer, partition: TopicPartition) -> Buffer | Unreadable | None:
        """Take over what the engine fetched for a partition, and let it fetch what follows."""
        fetcher = engine.fetcher
        result: Any = fetcher.results.pop(partition)
        state = self._state(partition)
        buffer = None
        error: TransportError | None = None
        if (failure := error_in(result)) is not None:
            error = self._unreadable(partition, failure)
            if isinstance(error, BatchTooLarge):
                state.seek(state.position - 1)  # the engine steps over what does not fit; we do not
        elif result.check_assignment(partition) and (records := records_in(result)) is not None:
            buffer = Buffer(partition, records, self._settings.decompression_limit_bytes)
            state.consumed_to(buffer.until)
        # The engine asks a broker for more only when all that it sent is taken, and looks at every partition to find out: to
        # be woken for each would cost a thousand partitions four times what their records do.
        leader = engine.client.cluster.leader_for_partition
        if not any(leader(other) == leader(partition) for other in fetcher.results):
            self._is_to_ask = True
        return Unreadable(partition, error) if error is not None else buffer

    def _unreadable(self, partition: TopicPartition, error: BaseException) -> TransportError:
        if isinstance(error, TransportError):
            return error
        ours = translated(error, f"reading {partition}", self._settings.brokers)
        assert isinstance(ours, TransportError)
        ours.__cause__ = error
        return ours

    def _persistent_errors(self, wanted: Collection[TopicPartition]) -> list[Fetched]:
        assert self._watch is not None
        return [
            Unreadable(self._readable[key], self._unreadable(self._readable[key], error))
            for key, error in self._watch.persistent().items()
            if key in self._readable and key in wanted
        ]

    # offsets

    async def commit(self, offsets: Mapping[TopicPartition, Commit]) -> None:
        """Store offsets of partitions that are ours; after storing those, raise `PartitionLost` for the others.

        A `ConnectionFailed` leaves open whether the offsets were stored: commit the newest ones again.
        """
        engine = self._running()
        assignment = self._assignment()
        own = {partition: commit for partition, commit in offsets.items() if partition in self._held}
        if own:
            with self._mapped(f"committing offsets of group {self._group!r}"):
                async with self._in_time():
                    await commits.store(engine.coordinator, assignment, own, lambda: self._held)
        if foreign := sorted(partition for partition in offsets if partition not in own):
            raise PartitionLost(
                f"{', '.join(map(str, foreign))} belong to another member of group {self._group!r} now."
            )

    async def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Commit | None]:
        """Return what is committed."""
        engine = self._running()
        with self._mapped(f"reading the committed offsets of group {self._group!r}"):
            async with self._in_time():
                return await commits.read(engine.coordinator, self._group, partitions)

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str | None]:
        """Ask which topics these names stand for now."""
        engine = self._running()
        if self._topic_ids is None:
            raise ConnectionFailed(f"The consumer of group {self._group!r} is still connecting.")
        with self._mapped(f"asking for the ids of {', '.join(sorted(topics))}"):
            async with self._in_time():
                found = await self._topic_ids.ask(topics, self._settings.metadata_timeout)
        if found.keys() - engine.client.cluster.topics():
            engine.client.force_metadata_update()  # it was away, and the group should have it again soon
        return found

    async def seek(self, offsets: Mapping[TopicPartition, int], topic_ids: Mapping[str, str | None] = NO_IDS) -> None:
        """Set positions; what was fetched from elsewhere is dropped."""
        engine = self._running()
        for partition, offset in offsets.items():
            if partition not in self._held:
                raise PartitionLost(f"{partition} is not assigned to this member of group {self._group!r}.")
            if self._watch is not None:
                self._watch.expect(partition, topic_ids.get(partition.topic))
            self._buffers.pop(partition, None)
            engine.fetcher.seek_to(partition, offset)
            self._positioned.add(partition)

    async def offsets(self, partitions: Collection[TopicPartition], start: Start) -> dict[TopicPartition, int]:
        """Resolve a start to offsets."""
        engine = self._running()
        with self._mapped(f"looking up offsets of {', '.join(sorted({p.topic for p in partitions}))}"):
            return await offsets_of(
                engine.client, partitions, start, self._settings.metadata_timeout, committed_only=self._committed_only
            )

    def end_offset(self, partition: TopicPartition) -> int | None:
        """Return the end as the last fetch reported it."""
        state = self._state(partition)
        if state is None:
            return None
        end: int | None = state.lso if self._committed_only and state.lso is not None else state.highwater
        return end

    def known_partitions(self) -> set[TopicPartition]:
        """Return the partitions of the subscribed topics in the last metadata."""
        engine = self._running()
        cluster = engine.client.cluster
        return {
            TopicPartition(topic, number)
            for topic in engine.subscribed
            for number in cluster.partitions_for_topic(topic) or ()
        }

    # rebalances, called by the engine's coordination task

    async def _hear_revoked(self, listener: AssignmentListener) -> None:
        held, engine = list(self._held), self._engine
        self._readable = {}
        if held and engine is not None:
            coordinator = engine.coordinator
            # a member that the broker has forgotten is told so before the engine calls "revoked" for both cases
            gone = coordinator.member_id == _UNKNOWN_MEMBER or coordinator.generation < 0
            self._told.clear()
            try:
                await (listener.lost(held) if gone else listener.revoked(held))
            except Exception as error:  # noqa: BLE001 - surfaces from the next fetch; the engine would only log it
                self._failure = error
            finally:
                self._told.set()
        self._held = {}
        self._positioned.clear()
        self._buffers.clear()
        self._wake()

    async def _hear_assigned(self, listener: AssignmentListener, partitions: Collection[Any]) -> None:
        held = {TopicPartition(*partition): TopicPartition(*partition) for partition in partitions}
        engine = self._running()
        self._held = held
        self._positioned.clear()
        if self._membership is not None:
            await self._membership.watch_topics(engine.subscribed)
        if self._watch is not None:
            self._watch.clear()
        for assignor in self._options["partition_assignment_strategy"]:
            if issubclass(assignor, ASSIGNORS["sticky"]):
                assignor.on_generation_assignment(engine.coordinator.generation)
        if held:
            self._told.clear()
            try:
                await listener.assigned(list(held))
                if unset := sorted(set(held) - self._positioned):
                    raise TransportError(f"{', '.join(map(str, unset))} were assigned but given no position.")  # noqa: TRY301
            except Exception as error:  # noqa: BLE001 - see above
                self._failure = error
            else:
                self._readable = held
            finally:
                self._told.set()
        self._wake()

    def _wake(self) -> None:
        if self._engine is not None:
            self._engine.fetcher.wake()

    # small things

    def _running(self) -> Consumer:
        if self._engine is None:
            raise TransportError(f"The consumer of group {self._group!r} is not running.")
        return self._engine

    def _assignment(self) -> Any:
        return self._engine.assigned if self._engine is not None else None

    def _state(self, partition: TopicPartition) -> Any:
        assignment = self._assignment()
        return assignment.state_value(partition) if assignment is not None else None

    def _mapped(self, doing: str, name: Any = None) -> contextlib.AbstractContextManager[None]:
        if name is None and self._engine is not None:
            name = ClientName.of(self._engine.client)
        return mapped(doing, self._settings.brokers, name)

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Bound retries in time; what has not happened by then is a failed connection."""
        try:
            async with asyncio.timeout(self._settings.commit_timeout):
                yield
        except TimeoutError:
            raise kafka.KafkaTimeoutError(f"no success within {self._settings.commit_timeout:g} s") from None


class _Listener(ConsumerRebalanceListener):
    """Hands the engine's callbacks on."""

    def __init__(self, consumer: KafkaConsumer, listener: AssignmentListener) -> None:
        self._consumer = consumer
        self._listener = listener

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        await self._consumer._hear_revoked(self._listener)

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        await self._consumer._hear_assigned(self._listener, assigned)


async def _close_sockets(engine: Consumer) -> None:
    with contextlib.suppress(*FOREIGN):
        await engine.client.close()
