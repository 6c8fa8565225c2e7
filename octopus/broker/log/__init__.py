"""The partitioned append-only log: one `Log` per partition, in memory or in segment files."""

from octopus.broker.log.partition import Appended, Log, LogConfig, Read

__all__ = ["Appended", "Log", "LogConfig", "Read"]
