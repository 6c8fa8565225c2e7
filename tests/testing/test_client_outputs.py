"""The test client shows outputs as exactly-once delivery makes them visible."""

from typing import Any

from octopus import Event, Octopus, Reject, RetryPolicy
from octopus.testing import TestClient


def test_the_test_client_shows_outputs_of_attempts_that_succeed_only() -> None:
    app = Octopus("app")

    @app.on("t", to="out", delivery="exactly_once", retry=RetryPolicy(attempts=3, backoff=0.1, jitter=0))
    async def handle(event: Event[int]) -> int:
        await app.publish("side", event.value)
        if event.value == 1 and event.attempt == 1:
            raise ValueError("not yet")
        if event.value == 2:
            raise Reject("no twos")
        return event.value

    @app.on("out")
    async def follow(value: int) -> None: ...

    with TestClient(app) as client:
        client.publish_many("t", [0, 1, 2, 3])
        assert [event.value for event in client.published("out")] == [0, 1, 3]
        assert [event.value for event in client.published("side")] == [0, 1, 3]
        assert [dead_letter.event.value for dead_letter in client.dead_letters()] == [2]
        assert len(client.outcomes("follow")) == 3


def test_the_test_client_dead_letters_an_event_whose_outputs_a_broker_would_refuse() -> None:
    app = Octopus("app", settings={"producer": {"max_record_bytes": 1000}})

    @app.on("t", to="out", delivery="exactly_once")
    async def handle(value: int) -> list[Any]:
        return [value, "x" * 2000]

    with TestClient(app) as client:
        client.publish("t", 1)
        assert client.published("out") == []
        assert "over the limit" in client.dead_letters()[0].reason
