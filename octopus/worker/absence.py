"""Says for whom a group waits, and for how long, when its partitions rest because it expects a member that is gone.

In a rebalance a coordinator waits for every member to join again. It does not tell who has not; it does tell who is a member.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Protocol

from octopus.config import ConsumerSettings
from octopus.errors import OctopusError
from octopus.logs import get_logger
from octopus.text import first_few, visible
from octopus.transports.base import Admin, GroupInfo, GroupMember, Transport
from octopus.worker.admin_connection import AdminConnection

logger = get_logger("octopus.worker")

SAY_AFTER = 5.0
"""Seconds without a partition after which the broker is asked why. Members hear of a rebalance with their next heartbeat, up to 3 s
later: a start of several workers, and any rebalance in good order, is over by then."""

LOOK_EVERY = 0.5
"""Seconds between two looks at groups without partitions."""

ANSWER_TIME = 5.0
"""Seconds that the broker has to tell."""

REBALANCING = ("PreparingRebalance", "CompletingRebalance")


class Resting(Protocol):
    """A group of this process that may be without partitions.

    Attributes:
        waits_for: What was found out.
    """

    waits_for: str | None

    @property
    def rests_since(self) -> float | None:
        """Since when it is, in loop time; None while it has some."""


class AbsenceWatch:
    """Looks at groups that rest, and says once for each rest for whom.

    Args:
        transport: Where.
        groups: Returns those of this process, by name.
        settings: How long members may be silent.
    """

    def __init__(
        self, transport: Transport, groups: Callable[[], Mapping[str, Resting]], settings: ConsumerSettings
    ) -> None:
        self._connection = AdminConnection(transport, ANSWER_TIME)
        self._groups = groups
        self._settings = settings
        self._waiting_for_none: dict[str, float] = {}  # groups, and since when they rest

    async def run(self) -> None:
        """Look until cancelled."""
        try:
            while True:
                await asyncio.sleep(LOOK_EVERY)
                if due := self._due(asyncio.get_running_loop().time()):
                    # who watches the broker says so when it does not answer
                    with contextlib.suppress(OctopusError, TimeoutError):
                        async with self._connection.asking() as admin:
                            for name, group in due.items():
                                await self._look_at(admin, name, group)
                else:
                    await self._connection.close()
        finally:
            await self._connection.close()

    def _due(self, now: float) -> dict[str, Resting]:
        return {
            name: group
            for name, group in self._groups().items()
            if (since := group.rests_since) is not None
            and now - since >= SAY_AFTER
            and self._waiting_for_none.get(name) != since
        }

    async def _look_at(self, admin: Admin, name: str, group: Resting) -> None:
        since = group.rests_since
        info = await admin.group(name)
        if group.rests_since != since or since is None:
            return  # it has partitions meanwhile
        if info.state not in REBALANCING:
            self._waiting_for_none[name] = since  # a spare member has none, and waits for no other
            group.waits_for = None
            return
        if group.waits_for is None:
            logger.warning("%s", sentence(info, self._settings.session_timeout, self._settings.rebalance_timeout))
        group.waits_for = spell_members(info)


def sentence(group: GroupInfo, session_timeout: float, rebalance_timeout: float) -> str:
    """Say for whom a group waits, and for how long at most.

    Args:
        group: In a rebalance.
        session_timeout: Seconds after which a member that is gone is given up.
        rebalance_timeout: Seconds that one that is alive has to finish and join again.
    """
    return (
        f"{group.name} waits until all its members have joined again, of which at least one has not: {spell_members(group)}. "
        f"One that is gone is given up {session_timeout:.0f} s after its last sign of life, one that lives has "
        f"{rebalance_timeout:.0f} s. Nothing is read meanwhile."
    )


def spell_members(group: GroupInfo) -> str:
    """Name the members of a group, of many the first few."""
    return first_few(sorted(_named(each) for each in group.members))


def _named(member: GroupMember) -> str:
    return visible(f"{member.member_id} at {member.host}")  # others chose it
