"""One road for a record: every driver is given the same form of it, by the one place that chooses."""

import asyncio
import contextlib
import gc
import logging
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import pytest

from octopus import Event, Message, Next, Octopus, Record, RetryPolicy, config
from octopus.errors import ConfigurationError, DecodeError
from octopus.events import Batch, TopicPartition
from octopus.outcomes import Deferred, Outcome, Retry
from octopus.pipeline import Pipeline
from octopus.pipeline.claims import one_by_one
from octopus.pipeline.outputs import Outbox
from octopus.pipeline.road import Road
from octopus.retrying import RetryPipeline
from octopus.routing import Router
from octopus.testing import TestClient
from octopus.transports.base import Outgoing
from octopus.transports.memory import MemoryBroker, MemoryTransport, memory_transport
from octopus.triggers.aws import handler as function
from octopus.types import RunClaim
from tests.staged import P0, dead_letters, publish, record, until, working
from tests.triggers.lambda_events import encode


class File(msgspec.Struct):
    size: int


async def typed(file: File) -> None: ...


async def batches(files: list[File]) -> None: ...


async def passing(given: Record | Batch, call_next: Next) -> Outcome:
    return await call_next(given)


class Case(NamedTuple):
    """Handlers of one group, and what their records run through.

    Attributes:
        routes: The options of each handler.
        bound: By topic, the callable that is bound.
        forms: Of the roads that it is made of.
        batch: Whether the handlers take lists.
        middleware: Whether the app has some.
        is_for_functions: Whether a function may have them.
    """

    routes: list[dict[str, Any]]
    bound: dict[str, str]
    forms: set[str]
    batch: bool = False
    middleware: bool = False
    is_for_functions: bool = True


FILTER = {"size": [{"numeric": [">", 10]}]}
FUSED = "Handling.bind_claim.<locals>.handle"
FILTERED = "Handling._bind_in_turn.<locals>.handle"
WRAPPED = "in_turn.<locals>.run_claim"
SEVERAL = "fan_out.<locals>.run_claim"
CASES = {
    "typed": Case([{}], {"t": FUSED}, {"fused"}),
    "filtered": Case([{"filter": FILTER}], {"t": FILTERED}, {"fused"}),
    "ordered by key": Case([{"ordering": "key"}], {"t": FUSED}, {"fused"}),
    "middleware": Case([{}], {"t": "claim_through.<locals>.run_claim"}, {"fused"}, middleware=True),
    "timeout": Case([{"timeout": 60}], {"t": WRAPPED}, {"wrapped"}),
    "batch": Case([{"batch": 10, "within": 0}], {"t": WRAPPED}, {"wrapped"}, batch=True),
    "exactly once": Case([{"delivery": "exactly_once"}], {"t": WRAPPED}, {"wrapped"}, is_for_functions=False),
    "retry topic": Case(
        [{"retry_topic": "later"}],
        {"t": "deferring_in_claims.<locals>.run_claim_deferring", "later": WRAPPED},
        {"fused", "wrapped"},
        is_for_functions=False,
    ),
    "several": Case([{"group": "g"}, {"group": "g", "filter": FILTER}], {"t": SEVERAL}, {"chosen", "wrapped"}),
    "several, one with a timeout": Case([{"group": "g"}, {"group": "g", "timeout": 60}], {"t": SEVERAL}, {"wrapped"}),
    "several, with middleware": Case([{"group": "g"}, {"group": "g"}], {"t": SEVERAL}, {"wrapped"}, middleware=True),
}
VALUES = [b'{"size": 1}', b'{"size": 20}', b'{"size": 300}']


class Spy:
    """Notes what drivers are given.

    Attributes:
        bound: The callable's qualified name, by topic.
        forms: Names of the forms that were made.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bound: dict[str, str] = {}
        self.forms: set[str] = set()
        for kind in (Pipeline, RetryPipeline):
            monkeypatch.setattr(kind, "bind", self._noting_bound(kind.bind))
        for form in ("fused", "chosen", "wrapped"):
            monkeypatch.setattr(Road, form, self._noting_form(form, getattr(Road, form)))

    def _noting_bound(self, bind: Callable[..., RunClaim]) -> Callable[..., RunClaim]:
        def noting(pipeline: Pipeline, partition: TopicPartition, *arguments: Any, **options: Any) -> RunClaim:
            run_claim = bind(pipeline, partition, *arguments, **options)
            self.bound[partition.topic] = run_claim.__qualname__
            return run_claim

        return noting

    def _noting_form(self, name: str, form: Callable[..., Any]) -> Callable[..., Any]:
        def noting(road: Road, *arguments: Any) -> Any:
            self.forms.add(name)
            return form(road, *arguments)

        return noting


def make(case: Case) -> Octopus:
    app = Octopus("app", settings={"topics": {"partitions": 1}})
    if case.middleware:
        app.middleware(passing)
    for number, options in enumerate(case.routes):
        app.on("t", name=f"handler{number}", **options)(batches if case.batch else typed)
    return app


async def through_a_worker(case: Case) -> None:
    broker = MemoryBroker()
    for topic in case.bound:
        broker.ensure_topic(topic)
    publish(broker, *({"size": size} for size in (1, 20, 300)))
    async with working(make(case), broker) as worker:
        await worker.caught_up()


async def through_a_client(case: Case) -> None:
    async with TestClient(make(case)) as client:
        for topic in case.bound:
            await client.publish_many(topic, [Message(value) for value in VALUES])


async def through_a_function(case: Case) -> None:
    records = [record(number, value=value) for number, value in enumerate(VALUES)]

    def invoked() -> Any:
        trigger = function(make(case))
        try:
            return trigger(encode(records))
        finally:
            trigger.close()

    assert await asyncio.to_thread(invoked) == {"batchItemFailures": []}


DRIVERS = {"worker": through_a_worker, "client": through_a_client, "function": through_a_function}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_every_driver_is_given_the_same_form_of_a_road(
    case: Case, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if driver == "function" and not case.is_for_functions:
        with pytest.raises(ConfigurationError):
            function(make(case))
        return
    spy = Spy(monkeypatch)
    await DRIVERS[driver](case)
    assert (spy.bound, spy.forms) == (case.bound, case.forms)


def pipeline_of(app: Octopus, broker: MemoryBroker | None = None) -> Pipeline:
    return app.pipelines(MemoryTransport(broker).producer(), config.load({}))[0]


@pytest.mark.parametrize("form", ["fused", "wrapped"])
@pytest.mark.parametrize("attempt", [1, 4])
async def test_a_long_wait_that_middleware_asks_for_is_spent_in_the_retry_topic_on_either_form(
    form: str, attempt: int
) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.middleware
    async def office_hours(given: Record | Batch, call_next: Next) -> Outcome:
        return Retry(3600)

    app.on("t", retry=RetryPolicy(defer_beyond=60), retry_topic="later")(typed)
    pipeline = pipeline_of(app, broker)
    (road,) = pipeline.roads
    run = one_by_one(pipeline.bind(P0)) if form == "fused" else road.wrapped(P0)
    assert await run(record(0), attempt) == Deferred(Retry(3600))
    (waiting,) = broker.log(TopicPartition("later", 0)).read(0, 10)[0]
    assert dict(waiting.headers)["octopus-retry-attempt"] == str(attempt + 1).encode()


async def test_a_worker_spends_it_there_too_and_goes_on_with_the_next_event() -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), []

    @app.middleware
    async def office_hours(given: Any, call_next: Next) -> Outcome:
        return Retry(3600) if given.offset == 0 else await call_next(given)

    @app.on("t", retry=RetryPolicy(defer_beyond=60), retry_topic="later")
    async def handle(event: Event[Any]) -> None:
        seen.append(event.offset)

    publish(broker, 0, 1)
    async with working(app, broker):
        await until(lambda: seen == [1])
    assert broker.log(TopicPartition("later", 0)).end == 1


async def test_a_driver_without_transactions_is_given_no_road_that_wants_them_and_the_other_way_round() -> None:
    for delivery, outbox in (("exactly_once", None), ("at_least_once", Outbox(P0))):
        router = Router()
        router.on("t", delivery=delivery)(typed)
        app = Octopus("app")
        app.include(router)
        with pytest.raises(ConfigurationError, match="which cannot be had here"):
            pipeline_of(app).bind(P0, outbox)


class NotNowError(Exception):
    """What a handler raises."""


class Failure(NamedTuple):
    """A way in which records fail.

    Attributes:
        policy: What it comes to.
        value: Of the records.
        is_caused: Whether the exception has a cause, which was raised below the handler, too.
        is_caught: Whether middleware makes an outcome of it.
        is_sync: Whether the handler runs in a thread.
    """

    policy: RetryPolicy = RetryPolicy(attempts=1)
    value: bytes = b'{"size": 1}'
    is_caused: bool = False
    is_caught: bool = False
    is_sync: bool = False


FAILURES = {
    "given up": Failure(),
    "retried": Failure(RetryPolicy(attempts=2, backoff=0)),
    "deferred": Failure(RetryPolicy(attempts=2, backoff=0.001, jitter=0, defer_beyond=0)),
    "not decoded": Failure(value=b"{"),
    "with a cause": Failure(is_caused=True),
    "caught by middleware": Failure(is_caught=True),
    "in a thread": Failure(is_sync=True),
}


def failing(failure: Failure, *, batch: bool) -> Callable[[Any], Any]:
    """Return a handler that fails in this way."""

    def fail() -> None:
        try:
            if failure.is_caused:
                raise NotNowError
        except NotNowError as cause:
            raise NotNowError from cause
        raise NotNowError

    async def one(file: File) -> None:
        fail()

    async def several(files: list[File]) -> None:
        fail()

    def one_in_thread(file: File) -> None:
        fail()

    def several_in_thread(files: list[File]) -> None:
        fail()

    if failure.is_sync:
        return several_in_thread if batch else one_in_thread
    return several if batch else one


async def catching(given: Record | Batch, call_next: Next) -> Outcome:
    try:
        return await call_next(given)
    except NotNowError as error:
        if call_next.attempt > 1:
            raise
        return Retry(0, error)


def make_failing(case: Case, failure: Failure) -> Octopus:
    app = Octopus("app", settings={"topics": {"partitions": 1}})
    if case.middleware:
        app.middleware(passing)
    if failure.is_caught:
        app.middleware(passing)
        app.middleware(catching)
    for number, options in enumerate(case.routes):
        options = {**options, "retry": failure.policy, "filter": None}
        app.on("t", name=f"handler{number}", **options)(failing(failure, batch=case.batch))
    return app


@contextlib.contextmanager
def uncollected() -> Iterator[Callable[[], int]]:
    """Collect no garbage meanwhile; give what counts the exceptions that are there."""
    logging.disable()  # what captures logs here keeps the exceptions that are in them
    gc.collect()
    gc.disable()
    try:
        yield lambda: sum(isinstance(each, NotNowError | DecodeError) for each in gc.get_objects())
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_a_failed_record_is_not_kept_by_its_exception_until_a_garbage_collection(
    case: Case, failure: Failure
) -> None:
    broker = MemoryBroker()
    broker.append([Outgoing("t", failure.value)] * 10)
    with uncollected() as count:
        async with working(make_failing(case, failure), broker) as worker:
            await worker.caught_up()
            kept = count()
    assert len(dead_letters(broker)) == 10 * len(case.routes)
    assert kept <= 1 + failure.is_caused  # the last one, in the outcome that its slot looks at


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("case", [case for case in CASES.values() if case.is_for_functions])
def test_nor_is_it_in_a_function(case: Case, failure: Failure) -> None:
    address = f"memory://{uuid.uuid4()}"
    broker = memory_transport(address.removeprefix("memory://"), {}).broker
    trigger = function(make_failing(case, failure), brokers=address, retry_in_process=True)
    with uncollected() as count:
        trigger(encode([record(number, value=failure.value) for number in range(10)]))
        kept = count()
    trigger.close()
    assert len(dead_letters(broker)) == 10 * len(case.routes)
    assert kept <= 1 + failure.is_caused
