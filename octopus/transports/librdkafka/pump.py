"""The thread that librdkafka is polled in: brings messages into backlogs and the group's decisions into the event loop.

librdkafka has one queue for messages and callbacks, so a thread has to poll it, also while handlers need no records.
Messages for partitions that are held back meanwhile are kept; only a partition whose backlog outgrows its share is
paused, because pausing throws away the messages that librdkafka itself has fetched ahead.

The client is called from this thread alone: confluent-kafka lets one thread in at a time, and none while a callback of
the group runs, in which we wait for the listener. So the listener's requests are served inside that callback. There,
nothing may be called that gives way to callbacks itself (`poll`, `consume`, `list_topics`, `close`): confluent-kafka 2.16
forgets then in which call it is, and the next callback ends the process.
"""

import asyncio
import concurrent.futures
import contextlib
import re
import threading
import time
from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Message

from octopus.errors import AuthError, ConnectionFailed, NotAuthorized, TransportError
from octopus.events import TopicPartition
from octopus.transports.base import AssignmentListener, Fetched
from octopus.transports.kafka.settings import KafkaSettings
from octopus.transports.librdkafka.backlog import Backlog
from octopus.transports.librdkafka.errors import error_of, is_passing, ours
from octopus.transports.librdkafka.moves import AWAY, Moves
from octopus.transports.librdkafka.pace import Pace
from octopus.transports.librdkafka.requests import Requests
from octopus.transports.librdkafka.topics import UNKNOWN, Topics
from octopus.transports.librdkafka.trust import Trust

IDLE_WAIT = 0.02
"""Seconds to wait for a message; how long a request may take to be noticed."""

HELD_WAIT = 0.05
"""Seconds between polls of the queue while no reader needs messages: the group's decisions come that way, too."""

ASK_AGAIN = 0.5
"""Seconds until a partition that could not be read is read again, if a reader still asks for it."""

TOKEN_LIFE = 60.0
"""Seconds for which librdkafka may use a token before it asks the provider, which knows when it really ends."""

_TOKEN = re.compile(r"[!-+\--~]+")
_NOT_CURED_BY_ASKING = (2, 76)  # a broker's word for corrupt, and for a codec that is unknown


class Pump:
    """Owns the client. Everything here but `_…` may be called from the event loop.

    Args:
        options: For librdkafka.
        settings: Where the cluster is.
        topics: Names, or a pattern that names match from their start.
        incremental: Whether the group's decisions name the changes (cooperative, KIP-848) or all partitions (eager).
        most_bytes: Of all backlogs together; each partition has an equal share.
        least_bytes: Of one backlog, however many there are.

    Attributes:
        failure: Why the whole consumer cannot go on.
        held: The partitions that the listener was told of and has not given back, with a number for each time.
        requests: The event loop's requests to the client.
        client: librdkafka's consumer while it runs.
    """

    def __init__(
        self,
        options: dict[str, Any],
        settings: KafkaSettings,
        topics: "Sequence[str] | re.Pattern[str]",
        *,
        incremental: bool,
        most_bytes: int,
        least_bytes: int,
    ) -> None:
        self._options = options
        self._settings = settings
        self._topics = Topics(topics, settings)
        self._incremental = incremental
        self._most_bytes, self._least_bytes = most_bytes, least_bytes
        self.client: confluent_kafka.Consumer | None = None
        self.failure: BaseException | None = None
        self.held: dict[TopicPartition, int] = {}
        self._lock = threading.Lock()
        self._needed = threading.Event()  # messages were taken, or there is a request
        self._backlogs: dict[TopicPartition, Backlog] = {}
        self._news: dict[TopicPartition, Backlog] = {}  # backlogs with messages; one that was served goes last
        self._wanted: Collection[TopicPartition] = ()
        self._pace = Pace()
        self.requests = Requests(settings.brokers, incremental=incremental, needed=self._needed)
        self._starts: dict[TopicPartition, int] | None = None  # while the listener is asked for them
        self._telling: concurrent.futures.Future[None] | None = None
        self._closing = self._is_started = False
        self._assignments = 0
        self._moves = Moves(settings, self._fail)
        self._trust = Trust(settings, self._fail)
        self._first_token = ""
        self._refusal: AuthError | None = None

    # life

    async def start(self, listener: AssignmentListener) -> None:
        """Connect and subscribe."""
        self._home = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._listener = listener
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._last_id: concurrent.futures.Future[str] = concurrent.futures.Future()
        if self._options.get("sasl.mechanism") == "OAUTHBEARER":
            # here, because librdkafka would only say after ten seconds that there is none
            self._first_token = await self._token()
        self._is_started = True
        threading.Thread(target=self._run, name="octopus librdkafka", daemon=True).start()
        await asyncio.wrap_future(self._started)

    async def stop(self, timeout: float) -> None:
        """Leave the group; after `timeout` seconds the thread is left to do so by itself."""
        self._closing = True
        self._moves.close()
        self._trust.close()
        with self._lock:
            self._backlogs.clear()
            self._news.clear()
        if (telling := self._telling) is not None:
            telling.cancel()
        self._needed.set()
        if not self._is_started:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await asyncio.shield(asyncio.wrap_future(self._ended))

    async def last_id_known(self) -> str:
        """Wait for the client to close, and return the member id it had; empty without one."""
        return await asyncio.wrap_future(self._last_id) if self._is_started else ""

    def _run(self) -> None:
        try:
            try:
                self._connect()
            except BaseException as error:  # noqa: BLE001 - for the caller that waits for the start
                if not self._started.cancelled():
                    self._started.set_exception(self._mapped(error, "connecting"))
                return
            if not self._started.cancelled():
                self._started.set_result(None)
            while not self._closing and not self._home.is_closed():
                self._turn()
        except BaseException as error:  # noqa: BLE001 - surfaces from the next fetch
            self._fail(self._mapped(error, "reading"))
        finally:
            self._close()

    def _close(self) -> None:
        self._closing = True
        client, self.client = self.client, None
        self.requests.close()
        if client is not None:
            with contextlib.suppress(KafkaException, RuntimeError):
                self._last_id.set_result(client.memberid() or "")
                client.close()
        if not self._last_id.done():
            self._last_id.set_result("")
        self._ended.set_result(None)

    # connecting

    def _connect(self) -> None:
        options = {**self._options, "error_cb": self._on_error, "on_commit": self.requests.on_commit}
        if options.get("sasl.mechanism") == "OAUTHBEARER":
            options["oauth_cb"] = self._on_token
        self.client = confluent_kafka.Consumer(options)
        self._subscribe(self._topics.find(self.client, self._check))

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self._closing:
            raise ConnectionFailed("The consumer stopped while it connected.")

    def _subscribe(self, topics: Sequence[str]) -> None:
        assert self.client is not None
        if topics:
            callbacks = {"on_assign": self._on_assign, "on_revoke": self._on_revoke, "on_lost": self._on_lost}
            self.client.subscribe([*topics], **callbacks)
        else:
            self.client.unsubscribe()

    # credentials and errors, called by librdkafka

    def _on_token(self, _config: str) -> tuple[str, float]:
        token, self._first_token = self._first_token, ""
        if not token:
            try:
                asked = asyncio.run_coroutine_threadsafe(self._token(), self._home)
                token = asked.result(self._settings.request_timeout)
            except AuthError as error:
                self._refusal = error
                raise
        self._refusal = None
        return token, time.time() + TOKEN_LIFE

    async def _token(self) -> str:
        token: str = await self._settings.token_provider.token()
        if not _TOKEN.fullmatch(token):
            raise NotAuthorized("The token is empty or has characters that a bearer token cannot have.")
        return token

    def _on_error(self, error: KafkaError) -> None:
        """Take note of an error of the whole client. Most pass: librdkafka connects again by itself."""
        if error.code() in AWAY:
            self._moves.look(self._home)
            self._topics.is_anybody_there &= error.code() != KafkaError._ALL_BROKERS_DOWN
        elif error.code() == KafkaError._SSL:
            self._trust.look(self._home, error)
        elif error.fatal() or error.code() == KafkaError._AUTHENTICATION:
            self._fail(self._refusal or ours(error, "connecting", self._settings.brokers))

    def _fail(self, error: BaseException) -> None:
        self.failure = self.failure or error
        self._wake()

    def _mapped(self, error: BaseException, doing: str) -> BaseException:
        if self._refusal is not None:
            return self._refusal
        if isinstance(error, KafkaException):
            return self.failure or ours(error_of(error), doing, self._settings.brokers)
        return error

    # messages

    def take(self, wanted: Collection[TopicPartition], max_records: int, max_bytes: int) -> list[Fetched]:
        """Hand out the messages at hand for these partitions; one that is cut short goes first the next time but one."""
        found: list[Fetched] = []
        with self._lock:
            self._arrived.clear()
            self._wanted = wanted
            for partition in [each for each in self._news if each in wanted]:
                if max_records <= 0 or max_bytes <= 0:
                    break
                backlog = self._news.pop(partition)
                for fetched in backlog.read(max_records, max_bytes):
                    found.append(fetched)
                    max_records -= len(getattr(fetched, "records", ()))
                    max_bytes -= getattr(fetched, "size_bytes", 0)
                if backlog.has_news:
                    self._news[partition] = backlog
        self._needed.set()
        return found

    async def arrival(self, timeout: float) -> None:
        """Wait until something came since the last `take`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._arrived.wait()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._home.call_soon_threadsafe(self._arrived.set)

    def _turn(self) -> None:
        """Carry out requests, then take messages from librdkafka, if a reader needs them."""
        assert self.client is not None
        self._tend()
        if self._has_room():
            first = self.client.poll(IDLE_WAIT)
            # `consume` alone would wait until it has as many as it may return
            messages = [first, *self._pace.pull(self.client)] if first is not None else []
        else:
            self._needed.wait(HELD_WAIT)
            self._needed.clear()
            first = self.client.poll(0)
            messages = [first] if first is not None else []
        if messages:
            self._sort(messages)
            self._wake()

    def _has_room(self) -> bool:
        with self._lock:
            wanted = self._wanted
            ready = [backlog for key, backlog in self._news.items() if key in wanted]
            return bool(wanted) and self._pace.has_room(sum(map(len, ready)), sum([each.size for each in ready]))

    def _sort(self, messages: list[Message]) -> None:
        """Put messages where they belong. They come in runs of one partition."""
        assert self.client is not None
        codes = [0 if error is None else error.code() for error in map(Message.error, messages)]
        keys = zip(map(Message.topic, messages), map(Message.partition, messages), codes, strict=True)
        end = 0
        with self._lock:
            for (topic, number, code), run in groupby(keys):
                start, end = end, end + sum(1 for _ in run)
                backlog = self._backlogs.get(TopicPartition(topic or "", -1 if number is None else number))
                if code:
                    self._hear(messages[start], backlog)
                elif backlog is not None:
                    backlog.add(messages[start:end])
                    self._hold_back(backlog)
                if backlog is not None:
                    backlog.high = self._high(backlog)
                    if backlog.has_news:
                        self._news.setdefault(backlog.partition, backlog)

    def _hear(self, message: Message, backlog: Backlog | None) -> None:
        """Take an event that is no message: the end of a partition, an error of one, or of the client."""
        error = message.error()
        assert error is not None
        if error.code() == KafkaError._PARTITION_EOF:
            if backlog is not None:
                backlog.advance(message.offset() or 0)
        elif backlog is not None:
            at = message.offset()
            place = backlog.partition if at is None or at < 0 else f"{backlog.partition}@{at}"
            if not is_passing(error) or error.code() in _NOT_CURED_BY_ASKING:
                backlog.fail(ours(error, f"reading {place}", self._settings.brokers))
                self._pause(backlog)  # librdkafka would step over it
        elif error.code() in (KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED):
            self._fail(ours(error, "reading", self._settings.brokers))
        elif error.fatal() or not (is_passing(error) or error.code() in UNKNOWN):
            self._fail(ours(error, "coordinating the group", self._settings.brokers))

    def _high(self, backlog: Backlog) -> int | None:
        assert self.client is not None
        _, high = self.client.get_watermark_offsets(_place(backlog.partition), cached=True)
        return high if high >= 0 else backlog.high

    @property
    def known(self) -> set[TopicPartition]:
        """Partitions of the subscribed topics in the last metadata."""
        return self._topics.known

    def end_offset(self, partition: TopicPartition) -> int | None:
        """Return the partition's end as last heard."""
        backlog = self._backlogs.get(partition)
        return backlog.high if backlog is not None else None

    # holding back and positioning

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Set a position, inside a request: of a partition that is being assigned, or of one that is read already."""
        if self._starts is not None and partition in self._starts:
            self._starts[partition] = offset
            return
        with self._lock:
            if (found := self._backlogs.get(partition)) is not None:
                self._position(found, offset)
                self._news.pop(partition, None)

    def _tend(self) -> None:
        """Carry out requests, and chores that are due."""
        assert self.client is not None
        self.requests.serve(self.client, inside_callback=False)
        now = time.monotonic()
        with self._lock:
            for backlog in self._backlogs.values():
                if not backlog.is_paused:
                    continue
                if not backlog.is_broken:
                    if backlog.size <= self._share / 2:
                        self._resume(backlog)
                elif backlog.error is None and backlog.partition in self._wanted and not backlog.ask_again_at:
                    backlog.ask_again_at = now + ASK_AGAIN
                elif 0 < backlog.ask_again_at <= now:
                    with contextlib.suppress(KafkaException):  # it is not fetched just now, or gone
                        self._position(backlog, backlog.position)
        self._topics.refresh(self.client)
        if (topics := self._topics.matching(self.client)) is not None:
            self._subscribe(topics)

    def _position(self, backlog: Backlog, offset: int) -> None:
        assert self.client is not None
        try:
            self.client.seek(_place(backlog.partition, offset))
        except KafkaException as exception:
            # out of range, librdkafka has let go of the partition
            if not backlog.is_broken or error_of(exception).code() != KafkaError._STATE:
                raise
            self._take_up_again(backlog, offset)
        backlog.restart(offset)
        self._resume(backlog)

    def _take_up_again(self, backlog: Backlog, offset: int) -> None:
        assert self.client is not None
        if self._incremental:
            self.client.incremental_unassign([_place(backlog.partition)])
            self.client.incremental_assign([_place(backlog.partition, offset)])
            return
        ends = {each.partition: each.end for each in self._backlogs.values()} | {backlog.partition: offset}
        self.client.assign([_place(partition, end) for partition, end in ends.items()])

    def _hold_back(self, backlog: Backlog) -> None:
        if backlog.size > self._share:
            self._pause(backlog)

    @property
    def _share(self) -> int:
        return max(self._least_bytes, self._most_bytes // max(1, len(self._backlogs)))

    def _pause(self, backlog: Backlog) -> None:
        if not backlog.is_paused and self.client is not None:
            self.client.pause([_place(backlog.partition)])
            backlog.is_paused = True

    def _resume(self, backlog: Backlog) -> None:
        if backlog.is_paused and self.client is not None:
            self.client.resume([_place(backlog.partition)])
            backlog.is_paused = False

    # rebalances, called by librdkafka inside `poll`

    def _on_assign(self, client: confluent_kafka.Consumer, places: list[Any]) -> None:
        partitions = [TopicPartition(place.topic, place.partition) for place in places]
        starts: dict[TopicPartition, int] = {}
        if partitions and not self._closing and self.failure is None:
            self._topics.hear_of(partitions)
            self._assignments += 1
            self.held |= dict.fromkeys(partitions, self._assignments)
            self._starts = dict.fromkeys(partitions, -1)
            self._tell(client, self._listener.assigned, partitions)
            starts, self._starts = {p: at for p, at in self._starts.items() if at >= 0}, None
            if self.failure is None and not self._closing and (unset := sorted(set(partitions) - starts.keys())):
                self._fail(TransportError(f"{', '.join(map(str, unset))} were assigned but given no position."))
        assign = client.incremental_assign if self._incremental else client.assign
        assign([_place(each, starts.get(each, 0)) for each in partitions])
        with self._lock:
            self._backlogs |= {partition: Backlog(partition, at) for partition, at in starts.items()}

    def _on_revoke(self, client: confluent_kafka.Consumer, places: list[Any]) -> None:
        partitions = [TopicPartition(place.topic, place.partition) for place in places]
        self._release(partitions)
        if held := [each for each in partitions if each in self.held]:
            self._tell(client, self._listener.revoked, held)
        self._give_back(client, places)

    def _on_lost(self, client: confluent_kafka.Consumer, places: list[Any]) -> None:
        partitions = [TopicPartition(place.topic, place.partition) for place in places]
        self._release(partitions)
        if lost := [each for each in partitions if self.held.pop(each, None) is not None]:
            self._tell(client, self._listener.lost, lost)
        self._give_back(client, places)

    def _give_back(self, client: confluent_kafka.Consumer, places: list[Any]) -> None:
        for place in places:
            self.held.pop(TopicPartition(place.topic, place.partition), None)
        if self._incremental:
            client.incremental_unassign(places)
        else:
            client.unassign()

    def _release(self, partitions: Sequence[TopicPartition]) -> None:
        with self._lock:
            for partition in partitions:
                self._backlogs.pop(partition, None)
                self._news.pop(partition, None)

    def _tell(
        self,
        client: confluent_kafka.Consumer,
        what: Callable[[Collection[TopicPartition]], Any],
        partitions: list[TopicPartition],
    ) -> None:
        """Let the listener act in its event loop, carry out its requests, and wait for it."""
        if self._closing:
            return
        try:
            self._telling = telling = asyncio.run_coroutine_threadsafe(what(partitions), self._home)
            telling.add_done_callback(lambda _: self._needed.set())
            self.requests.begin_callback(client)
            while not telling.done():
                if self._closing or self._home.is_closed():
                    telling.cancel()
                self.requests.serve(client, inside_callback=True)
                self._needed.wait(IDLE_WAIT)
                self._needed.clear()
            telling.result()
        except concurrent.futures.CancelledError:
            pass
        except Exception as error:  # noqa: BLE001 - surfaces from the next fetch
            self._fail(error)
        finally:
            self._telling = None


def _place(partition: TopicPartition, offset: int | None = None) -> Any:
    return confluent_kafka.TopicPartition(*partition, *(() if offset is None else (offset,)))
