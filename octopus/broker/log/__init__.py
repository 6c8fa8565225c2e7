"""The partitioned append-only log: one `Log` per partition, in memory or in segment files."""

from octopus.broker.log.partition import Log
from octopus.broker.log.values import Appended, LogConfig, Read, TransactionalCheck, Waiter

__all__ = ["Appended", "Log", "LogConfig", "Read", "TransactionalCheck", "Waiter"]
