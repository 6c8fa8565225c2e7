"""When to fetch, and for how long to wait: for the broker, or for handlers."""

import asyncio

from octopus.config import WorkerSettings
from octopus.errors import ConnectionFailed
from octopus.runner import Runner
from octopus.transports.base import Consumer, Fetched
from octopus.worker.intake import FETCH_RECORDS, Intake

FETCH_WAIT = 0.5
"""Seconds an idle fetch waits."""

UNASSIGNED_WAIT = 0.05
"""The same while no partition is ours: the first one should not have to wait for its first fetch."""

SHORT_WAIT = 0.01
"""The same while other partitions are full: they may have room again soon."""

DEMAND_WAIT = 0.1
"""The same while it is for the handlers to go on."""

AHEAD = 0.01
"""Seconds of work at hand with which to fetch more: an answer of a broker nearby comes before handlers run out."""

LONGEST_REST = 0.05
"""Seconds that a fetch is put off: records of a partition that has none at hand do not wait for all of the others'."""


def rest_of(busy_for: float, left: float) -> float:
    """Return for how many seconds to leave the broker alone; 0 or less: fetch now.

    What a fetch costs is the same for any number of records. While handlers compute nearly all the time, a fetch that comes early
    takes from their time and brings next to nothing, so that records pile up; fewer fetches bring them in time.

    Args:
        busy_for: Seconds that handlers will be busy with what is at hand.
        left: Of `LONGEST_REST`.
    """
    return min(busy_for - AHEAD, left)


class Fetching:
    """The fetches of one group.

    Args:
        consumer: The group member.
        intake: How much there is room for, and of which partitions.
        runner: Handles what comes.
        settings: Limits.
    """

    def __init__(self, consumer: Consumer, intake: Intake, runner: Runner, settings: WorkerSettings) -> None:
        self._consumer = consumer
        self._intake = intake
        self._runner = runner
        self._settings = settings
        self._loop = asyncio.get_running_loop()

    async def fetch(self, *, is_assigned: bool) -> list[Fetched]:
        """Fetch records for which there is room; wait a little where there are none.

        Args:
            is_assigned: Whether any partition is ours.

        Raises:
            TransportError: The consumer as a whole cannot go on.
        """
        intake = self._intake
        if (intake.held and not intake.ready) or intake.is_exhausted or self._runner.supply >= FETCH_RECORDS:
            # Wait for handlers instead of the broker: nothing has room, or what they could start is there already, and more
            # of it would only be cold by the time its turn comes. But give the group machinery its turn.
            if await self._runner.wait_for_demand(DEMAND_WAIT):
                return []
            idle = () if intake.is_exhausted else intake.idle  # what the others have at hand is not theirs
            return await self._consumer.fetch(
                idle, max_records=intake.records if idle else 0, max_bytes=intake.bytes, timeout=0.0
            )
        until = self._loop.time() + LONGEST_REST
        while (rest := rest_of(self._runner.busy_for, until - self._loop.time())) > 0:
            await self._runner.wait_for_demand(rest)
        wait = SHORT_WAIT if intake.held else FETCH_WAIT if is_assigned else UNASSIGNED_WAIT
        try:
            async with asyncio.timeout(self._settings.stall_timeout or None):
                return await self._consumer.fetch(
                    intake.ready, max_records=intake.records, max_bytes=intake.bytes, timeout=wait
                )
        except TimeoutError as error:
            raise ConnectionFailed(
                f"a fetch of {wait:g} s did not come back for {self._settings.stall_timeout:g} s"
            ) from error
