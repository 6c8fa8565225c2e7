"""Retries with a long wait: written to a topic of their own, and run from there when they are due.

    topics     writes and reads what waits
    waiting    which of it waits in memory, which makes room; pure
    pipeline   runs it, as a consumer group of its own

What they promise: a record that waits is in its topic, acknowledged, before it is settled where it was; it keeps its
coordinates, headers and attempts; and it settles in the retry topic only when it has run to its end or stands there anew.
"""

from octopus.retrying.pipeline import RetryPipeline
from octopus.retrying.topics import Clock, RetryTopic
from octopus.retrying.waiting import WaitingRoom

__all__ = ["Clock", "RetryPipeline", "RetryTopic", "WaitingRoom"]
