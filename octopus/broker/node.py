"""The one node of the cluster: what all API handlers share."""

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
    """What the broker keeps and knows, without the listener.

    Attributes:
        waits: Futures of Fetch requests waiting for records; resolving one makes it answer with what there is.
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

    @staticmethod
    def now() -> int:
        """Milliseconds since the epoch."""
        return int(time.time() * 1000)

    async def maintain(self) -> None:
        """Apply retention, compaction and expiry once."""
        self.groups.forget_inactive()
        await self.transactions.expire()
        self.storage.maintain(self.now(), self.groups.active())

    def end_waits(self) -> None:
        """Make every waiting request answer now; to be called when the broker stops."""
        self.is_stopping = True
        for wait in list(self.waits):
            if not wait.done():
                wait.set_result(None)
        self.groups.stop()
