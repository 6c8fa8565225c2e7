"""Topics that are deleted and made again under a group: nothing of the new one is skipped, nothing of the old one is committed to it."""

import asyncio
import logging
import re
from collections.abc import Callable, Collection
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from octopus import Event, Octopus, RetryLater, RetryPolicy
from octopus.errors import TransportError
from octopus.events import TopicPartition
from octopus.runner.commit_metadata import topic_id_of
from octopus.testing import VirtualTime
from octopus.transports.base import Commit
from octopus.transports.memory import MemoryBroker
from octopus.transports.memory.broker import Log
from octopus.transports.memory.transactions import MemoryTransactionalProducer
from octopus.transports.memory.transport import MemoryConsumer
from octopus.worker import Worker, topic_watch
from octopus.worker.health import Health
from tests.staged import P0, P1, committed, killed, publish, until, working

EARLIEST: dict[str, Any] = {"consumer": {"recreated_topics": "earliest"}}
GROUP = "app.handle"


def recreate(broker: MemoryBroker, *values: Any, partitions: int = 1, topic: str = "t") -> None:
    """Delete a topic and make it again; the group goes through a rebalance."""
    broker.delete_topic(topic)
    broker.create_topic(topic, partitions)
    publish(broker, *values, topic=topic)


def replace(broker: MemoryBroker, *values: Any, partitions: int = 1, topic: str = "t") -> None:
    """The same, so quickly that the group's members hear of nothing."""
    broker.topics[topic] = [Log() for _ in range(partitions)]
    broker.topic_ids[topic] = uuid4().hex
    for group in broker.groups.values():
        group.offsets = {place: commit for place, commit in group.offsets.items() if place.topic != topic}
    publish(broker, *values, topic=topic)


@pytest.fixture(params=["by id", "by name"])
def fetching(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the client fetches: one that does so by name goes on in the new topic as if nothing were."""
    if request.param == "by name":
        monkeypatch.setattr(MemoryConsumer, "_log", lambda self, partition: self._broker.log(partition))
    how: str = request.param
    return how


ways = pytest.mark.parametrize("again", [recreate, replace], ids=["the group hears of it", "the group hears nothing"])


def of(broker: MemoryBroker, partition: TopicPartition = P0, group: str = GROUP) -> str | None:
    """Return the topic id of what is committed."""
    commit = broker.group(group).offsets.get(partition)
    return topic_id_of(commit.metadata) if commit is not None else None


def reader(seen: list[Any], **options: Any) -> Octopus:
    app = Octopus("app")

    @app.on("t", **options)
    async def handle(value: Any) -> None:
        seen.append(value)

    return app


def unreadable(worker: Worker) -> dict[str, str]:
    return {place: text for group in worker.status().groups for place, text in group.unreadable.items()}


@ways
async def test_a_partition_whose_topic_is_made_again_stops_with_a_sentence(
    virtual_time: VirtualTime, again: Callable[..., None], fetching: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker, seen = MemoryBroker(), list[Any]()
    publish(broker, *range(5))
    async with working(reader(seen), broker) as worker:
        await until(lambda: committed(broker, GROUP) == 5)
        old = broker.topic_ids["t"]
        again(broker, *range(100, 103))
        await until(lambda: unreadable(worker), 30)
        await asyncio.sleep(30)
        publish(broker, *range(103, 120))
        await asyncio.sleep(30)
        new = broker.topic_ids["t"]
        (sentence,) = unreadable(worker).values()
        assert "'t' was deleted and made again" in sentence
        assert old in sentence
        assert new in sentence
        assert "octopus groups reset app.handle --topic t --to earliest" in sentence
        (trouble,) = await Health(worker, 300).why_not_ready()
        assert sentence in trouble
    if (again, fetching) != (replace, "by name"):  # there a few may be read before anybody can notice
        assert seen == [*range(5)]
    assert "app.handle stops reading t[0]" in caplog.text
    assert committed(broker, GROUP) == 0
    assert of(broker) == old, "whoever reads it knows that it is no offset of the new topic"


@ways
async def test_a_topic_that_is_made_again_is_said_once_with_all_its_partitions(
    virtual_time: VirtualTime, again: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    broker = MemoryBroker()
    broker.create_topic("t", 3)
    async with working(reader([]), broker) as worker:
        await until(lambda: [len(group.partitions) for group in worker.status().groups] == [3])
        again(broker, partitions=3)
        await until(lambda: len(unreadable(worker)) == 3, 30)
        (sentence,) = {*unreadable(worker).values()}
        assert await Health(worker, 300).why_not_ready() == [f"app.handle cannot read t[0], t[1], t[2]: {sentence}"]
    said = [each.getMessage() for each in caplog.records if "was deleted and made again" in each.getMessage()]
    (line,) = said
    assert line.startswith("app.handle stops reading t[0], t[1], t[2]: ")


@ways
async def test_a_topic_that_is_made_again_is_read_from_its_beginning_if_that_is_asked_for(
    virtual_time: VirtualTime, again: Callable[..., None], fetching: str
) -> None:
    broker, seen = MemoryBroker(), list[Any]()
    publish(broker, *range(5))
    async with working(reader(seen), broker, **EARLIEST) as worker:
        await until(lambda: committed(broker, GROUP) == 5)
        again(broker, *range(100, 109))
        await until(lambda: {*range(100, 109)} <= {*seen}, 60)
        await worker.caught_up()
        assert not unreadable(worker)
        again(broker, *range(200, 209))
        await until(lambda: {*range(200, 209)} <= {*seen}, 60)
    assert [value for value in seen if value < 100] == [*range(5)]
    assert seen[-9:] == [*range(200, 209)]
    assert committed(broker, GROUP) == 9
    assert of(broker) == broker.topic_ids["t"]


@ways
@pytest.mark.parametrize("given", [{}, EARLIEST], ids=["stop", "earliest"])
async def test_what_was_read_of_the_old_topic_is_still_handled_and_not_committed_to_the_new_one(
    virtual_time: VirtualTime, again: Callable[..., None], given: dict[str, Any]
) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), list[int]()
    stored: list[tuple[str, int, str | None]] = []

    @app.on("t")
    async def handle(value: int) -> None:
        if value == 0:
            await asyncio.sleep(8)
        seen.append(value)

    publish(broker, *range(5))
    async with working(app, broker, **given):
        await asyncio.sleep(2)
        old = broker.topic_ids["t"]
        again(broker, *range(100, 110))
        store = broker.commit

        def noted(group: str, member: Any, offsets: dict[TopicPartition, Commit]) -> None:
            stored.extend((broker.topic_ids["t"], each.offset, topic_id_of(each.metadata)) for each in offsets.values())
            store(group, member, offsets)

        broker.commit = noted  # type: ignore[method-assign]
        await asyncio.sleep(60)
    if again is replace:
        assert [value for value in seen if value < 100] == [*range(5)]
    assert 0 in seen
    assert [value for value in seen if value >= 100] == ([*range(100, 110)] if given else [])
    for there, offset, topic_id in stored:
        assert topic_id == there or (offset == 0 and topic_id == old), "an offset of the old topic, at the new one"


async def test_a_retry_that_waits_while_its_topic_is_made_again_still_runs_before_the_new_topic(
    virtual_time: VirtualTime,
) -> None:
    app, broker, runs = Octopus("app"), MemoryBroker(), list[int]()

    @app.on("t")
    async def handle(value: int) -> None:
        runs.append(value)
        if len(runs) == 1:
            raise RetryLater(20)

    publish(broker, 1)
    async with working(app, broker, **EARLIEST):
        await until(lambda: runs)
        replace(broker, 2)
        await until(lambda: len(runs) == 3, 120)
    assert runs == [1, 1, 2]


@ways
@pytest.mark.parametrize("given", [{}, EARLIEST], ids=["stop", "earliest"])
async def test_exactly_once_what_was_read_of_the_old_topic_is_published_once_and_its_offsets_are_not(
    virtual_time: VirtualTime, again: Callable[..., None], given: dict[str, Any]
) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t", to="out", delivery="exactly_once")
    async def handle(value: int) -> int:
        if value == 2:
            await asyncio.sleep(5)
        return value

    publish(broker, *range(4))
    async with working(app, broker, **given):
        await asyncio.sleep(2)
        old = broker.topic_ids["t"]
        again(broker, *range(100, 110))
        await asyncio.sleep(60)
        assert committed(broker, GROUP) == (10 if given else 0)
        assert of(broker) == (broker.topic_ids["t"] if given else old)
    records, _ = broker.log(TopicPartition("out", 0)).read(0, 1000)
    out = [msgspec.json.decode(record.value or b"") for record in records]
    assert [value for value in out if value >= 100] == ([*range(100, 110)] if given else [])
    assert [value for value in out if value < 100] == [*range(4 if again is replace else 3)]


def going(monkeypatch: pytest.MonkeyPatch, broker: MemoryBroker, how: Callable[[], None]) -> None:
    """Let a topic go after a transaction's outputs are written, and before its offsets are."""
    send_many = MemoryTransactionalProducer.send_many

    async def send_many_and_go(self: MemoryTransactionalProducer, messages: Any) -> Any:
        published = await send_many(self, messages)
        if "t" in broker.topics and msgspec.json.decode(messages[-1].value) == 3:
            how()
        return published

    monkeypatch.setattr(MemoryTransactionalProducer, "send_many", send_many_and_go)


@pytest.mark.parametrize("given", [{}, EARLIEST], ids=["stop", "earliest"])
@pytest.mark.parametrize(
    ("heard", "later"),
    [(True, "again"), (False, "again"), (True, "never"), (False, "never")],
    ids=["the group hears of it", "it does not", "and nobody makes it again", "and the group does not hear of it"],
)
async def test_exactly_once_a_topic_that_is_deleted_inside_a_transaction_costs_no_output(
    virtual_time: VirtualTime, given: dict[str, Any], heard: bool, later: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, broker = Octopus("app"), MemoryBroker()
    broker.create_topic("out")

    @app.on("t", to="out", delivery="exactly_once")
    async def handle(value: int) -> int:
        return value

    def go() -> None:
        if heard:
            broker.delete_topic("t")
        else:
            del broker.topics["t"], broker.topic_ids["t"]

    going(monkeypatch, broker, go)
    publish(broker, *range(4))
    async with working(app, broker, **given):
        await until(lambda: "t" not in broker.topics)
        await asyncio.sleep(20)
        if later == "again":
            broker.create_topic("t")
            await asyncio.sleep(20)
    records, _ = broker.log(TopicPartition("out", 0)).read(0, 1000)
    assert [msgspec.json.decode(record.value or b"") for record in records] == [*range(4)]


@pytest.mark.parametrize("heard", [True, False], ids=["the group hears of it", "it does not"])
async def test_exactly_once_a_topic_that_is_deleted_inside_the_last_transaction_costs_no_output(
    virtual_time: VirtualTime, heard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, broker = Octopus("app"), MemoryBroker()
    broker.create_topic("out")
    done = asyncio.Event()

    @app.on("t", to="out", delivery="exactly_once")
    async def handle(value: int) -> int:
        if value == 3:
            done.set()
        return value

    def go() -> None:
        if heard:
            broker.delete_topic("t")
        else:
            del broker.topics["t"], broker.topic_ids["t"]

    going(monkeypatch, broker, go)
    publish(broker, *range(4))
    async with working(app, broker, worker={"transaction_interval": 5}) as worker:
        await done.wait()
    assert not worker.failures
    records, _ = broker.log(TopicPartition("out", 0)).read(0, 1000)
    assert [msgspec.json.decode(record.value or b"") for record in records] == [*range(4)]


@pytest.mark.parametrize("fetching", ["by name"], indirect=True)
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_a_client_that_reads_on_in_the_new_topic_is_found_out_before_the_next_commit(
    virtual_time: VirtualTime, fetching: str, delivery: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_watch, "LOOK_WAIT", float("inf"))
    broker, seen = MemoryBroker(), list[Any]()
    publish(broker, *range(3))
    async with working(reader(seen, delivery=delivery), broker) as worker:
        await until(lambda: committed(broker, GROUP) == 3)
        await asyncio.sleep(5)
        replace(broker, *range(100, 110))
        await until(lambda: unreadable(worker), 30)
        await asyncio.sleep(5)
    assert (committed(broker, GROUP), of(broker) == broker.topic_ids["t"]) == (0, False)


@pytest.mark.parametrize("fetching", ["by name"], indirect=True)
async def test_a_new_topic_that_is_as_long_as_the_old_one_is_noticed_although_nothing_comes(
    virtual_time: VirtualTime, fetching: str
) -> None:
    broker, seen = MemoryBroker(), list[Any]()
    publish(broker, *range(3))
    async with working(reader(seen), broker, **EARLIEST):
        await until(lambda: committed(broker, GROUP) == 3)
        replace(broker, *range(100, 103))
        await until(lambda: seen[3:] == [*range(100, 103)], 30)


async def test_a_retry_topic_that_is_made_again_is_read_from_its_beginning_whatever_is_asked_for_others(
    virtual_time: VirtualTime,
) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), list[int]()

    @app.on("t", retry=RetryPolicy(attempts=2, backoff=60, jitter=0), retry_topic=True)
    async def handle(event: Event[int]) -> None:
        seen.append(event.value)
        if event.attempt == 1:
            raise OSError("not yet")

    publish(broker, *range(3))
    async with working(app, broker, clock=lambda: asyncio.get_running_loop().time()) as worker:
        await until(lambda: seen.count(2) == 2, 300)
        await until(lambda: committed(broker, "app.handle.retry", TopicPartition("app.handle.retry", 0)) == 3, 30)
        replace(broker, topic="app.handle.retry")
        publish(broker, 3)
        await until(lambda: seen.count(3) == 2, 300)
        assert not unreadable(worker)


@ways
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_what_waits_in_a_retry_topic_that_is_made_again_is_written_to_the_new_one(
    virtual_time: VirtualTime, again: Callable[..., None], delivery: Any
) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), list[int]()

    @app.on("t", retry=RetryPolicy(attempts=2, backoff=600, jitter=0), retry_topic=True, delivery=delivery)
    async def handle(event: Event[int]) -> None:
        seen.append(event.value)
        if event.attempt == 1:
            raise OSError("not yet")

    publish(broker, *range(3))
    async with working(app, broker, clock=lambda: asyncio.get_running_loop().time()):
        await until(lambda: len(seen) == 3, 60)
        await asyncio.sleep(20)
        again(broker, topic="app.handle.retry")
        await asyncio.sleep(100)
    async with working(app, broker, clock=lambda: asyncio.get_running_loop().time()):
        await until(lambda: len(seen) == 6, 900)
    assert sorted(seen) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("octopus-topic-1:another", []),
        ("octopus-topic-1:another octopus-anchor-1 1 5.000", []),
        ("octopus-topic-1:{id}", [2, 3, 4]),
        ("", [2, 3, 4]),
        ("octopus-anchor-1 1 5.000", [2, 3, 4]),
        ("octopus-topic-1: octopus-anchor-1 1 5.000", [2, 3, 4]),
    ],
    ids=["of another topic", "an anchor of another", "of this topic", "plain", "of an earlier release", "damaged"],
)
async def test_a_worker_that_starts_believes_commits_of_this_topic_and_those_that_do_not_say(
    virtual_time: VirtualTime, metadata: str, expected: list[int]
) -> None:
    broker, seen = MemoryBroker(), list[Any]()
    publish(broker, *range(5))
    broker.group(GROUP).offsets[P0] = Commit(2, metadata.format(id=broker.topic_ids["t"]))
    async with working(reader(seen), broker) as worker:
        await asyncio.sleep(20)
        assert bool(unreadable(worker)) is not bool(expected)
    assert seen == expected


async def test_a_commit_of_another_topic_begins_at_the_beginning_if_that_is_asked_for(
    virtual_time: VirtualTime,
) -> None:
    broker, seen = MemoryBroker(), list[Any]()
    publish(broker, *range(5))
    broker.group(GROUP).offsets[P0] = Commit(2, "octopus-topic-1:another octopus-offsets-1 2 0 AAAA")
    async with working(reader(seen, start="latest"), broker, **EARLIEST) as worker:
        await worker.caught_up()
    assert seen == [*range(5)]


async def test_after_a_reset_a_group_begins_where_it_was_put(virtual_time: VirtualTime) -> None:
    broker, seen = MemoryBroker(), list[Any]()
    publish(broker, *range(5))
    async with working(reader(seen), broker) as worker:
        await until(lambda: committed(broker, GROUP) == 5)
        replace(broker, *range(100, 105))
        await until(lambda: unreadable(worker), 30)
    async with working(reader(seen), broker) as worker:
        await asyncio.sleep(20)
        assert unreadable(worker), "a restart decides nothing"
    broker.group(GROUP).offsets[P0] = Commit(3)
    async with working(reader(seen), broker) as worker:
        await worker.caught_up()
        assert not unreadable(worker)
    assert seen == [*range(5), 103, 104]
    assert (committed(broker, GROUP), of(broker)) == (5, broker.topic_ids["t"])


@pytest.mark.parametrize("start", ["earliest", "latest"])
async def test_a_member_that_takes_over_from_one_that_was_killed_notices_too(
    virtual_time: VirtualTime, start: str
) -> None:
    broker, seen = MemoryBroker(), list[Any]()
    publish(broker, *range(3))
    async with killed(reader(seen, start=start), broker) as worker:
        await until(lambda: committed(broker, GROUP) == 3)
        replace(broker, *range(100, 105))
        await until(lambda: unreadable(worker) and of(broker), 30)
    async with working(reader(seen, start=start), broker) as worker:
        await asyncio.sleep(10)
        assert unreadable(worker)
    async with working(reader(seen, start=start), broker, **EARLIEST) as worker:
        await worker.caught_up()
    assert [value for value in seen if value >= 100] == [*range(100, 105)]


async def test_a_commit_that_a_new_topic_overtakes_is_known_for_one_of_the_old_topic(virtual_time: VirtualTime) -> None:
    broker, seen = MemoryBroker(), list[Any]()
    publish(broker, *range(5))
    store, overtaken = broker.commit, False

    def late(group: str, member: Any, offsets: dict[TopicPartition, Commit]) -> None:
        nonlocal overtaken
        if overtaken:  # it is killed before it can commit anything else
            raise TransportError("cut off", retryable=True)
        if offsets[P0].offset == 5:
            overtaken = True
            replace(broker, *range(100, 110))
        store(group, member, offsets)

    broker.commit = late  # type: ignore[method-assign]
    async with killed(reader(seen), broker):
        await until(lambda: committed(broker, GROUP) == 5)
    broker.commit = store  # type: ignore[method-assign]
    async with working(reader(seen), broker) as worker:
        await until(lambda: unreadable(worker))
    async with working(reader(seen), broker, **EARLIEST) as worker:
        await worker.caught_up()
    assert [value for value in seen if value >= 100] == [*range(100, 110)]


async def test_nothing_is_committed_while_nobody_says_which_topic_it_is(virtual_time: VirtualTime) -> None:
    broker, seen = MemoryBroker(), list[Any]()
    async with working(reader(seen), broker) as worker:
        await until(lambda: committed(broker, GROUP) == 0)
        broker.faults.fail_next("topic_ids", TransportError("no broker answers", retryable=True), times=3)
        publish(broker, *range(5))
        await until(lambda: len(seen) == 5)
        await until(lambda: worker.status().groups[0].commit_error)
        assert committed(broker, GROUP) == 0
        assert "no broker answers" in str(worker.status().groups[0].commit_error)
        await worker.caught_up()
        await until(lambda: committed(broker, GROUP) == 5, 30)


async def test_a_broker_without_topic_ids_is_read_as_ever(
    virtual_time: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def topic_ids(self: MemoryConsumer, topics: Collection[str]) -> dict[str, str | None]:
        return dict.fromkeys(topics)

    monkeypatch.setattr(MemoryConsumer, "topic_ids", topic_ids)
    broker, seen = MemoryBroker(), list[Any]()
    publish(broker, *range(5))
    async with working(reader(seen), broker) as worker:
        await worker.caught_up()
    assert seen == [*range(5)]
    assert broker.group(GROUP).offsets[P0] == Commit(5)


@ways
@pytest.mark.parametrize("partitions", [1, 4], ids=["fewer", "more"])
async def test_a_topic_that_is_made_again_with_other_partitions_is_read_whole(
    virtual_time: VirtualTime, again: Callable[..., None], partitions: int
) -> None:
    broker, seen = MemoryBroker(), list[Any]()
    broker.create_topic("t", 2)
    publish(broker, 0, partition=0)
    publish(broker, 1, partition=1)
    async with working(reader(seen, start="latest"), broker, **EARLIEST):
        await until(lambda: committed(broker, GROUP, P1) is not None)
        again(broker, partitions=partitions)
        for number in range(partitions):
            publish(broker, 10 + number, partition=number)
        await asyncio.sleep(1)
        if again is replace:  # sooner or later metadata says so
            broker._topics_changed("t")
        await until(lambda: {*seen} >= {10 + number for number in range(partitions)}, 60)


@pytest.mark.parametrize("first", ["fails", "works"])
async def test_of_a_topic_that_is_made_again_with_fewer_partitions_those_that_are_left_are_marked(
    virtual_time: VirtualTime, first: str
) -> None:
    broker = MemoryBroker()
    broker.create_topic("t", 3)
    async with killed(reader([]), broker) as worker:
        await until(lambda: [len(group.partitions) for group in worker.status().groups] == [3])
        old = broker.topic_ids["t"]
        if first == "fails":
            broker.faults.fail_next("commit", TransportError("not now", retryable=True))
        replace(broker, partitions=2)
        await until(lambda: of(broker) == of(broker, P1) == old, 60)
        assert TopicPartition("t", 2) not in broker.group(GROUP).offsets


async def test_a_topic_of_a_pattern_that_is_made_again_stops_alone(virtual_time: VirtualTime) -> None:
    app, broker, seen = Octopus("app"), MemoryBroker(), list[Any]()

    @app.on(re.compile("lab-.*"))
    async def handle(value: Any) -> None:
        seen.append(value)

    publish(broker, 1, topic="lab-a")
    publish(broker, 2, topic="lab-b")
    async with working(app, broker) as worker:
        await until(lambda: len(seen) == 2)
        recreate(broker, 3, topic="lab-a")
        await until(lambda: unreadable(worker), 30)
        publish(broker, 4, topic="lab-b")
        await until(lambda: 4 in seen, 30)
        assert [*unreadable(worker)] == ["lab-a[0]"]
    assert sorted(seen) == [1, 2, 4]


async def test_a_topic_that_is_only_deleted_is_said_to_be_gone(
    virtual_time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    broker, seen = MemoryBroker(), list[Any]()
    publish(broker, *range(3))
    async with working(reader(seen), broker):
        await until(lambda: committed(broker, GROUP) == 3)
        broker.delete_topic("t")
        await until(lambda: "topic 't' is gone" in caplog.text, 30)
        await asyncio.sleep(30)
        assert caplog.text.count("topic 't' is gone") == 1
        assert "made again" not in caplog.text
    assert P0 not in broker.group(GROUP).offsets


async def test_a_rebuilt_consumer_still_knows_which_topic_it_had_read(virtual_time: VirtualTime) -> None:
    broker, seen = MemoryBroker(), list[Any]()
    publish(broker, *range(3))
    async with working(reader(seen, start="latest"), broker) as worker:
        await until(lambda: committed(broker, GROUP) == 3)
        replace(broker, *range(100, 105))
        broker.faults.fail_next("fetch", TransportError("the broker is away", retryable=True), times=2)
        await until(lambda: unreadable(worker), 60)
    assert not seen


async def test_events_that_were_not_finished_before_their_topic_went_are_counted_in_the_log(
    virtual_time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    app, broker = Octopus("app"), MemoryBroker()

    @app.on("t")
    async def handle(value: int) -> None:
        raise RetryLater(3600)

    publish(broker, *range(3))
    with caplog.at_level(logging.INFO):
        async with working(app, broker, **EARLIEST):
            await asyncio.sleep(2)
            replace(broker)
            await until(lambda: "3 events of t[0] were not finished" in caplog.text, 120)
            assert "app.handle reads t[0]" in caplog.text
