"""The records of a batch as columns, each filtered and decoded back to back by compiled code.

A record costs no step of Python, as long as it decodes and its headers name no content type. One that does not decode is looked at
by itself, and those behind it go on in the same way. Each value is decoded by a call of its own, so that no value can end where
another one begins: see docs/design.md.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from operator import attrgetter, not_
from typing import Any, NamedTuple, Protocol

from octopus.events import Batch, Event, Headers, Record, TopicPartition
from octopus.outcomes import SKIPPED, Outcome, Retry
from octopus.serde import Decoder, announces_type
from octopus.tracing import common_trace
from octopus.types import Decide

value_of, headers_of = attrgetter("value"), attrgetter("headers")
_after = attrgetter("after")


class Accepts(Protocol):
    """A filter that can be asked about any record."""

    def __call__(self, value: bytes | None, headers: Headers = ()) -> bool:
        """Tell whether a record matches; headers matter where they name its content type."""
        ...


class Columns(NamedTuple):
    """What a handler is given of a batch, and what has become of the rest already.

    Attributes:
        arguments: For the handler.
        others: The outcomes of the other records, by their positions.
        retry: The longest of those that are to be retried; None when there are none.
        trace: The trace headers that all records have.
    """

    arguments: list[Any]
    others: dict[int, Outcome]
    retry: Retry | None
    trace: Headers


def bind_columns(
    partition: TopicPartition,
    decoder: Decoder[Any],
    decide: Decide,
    *,
    matches: Callable[[bytes], bool] | None,
    accepts: Accepts,
    wants_event: bool,
) -> Callable[[Batch, int], Columns]:
    """Return what filters and decodes the batches of a partition.

    Args:
        partition: Whose.
        decoder: The handler's.
        decide: Decides about a record that cannot be filtered or decoded; the rest of its batch goes on.
        matches: The filter, for JSON; it may raise for anything else. None without one.
        accepts: The same filter, for anything.
        wants_event: Whether the handler takes `Event`s.
    """
    direct, careful = decoder.direct, decoder.decode

    def read(batch: Batch, attempt: int) -> Columns:
        headers: Sequence[Headers] = [*map(headers_of, batch)]
        trace = common_trace(headers) if any(headers) else ()
        columns: list[Sequence[Any]] = [[*map(value_of, batch)]]
        is_typed = any_announces_type(headers)
        if is_typed:
            columns.append([each if announces_type(each) else () for each in headers])  # others do not matter here
        positions: Sequence[int] = range(len(batch))
        others: dict[int, Outcome] = {}

        failed: dict[int, Exception] = {}
        try:
            if matches is not None:
                matched, failed = _each(accepts if is_typed else matches, accepts, columns)
                if failed or not all(matched):
                    others.update(dict.fromkeys(compress(positions, map(not_, matched)), SKIPPED))
                    others.update((at, decide(batch[at], attempt, error)) for at, error in failed.items())
                    positions = [*compress(positions, matched)]
                    columns = [[*compress(column, matched)] for column in columns]
            arguments, failed = _each(careful if is_typed else direct, careful, columns)
            if failed:
                others.update(
                    (positions[at], decide(batch[positions[at]], attempt, error)) for at, error in failed.items()
                )
                arguments = [each for at, each in enumerate(arguments) if at not in failed]
                positions = [position for at, position in enumerate(positions) if at not in failed]
            if wants_event:
                arguments = [
                    Event(each, Record.at(partition, batch[at]), attempt)
                    for at, each in zip(positions, arguments, strict=True)
                ]
            return Columns(arguments, others, _longest(others.values()) if others else None, trace)
        finally:
            del failed, others  # see `octopus.types`

    return read


def _longest(outcomes: Iterable[Outcome]) -> Retry | None:
    return max((each for each in outcomes if isinstance(each, Retry)), key=_after, default=None)


def _each(
    function: Callable[..., Any], careful: Callable[..., Any], columns: Sequence[Sequence[Any]]
) -> tuple[list[Any], dict[int, Exception]]:
    """Apply a function to the columns, as `map`; where it raises, apply the careful one.

    Returns:
        The results, and by position why there is none: that has None in its place.
    """
    results: list[Any] = []
    failed: dict[int, Exception] = {}
    error: Exception | None = None
    count, rest = len(columns[0]), [*map(iter, columns)]
    try:
        while True:
            with contextlib.suppress(Exception):  # decided again
                results.extend(map(function, *rest))  # keeps what it has when one raises
            at = len(results)
            if at == count:  # no sooner: code of a type may raise StopIteration, which ends a `map` as well
                return results, failed
            result, error = _tried(careful, [column[at] for column in columns])
            results.append(result)
            if error is not None:
                failed[at] = error
    finally:
        del failed, error  # see `octopus.types`


def _tried(careful: Callable[..., Any], arguments: Sequence[Any]) -> tuple[Any, Exception | None]:
    try:
        return careful(*arguments), None
    except MemoryError:
        raise  # no event's fault
    except Exception as error:  # noqa: BLE001 - one bad record is no reason to fail its batch
        return None, error


def any_announces_type(headers: Sequence[Headers]) -> bool:
    """Tell whether one of some records names its content type: `announces_type` of each, without the calls."""
    for each in headers if any(headers) else ():
        for name, _ in each:
            if len(name) == 12 and name.lower() == "content-type":
                return True
    return False
