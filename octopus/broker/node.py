"""The one node of the cluster, which all API handlers share."""

import asyncio
import time

from octopus.broker.counters import Counters
from octopus.broker.group_coordinator import GroupCoordinator
from octopus.broker.request_faults import RequestFaults
from octopus.broker.settings import BrokerSettings
from octopus.broker.storage import Storage
from octopus.broker.transaction_coordinator import TransactionCoordinator

NODE_ID = 1
"""The only broker: it leads every partition, is the controller and coordinates every group and transaction."""


class Node:
    """The broker's data and state, without the listener.

    Attributes:
        waits: Futures of Fetch requests waiting for records; resolving one makes it answer with the records at hand.
        is_stopping: Set once; nothing may begin to wait afterwards.
    """

    def __init__(self, storage: Storage, settings: BrokerSettings, faults: RequestFaults) -> None:
        self.storage = storage
        self.settings = settings
        self.limits = settings.limits
        self.faults = faults
        self.counters = Counters()
        self.groups = GroupCoordinator(self.limits, settings.join_window_ms)
        self.transactions = TransactionCoordinator(storage, self.limits, self.now)
        self.waits: set[asyncio.Future[None]] = set()
        self.is_stopping = False
        self._idle_since: dict[str, int] = {}  # groups with offsets and without members

    @staticmethod
    def now() -> int:
        """Milliseconds since the epoch."""
        return int(time.time() * 1000)

    async def maintain(self) -> None:
        """Apply retention, compaction and expiry once."""
        self.groups.forget_inactive()
        await self.transactions.expire()
        now = self.now()
        await self.storage.made(self.storage.maintaining(now, self.kept_groups(now)))

    def kept_groups(self, now: int) -> set[str]:
        """Name the groups whose offsets must not expire: groups with members, and groups that lost them not long ago.

        A group that reads a quiet topic commits nothing for weeks. Were only the age of its commits to count, a restart
        of its last member would lose its place. So the time counts from when this broker first saw the group without
        members; a restart of the broker begins it anew.
        """
        active = set(self.groups.active())
        idle = [name for name in self.storage.offsets.groups() if name not in active]
        self._idle_since = {name: self._idle_since.get(name, now) for name in idle}
        expired = now - self.storage.settings.offsets_retention_ms
        return active | {name for name, since in self._idle_since.items() if since > expired}

    def end_waits(self) -> None:
        """Make every waiting request answer now; to be called when the broker stops."""
        self.is_stopping = True
        for wait in list(self.waits):
            if not wait.done():
                wait.set_result(None)
        self.groups.stop()
