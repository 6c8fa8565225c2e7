"""What happened, as lines of a history file.

Times are seconds on one clock for all processes (`time.monotonic` on one machine). What is written before something is
done carries an earlier time than the thing itself, what is written after it a later one; the checks lean to the side
on which a correct system is never accused.
"""

from collections.abc import Iterable, Iterator

import msgspec

from octopus.events import TopicPartition


class Happened(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True):
    """Anything that happened, at `time`."""

    time: float


class Offered(Happened, frozen=True, kw_only=True, tag="offered"):
    """A producer is about to send a record; whether it is stored is not known yet.

    Attributes:
        id: Of the record, unique over the run.
        topic: Where to.
        key: Its key, if it has one.
        wanted: Whether a handler is to run; False for what its filter drops.
        transaction: In which it is sent.
        of: Id of the record whose handler publishes this one; such a record is an output, and no handler waits for it.
    """

    id: str
    topic: str
    key: str | None = None
    wanted: bool = True
    transaction: str | None = None
    of: str | None = None


class Stored(Happened, frozen=True, kw_only=True, tag="stored"):
    """The broker acknowledged a record."""

    id: str
    at: TopicPartition
    offset: int


class Refused(Happened, frozen=True, kw_only=True, tag="refused"):
    """A record was certainly not stored. A time-out is no refusal."""

    id: str


class Ended(Happened, frozen=True, kw_only=True, tag="ended"):
    """A transaction's end was asked for at `time`. Of a commit without an acknowledgement the outcome is unknown.

    Attributes:
        committed: A commit was asked for, not an abort.
        acknowledged: This is the broker's answer: it is committed.
    """

    transaction: str
    committed: bool
    acknowledged: bool = False


class Polled(Happened, frozen=True, kw_only=True, tag="polled"):
    """A reader took records; `time` is when it had them.

    Attributes:
        reader: One assignment of one group member; a new one after every rebalance.
        at: Where they are from.
        records: Offset and id of each.
        uncommitted: This reader sees what is aborted or not committed yet as well.
    """

    reader: str
    at: TopicPartition
    records: tuple[tuple[int, str], ...]
    uncommitted: bool = False


class Began(Happened, frozen=True, kw_only=True, tag="began"):
    """A handler began with a record.

    Attributes:
        worker: The process.
        run: Number of this run of the handler in its process; the records of a batch have the same.
    """

    worker: str
    at: TopicPartition
    offset: int
    id: str
    run: int


class Finished(Happened, frozen=True, kw_only=True, tag="finished"):
    """A handler's effect on a record is done, or it is about to raise.

    Attributes:
        failed: It raises.
    """

    worker: str
    at: TopicPartition
    offset: int
    id: str
    run: int
    failed: bool = False


class DeadLettered(Happened, frozen=True, kw_only=True, tag="dead-letter"):
    """A record is in the dead-letter topic; `at` and `offset` are those of the original."""

    at: TopicPartition
    offset: int
    id: str


class Committing(Happened, frozen=True, kw_only=True, tag="committing"):
    """A worker is about to ask for a commit, or a reader has just read what is committed.

    Attributes:
        who: The worker; empty for one who only looks.
        offsets: Partition and committed offset.
        transaction: They become the group's with the end of this one.
    """

    group: str
    offsets: tuple[tuple[TopicPartition, int], ...]
    who: str = ""
    transaction: str | None = None


class Note(Happened, frozen=True, kw_only=True, tag="note"):
    """Something for the report: a kill, a cut, a rebalance.

    Attributes:
        what: `kill worker`, `freeze broker`, `cut network`, `assigned`, …
        who: What it happened to.
    """

    what: str
    who: str = ""


Event = Offered | Stored | Refused | Ended | Polled | Began | Finished | DeadLettered | Committing | Note


_line = msgspec.json.Encoder().encode
_event: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def write_line(event: Event) -> bytes:
    """Return an event as a line of a history file."""
    return _line(event) + b"\n"


def read_lines(lines: Iterable[bytes]) -> Iterator[Event]:
    """Read events. A last line without its end was cut off by a kill and did not happen.

    Raises:
        msgspec.ValidationError: A line is no event.
    """
    for line in lines:
        if line.endswith(b"\n"):
            yield _event.decode(line)
