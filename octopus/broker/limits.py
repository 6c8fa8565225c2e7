"""What one broker lets its clients use: sizes, counts and times. Small enough for an edge machine, ample for a laboratory."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Caps of a broker; topics and partitions are capped by the storage's settings.

    Attributes:
        max_request_bytes: A larger size prefix closes the connection before anything is allocated.
        max_in_flight_bytes: Bytes of large requests held at once, over all connections; more wait in the sockets.
        max_connections: Connections beyond this many are closed at once.
        max_unanswered: Produce requests one connection may have waiting for the disk.
        max_fetch_bytes: Most record bytes in one Fetch answer, whatever the client asks.
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


class Budget:
    """Bytes that may be in memory at once, reserved whole before a request is read and given back when it is answered.

    Reserving the whole request up front is what makes this free of deadlock: whoever holds a reservation can finish.
    """

    def __init__(self, total: int) -> None:
        self._free = total
        self._total = total
        self._queue: deque[tuple[int, Callable[[], None]]] = deque()

    @property
    def used(self) -> int:
        """Bytes reserved now."""
        return self._total - self._free

    def take(self, size: int, resume: Callable[[], None]) -> bool:
        """Reserve `size` bytes, or queue: then `resume` is called once they have been reserved."""
        if self._queue or not self._fits(size):
            self._queue.append((size, resume))
            return False
        self._free -= size
        return True

    def give(self, size: int) -> None:
        """Give bytes back and let those who wait go on, in order."""
        self._free += size
        while self._queue and self._fits(self._queue[0][0]):
            waiting, resume = self._queue.popleft()
            self._free -= waiting
            resume()

    def cancel(self, resume: Callable[[], None]) -> bool:
        """Leave the queue; False if the bytes were reserved already (or never asked for)."""
        before = len(self._queue)
        self._queue = deque(each for each in self._queue if each[1] != resume)
        return len(self._queue) < before

    def _fits(self, size: int) -> bool:
        # One request larger than all there is may pass alone; the size limit has let it through.
        return size <= self._free or self._free == self._total
