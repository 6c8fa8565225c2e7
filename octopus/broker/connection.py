"""One client's connection: frames in, answers out, in the order asked.

A connection is served serially, as Kafka does: a long-polling Fetch holds the requests after it. Only Produce requests
overlap, so that many of them wait for the same round of the disk; their answers still leave in order.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from struct import Struct

from octopus.broker.api import TABLE
from octopus.broker.api.fetch import answer_nothing
from octopus.broker.api.sasl import authenticate_raw
from octopus.broker.limits import Budget
from octopus.broker.node import Node
from octopus.broker.request import Answer, Api, Hangup, Request, Session
from octopus.broker.request_faults import NO_FAULT, Fault
from octopus.broker.throttling import FETCH, PRODUCE, say
from octopus.broker.wire import MalformedRequest, Part, Reader, Writer
from octopus.logs import get_logger

_log = get_logger(__name__)

_SIZE = Struct(">i")
_SMALLEST_REQUEST = 10  # key, version, correlation id, null client id
_LARGEST_BEFORE_LOGIN = 64 * 1024
_SMALL = (
    64 * 1024
)  # below this a request needs no reservation, and parts of an answer are joined before they are written
_READ_AHEAD = 256 * 1024
_RAW = Api(-1, "SaslToken", 0, 0, authenticate_raw)


@dataclass(slots=True)
class _Slot:
    """A request that was started and not answered yet."""

    api: Api
    correlation: int
    reserved: int
    version: int = 0
    client_id: str = ""
    throttle: float = 0.0
    is_withheld: bool = False
    task: asyncio.Task[Writer | None] | None = None
    body: Writer | None = None
    is_done: bool = False
    is_dropped: bool = False


class Connection(asyncio.Protocol):
    """A client's connection.

    Args:
        node: The state that handlers share.
        budget: Bytes of large requests, shared by all connections.
        address: Host and port to tell the client; None takes the address it connected to.
        on_close: Called once when the connection has ended.
    """

    def __init__(
        self,
        node: Node,
        budget: Budget,
        address: tuple[str | None, int | None],
        on_close: Callable[["Connection"], None],
    ) -> None:
        self._node = node
        self._budget = budget
        self._address = address
        self._on_close = on_close
        self._buffer = bytearray()
        self._size: int | None = None  # of the frame that is arriving
        self._reserved = 0  # bytes of it that count against the budget
        self._is_queued = False  # for the budget
        self._held: bytes | None = None  # a whole frame that may not start yet
        self._slots: deque[_Slot] = deque()
        self._deadline: asyncio.TimerHandle | None = None
        self._login_deadline: asyncio.TimerHandle | None = None
        self._is_congested = False  # the client does not read
        self._mute: asyncio.TimerHandle | None = None  # it is throttled
        self._is_draining = False
        self._is_closed = False
        self._is_advancing = False
        self._has_asked, self._active_at = False, 0.0

    # ── the loop's side ─────────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._active_at = self._now()
        # A client may be gone again before it is looked at.
        peer = transport.get_extra_info("peername") or ("unknown", 0)
        local = transport.get_extra_info("sockname")
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        host, port = self._address
        needs_login = self._node.settings.needs_authentication
        self._session = Session(peer[0], host or local[0], port or local[1], is_authenticated=not needs_login)
        if needs_login:
            loop = asyncio.get_running_loop()
            self._login_deadline = loop.call_later(self._node.limits.frame_timeout, self._check_login)

    def data_received(self, data: bytes) -> None:
        self._node.counters.bytes_in += len(data)
        self._buffer += data
        self._advance()

    def pause_writing(self) -> None:
        self._is_congested = True

    def resume_writing(self) -> None:
        self._is_congested = False
        self._advance()

    def connection_lost(self, error: Exception | None) -> None:
        self._is_closed = True
        self._disarm()
        if self._login_deadline is not None:
            self._login_deadline.cancel()
        if self._mute is not None:
            self._mute.cancel()
        self._budget.leave(self)
        reserved, self._reserved = self._reserved, 0
        self._budget.give(reserved)
        for slot in self._slots:
            if slot.task is not None and slot.api.waits_only:
                slot.task.cancel()
        self._on_close(self)

    # ── the broker's side ───────────────────────────────────────────────────────────────────────────────────────────

    def drain(self) -> None:
        """Start no further request."""
        self._is_draining = True

    def tasks(self) -> list[asyncio.Task[Writer | None]]:
        """Name the tasks of the requests that are not answered yet."""
        return [slot.task for slot in self._slots if slot.task is not None]

    def close(self) -> None:
        """Send the written bytes and close."""
        self._is_closed = True
        self._transport.close()

    def abort(self) -> None:
        """Close at once, without sending the rest."""
        self._is_closed = True
        self._transport.abort()

    @property
    def idleness(self) -> tuple[bool, float] | None:
        """The key that sorts idle connections, first to close first: those without a request, then the longest idle; None: busy."""
        if self._slots or self._buffer or self._held or self._mute is not None or self._is_closed:
            return None
        return self._has_asked, self._active_at

    # ── the budget's side ───────────────────────────────────────────────────────────────────────────────────────────

    @property
    def held(self) -> int:
        """Bytes of large requests that it holds."""
        return self._reserved + sum(slot.reserved for slot in self._slots)

    @property
    def missing(self) -> int:
        """Bytes of the request that have not arrived."""
        return (self._size or 0) + _SIZE.size - len(self._buffer)

    def read_on(self) -> None:
        """Read on: there is room."""
        self._is_queued = False
        self._advance()

    def give_up(self) -> None:
        """Close: others need the room."""
        self._abort("a large request that does not arrive takes the room of others")

    # ── frames ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _advance(self) -> None:
        """Start as many requests as have arrived and may start."""
        if self._is_advancing:  # a request answered at once calls back; the loop below goes on by itself
            return
        self._is_advancing = True
        try:
            while not (self._is_closed or self._is_draining):
                frame = self._held or self._next_frame()
                self._held = frame if frame is not None and not self._may_start(frame) else None
                if frame is None or self._held is not None:
                    break
                self._start(frame)
        except MalformedRequest as problem:
            self._abort(f"malformed frame: {problem}")
        finally:
            self._is_advancing = False
        self._pace()

    def _next_frame(self) -> bytes | None:
        if self._size is None:
            if len(self._buffer) < _SIZE.size:
                self._arm() if self._buffer else self._disarm()
                return None
            self._size = self._checked_size()
        end = _SIZE.size + self._size
        if self._size > _SMALL:
            self._count(min(len(self._buffer), end))
        if len(self._buffer) < end:
            self._disarm() if self._is_queued else self._arm()
            return None
        self._disarm()
        if self._reserved:
            self._budget.leave(self)
            self._is_queued = False
        self._size = None
        with memoryview(self._buffer) as view:
            frame = bytes(view[_SIZE.size : end])
        del self._buffer[:end]
        return frame

    def _count(self, arrived: int) -> None:
        grown, self._reserved = arrived - self._reserved, arrived
        if grown:
            self._is_queued = not self._budget.hold(self, grown)

    def _checked_size(self) -> int:
        (size,) = _SIZE.unpack_from(self._buffer)
        smallest = 0 if self._session.speaks_raw else _SMALLEST_REQUEST
        largest = self._node.limits.max_request_bytes if self._session.is_authenticated else _LARGEST_BEFORE_LOGIN
        if not smallest <= size <= largest:
            raise MalformedRequest(f"a request of {size} bytes")
        return int(size)

    def _may_start(self, frame: bytes) -> bool:
        if self._is_congested or self._mute is not None:
            return False
        if not self._slots:
            return True
        api = TABLE.get(int.from_bytes(frame[:2], "big", signed=True))
        if api is None or not api.may_overlap or len(self._slots) >= self._node.limits.max_unanswered:
            return False
        return all(slot.api.may_overlap for slot in self._slots)

    def _pace(self) -> None:
        """Leave bytes that cannot be worked on now in the socket."""
        if self._is_closed:
            return
        is_full = self._is_queued or (len(self._buffer) > _READ_AHEAD and (self._held is not None or self._is_draining))
        if is_full and self._transport.is_reading():
            self._transport.pause_reading()
        elif not is_full and not self._transport.is_reading() and not self._transport.is_closing():
            self._transport.resume_reading()

    # ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _start(self, frame: bytes) -> None:
        reserved, self._reserved = self._reserved, 0
        reader = Reader(frame)
        slot = _Slot(_RAW, 0, reserved)
        self._slots.append(slot)
        version, fault = 0, NO_FAULT
        try:
            client_id = ""
            if not self._session.speaks_raw:
                slot.api, version = self._row(reader.int16(), reader.int16())
                slot.correlation, client_id = reader.int32(), reader.nullable_string() or ""
                slot.version, slot.client_id = version, client_id
                if version >= slot.api.flexible_from:
                    reader.become_flexible()
                fault = self._node.faults.take(slot.api.key)
                self._throttle(slot, fault, len(frame))
            self._node.counters.requests[slot.api.name] += 1
            request = Request(slot.api, version, client_id, reader, self._session, self._node.counters, fault.code)
            answer = self._handle(slot, request, fault)
        except Exception as error:  # noqa: BLE001  # any fault may cost this connection only
            self._fail(slot, version, error)
            return
        if isinstance(answer, Writer | None):
            self._finish(slot, answer)
            return
        slot.task = asyncio.get_running_loop().create_task(answer)
        slot.task.add_done_callback(partial(self._on_done, slot, version))

    def _row(self, key: int, version: int) -> tuple[Api, int]:
        api = TABLE.get(key)
        if api is None:
            raise MalformedRequest(f"there is no API {key}")
        # A newer ApiVersions is answered, in the layout every client can read, so that it can ask again.
        if not api.serves_from <= version <= api.most and not (api.key == 18 and version > 0):
            raise MalformedRequest(f"{api.name} has no version {version}")
        if not (self._session.is_authenticated or api.before_login):
            raise Hangup(f"{api.name} before authentication")
        return api, version

    def _handle(self, slot: _Slot, request: Request, fault: Fault) -> Answer:
        if fault.drop == "before":
            raise Hangup("dropped on order")
        slot.is_dropped = fault.drop == "after"
        if slot.is_withheld:
            return answer_nothing(request)
        if fault.delay:
            return self._handle_late(request, fault.delay)
        return slot.api.handle(self._node, request)

    async def _handle_late(self, request: Request, delay: float) -> Writer | None:
        await asyncio.sleep(delay)
        answer = request.api.handle(self._node, request)
        return answer if isinstance(answer, Writer | None) else await answer

    def _on_done(self, slot: _Slot, version: int, task: asyncio.Task[Writer | None]) -> None:
        if task.cancelled():
            self._finish(slot, None)
        elif (error := task.exception()) is not None:
            self._fail(slot, version, error)
        else:
            self._finish(slot, task.result())

    def _fail(self, slot: _Slot, version: int, error: BaseException) -> None:
        name = f"{slot.api.name} v{version}"
        if isinstance(error, MalformedRequest | Hangup):
            self._abort(str(error) if slot.api is _RAW else f"{name}: {error}")
        else:
            self._abort(f"{name} failed", error)
        self._node.counters.errors[f"{slot.api.name} closed"] += 1
        self._finish(slot, None)

    def _finish(self, slot: _Slot, body: Writer | None) -> None:
        slot.body, slot.is_done = body, True
        while self._slots and self._slots[0].is_done:
            self._answer(self._slots.popleft())
        self._advance()

    def _answer(self, slot: _Slot) -> None:
        self._budget.give(slot.reserved)
        if self._is_closed:
            return
        if slot.is_dropped:
            self._abort(f"{slot.api.name}: the answer is dropped on order")
            return
        if slot.body is not None:
            if slot.api.key == FETCH and not slot.is_withheld:
                self._node.faults.quotas.charge("fetch", slot.client_id, len(slot.body), self._now())
            if slot.throttle:
                say(slot.body, slot.api.key, slot.version, slot.throttle)
            self._write(slot.body.frame(slot.correlation))
        elif slot.api is _RAW:
            self._write([_SIZE.pack(0)])
        if self._session.is_closing:
            self.close()
        elif slot.throttle:
            self._mute_for(slot.throttle)

    # ── throttling ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _throttle(self, slot: _Slot, fault: Fault, size: int) -> None:
        """Charge a request to its client's quotas and find how long the client has to wait."""
        quotas, now, key = self._node.faults.quotas, self._now(), slot.api.key
        self._has_asked, self._active_at = True, now
        held = fault.throttle
        if quotas.rates:
            if key == FETCH:  # charged when there is an answer
                held = max(held, quotas.debt("fetch", slot.client_id, now))
            elif key == PRODUCE:
                quotas.charge("produce", slot.client_id, size, now)
                held = max(held, quotas.debt("produce", slot.client_id, now))
            quotas.charge("request", slot.client_id, 1, now)
        slot.is_withheld = key == FETCH and held > 0
        slot.throttle = max(held, quotas.debt("request", slot.client_id, now))

    def _mute_for(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        if self._mute is not None:
            until = max(until, self._mute.when())
            self._mute.cancel()
        self._mute = loop.call_at(until, self._unmute)

    def _unmute(self) -> None:
        self._mute = None
        self._advance()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _write(self, parts: list[Part]) -> None:
        size = sum(map(len, parts))
        self._node.counters.bytes_out += size
        if size <= _SMALL:
            self._transport.write(b"".join(parts))
            return
        for part in parts:  # not writelines, which would join record bytes
            self._transport.write(part)

    # ── ends ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _abort(self, reason: str, error: BaseException | None = None) -> None:
        if self._is_closed:
            return
        _log.warning("closing the connection from %s: %s", self._session.peer, reason, exc_info=error)
        self._is_closed = True
        self._transport.abort()

    def _check_login(self) -> None:
        if not self._session.is_authenticated:
            self._abort("no authentication in time")

    def _arm(self) -> None:
        if self._deadline is None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(self._node.limits.frame_timeout, self._abort, "a request came too slowly")

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
