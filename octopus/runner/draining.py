"""Lanes that hand out nothing more, and a way to wait until what they handed out has come back."""

import asyncio
from collections.abc import Callable, Sequence

from octopus.events import StoredRecord


class DrainingLanes:
    """Hands out nothing more and tells when the last running claim came back."""

    __slots__ = ("_running", "done")

    waiting = 0

    def __init__(self, running: int) -> None:
        self._running = running
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not running:
            self.done.set_result(None)

    def put(self, records: object) -> None:
        return

    def stand_alone(self) -> None:
        return

    def take(self, limit: int = 1) -> Sequence[StoredRecord]:
        return ()

    def put_back(self, records: object, running: object) -> None:
        return

    def put_first(self, record: object) -> None:
        return

    def release(self, records: object, unfinished: Sequence[StoredRecord] = ()) -> bool:
        if not unfinished:
            self._running -= 1
            if self._running <= 0:
                resolve(self.done)
        return False


def when_all(done: list[asyncio.Future[None]], then: Callable[[], None]) -> None:
    """Call `then` once all of these are done; at once if they are."""
    while done and done[-1].done():
        done.pop()
    if done:
        done[-1].add_done_callback(lambda _: when_all(done, then))
    else:
        then()


def resolve(future: asyncio.Future[None]) -> None:
    """Wake the waiting task, once."""
    if not future.done():
        future.set_result(None)
