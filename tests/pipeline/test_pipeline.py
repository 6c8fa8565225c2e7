"""Pipelines: groups of several handlers, dead letters without a place."""

from typing import Any

import pytest

from octopus import Octopus, Router, config
from octopus.errors import ConfigurationError, HandlerStopped
from octopus.pipeline import Pipeline
from octopus.pipeline.claims import one_by_one
from octopus.publishing import Publisher
from octopus.transports.memory import MemoryBroker, MemoryTransport
from octopus.types import BatchOutcome
from tests.staged import P0, record


async def handler(value: Any) -> None: ...


def pipelines(app: Octopus, broker: MemoryBroker | None = None) -> list[Pipeline]:
    return app.pipelines(MemoryTransport(broker).producer(), config.load({}))


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ({"ordering": "key"}, {}, "differ in ordering: 'key' and 'partition'"),
        ({}, {"start": "latest"}, "differ in start: 'earliest' and 'latest'"),
        ({"batch": 3}, {"batch": 4}, "differ in batch: 3 and 4"),
        ({"batch": 3}, {"batch": 3}, "batch handlers 'one' and 'two' cannot share group 'g'"),
    ],
    ids=["ordering", "start", "batch size", "batches"],
)
def test_handlers_that_cannot_share_a_group_are_refused(first: Any, second: Any, sentence: str) -> None:
    app = Octopus("app")
    app.on("t", group="g", name="one", **first)(handler)
    app.on("t", group="g", name="two", **second)(handler)
    with pytest.raises(ConfigurationError) as caught:
        pipelines(app)
    assert sentence in str(caught.value)


def test_a_group_takes_the_highest_concurrency_and_every_handler_its_own_group() -> None:
    app = Octopus("app")
    app.on("t", group="g", name="one", concurrency=5)(handler)
    app.on("u", group="g", name="two", concurrency=50)(handler)
    app.on("u", name="three")(handler)
    shared, own = pipelines(app)
    assert (shared.group, shared.concurrency, shared.topics) == ("g", 50, ("t", "u"))
    assert own.group == "app.three"


async def run_with(app: Octopus, stored: Any) -> Any:
    (pipeline,) = pipelines(app)
    return await one_by_one(pipeline.bind(P0))(stored, 1)


async def test_processing_stops_where_a_dead_letter_has_no_place() -> None:
    app = Octopus("app")

    @app.on("t", dead_letter=False, retry=1)
    async def handle(value: Any) -> None:
        raise ValueError("no")

    with pytest.raises(HandlerStopped):
        await run_with(app, record(0))


def test_a_publisher_is_what_handlers_share() -> None:
    producer = MemoryTransport(MemoryBroker()).producer()
    router = Router()
    router.on("t")(handler)
    pipeline = Pipeline("g", router.routes, publisher=Publisher(producer), producer=producer)
    assert pipeline.topics == ("t",)
    assert BatchOutcome([]).retry is None
