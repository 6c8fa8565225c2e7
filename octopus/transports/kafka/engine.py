"""All that Octopus uses of aiokafka's inside, under names of its own, but for producers (`producer_engine.py`).

No other file touches a private name of it.
Each class is a subclass that opens a door: a property, a method, or a method that is there to be overridden. Where aiokafka's
code itself names a class or function in whose place ours belongs, its function is copied with ours under that name (`seeing`).
Everything that logs is copied with a log of ours (`engine_log.py`).
So nothing of aiokafka is changed, and its other clients in the process meet none of this. `clients.py` puts the parts together.
"""

import asyncio
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import aiokafka.client
import aiokafka.cluster
import aiokafka.conn
import aiokafka.consumer.consumer
import aiokafka.consumer.fetcher
import aiokafka.consumer.group_coordinator
import aiokafka.consumer.subscription_state
import aiokafka.coordinator.assignors.range
import aiokafka.coordinator.assignors.roundrobin
import aiokafka.coordinator.assignors.sticky.partition_movements
import aiokafka.coordinator.assignors.sticky.sticky_assignor
import aiokafka.errors as kafka
from aiokafka.client import ConnectionGroup as ConnectionGroup
from aiokafka.client import CoordinationType as CoordinationType
from aiokafka.conn import CloseReason as CloseReason
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.types import String
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.default_records import DefaultRecordBatch as DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch as LegacyRecordBatch

from octopus.transports.kafka.engine_log import engine_log
from octopus.transports.kafka.record_batch import pieces_of
from octopus.transports.kafka.seeing import inner, module_seeing, seeing

# without types of their own, and with our log
_cluster = module_seeing(aiokafka.cluster, log=engine_log)
_client = module_seeing(aiokafka.client, log=engine_log, ClusterMetadata=_cluster.ClusterMetadata)
_conn = module_seeing(aiokafka.conn, log=engine_log)
_subscription = module_seeing(aiokafka.consumer.subscription_state, log=engine_log)
_consumer = module_seeing(aiokafka.consumer.consumer, log=engine_log, SubscriptionState=_subscription.SubscriptionState)
_fetcher = module_seeing(aiokafka.consumer.fetcher, log=engine_log)
_coordinator = module_seeing(aiokafka.consumer.group_coordinator, log=engine_log)
_range = module_seeing(aiokafka.coordinator.assignors.range, log=engine_log)
_roundrobin = module_seeing(aiokafka.coordinator.assignors.roundrobin, log=engine_log)
_movements = module_seeing(aiokafka.coordinator.assignors.sticky.partition_movements, log=engine_log)
_sticky = module_seeing(
    aiokafka.coordinator.assignors.sticky.sticky_assignor,
    log=engine_log,
    PartitionMovements=_movements.PartitionMovements,
)

_Client: Any = _client.AIOKafkaClient
_Connection: Any = _conn.AIOKafkaConnection
_OAuth: Any = _conn.OAuthAuthenticator
_Consumer: Any = _consumer.AIOKafkaConsumer
_Fetcher: Any = _fetcher.Fetcher
_FetchError: Any = _fetcher.FetchError
_PartitionRecords: Any = _fetcher.PartitionRecords
_Coordinator: Any = _coordinator.GroupCoordinator

_String: Any = String("utf-8")

ASSIGNORS: Mapping[str, Any] = {
    "range": _range.RangePartitionAssignor,
    "roundrobin": _roundrobin.RoundRobinPartitionAssignor,
    "sticky": _sticky.StickyPartitionAssignor,
}
"""What deals partitions out, by its name."""

_COORDINATOR_GONE = (15, 16)  # error codes: not available, and not this broker


# clients and connections


class Client(_Client):  # type: ignore[misc]
    """A client; a subclass says what opens its connections, with what `aiokafka.conn.create_conn` is given."""

    def __init_subclass__(cls, *, open_connection: Callable[..., Awaitable[Any]], **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.bootstrap = seeing(_Client.bootstrap, create_conn=open_connection)
        cls._get_conn = seeing(_Client._get_conn, create_conn=open_connection)

    name: Any = inner("_client_id")
    """Its client id, as it was given."""

    retry_backoff: float = inner("_retry_backoff")
    """Seconds until something is tried again."""

    metadata_update: "asyncio.Future[bool] | None" = inner("_md_update_fut")
    """Done when the update of its metadata that was asked for is over; None when none was."""

    followed_topics: set[str] = inner("_topics")
    """The topics whose metadata it asks for; all when it is empty. To be changed in place."""

    def asked(self, is_answered: bool) -> None:
        """Take it that the brokers were asked for metadata, one by one until one answered; tell whether one has."""

    async def _metadata_update(self, cluster: Any, topics: Any) -> bool:
        is_answered: bool = await super()._metadata_update(cluster, topics)
        self.asked(is_answered)
        return is_answered


class Connection(_Connection):  # type: ignore[misc]
    """A connection whose steps can be overridden."""

    send_any = _Connection.send

    def send(self, request: Any, expect_response: bool = True) -> Awaitable[Any]:
        """Send a request; return what waits for the answer."""
        if expect_response and isinstance(request, ProduceRequest) and self._writer is not None:
            return self.send_batches(request)
        sent: Awaitable[Any] = self.send_any(request, expect_response)
        return sent

    def send_batches(self, request: Any) -> Awaitable[Any]:
        """Send batches from where they are, piece by piece: aiokafka copies each five times on its way to the socket."""
        if self._writer.transport.is_closing():
            # Lost a moment ago, and about to be told. `writelines` of Python 3.12 and 3.13 does not look (gh-136234): it has the loop
            # watch a descriptor that is closed next, and no connection that gets the same number later would ever hear a thing.
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise kafka.KafkaConnectionError(f"Connection at {self._host}:{self._port} broken")
        message = request.prepare(self._versions)
        if message.API_VERSION < 3:
            sent: Awaitable[Any] = self.send_any(request)
            return sent
        number = self._next_correlation_id()
        header = message.build_request_header(correlation_id=number, client_id=self._client_id)
        pieces = [b"", header.encode(), *_pieces_of(message)]
        pieces[0] = sum(map(len, pieces)).to_bytes(4, "big")
        try:
            self._writer.writelines(pieces)
        except OSError as error:
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise kafka.KafkaConnectionError(f"Connection at {self._host}:{self._port} broken: {error}") from error
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._requests.append((number, message, answer))
        return asyncio.wait_for(answer, self._request_timeout)

    name: Any = inner("_client_id")
    """The client's id."""

    loop: asyncio.AbstractEventLoop = inner("_loop")
    """The event loop that it lives in."""

    request_timeout: float = inner("_request_timeout")
    """Seconds that a request may take."""

    security_protocol: str = inner("_security_protocol")
    """Kafka's name of it."""

    token_provider: Any = inner("_sasl_oauth_token_provider")
    """What has the tokens, for OAUTHBEARER."""

    @property
    def transport(self) -> asyncio.Transport | None:
        """The socket's; None when it is closed."""
        return self._writer.transport if self._writer is not None else None

    streams: asyncio.Protocol = inner("_protocol")
    """What feeds its reader and paces its writer."""

    unanswered: "deque[tuple[int | None, Any, asyncio.Future[Any]]]" = inner("_requests")
    """Correlation id, request and what waits for the answer, of all that was sent; the oldest is first."""

    def begin_counting_at(self, correlation_id: int) -> None:
        """Give this number to the next request."""
        self._correlation_id = correlation_id - 1

    def take_answer(self, read: Callable[[], Any]) -> None:
        """Answer the oldest request, unless its caller has stopped waiting."""
        _, _, waiting = self._requests[0]
        if not waiting.done():
            waiting.set_result(read())
        self._last_action = time.monotonic()
        self._requests.popleft()

    def take_frame(self, frame: bytes) -> None:
        """Read a frame and answer the oldest request."""
        self._handle_frame(frame)

    def size_of(self, head: bytes) -> int:
        """Return how many bytes a frame of the handshake has, from its first four; may raise `OSError`."""
        return int.from_bytes(head, "big", signed=True)

    async def ask_versions(self) -> None:
        """Ask which requests the broker knows: the first thing that is asked."""
        await super()._do_version_lookup()

    async def authenticate(self) -> None:
        """Show our credentials."""
        await super()._do_sasl_handshake()

    async def _do_version_lookup(self) -> None:
        await self.ask_versions()

    async def _do_sasl_handshake(self) -> None:
        await self.authenticate()

    @staticmethod
    async def _read(reference: "Callable[[], Connection | None]") -> None:
        """Read frames as aiokafka does, asking `size_of` for their sizes. An open connection must not keep itself alive."""
        connection = reference()
        if connection is None:
            return
        reader = connection._reader
        del connection
        while True:
            head = await reader.readexactly(4)
            connection = reference()
            if connection is None:
                return
            size = connection.size_of(head)
            del connection
            frame = await reader.readexactly(size)
            connection = reference()
            if connection is None:
                return
            connection.take_frame(frame)
            del connection


def _pieces_of(message: Any) -> Iterator[bytes]:
    """Yield a request of batches: https://kafka.apache.org/protocol#The_Messages_Produce, versions 3 to 8."""
    transactional_id, acks, timeout, topics = (getattr(message, name) for name in message.SCHEMA.names)
    yield _String.encode(transactional_id) + struct.pack(">hii", acks, timeout, len(topics))
    for topic, partitions in topics:
        yield _String.encode(topic) + struct.pack(">i", len(partitions))
        for number, batch in partitions:
            pieces = pieces_of(batch)
            yield struct.pack(">ii", number, sum(map(len, pieces)))
            yield from pieces


class OAuth(_OAuth):  # type: ignore[misc]
    """Speaks OAUTHBEARER."""

    has_sent_token: bool = inner("_token_sent")
    """Whether what the broker says is about our token."""

    def check(self, token: str) -> None:
        """Look at a token before it is sent; may raise."""

    def _build_oauth_client_request(self, token: str, extensions: dict[str, str]) -> str:
        self.check(token)
        request: str = super()._build_oauth_client_request(token, extensions)
        return request


# consumers


class Consumer(_Consumer):  # type: ignore[misc]
    """A consumer; a subclass says of which class its client is, and what reads the batches of a partition."""

    def __init_subclass__(cls, *, client: type[Client], read_batches: Callable[[Any], Any], **options: Any) -> None:
        super().__init_subclass__(**options)
        fetcher = type("Fetcher", (Fetcher,), {}, read_batches=read_batches)
        cls.__init__ = seeing(_Consumer.__init__, AIOKafkaClient=client)  # type: ignore[method-assign]
        cls.start = seeing(_Consumer.start, Fetcher=fetcher, GroupCoordinator=Coordinator)

    client: Client = inner("_client")
    """Its client."""

    coordinator: "Coordinator" = inner("_coordinator")
    """Its side of the group, once it has started."""

    fetcher: "Fetcher" = inner("_fetcher")
    """What fetches, once it has started."""

    subscribed: Collection[str] = inner("_subscription.topics")
    """What it has subscribed to."""

    @property
    def assigned(self) -> Any:
        """Its assignment, also one that is over; None before the first."""
        subscription = self._subscription.subscription
        return subscription.assignment if subscription is not None else None

    is_rebalancing: bool = inner("_subscription.reassignment_in_progress")
    """Whether its partitions are being dealt out anew."""

    @property
    def tasks(self) -> "tuple[asyncio.Task[Any] | None, ...]":
        """What has to run for it to work."""
        return self._fetcher._fetch_task, self._coordinator._coordination_task, self._client._sync_task

    def is_read(self) -> None:
        """Note that the caller reads: the engine leaves the group when it takes the caller for stuck."""
        self._subscription._last_fetch_ended = time.monotonic()

    def drop_listener(self) -> None:
        """Stop telling of changes."""
        self._subscription._listener = None


class Fetcher(_Fetcher):  # type: ignore[misc]
    """Fetches; a subclass says what reads the batches of a partition."""

    def __init_subclass__(cls, *, read_batches: Callable[[Any], Any], **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._proc_fetch_request = seeing(
            _Fetcher._proc_fetch_request, MemoryRecords=read_batches, PartitionRecords=PartitionRecords
        )

    results: dict[Any, Any] = inner("_records")
    """What was fetched and not taken, by partition: see `error_in` and `records_in`."""

    _client: Any

    def stand_between(self, made_of: Callable[[Any], Any]) -> Any:
        """Let something that is made of its client stand between the two, and return it."""
        between: Any = made_of(self._client)
        self._client = between
        return between

    def _set_error(self, partition: Any, error: BaseException) -> None:
        # Two tasks look for one partition's position when its leader moves meanwhile. For aiokafka the second that finds nothing is
        # a mistake of its own, which ends all fetching.
        if partition not in self._records:
            super()._set_error(partition, error)

    def create_waiter(self) -> "asyncio.Future[None]":
        """Return what is done when there is something new."""
        waiter: asyncio.Future[None] = self._create_fetch_waiter()
        return waiter

    def wake(self) -> None:
        """Wake all who wait for something new."""
        for waiter in list(self._fetch_waiters):
            self._notify(waiter)

    def ask_for_more(self) -> None:
        """Look which brokers can be asked again: something was taken."""
        self._notify(self._wait_consume_future)


class PartitionRecords(_PartitionRecords):  # type: ignore[misc]
    """What one fetch brought for one partition. Not to be iterated: its batches are read from `batches`."""

    def _unpack_records(self) -> Any:
        # a generator and its object would hold each other, and keep what was fetched until a garbage collection
        return iter(())

    batches: Any = inner("_records")
    """What `read_batches` made of the bytes."""

    isolation_level: int = inner("_isolation_level")
    """Kafka's number of it."""

    aborted_transactions: list[tuple[int, int]] = inner("_aborted_transactions")
    """Producer id and first offset, in the order of offsets."""


def error_in(result: Any) -> BaseException | None:
    """Return why a partition could not be fetched, if its result says so."""
    error: BaseException | None = result._error if isinstance(result, _FetchError) else None
    return error


def records_in(result: Any) -> PartitionRecords | None:
    """Return what was fetched; None if it could not be, or was of an assignment that is over."""
    records: PartitionRecords | None = None if isinstance(result, _FetchError) else result._partition_records
    return records


def is_abort(control_batch: Any) -> bool:
    """Tell whether a batch says that its producer's transaction was aborted."""
    return bool(ControlRecord.parse(next(control_batch).key) == ABORT_MARKER)


class Coordinator(_Coordinator):  # type: ignore[misc]
    """A member's side of its group.

    Attributes:
        between: Stands between it and the broker for all that it asks by itself; None when nothing does.
    """

    between: Callable[[Any], Awaitable[Any]] | None = None

    async def ask(self, request: Any) -> Any:
        """Ask the broker that coordinates the group.

        Raises:
            KafkaError: It cannot be asked; or it answers an OffsetFetch with an error and no partitions, as it does while it is
                loading, or is not the coordinator. aiokafka takes that for "nothing committed", and a group starts over or
                skips to the end.
        """
        reply = await super()._send_req(request)
        code = getattr(reply, "error_code", 0) if isinstance(request, OffsetFetchRequest) else 0
        if code:
            if code in _COORDINATOR_GONE:
                self.coordinator_dead()
            raise kafka.for_code(code)(self.group_id)  # callers retry those that are retriable
        return reply

    async def _send_req(self, request: Any) -> Any:
        return await (self.between or self.ask)(request)

    @property
    def retry_backoff(self) -> float:
        """Seconds until something is tried again."""
        milliseconds: float = self._retry_backoff_ms
        return milliseconds / 1000

    coordination_task: "asyncio.Task[None]" = inner("_coordination_task")
    """What joins the group, and again."""

    heartbeat_task: "asyncio.Task[None] | None" = inner("_heartbeat_task")
    """What tells the broker that the member lives."""

    commit_lock: asyncio.Lock = inner("_commit_lock")
    """Held while offsets are committed."""

    async def commit(self, assignment: Any, offsets: Mapping[Any, Any]) -> None:
        """Commit offsets of an assignment, once."""
        await self._do_commit_offsets(assignment, offsets)

    @property
    def watches_topics(self) -> bool:
        """Whether it joins again when partitions are added, as only the leader does."""
        return self._group_subscription is not None

    def watch_topics(self, partitions: Mapping[str, int]) -> None:
        """Join again when a topic has not so many partitions."""
        self._group_subscription = {*partitions}
        self._metadata_snapshot = {**partitions}
        self._handle_metadata_update(self._cluster)


def partitions_in(assignment: bytes) -> Sequence[tuple[str, int]]:
    """Return the partitions in what a leader has dealt out to a member."""
    partitions: Sequence[tuple[str, int]] = ConsumerProtocol.ASSIGNMENT.decode(assignment).partitions()
    return partitions


# requests


def speaking(*versions: Any) -> Callable[[Any], Any]:
    """Give a class of requests more versions than its base has, later ones last."""

    def widened(kind: Any) -> Any:
        kind._CLASSES = (*kind._CLASSES, *versions)
        return kind

    return widened


def forbid_creation(request: Any) -> None:
    """Let a request for metadata create no topic."""
    request._allow_auto_topic_creation = False


def name_member(request: Any, member_id: str) -> None:
    """Let a request to join be one of this member, unless it names another."""
    request._member_id = request._member_id or member_id


def fetch_limits(request: Any) -> tuple[int, int, int, int, str]:
    """Return how long a fetch may wait in milliseconds, its least and most bytes, isolation level and rack."""
    return request._max_wait_ms, request._min_bytes, request._max_bytes, request._isolation_level, request._rack_id
