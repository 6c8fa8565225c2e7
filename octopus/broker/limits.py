"""The limits of one broker's clients: sizes, counts and times. Small enough for an edge machine, ample for a laboratory."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Limits:
    """Caps of a broker; topics and partitions are capped by the storage's settings.

    Attributes:
        max_request_bytes: A larger size prefix closes the connection before anything is allocated.
        max_in_flight_bytes: Bytes of large requests held at once, over all connections; more wait in the sockets.
        max_held_share: Bytes of these that a connection may hold, however much the others do.
        max_connections: Beyond this many the longest idle ones are closed, and new ones where none is idle. The limit of open
            files may allow fewer.
        max_unanswered: Produce requests one connection may have waiting for the disk.
        max_fetch_bytes: Most record bytes in one Fetch answer, even if the client asks for more.
        max_groups: Consumer groups with members, and as many with offsets.
        max_members: Members of one group.
        max_transactional_ids: Transactional ids known at once.
        max_name_bytes: Length of group, member, instance and transactional ids.
        max_metadata_bytes: Length of the note beside a committed offset (12 beyond it).
        frame_timeout: Seconds a request may take to arrive once its size is known, and a client to authenticate.
        min_session_timeout_ms: Shortest session a group member may ask for (26 below it).
        max_session_timeout_ms: Longest session a group member may ask for (26 beyond it).
        max_transaction_timeout_ms: Longest transaction time-out a producer may ask for (50 beyond it).
        transactional_id_expiry_ms: How long an idle transactional id is remembered.
    """

    max_request_bytes: int = 100 * 2**20
    max_in_flight_bytes: int = 256 * 2**20
    max_held_share: int = 256 * 1024
    max_connections: int = 4096
    max_unanswered: int = 64
    max_fetch_bytes: int = 64 * 2**20
    max_groups: int = 10_000
    max_members: int = 1000
    max_transactional_ids: int = 10_000
    max_name_bytes: int = 1024
    max_metadata_bytes: int = 4096
    frame_timeout: float = 30.0
    min_session_timeout_ms: int = 6_000
    max_session_timeout_ms: int = 30 * 60 * 1000
    max_transaction_timeout_ms: int = 15 * 60 * 1000
    transactional_id_expiry_ms: int = 7 * 24 * 3600 * 1000


class Arrival(Protocol):
    """A connection on which a large request arrives."""

    @property
    def held(self) -> int:
        """Bytes of large requests that it holds, including requests not answered yet."""

    @property
    def missing(self) -> int:
        """Bytes of the request that have not arrived."""

    def read_on(self) -> None:
        """Read on: there is room."""

    def give_up(self) -> None:
        """Close: others need the room."""


class Budget:
    """Bytes of large requests in memory, counted as they arrive: announced bytes take no room.

    A connection that holds no more than its share never waits. Beyond it, reading goes on while there is room, with the
    request that lacks least first. So that half-arrived requests cannot fill it for good, `relieve` ends one where nothing
    moves.

    Args:
        total: Bytes for all of them.
        share: Bytes that each connection may hold in any case.
    """

    def __init__(self, total: int, share: int = 0) -> None:
        self._total = total
        self._share = share
        self._used = 0
        self._arriving: dict[Arrival, None] = {}
        self._waiting: dict[Arrival, None] = {}
        self._has_moved = True

    @property
    def used(self) -> int:
        """Bytes held now."""
        return self._used

    def hold(self, arrival: Arrival, size: int) -> bool:
        """Count bytes that have arrived; say whether to read on. Otherwise `read_on` is called when there is room."""
        self._used += size
        self._arriving[arrival] = None
        if self._has_room(arrival) or arrival.held <= self._share:
            return True
        self._waiting[arrival] = None
        return False

    def leave(self, arrival: Arrival) -> None:
        """Take it that the request has arrived, or never will. Its bytes count until they are given back."""
        self._arriving.pop(arrival, None)
        self._waiting.pop(arrival, None)

    def give(self, size: int) -> None:
        """Give bytes back and let waiting requests go on."""
        if not size:
            return
        self._used -= size
        self._has_moved = True
        for arrival in sorted(self._waiting, key=_missing) if self._waiting else ():
            if not self._has_room(arrival):
                break
            if arrival in self._waiting:
                del self._waiting[arrival]
                arrival.read_on()

    def relieve(self) -> None:
        """End one request if others wait and nothing moved since the last call: one that may arrive and does not.

        A waiting connection has sent bytes since it was let read, so one that does not wait sends nothing. Of the latter,
        the connection that holds most is closed. Where all wait, it is the connection that lacks most.
        """
        if self._waiting and not self._has_moved:
            silent = [each for each in self._arriving if each not in self._waiting and each.held > self._share]
            (max(silent, key=_held) if silent else max(self._waiting, key=_missing)).give_up()
        self._has_moved = False

    def _has_room(self, arrival: Arrival) -> bool:
        if self._used < self._total:
            return True
        # One request larger than all there is may pass alone; the size limit has let it through.
        others = [each.held for each in self._arriving if each is not arrival]
        return max(others, default=0) <= self._share and self._used == arrival.held + sum(others)


def _missing(arrival: Arrival) -> int:
    return arrival.missing


def _held(arrival: Arrival) -> int:
    return arrival.held
