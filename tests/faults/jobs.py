"""The records of a run: each says what its handler is to do, good or bad."""

from typing import Any, Literal

import msgspec

Deed = Literal[
    "work", "reject", "later", "fail once", "fail", "die", "die after", "hang", "hang on", "block", "mischief", "exit"
]
"""What a handler does; what can only be survived once is done on the first delivery only."""


class Job(msgspec.Struct, omit_defaults=True):
    """The value of a record.

    Attributes:
        id: Unique over the run.
        does: What the handler does with it.
        takes: Seconds.
        wanted: What the filter lets through.
    """

    id: str
    does: Deed = "work"
    takes: float = 0.0
    wanted: bool = True


def outputs_of(topic: str) -> tuple[str, str]:
    """Return the topics to which handlers publish: what they return, and, exactly once, what they send."""
    return f"{topic}.out", f"{topic}.side"


def recreated_of(topic: str) -> str:
    """Return the topic beside this one that is deleted and made again while workers read it."""
    return f"{topic}.renewed"


RENEWED = -1
"""In a history, the run of every handler of such a topic."""


def topic_of_life(job_id: str, topic: str) -> str:
    """Return what a history calls a topic that is made again: each time another one, as its offsets begin anew."""
    return f"{topic}~{job_id.split('-')[1]}"


FILTER = {"wanted": [True, {"exists": False}]}


class WorkerPlan(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a worker process is told.

    Attributes:
        name: Of the worker, in the history.
        app: Of the app; the group is `<app>.handle`.
        brokers: `host:port`.
        topic: What it reads.
        directory: Where it writes its history and finds what others did already.
        ordering: Of its handler; `batch` for batches of eight.
        concurrency: Of its handler.
        start: Where a new group begins.
        attempts: Before a dead letter.
        timeout: Of a run, seconds.
        kind: Whether the handler is `async def` or `def`.
        dead_letter: As `dead_letter=` of a handler.
        delivery: Of its handler; if `exactly_once`, it publishes to the topics that `outputs_of` names.
        publishes: Whether its handler returns something that is published, at least once, to the first of these topics.
        settings: Of the worker.
        durable: Whether an effect is on disk before the handler returns. A killed process leaves to the system what it
            has written, so only the death of the machine needs it.
        clock_jumps: Seconds by which its wall clock jumps forward and back, all the time.
        fetch_dies_after: Seconds after which the client's fetch task is cancelled, once.
        recreated: Whether another handler reads the topic that `recreated_of` names.
    """

    name: str
    app: str
    brokers: str
    topic: str
    directory: str
    ordering: Literal["partition", "key", "none", "batch"] = "partition"
    concurrency: int = 8
    start: Literal["earliest", "latest"] = "earliest"
    attempts: int = 3
    timeout: float | None = None
    kind: Literal["async", "thread"] = "async"
    dead_letter: bool | None = None
    delivery: Literal["at_least_once", "exactly_once"] = "at_least_once"
    publishes: bool = False
    settings: dict[str, Any] = {}
    durable: bool = False
    clock_jumps: float = 0.0
    fetch_dies_after: float | None = None
    recreated: bool = False
