"""Records of all forms, and an app that runs them together or one by one."""

from typing import Any

import msgspec

from octopus import Event, Octopus, RetryPolicy, config
from octopus.events import Headers, Record
from octopus.outcomes import DeadLetter
from octopus.pipeline.claims import one_by_one
from octopus.tracing import current
from octopus.transports.memory import MemoryBroker, MemoryTransport
from tests.staged import P0


class File(msgspec.Struct):
    path: str = ""
    size: int = 0


BY_TYPE: list[tuple[bytes | None, Headers]] = [
    (b'{"path":"plain","size":5}', ()),
    (b'{"path":"small","size":1}', ()),
    (b'{"path":"traced","size":6}', (("traceparent", b"00-1"), ("source", b"a"))),
    (b'{"path":"named","size":7}', (("Content-Type", b"application/json"),)),
    (msgspec.msgpack.encode({"path": "packed", "size": 8}), (("content-type", b"application/msgpack"),)),
    (b'{"path":"unknown","size":9}', (("content-type", b"x/unknown"),)),
    (b'{"path":"float","size":10.0}', (("other-header", b"12 letters"),)),
    (b"{bad", ()),
    (b"{bad", (("source", b"b"),)),
    (b"", ()),
    (None, ()),
    (None, (("content-type", b"application/json"),)),
    (b"[]", ()),
    (b"7", ()),
    (b'"text"', ()),
]
"""Values and headers of which each takes another way."""

MANY_IN_ONE: list[tuple[bytes | None, Headers]] = [
    *((b'{"size":5}' + end, ()) for end in (b"", b',{"size":6}', b'\n{"size":6}', b' {"size":6}', b"\n")),
    *((part, ()) for part in (b"1],[2", b'{"path":"a', b'b","size":7}', b'{"size":', b"8}")),
    *((bytes([each]), ()) for each in b"][,\n\0"),
]
"""Values that would be others', or several, if they were read as one text with their neighbours."""


class Ending(msgspec.Struct):
    """Its own code raises what ends iterations."""

    path: str = ""
    size: int = 0

    def __post_init__(self) -> None:
        if self.path == "plain" or self.size == 8:
            raise StopIteration


class Stand:
    """An app with one handler, with batches or without, what it was given, and in which traces."""

    def __init__(self, annotation: Any, *, batch: bool, filter: Any) -> None:
        self.given: list[Any] = []
        self.traces: list[Headers] = []
        self.broker = MemoryBroker()
        app = Octopus("app")
        options: dict[str, Any] = {"filter": filter, "retry": RetryPolicy(attempts=1)}
        if batch:
            options["batch"] = 1000

        async def handle_batch(values: list[annotation]) -> None:
            self.traces.append(current.get())
            self.given += values

        async def handle(value: annotation) -> None:
            self.traces.append(current.get())
            self.given.append(value)
            if value == "fail":
                raise ValueError

        app.on("t", name="handle", **options)(handle_batch if batch else handle)
        (pipeline,) = app.pipelines(MemoryTransport(self.broker).producer(), config.load({}))
        self.run_claim = pipeline.bind(P0)
        self.run = one_by_one(self.run_claim)

    @property
    def seen(self) -> list[str]:
        return [
            f"{each.offset} {each.attempt} {each.value!r}" if isinstance(each, Event) else repr(each)
            for each in self.given
        ]

    @property
    def dead(self) -> list[tuple[bytes | None, Headers]]:
        """The dead letters, but for the frames that an exception went through."""
        return [
            (each.value, [header for header in each.headers if header[0] != "octopus-dead-letter-traceback"])
            for log in self.broker.topics.get("t.dead-letter", [])
            for each in log.records
            if each is not None
        ]


def records(given: list[tuple[bytes | None, Headers]]) -> list[Record]:
    return [Record("t", 0, offset, 0, b"key", value, headers) for offset, (value, headers) in enumerate(given)]


ANNOTATIONS: dict[str, Any] = {
    "struct": File,
    "struct or none": File | None,
    "anything": Any,
    "bytes": bytes,
    "its own code ends iterations": Ending,
    "event": Event[File],
    "event of anything": Event[Any],
}


def spelled(outcome: Any) -> str:
    """Spell an outcome without the exception behind it."""
    return f"dead letter: {outcome.reason}" if isinstance(outcome, DeadLetter) else repr(outcome)
