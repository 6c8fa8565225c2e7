"""What happens to one record, or one batch, inside a route: filter, decode, call, publish. Raises what the handler raises.

Everything that can be known before the first record is decided here once; what is left is one closure per partition.
"""

import inspect
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import repeat
from typing import Any

import anyio
import anyio.to_thread

from octopus.claim import Claim
from octopus.events import Batch, Event, Headers, Record, StoredRecord, TopicPartition
from octopus.outcomes import DONE, SKIPPED, Outcome
from octopus.patterns import Pattern, index_patterns
from octopus.pipeline.attempts import Attempt, Outlet, attempt_that_runs
from octopus.pipeline.columns import any_announces_type, bind_columns, headers_of, value_of
from octopus.pipeline.results import Encode, Results, Send
from octopus.routing import Route
from octopus.serde import Codec, Decoder, announces_type
from octopus.tracing import current
from octopus.types import BatchOutcome, Conclude, Decide, Handle, RunClaim

IN_STEP_FROM = 8
"""Records of a claim that are worth the preparations to run them in step; one handler that suspends gets few."""


class Handling:
    """A route, compiled.

    Args:
        route: What to do.
        codecs: For values that are not JSON, chosen by content type.
        encode: Turns what the handler returns into what is published.
        send: Publishes it.
        check: Called before what the handler returned is published; raises when that is not to be.
    """

    def __init__(
        self,
        route: Route,
        *,
        codecs: Sequence[Codec],
        encode: Encode,
        send: Send,
        check: Callable[[], None] | None = None,
    ) -> None:
        self._route = route
        self._decoder: Decoder[Any] = Decoder(route.signature.parameter.type, codecs)
        self._plain: Decoder[Any] = Decoder(Any, codecs)
        self._call = _caller(route)
        self._check = check
        self._results = Results(route, encode, send)

    def bind(self, partition: TopicPartition, outlet: Outlet | None = None) -> Handle:
        """Return what handles single records of a partition and raises what the handler raises."""
        return self.bind_single(partition, None, filtered=True, outlet=outlet)

    def bind_single(
        self, partition: TopicPartition, conclude: Conclude | None, *, filtered: bool, outlet: Outlet | None = None
    ) -> Handle:
        """Return what handles single records of a partition.

        Args:
            partition: Whose.
            conclude: The error boundary. None when something stands in between: then exceptions are raised.
            filtered: Whether to ask the filter; not when that has been done.
            outlet: Where outputs go that no handler waits for; the caller of `conclude` begins the attempt.
        """
        direct, careful, call, results = self._decoder.direct, self._decoder.decode, self._call, self._results
        put, publish = results.put, results.publish
        begins = outlet if conclude is not None else None
        accepts = self._accepts if filtered and self._route.pattern is not None else None
        wants_event, check = self._route.signature.parameter.kind == "event", self._check

        async def handle(stored: StoredRecord, attempt: int) -> Outcome:
            began: Attempt | None = None
            try:
                if begins is not None:
                    if begins.outputs.is_full:
                        await begins.outputs.room()
                    began = begins.begin(attempt, stored=stored)
                value, headers = stored.value, stored.headers
                if headers or current.get():
                    current.set(headers)
                if headers and not announces_type(headers):
                    headers = ()  # those that are there do not matter here
                if accepts is not None and not accepts(value, headers):
                    return SKIPPED
                try:
                    argument = careful(value, headers) if headers else direct(value)  # type: ignore[arg-type]
                except Exception:  # noqa: BLE001 - as below
                    argument = careful(value, headers)
                if wants_event:
                    argument = Event(argument, Record.at(partition, stored), attempt)
                result = await call(argument)
                if result is not None:
                    if check is not None:
                        check()
                    if outlet is not None:
                        put(result, stored.key)
                    else:
                        await publish(result, stored.key)
                return DONE
            except (Exception, CancelledError) as raised:
                if conclude is None:
                    raise
                error = raised
            finally:
                if began is not None:
                    began.end()
            try:
                return await conclude(stored, attempt, error)
            finally:
                del error  # its traceback holds this frame: together they would stay, and the record, until a garbage collection

        return handle

    def bind_claim(self, partition: TopicPartition, conclude: Conclude, outlet: Outlet | None = None) -> RunClaim:
        """Return what handles records of a partition back to back, until one is neither done nor skipped.

        Args:
            partition: Whose.
            conclude: The error boundary.
            outlet: Where outputs go that no handler waits for.
        """
        one_by_one = self._bind_in_turn(partition, conclude, outlet)
        if self._route.pattern is not None:
            return one_by_one
        in_step = self._bind_in_step(partition, conclude, outlet, one_by_one)

        def handle(claim: Claim) -> Awaitable[Outcome | BatchOutcome]:
            return (in_step if len(claim.records) >= IN_STEP_FROM else one_by_one)(claim)

        return handle

    def _bind_in_step(
        self, partition: TopicPartition, conclude: Conclude, outlet: Outlet | None, one_by_one: RunClaim
    ) -> RunClaim:
        """Return what handles many records without a filter: compiled code takes, traces and decodes each when its turn comes.

        `zip` goes in step: it takes a record from the claim's cursor, then does to that record what the `map`s beside it do.
        What raises there ends neither, and the record that was taken is looked at by itself.
        """
        direct, call, publish, trace = self._decoder.direct, self._call, self._results.publish, current.set
        wants_event = self._route.signature.parameter.kind == "event"
        outputs, messages_of = outlet.outputs if outlet is not None else None, self._results.messages
        single = self.bind_single(partition, conclude, filtered=False, outlet=outlet)

        async def handle(claim: Claim) -> Outcome | BatchOutcome:
            records = claim.records
            headers = [*map(headers_of, records)]
            if any_announces_type(headers):
                return await one_by_one(claim)
            # Without headers, there is no trace, unless one is left of the claim before.
            traces: Iterator[Any] = map(trace, headers) if current.get() or any(headers) else repeat(None)
            steps = zip(
                claim.cursor, traces, map(direct, map(value_of, records)), strict=False
            )  # the cursor may end sooner
            stored: StoredRecord | None = None
            while True:
                attempt = outlet.begin(claim.attempt, claim=claim) if outlet is not None else None
                try:
                    for stored, _, argument in steps:
                        if wants_event:
                            argument = Event(argument, Record.at(partition, stored), claim.attempt_of(stored))
                        result = await call(argument)
                        if result is not None:
                            if attempt is None:
                                await publish(result, stored.key)
                            else:
                                for message in messages_of(result, stored.key):
                                    outputs.put(attempt, stored, message)  # type: ignore[union-attr]
                                if outputs.is_full:  # type: ignore[union-attr]
                                    await outputs.room()  # type: ignore[union-attr]
                    error = None
                except (Exception, CancelledError) as raised:  # noqa: BLE001 - decided below
                    error = raised
                if not claim.taken or stored is (taken := claim.current):
                    break
                error = None  # of decoding; or there is none, where code of a type raised StopIteration, which ends the steps
                outcome = await single(taken, claim.attempt_of(taken))
                try:
                    if outcome is not DONE:
                        return outcome
                finally:
                    del outcome  # see `octopus.types`
                stored = taken
            if error is None or stored is None:
                return DONE
            try:
                return await conclude(stored, claim.attempt_of(stored), error)
            finally:
                del error  # as in `bind_single`

        return handle

    def _bind_in_turn(self, partition: TopicPartition, conclude: Conclude, outlet: Outlet | None) -> RunClaim:
        """Return what handles any records.

        One closure around one loop, not a chain of calls: each call or coroutine more costs a record a tenth of a
        microsecond, which is a tenth of what fetching it costs.
        """
        direct, careful = self._decoder.direct, self._decoder.decode
        pattern = self._route.pattern
        matches = pattern.matches_bytes if pattern is not None else None
        peek, texts = pattern.one_text if pattern is not None else (None, frozenset[str]())
        accepts, call, publish = self._accepts, self._call, self._results.publish
        wants_event = self._route.signature.parameter.kind == "event"
        outputs = outlet.outputs if outlet is not None else None
        put, messages_of = outputs.put if outputs is not None else None, self._results.messages

        async def handle(claim: Claim) -> Outcome:
            outcome: Outcome = DONE
            skipped = 0
            around = current.get()
            attempt = outlet.begin(claim.attempt, claim=claim) if outlet is not None else None
            try:
                for stored in claim.cursor:
                    value, headers = stored.value, stored.headers
                    if headers or around:
                        around = headers
                        current.set(headers)
                    if headers:  # `announces_type` without the call: 30 ns a record (scripts/bench consume, 463 B, octopus typed)
                        for name, _ in headers:
                            if len(name) == 12 and name.lower() == "content-type":
                                break
                        else:
                            headers = ()  # those that are there do not matter here
                    if matches is not None:
                        if headers or value is None:
                            matched = accepts(value, headers)
                        elif peek is None:
                            matched = matches(value)
                        else:  # as `matches`, without the call
                            try:
                                text = peek(value)._
                            except Exception:  # noqa: BLE001 - `matches` says what is wrong
                                text = None
                            matched = text in texts if type(text) is str else matches(value)
                        if not matched:
                            skipped += 1
                            outcome = SKIPPED
                            continue
                    try:
                        argument = careful(value, headers) if headers else direct(value)  # type: ignore[arg-type]
                    except Exception:  # noqa: BLE001 - decided again, where it becomes a DecodeError or a tombstone's None
                        argument = careful(value, headers)
                    if wants_event:
                        argument = Event(argument, Record.at(partition, stored), claim.attempt_of(stored))
                    if skipped:  # a commit or a watcher may look while it is suspended
                        claim.skipped += skipped
                        skipped = 0
                    result = await call(argument)
                    if result is not None:
                        if attempt is None:
                            await publish(result, stored.key)
                        else:
                            for message in messages_of(result, stored.key):
                                put(attempt, stored, message)  # type: ignore[misc]
                            if outputs.is_full:  # type: ignore[union-attr]
                                await outputs.room()  # type: ignore[union-attr]
                    outcome = DONE
                return outcome
            except (Exception, CancelledError) as raised:  # noqa: BLE001 - the boundary decides
                error = raised
            finally:
                if skipped:
                    claim.skipped += skipped
                if attempt is not None:
                    attempt.end()
            try:
                return await conclude(stored, claim.attempt_of(stored), error)
            finally:
                del error  # as in `bind_single`

        return handle

    def chooser(self, patterns: Sequence[Pattern | None]) -> Callable[[StoredRecord], Sequence[int]]:
        """Return what says which of several patterns a record matches; it raises what asking one of them would."""
        among_bytes, among_decoded = index_patterns(patterns)
        anything = tuple(number for number, pattern in enumerate(patterns) if pattern is None)
        plain = self._plain.decode

        def choose(stored: StoredRecord) -> Sequence[int]:
            value, headers = stored.value, stored.headers
            if value is None:
                return anything  # a tombstone has no fields to match
            if headers and announces_type(headers):
                return among_decoded(plain(value, headers))
            return among_bytes(value)

        return choose

    def bind_batch(self, partition: TopicPartition, decide: Decide, outlet: Outlet | None = None) -> Handle:
        """Return what handles batches of a partition.

        Args:
            partition: Whose.
            decide: Decides about a record that cannot be filtered or decoded; the rest of its batch goes on.
            outlet: Where outputs go that no handler waits for; the caller begins the attempt.
        """
        pattern, call, results = self._route.pattern, self._call, self._results
        read = bind_columns(
            partition,
            self._decoder,
            decide,
            matches=pattern.matches_bytes if pattern is not None else None,
            accepts=self._accepts,
            wants_event=self._route.signature.parameter.kind == "event",
        )

        async def handle(batch: StoredRecord, attempt: int) -> BatchOutcome:
            assert isinstance(batch, Batch)
            arguments, others, retry, trace = read(batch, attempt)
            try:
                if arguments:
                    current.set(trace)
                    if outlet is not None:
                        done = Batch(each for at, each in enumerate(batch) if at not in others) if others else batch
                        attempt_that_runs().narrow(done)
                    result = await call(arguments)
                    if result is not None:
                        if self._check is not None:
                            self._check()
                        if outlet is not None:
                            results.put(result, None)
                        else:
                            await results.publish(result, None)
                return BatchOutcome(batch, others, retry)
            finally:
                del others, retry  # see `octopus.types`

        return handle

    def _accepts(self, value: bytes | None, headers: Headers = ()) -> bool:
        """Ask the filter about any record: it may have no value, or be something else than JSON."""
        pattern = self._route.pattern
        if pattern is None:
            return True
        if value is None:
            return False  # a tombstone has no fields to match
        return pattern.matches(self._plain.decode(value, headers) if headers else value)


def _caller(route: Route) -> Callable[[Any], Awaitable[Any]]:
    handler = route.handler
    if route.signature.is_async:
        return handler
    limiter: anyio.CapacityLimiter | None = None

    def attempt(argument: Any) -> tuple[Any, Exception | None]:
        # Returns what the handler raises: anyio would raise it through a frame that has the future which has the exception.
        try:
            return handler(argument), None
        except Exception as error:  # noqa: BLE001 - raised again below
            return None, error

    async def in_thread(argument: Any) -> Any:
        nonlocal limiter
        if limiter is None:
            limiter = anyio.CapacityLimiter(route.concurrency)
        # Abandoned on cancellation: a thread cannot be stopped, and its late result is discarded.
        result, error = await anyio.to_thread.run_sync(attempt, argument, abandon_on_cancel=True, limiter=limiter)
        if error is not None:
            try:
                raise error
            finally:
                del error  # as in `bind_single`
        return await result if inspect.isawaitable(result) else result  # a sync wrapper round an async handler

    return in_thread
