"""The places of supervised workers in their consumer groups: names that outlive a process (static membership, KIP-345).

A member with such a name that dies keeps its partitions for a moment, and the replacement gets them at once; the others do not
notice. Without, its replacement would be a newcomer, and all members would wait for the one that is gone until its session ends.
A worker that stops in good order gives its place up by itself. For one that could not, and is not replaced, its supervisor does.
"""

import asyncio
import os
import re
import secrets
import socket
import threading
from collections.abc import Collection, Mapping

from octopus.application import Application
from octopus.config import Settings
from octopus.errors import OctopusError
from octopus.logs import get_logger
from octopus.transports.opening import administering, connected
from octopus.worker.parent import PARENT_VARIABLE

logger = get_logger("octopus.worker")

PLACE_VARIABLE = "OCTOPUS_PLACE"
"""Tells a worker process the name of its place."""

GIVE_UP_TIMEOUT = 5.0
"""Seconds until a broker that does not answer is left to notice by itself."""

_LONGEST = 200  # characters; brokers take 249


class Places:
    """What the workers of one supervisor are called in their groups.

    Args:
        app: What they run.
        settings: How. With a `consumer.group_instance_id` of the user's the names are that with a number, and keep their
            places also when all workers are stopped.
    """

    def __init__(self, app: Application, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        given = settings.consumer.group_instance_id
        self._lasts = given is not None
        # Two supervisors on one machine, or one after the other, must never take each other's places.
        self._name = given or f"{_plain(app.name)}-{_plain(socket.gethostname())}-{secrets.token_hex(4)}"
        self._threads: list[threading.Thread] = []

    def name(self, number: int) -> str:
        """Return the name of a worker's place."""
        return f"{self._name}-{number}"

    def left(self, number: int) -> None:
        """Note that a worker ended on purpose and is not replaced. It has given its place up, unless places are to last."""
        if self._lasts:
            self._begin([number])

    def end(self, killed: Collection[int]) -> None:
        """Give up what workers had who were killed when all were stopped, unless places are to last; wait until that is done."""
        if killed and not self._lasts:
            self._begin([*killed])
        for thread in self._threads:
            thread.join(GIVE_UP_TIMEOUT)

    def _begin(self, numbers: list[int]) -> None:
        thread = threading.Thread(target=self._give_up, args=(numbers,), name="octopus places", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _give_up(self, numbers: Collection[int]) -> None:
        try:
            asyncio.run(self._remove(numbers))
        except (OctopusError, TimeoutError) as error:
            logger.warning(
                "could not tell the broker that worker %s is gone: %s; the others wait for it for up to %.0f s",
                " and ".join(map(str, numbers)),
                error or f"no answer within {GIVE_UP_TIMEOUT:g} s",
                self._settings.consumer.session_timeout,
            )

    async def _remove(self, numbers: Collection[int]) -> None:
        async with (
            asyncio.timeout(GIVE_UP_TIMEOUT),
            connected(self._settings, client_id=self._app.name) as transport,
            administering(transport) as admin,
        ):
            for group in self._groups():
                await admin.remove_members(group, [("", self.name(number)) for number in numbers])

    def _groups(self) -> list[str]:
        routes = self._app.routes
        waiting = {self._app.retry_group_of(route) for route in routes if route.retry_topic}
        return sorted({self._app.group_of(route) for route in routes} | waiting)


def place_of(environ: Mapping[str, str]) -> str | None:
    """Return the name of this process's place, None without a supervisor."""
    is_meant = environ.get(PARENT_VARIABLE) == str(os.getppid())
    return environ.get(PLACE_VARIABLE) if is_meant else None


def client_id(app: str, place: str | None) -> str:
    """Return what brokers call a process in their logs and lists: its app and, where it is supervised, its number.

    Args:
        app: The app's name.
        place: The name of the process's place, which ends with the number.
    """
    # Not the place itself: its name is new for every run, and a broker keeps metrics for each client id.
    return app if place is None else f"{app}-{place.rpartition('-')[2]}"


def _plain(name: str) -> str:
    """Return a name in the characters that a group instance id may have."""
    return re.sub(r"[^a-zA-Z0-9._-]", "_", name)[: _LONGEST // 2]
