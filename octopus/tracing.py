"""Trace headers travel on: from the record that a handler runs for to the messages that it publishes.

A context variable, because `app.publish` is not told why it is called. It is set for records with headers only, so others cost nothing.
Sources: W3C Trace Context and W3C Baggage; in Kafka their names are lower case.
"""

from collections.abc import Sequence
from contextvars import ContextVar

from octopus.events import Headers

TRACE = {
    "traceparent": ("traceparent", "tracestate"),
    "tracestate": ("traceparent", "tracestate"),
    "baggage": ("baggage",),
}
"""Names of trace headers, and those that belong together: a message that has one of them is given none of the others."""

current: ContextVar[Headers] = ContextVar("octopus headers", default=())
"""The headers of the record whose handler runs."""


def trace_of(headers: Headers) -> list[tuple[str, bytes | None]]:
    """Return the trace headers among others."""
    return [(name, value) for name, value in headers if name in TRACE]


def traced(headers: Headers) -> Headers:
    """Return a message's headers, and behind them the trace of its record or batch, unless it has one of its own."""
    around = current.get()
    if not around or not (trace := trace_of(around)):
        return headers
    own = {together for name, _ in headers if name in TRACE for together in TRACE[name]}
    return [*headers, *[(name, value) for name, value in trace if name not in own]]


def common_trace(headers: Sequence[Headers]) -> Headers:
    """Return the trace headers of a batch's records if all of them have the same: a batch publishes for all its records."""
    first = headers[0]
    trace = trace_of(first)  # where the first has none, there is none for all
    return trace if trace and all(each == first or trace_of(each) == trace for each in headers) else ()
