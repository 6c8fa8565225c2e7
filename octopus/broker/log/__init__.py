"""The partitioned append-only log: one `Log` per partition, in memory or in segment files."""

from octopus.broker.log.admission import Admitted
from octopus.broker.log.partition import Log
from octopus.broker.log.producers import ActiveProducer
from octopus.broker.log.values import Appended, LogConfig, Read, TransactionalCheck, Waiter

__all__ = ["ActiveProducer", "Admitted", "Appended", "Log", "LogConfig", "Read", "TransactionalCheck", "Waiter"]
