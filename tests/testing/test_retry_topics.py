"""Retries through a topic, in virtual time."""

import pytest

from octopus import Event, Octopus, Reject, RetryLater, RetryPolicy
from octopus.errors import ConfigurationError
from octopus.outcomes import DONE, DeadLetter, Deferred, Retry
from octopus.testing import TestClient

DAY = 86_400
PATIENT = RetryPolicy(attempts=4, backoff=600, factor=10, maximum=2 * DAY, jitter=0)


def test_a_long_retry_waits_in_its_topic_and_comes_back_as_what_it_was() -> None:
    app, seen = Octopus("lab"), []

    @app.on("jobs", retry=PATIENT, retry_topic=True, to="done")
    async def start(event: Event[dict]) -> dict:
        seen.append(
            (event.topic, event.partition, event.offset, event.attempt, event.key, event.header("h"), event.headers)
        )
        if event.attempt < 3:
            raise OSError("not yet")
        return event.value

    with TestClient(app) as client:
        client.publish("jobs", {"n": 0}, settle=False)
        assert client.publish("jobs", {"n": 1}, key="k", headers={"h": "x"}) == {"start": DONE}
        assert len(client.published("lab.start.retry")) == 4
        assert [event.key for event in client.published("done")] == [None, b"k"]
    assert [entry for entry in seen if entry[2] == 1] == [
        ("jobs", 0, 1, attempt, b"k", b"x", (("h", b"x"),)) for attempt in (1, 2, 3)
    ]


def test_what_comes_behind_does_not_wait() -> None:
    app, seen = Octopus("lab"), []

    @app.on("jobs", retry=PATIENT, retry_topic=True)
    async def start(event: Event[int]) -> None:
        seen.append(event.value)
        if event.value == 0 and event.attempt == 1:
            raise OSError("not yet")

    with TestClient(app) as client:
        client.publish_many("jobs", [0, 1, 2], settle=False)
        client.advance(599)
        assert seen == [0, 1, 2]
        client.advance(2)
        assert seen == [0, 1, 2, 0]


def test_a_short_retry_holds_its_lane_as_ever() -> None:
    app, seen = Octopus("lab"), []

    @app.on("jobs", retry=RetryPolicy(attempts=3, backoff=9, factor=1, jitter=0), retry_topic=True)
    async def start(event: Event[int]) -> None:
        seen.append(event.value)
        if event.attempt < 3:
            raise OSError("not yet")

    with TestClient(app) as client:
        client.publish_many("jobs", [0, 1])
        assert seen == [0, 0, 0, 1, 1, 1]
        assert client.published("lab.start.retry") == []


def test_attempts_are_counted_over_short_and_long_waits() -> None:
    app, attempts = Octopus("lab"), []

    @app.on("jobs", retry=RetryPolicy(attempts=6, backoff=1, factor=10, maximum=7200, jitter=0), retry_topic=True)
    async def start(event: Event[int]) -> None:
        attempts.append(event.attempt)
        if event.attempt == 4:
            raise RetryLater(5)  # asked for by the handler, so not counted
        raise OSError("never")

    def four_first() -> bool:
        return attempts.count(4) > 1

    with TestClient(app, raise_errors=False) as client:
        client.publish("jobs", 1, settle=False)
        client.advance(1 + 10 + 100 + 1000)
    assert attempts[:4] == [1, 2, 3, 4]
    assert set(attempts[4:]) == {4}, "and comes again with the same number"


def test_a_dead_letter_names_the_first_coordinates_and_all_attempts() -> None:
    app = Octopus("lab")

    @app.on("jobs", retry=PATIENT, retry_topic=True)
    async def start(event: Event[int]) -> None:
        raise OSError("never")

    with TestClient(app, raise_errors=False) as client:
        client.publish("jobs", 7, headers={"h": "x"}, timestamp=1234.5, settle=False)
        outcome = client.publish("jobs", 8)["start"]
        assert isinstance(outcome, DeadLetter)
        first, second = client.dead_letters("jobs")
        assert (first.attempts, first.handler, first.source) == (4, "start", "jobs")
        assert first.event.headers == (("h", b"x"),)
        record = client.published("jobs.dead-letter")[1].record
        said = dict(record.headers)
        assert (said["octopus-dead-letter-offset"], said["octopus-dead-letter-topic"]) == (b"1", b"jobs")
        assert not any(name.startswith("octopus-retry-") for name, _ in record.headers)
        assert second.attempts == 4
        assert [type(outcome) for _, outcome in client.outcomes("start")] == [Deferred] * 6 + [DeadLetter] * 2
        assert len(client.failures) == 8


def test_retry_later_goes_the_same_way_and_does_not_count() -> None:
    app, attempts, wait = Octopus("lab"), [], 1.1 * DAY

    @app.on("jobs", retry=1, retry_topic="lab.later")
    async def start(event: Event[int]) -> None:
        attempts.append(event.attempt)
        if len(attempts) < 3:
            raise RetryLater(wait)

    with TestClient(app) as client:
        assert client.publish("jobs", 1) == {"start": DONE}
        assert attempts == [1, 1, 1]
        # Each of the two waits is written anew once a day, lest the topic's retention takes it.
        assert len(client.published("lab.later")) == 2 + 2 * 1
        assert [outcome for _, outcome in client.outcomes("start")] == [
            Deferred(Retry(wait, counted=False)),
            Deferred(Retry(wait, counted=False)),
            DONE,
        ]


def test_of_several_handlers_of_a_group_only_the_one_that_failed_runs_again() -> None:
    app, seen = Octopus("lab"), []

    @app.on("jobs", group="shared", retry=PATIENT, retry_topic=True)
    async def fails(event: Event[int]) -> None:
        seen.append(("fails", event.attempt))
        if event.attempt < 3:
            raise OSError("not yet")

    @app.on("jobs", group="shared")
    async def works(event: Event[int]) -> None:
        seen.append(("works", event.attempt))

    with TestClient(app) as client:
        assert client.publish("jobs", 1) == {"fails": DONE, "works": DONE}
    assert seen == [("fails", 1), ("works", 1), ("fails", 2), ("fails", 3)]


def test_handlers_may_share_a_topic() -> None:
    app, seen = Octopus("lab"), []

    def fail_at_first(event: Event[int]) -> None:
        if event.attempt == 1:
            raise OSError("not yet")

    @app.on("jobs", retry=PATIENT, retry_topic="later")
    async def one(event: Event[int]) -> None:
        seen.append(("one", event.attempt))
        fail_at_first(event)

    @app.on("jobs", retry=PATIENT, retry_topic="later")
    async def two(event: Event[int]) -> None:
        seen.append(("two", event.attempt))
        fail_at_first(event)

    with TestClient(app) as client:
        client.publish("jobs", 1)
    assert sorted(seen) == [("one", 1), ("one", 2), ("two", 1), ("two", 2)]


def test_what_a_middleware_asks_for_waits_there_too() -> None:
    app, seen = Octopus("lab"), []

    @app.middleware
    async def office_hours(record, call_next):
        seen.append((record.topic, record.offset))
        return Retry(12 * 3600) if len(seen) == 1 else await call_next(record)

    @app.on("jobs", retry_topic=True)
    async def start(event: Event[int]) -> None:
        assert event.attempt == 2

    with TestClient(app) as client:
        assert client.publish("jobs", 1) == {"start": DONE}
        assert len(client.published("lab.start.retry")) == 1
    assert seen == [("jobs", 0)] * 2


def test_outputs_and_retries_of_exactly_once_go_together() -> None:
    app = Octopus("lab")

    @app.on("jobs", retry=PATIENT, retry_topic=True, delivery="exactly_once", to="done")
    async def start(event: Event[int]) -> int:
        await app.publish("audit", event.attempt)
        match event.value, event.attempt:
            case _, 1 | 2:
                raise OSError("not yet")
            case 1, _:
                raise Reject("ones are not wanted")
        return event.value

    with TestClient(app) as client:
        client.publish_many("jobs", [0, 1, 2])
        assert [event.value for event in client.published("done")] == [0, 2]
        assert [event.value for event in client.published("audit")] == [3, 3], "nothing of an attempt that failed"
        assert len(client.published("lab.start.retry")) == 6
        assert [dead_lettered.attempts for dead_lettered in client.dead_letters()] == [3]


def test_what_nobody_can_have_deferred_is_a_dead_letter() -> None:
    app = Octopus("lab")

    @app.on("jobs", retry_topic=True)
    async def start(event: Event[int]) -> None:
        raise AssertionError("never called")

    with TestClient(app) as client:
        outcome = client.publish("lab.start.retry", 1)["start"]
        assert isinstance(outcome, DeadLetter)
        assert "does not end with the headers" in client.dead_letters()[0].reason


def test_a_second_client_of_the_same_broker_goes_on_with_what_waits() -> None:
    from octopus.transports.memory import MemoryBroker

    seen = []

    def make() -> Octopus:
        app = Octopus("lab")

        @app.on("jobs", retry=RetryPolicy(attempts=5, backoff=0, jitter=0, defer_beyond=0), retry_topic=True)
        async def start(event: Event[int]) -> None:
            seen.append(event.attempt)
            if event.attempt == 1:
                raise RetryLater(3600)
            if event.attempt < 3:
                raise OSError

        return app

    broker = MemoryBroker(auto_create=1)
    with TestClient(make(), broker=broker) as client:
        client.publish("jobs", 1, settle=False)
        client.advance(10)
        assert seen == [1]
    with TestClient(make(), broker=broker) as client:
        client.advance(3000)
        assert seen == [1]
        client.advance(700)
        assert seen[:2] == [1, 1]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"retry_topic": True, "batch": 5}, "does not go with batch="),
        ({"retry_topic": "not a topic"}, "is not a topic name"),
        ({"retry_topic": "jobs"}, "is a topic it reads"),
        ({"retry_topic": "x", "dead_letter": "x"}, "are both 'x'"),
    ],
)
def test_what_cannot_work_is_refused(given: dict, sentence: str) -> None:
    app = Octopus("lab")
    with pytest.raises(ConfigurationError, match=sentence):

        @app.on("jobs", **given)
        async def start(values: list[int]) -> None: ...
