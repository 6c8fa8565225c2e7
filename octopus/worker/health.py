"""Health endpoints of a worker process: `/live`, `/ready` and `/status`, over HTTP/1.1.

`/live` says whether starting the process again would help, `/ready` whether it does its work now. Both answer 200, or 503
with a sentence for each group that is in trouble. `/status` is the worker's status as JSON.
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from octopus.config import WorkerSettings
from octopus.errors import OctopusError
from octopus.worker.endpoints import Endpoints
from octopus.worker.status import GroupStatus, together
from octopus.worker.worker import Worker

BROKER_TIME = 2.0
"""Seconds the broker has for an answer, and for which that answer holds: probes must not become load."""

JOIN_TIME = 5.0
"""Seconds after which a member without partitions is taken for a spare one instead of one that waits for them."""


def health_endpoints(settings: WorkerSettings, number: int = 0) -> Callable[[Worker], Awaitable[None]]:
    """Return a companion of `run_process` that serves the endpoints as long as the worker runs.

    Args:
        settings: With `health_port`. The first of several processes listens on the port after it, the second on the next, and
            so on (see `joint_health.py`). Port 0 takes a free one for each; the log says which.
        number: Which of several processes this is, from 1; 0 for the only one.
    """
    first = settings.health_port or 0
    port = first + number if first else 0

    async def companion(worker: Worker) -> None:
        endpoints = Endpoints(Health(worker, settings.stall_timeout))
        async with endpoints.listening(settings.health_host, port, "health") as is_listening:
            if is_listening:
                await asyncio.get_running_loop().create_future()

    return companion


class Health:
    """Answers questions about one worker.

    Args:
        worker: Which.
        stall_timeout: Seconds a group may go without progress; 0 for any time.
    """

    def __init__(self, worker: Worker, stall_timeout: float) -> None:
        self._worker = worker
        self._stall_timeout = stall_timeout
        self._asking = asyncio.Lock()
        self._asked_at = float("-inf")
        self._broker_trouble: str | None = None

    async def status(self) -> bytes:
        """Return the worker's status as JSON."""
        return msgspec.json.encode(self._worker.status())

    async def why_not_live(self) -> list[str]:
        """Return a sentence for each group without progress for `stall_timeout`. That the loop turns, the answer shows."""
        limit = self._stall_timeout
        troubles = []
        for group in self._worker.status().groups if limit else ():
            if group.since_fetch > limit:
                cause = group.stopped or group.failure
                reason = f": {cause}" if cause else ""
                troubles.append(f"{group.group} has fetched nothing for {group.since_fetch:.0f} s{reason}")
            elif group.since_commit > limit:
                cause = group.commit_error or "no commit came back"
                troubles.append(f"{group.group} has committed nothing for {group.since_commit:.0f} s: {cause}")
        return troubles

    async def why_not_ready(self) -> list[str]:
        """Return a sentence for each group that does not do its work now, or one for a broker that does not answer."""
        status = self._worker.status()
        troubles = [trouble for group in status.groups for trouble in _troubles(group)]
        if status.outage is not None:
            troubles.insert(0, f"{status.broker} has not answered for {status.away:.0f} s: {status.outage}")
        if not status.groups and self._worker.app.routes:
            troubles.append("no group has begun")
        if not troubles and (trouble := await self._ask_broker()):
            troubles.append(f"{status.broker} does not answer: {trouble}")
        return troubles

    async def _ask_broker(self) -> str | None:
        """Return why the broker does not answer, None when it does; many who want to know share one question."""
        loop = asyncio.get_running_loop()
        async with self._asking:
            if loop.time() - self._asked_at > BROKER_TIME:
                self._broker_trouble = None
                try:
                    async with asyncio.timeout(BROKER_TIME):
                        await self._worker.ping()
                except TimeoutError:
                    self._broker_trouble = f"nothing came for {BROKER_TIME:g} s"
                except OctopusError as error:
                    self._broker_trouble = str(error)
                self._asked_at = loop.time()
            return self._broker_trouble


def _troubles(group: GroupStatus) -> list[str]:
    if group.stopped:
        return [f"{group.group} stopped: {group.stopped}"]
    if group.failure:
        return [f"{group.group} is not connected: {group.failure}"]
    if group.since_join is None:
        return [f"{group.group} is not connected yet"]
    troubles = [f"{group.group} cannot read {partitions}: {cause}" for partitions, cause in together(group.unreadable)]
    troubles += [
        f"{group.group} hears nothing of {partitions}: {cause}" for partitions, cause in together(group.silent)
    ]
    if group.waits_for:
        troubles.append(f"{group.group} waits for a member that has not joined again: {group.waits_for}")
    elif not group.partitions and group.since_join < JOIN_TIME:
        troubles.append(f"{group.group} has no partitions yet")
    if group.commit_error:
        troubles.append(f"{group.group} cannot commit: {group.commit_error}")
    return troubles
