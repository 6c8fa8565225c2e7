"""What a test client has seen: outcomes, failures, published events, dead letters."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar, overload

from octopus.errors import DecodeError, HandlerStopped
from octopus.events import Event, Published, Record, StoredRecord, TopicPartition
from octopus.outcomes import DeadLetter, Deferred, Outcome, Retry
from octopus.pipeline.dead_letters import PREFIX, original_headers
from octopus.serde import Codec, Decoder
from octopus.types import BatchOutcome

T = TypeVar("T")


class Failure(NamedTuple):
    """An exception that a handler or a timer did not mean.

    Attributes:
        handler: Whose.
        record: What it was handling; None for timers.
        attempt: From 1.
        error: What it raised, with its traceback.
    """

    handler: str
    record: Record | None
    attempt: int
    error: BaseException


class DeadLettered(NamedTuple):
    """A dead letter.

    Attributes:
        event: The event that was given up: value, key and headers as they were, coordinates of the dead letter.
        reason: One sentence.
        handler: Which gave up.
        attempts: How often it tried.
        error: Type of the exception behind it, module-qualified; empty when there was none.
        source: Topic it came from.
    """

    event: Event[Any]
    reason: str
    handler: str
    attempts: int
    error: str
    source: str


class Journal:
    """Keeps what happened, in order.

    Args:
        codecs: The app's, to decode what was published.
    """

    def __init__(self, codecs: Sequence[Codec] = ()) -> None:
        self.codecs = codecs
        self.outcomes: dict[str, list[tuple[Record, Outcome]]] = {}
        self.last: dict[Published, dict[str, Outcome]] = {}
        self.failures: list[Failure] = []
        self.fatal: list[BaseException] = []  # not raised in the test yet
        self.sent: dict[Published, Record] = {}

    def note(
        self, handler: str, partition: TopicPartition, stored: StoredRecord, attempt: int, outcome: Outcome
    ) -> None:
        """Note one record's outcome, unless it only waits on."""
        match outcome:
            case Retry(begun=False) | Deferred(Retry(begun=False)):
                return
        record = Record.at(partition, stored)
        self.outcomes.setdefault(handler, []).append((record, outcome))
        self.last.setdefault(Published(record.topic, record.partition, record.offset), {})[handler] = outcome
        match outcome:
            case Retry(_, error) | Deferred(Retry(_, error)) if error is not None:
                self.failures.append(Failure(handler, record, attempt, error))
            case DeadLetter(_, error, False) if error is not None and not isinstance(error, DecodeError):
                self.failures.append(Failure(handler, record, attempt, error))
                error.add_note(f"while {handler} handled {record.coordinates}, attempt {attempt}; it was given up")
                self.fatal.append(error)
            case _:
                pass

    def note_all(
        self,
        handler: str,
        partition: TopicPartition,
        stored: StoredRecord,
        attempt: int,
        outcome: Outcome | BatchOutcome,
    ) -> None:
        """Note the outcome of a record, or of each record of a batch."""
        if not isinstance(outcome, BatchOutcome):
            self.note(handler, partition, stored, attempt, outcome)
            return
        for single, result in outcome.outcomes():
            self.note(handler, partition, single, attempt, result)

    def note_failed_timer(self, timer: str, error: Exception) -> None:
        """Note that a timer's function raised."""
        error.add_note(f"while timer {timer} ran")
        self.failures.append(Failure(timer, None, 1, error))
        self.fatal.append(error)

    def note_stopped(self, reason: HandlerStopped) -> None:
        """Note that processing stopped."""
        self.fatal.append(reason)


class Views:
    """What a test looks at."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    @overload
    def published(self, topic: str) -> list[Event[Any]]: ...
    @overload
    def published(self, topic: str, annotation: type[T]) -> list[Event[T]]: ...
    def published(self, topic: str, annotation: Any = Any) -> list[Event[Any]]:
        """Return what the app has published to a topic, in order; not what the test itself published.

        Args:
            topic: Which one.
            annotation: What to decode the values into. Without one, what is neither JSON nor of a codec of the app stays
                bytes.
        """
        return [
            Event(_decoded(record, annotation, self._journal.codecs), record)
            for record in self._journal.sent.values()
            if record.topic == topic
        ]

    def dead_letters(self, topic: str | None = None) -> list[DeadLettered]:
        """Return the dead letters, in order.

        Args:
            topic: Of events from this topic only.
        """
        found = [
            _dead_lettered(record, self._journal.codecs)
            for record in self._journal.sent.values()
            if _is_dead_letter(record)
        ]
        return [dead_lettered for dead_lettered in found if topic is None or dead_lettered.source == topic]

    def outcomes(self, handler: str) -> list[tuple[Record, Outcome]]:
        """Return each record that a handler got with what became of it, every attempt, in order."""
        return [*self._journal.outcomes.get(handler, ())]

    @property
    def failures(self) -> list[Failure]:
        """Every exception that a handler or timer raised without meaning an outcome, also of attempts that were retried."""
        return [*self._journal.failures]


def _is_dead_letter(record: Record) -> bool:
    return any(name == PREFIX + "reason" for name, _ in record.headers)


def _dead_lettered(record: Record, codecs: Sequence[Codec]) -> DeadLettered:
    # The last of each: an event that dies twice carries the headers of both deaths.
    said = {name.removeprefix(PREFIX): (value or b"").decode() for name, value in record.headers}
    event = Event(_decoded(record, Any, codecs), _with_headers(record, original_headers(record.headers)))
    return DeadLettered(
        event, said["reason"], said["handler"], int(said["attempts"]), said.get("error", ""), said["topic"]
    )


def _with_headers(record: Record, headers: Any) -> Record:
    return Record(
        record.topic, record.partition, record.offset, record.timestamp, record.key, record.value, tuple(headers)
    )


def _decoded(record: Record, annotation: Any, codecs: Sequence[Codec]) -> Any:
    try:
        return Decoder(annotation, codecs).decode(record.value, original_headers(record.headers))
    except DecodeError:
        if annotation is not Any:
            raise
        return record.value
