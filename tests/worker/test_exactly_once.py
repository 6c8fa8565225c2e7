"""Outputs that are visible exactly once, on the in-process broker: every record, every fault, every schedule."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from octopus import Event, Message, Octopus, Reject, RetryLater, RetryPolicy, config
from octopus.errors import (
    ConfigurationError,
    ConnectionFailed,
    HandlerStopped,
    NotAuthorized,
    PartitionLost,
    RecordTooLarge,
    TopicNotFound,
)
from octopus.events import Published, Record, StoredRecord
from octopus.outcomes import DONE, DeadLetter, Outcome
from octopus.pipeline.outputs import CapturingProducer, Outbox
from octopus.runner import Assignment
from octopus.testing import Retry, TestClient, VirtualTime
from octopus.transports.base import Commit, Outgoing
from octopus.transports.memory import MemoryBroker, MemoryTransport
from octopus.transports.memory.broker import Transaction
from octopus.transports.memory.transactions import MemoryTransactionalProducer
from octopus.triggers.aws import handler
from octopus.types import Next
from octopus.worker import Worker
from octopus.worker.group import GroupWorker
from octopus.worker.transactions import TransactionalCommits
from tests.staged import P0, committed, dead_letters, publish, record, until, working

QUICK = RetryPolicy(attempts=3, backoff=0.1, jitter=0)
GROUP = "app.handle"


def outputs(broker: MemoryBroker, topic: str = "out") -> list[Any]:
    """Return what a reader of committed records sees, decoded."""
    seen = []
    for log in broker.topics.get(topic, []):
        records, _ = log.read(log.start, 1_000_000)
        seen += [msgspec.json.decode(record.value or b"null") for record in records]
    return seen


def copying(**options: Any) -> Octopus:
    """Return an app that publishes what it gets, and the same again from inside the handler."""
    app = Octopus("app")

    @app.on("t", to="out", delivery="exactly_once", **options)
    async def handle(value: int) -> int:
        await app.publish("side", value)
        return value

    return app


async def test_outputs_and_offsets_become_visible_together(virtual_time: VirtualTime) -> None:
    broker = MemoryBroker()
    publish(broker, *range(10))
    async with working(copying(), broker) as worker:
        await worker.caught_up()
        assert committed(broker, GROUP) == 10
        assert outputs(broker) == outputs(broker, "side") == [*range(10)]


async def test_nothing_is_visible_before_the_transaction_is_committed(virtual_time: VirtualTime) -> None:
    broker, done = MemoryBroker(), asyncio.Event()
    app = Octopus("app")

    @app.on("t", to="out", delivery="exactly_once")
    async def handle(value: int) -> int:
        published = await app.publish("side", value)
        assert published == Published("side", -1, -1), "it has no place yet"
        done.set()
        return value

    publish(broker, 1)
    async with working(app, broker, worker={"transaction_interval": 5}):
        await done.wait()
        await asyncio.sleep(3)
        assert outputs(broker) == outputs(broker, "side") == []
        assert committed(broker, GROUP) == 0
        await until(lambda: outputs(broker), 5)
        assert committed(broker, GROUP) == 1


async def test_what_a_failed_attempt_published_is_never_seen(virtual_time: VirtualTime) -> None:
    broker, app = MemoryBroker(), Octopus("app")

    @app.middleware
    async def audit(record: Any, call_next: Next) -> Any:
        await app.publish("audit", record.offset)
        return await call_next(record)

    @app.on("t", to="out", delivery="exactly_once", retry=QUICK)
    async def handle(event: Event[int]) -> list[int]:
        await app.publish_many("side", [event.value, event.attempt])
        if event.value == 1 and event.attempt < 3:
            raise ValueError("not yet")
        return [event.value, event.attempt]

    publish(broker, 0, 1, 2)
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert outputs(broker) == outputs(broker, "side") == [0, 1, 1, 3, 2, 1]
    assert outputs(broker, "audit") == [0, 1, 2]


async def test_what_was_published_before_middleware_asks_for_a_retry_is_never_seen(virtual_time: VirtualTime) -> None:
    broker, app, runs = MemoryBroker(), Octopus("app"), Counter[int]()

    @app.middleware
    async def twice(record: Any, call_next: Next) -> Any:
        outcome = await call_next(record)
        runs[record.offset] += 1
        return Retry(0.1) if runs[record.offset] == 1 else outcome

    @app.on("t", to="out", delivery="exactly_once")
    async def handle(value: int) -> int:
        return value

    publish(broker, 0, 1)
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert outputs(broker) == [0, 1]


async def test_a_chain_of_handlers_delivers_exactly_once_from_end_to_end(virtual_time: VirtualTime) -> None:
    broker, app = MemoryBroker(), Octopus("app")

    @app.on("t", to="middle", delivery="exactly_once")
    def first(value: int) -> int:
        return value + 1

    @app.on("middle", to="out", delivery="exactly_once")
    async def second(value: int) -> int:
        return value * 10

    publish(broker, *range(50))
    for moment in ("end", "ended", "send_offsets"):
        broker.faults.fail_next(moment, ConnectionFailed("away"), times=2)
    async with working(app, broker) as worker:
        await worker.caught_up()
        await until(lambda: len(outputs(broker)) >= 50, 60)
    assert outputs(broker) == [10 * (value + 1) for value in range(50)]


async def test_dead_letters_are_part_of_the_transaction(virtual_time: VirtualTime) -> None:
    broker, app = MemoryBroker(), Octopus("app")

    @app.on("t", to="out", delivery="exactly_once", retry=QUICK)
    async def handle(value: int) -> int:
        await app.publish("side", value)
        if value == 1:
            raise ValueError("never")
        if value == 2:
            raise Reject("no twos")
        return value

    publish(broker, 0, 1, 2, 3)
    broker.faults.fail_next("end", ConnectionFailed("away"), times=1)
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert outputs(broker) == outputs(broker, "side") == [0, 3]
    dead_letters = [record for log in broker.topics["t.dead-letter"] for record in log.read(0, 100)[0]]
    assert [dead_letter.value for dead_letter in dead_letters] == [b"1", b"2"]


async def test_a_retry_holds_its_lane_and_the_others_commit_past_it(virtual_time: VirtualTime) -> None:
    broker, app, open_gate = MemoryBroker(), Octopus("app"), asyncio.Event()

    @app.on("t", to="out", delivery="exactly_once", ordering="key", retry=0)
    async def handle(value: int) -> int:
        if value == 0 and not open_gate.is_set():
            raise ValueError("later")
        return value

    for value in range(10):
        publish(broker, value, key=b"%d" % (value % 2))
    async with working(app, broker):
        await until(lambda: len(outputs(broker)) == 5, 60)
        assert sorted(outputs(broker)) == [1, 3, 5, 7, 9]
        assert committed(broker, GROUP) == 0
    # what was settled beyond the committed offset is in its metadata, so another worker does not repeat it
    open_gate.set()
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert outputs(broker) == [1, 3, 5, 7, 9, 0, 2, 4, 6, 8]


async def test_gaps_that_no_metadata_can_hold_wait_instead_of_being_repeated(virtual_time: VirtualTime) -> None:
    broker, app, open_gate = MemoryBroker(), Octopus("app"), asyncio.Event()
    later = {*range(0, 4000, 2)}

    @app.on(
        "t",
        to="out",
        delivery="exactly_once",
        ordering="none",
        concurrency=4000,
        retry=RetryPolicy(attempts=0, backoff=1),
    )
    async def handle(value: int) -> int:
        if value in later and not open_gate.is_set():
            raise RetryLater(1)
        return value

    publish(broker, *range(4000))
    async with working(app, broker, worker={"transaction_interval": 1}):
        for _ in range(8):
            await asyncio.sleep(1)
        first = outputs(broker)
    open_gate.set()
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert len(first) < 2000, "not all of it could be committed"
    assert sorted(outputs(broker)) == [*range(4000)]


@pytest.mark.parametrize("moment", ["begin", "send", "send_offsets", "end", "ended"])
@pytest.mark.parametrize("error", [ConnectionFailed("away"), PartitionLost("fenced")], ids=["away", "fenced"])
async def test_a_transaction_that_fails_anywhere_is_begun_anew_from_what_is_committed(
    moment: str, error: Exception, virtual_time: VirtualTime
) -> None:
    broker, runs = MemoryBroker(), Counter[int]()
    app = Octopus("app")

    @app.on("t", to="out", delivery="exactly_once")
    async def handle(value: int) -> int:
        runs[value] += 1
        await asyncio.sleep(0.03)
        return value

    async with working(app, broker) as worker:
        publish(broker, *range(5))
        await until(lambda: committed(broker, GROUP) == 5, 60)
        publish(broker, *range(5, 20))
        broker.faults.fail_next(moment, error, times=2)
        await worker.caught_up()
        assert worker.failures == []
    assert outputs(broker) == [*range(20)]
    assert max(runs.values()) > 1 or moment == "ended"


async def test_an_output_that_the_broker_refuses_makes_its_event_a_dead_letter(virtual_time: VirtualTime) -> None:
    broker, app = MemoryBroker(max_record_bytes=1000), Octopus("app")

    @app.on("t", to="out", delivery="exactly_once")
    async def handle(value: int) -> list[Any]:
        return [value, "x" * 2000 if value in (3, 4, 11) else value]

    publish(broker, *range(20))
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert outputs(broker) == [value for value in range(20) if value not in (3, 4, 11) for _ in (0, 1)]
    assert [dead_letter.value for dead_letter in dead_letters(broker)] == [b"3", b"4", b"11"]
    reason = dict(dead_letters(broker)[0].headers)["octopus-dead-letter-reason"]
    assert reason is not None
    assert b"over the limit" in reason


async def test_a_topic_that_vanishes_while_a_refused_output_is_looked_for_costs_no_event(
    virtual_time: VirtualTime,
) -> None:
    broker, app = MemoryBroker(max_record_bytes=1000), Octopus("app")

    @app.on("t", to="out", delivery="exactly_once")
    async def handle(value: int) -> Any:
        return "x" * 2000 if value == 3 else value

    publish(broker, *range(20))
    append, refused = broker.append, Counter[type[Exception]]()

    def append_until_gone(messages: Sequence[Outgoing], transaction: Transaction | None = None) -> list[Published]:
        # What is too large is looked for by halves, down to one; then the first that is left is refused for another reason.
        if refused[RecordTooLarge] and len(messages) == 1 and refused[TopicNotFound] < 2:
            refused[TopicNotFound] += 1
            raise TopicNotFound("gone")
        try:
            return append(messages, transaction)
        except RecordTooLarge:
            refused[RecordTooLarge] += 1
            raise

    broker.append = append_until_gone  # type: ignore[method-assign]
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert refused[TopicNotFound] == 2
    assert outputs(broker) == [value for value in range(20) if value != 3]
    assert [dead_letter.value for dead_letter in dead_letters(broker)] == [b"3"]


async def test_an_output_that_the_broker_refuses_stops_a_line_without_dead_letters(virtual_time: VirtualTime) -> None:
    broker, app = MemoryBroker(max_record_bytes=1000), Octopus("app")

    @app.on("t", to="out", delivery="exactly_once", dead_letter=False)
    async def handle(value: int) -> Any:
        return "x" * 2000 if value == 3 else value

    publish(broker, *range(5))
    async with working(app, broker) as worker:
        with pytest.raises(HandlerStopped, match="has no dead-letter topic"):
            await worker.wait()
        assert worker.status().groups[0].stopped is not None
    assert outputs(broker) == []
    assert committed(broker, GROUP) == 0


async def test_a_topic_that_may_not_be_created_is_the_failure_of_the_handler(virtual_time: VirtualTime) -> None:
    broker, app = MemoryBroker(), Octopus("app")

    @app.on("t", delivery="exactly_once", retry=1)
    async def handle(value: int) -> Message[int]:
        return Message(value, topic="missing" if value == 1 else "out")

    publish(broker, 0, 1, 2)
    for topic in ("out", "t.dead-letter"):
        broker.create_topic(topic)
    async with working(app, broker, topics={"create": False}) as worker:
        await worker.caught_up()
    assert outputs(broker) == [0, 2]
    assert dict(dead_letters(broker)[0].headers)["octopus-dead-letter-error"] == b"octopus.errors.TopicNotFound"


async def test_batches_publish_exactly_once(virtual_time: VirtualTime) -> None:
    broker, app, attempts = MemoryBroker(), Octopus("app"), Counter[int]()

    @app.on("t", to="out", delivery="exactly_once", batch=4, within=0.1, retry=QUICK)
    async def handle(values: list[int]) -> list[int]:
        await app.publish_many("side", values)
        attempts[values[0]] += 1
        if 5 in values or (8 in values and attempts[8] < 2):
            raise ValueError("not this way")
        return values

    publish(broker, *range(12))
    broker.append([Outgoing("t", b"not json"), Outgoing("t", b"12")])
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert outputs(broker) == outputs(broker, "side") == [value for value in range(13) if value != 5]
    assert [dead_letter.value for dead_letter in dead_letters(broker)] == [b"5", b"not json"]


async def test_handlers_that_share_a_group_publish_when_all_of_them_are_finished(virtual_time: VirtualTime) -> None:
    broker, app, meanwhile = MemoryBroker(), Octopus("app"), []

    @app.on("t", to="first", group="both", delivery="exactly_once")
    async def first(value: int) -> int:
        return value

    @app.on("t", to="second", group="both", delivery="exactly_once", retry=RetryPolicy(attempts=5, backoff=2, jitter=0))
    async def second(event: Event[int]) -> int:
        if event.value == 1 and event.attempt < 3:
            meanwhile.append(outputs(broker, "first"))
            raise ValueError("not yet")
        return event.value

    publish(broker, 0, 1, 2)
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert outputs(broker, "first") == outputs(broker, "second") == [0, 1, 2]
    assert meanwhile[-1] == [0]


async def test_a_run_that_cancels_itself_leaves_nothing_behind_and_repeats_nothing_else(
    virtual_time: VirtualTime,
) -> None:
    broker, app, runs = MemoryBroker(), Octopus("app"), Counter[str]()

    @app.on("t", to="first", group="both", delivery="exactly_once")
    async def first(value: int) -> int:
        runs["first"] += 1
        return value

    @app.on("t", to="second", group="both", delivery="exactly_once")
    async def second(value: int) -> int:
        runs["second"] += 1
        if runs["second"] == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(1)
        return value

    publish(broker, 0, 1)
    async with working(app, broker) as worker:
        await worker.caught_up()
    assert runs == {"first": 2, "second": 3}
    assert outputs(broker, "first") == outputs(broker, "second") == [0, 1]


async def test_a_run_that_is_cancelled_from_outside_leaves_nothing_behind() -> None:
    outbox, runs = Outbox(P0), []

    async def fails_late(stored: StoredRecord, attempt: int) -> Outcome:
        runs.append(attempt)
        await outbox.publishing_dead_letters(publish_dead_letter)(record(0), DeadLetter("why"), attempt)
        if len(runs) == 1:
            raise asyncio.CancelledError
        return DONE

    async def publish_dead_letter(stored: Record, dead_letter: DeadLetter, attempt: int) -> None:
        await CapturingProducer(unused).send(Outgoing("unused", b"%d" % attempt))

    unused = MemoryTransport(MemoryBroker()).producer()
    run = outbox.settling(fails_late)
    with pytest.raises(asyncio.CancelledError):
        await run(record(0), 1)
    await run(record(0), 2)
    assert [message.value for each in outbox.take() for message in each.messages] == [b"2"]


async def test_what_a_task_publishes_after_its_attempt_is_published_as_it_comes(virtual_time: VirtualTime) -> None:
    broker, app, tasks = MemoryBroker(), Octopus("app"), []

    async def late(value: int) -> None:
        await asyncio.sleep(1)
        await app.publish("late", value)

    @app.on("t", to="out", delivery="exactly_once")
    async def handle(value: int) -> int:
        tasks.append(asyncio.create_task(late(value)))
        return value

    publish(broker, 1)
    async with working(app, broker) as worker:
        await worker.caught_up()
        await asyncio.gather(*tasks)
        assert outputs(broker, "late") == [1]


async def test_a_former_owner_is_fenced_whatever_it_believes(virtual_time: VirtualTime) -> None:
    broker = MemoryBroker()
    broker.create_topic("out")
    transport = MemoryTransport(broker)
    zombie = transport.transactional_producer("app.handle/t/0")
    await zombie.start()
    await zombie.begin()
    await zombie.send_many([Outgoing("out", b"0"), Outgoing("out", b"1")])
    publish(broker, *range(4))
    await zombie.send_offsets(GROUP, {P0: Commit(2)})
    async with working(copying(), broker) as worker:
        await worker.caught_up()
        with pytest.raises(PartitionLost):
            await zombie.commit()
        publish(broker, 4)
        await worker.caught_up()
    assert outputs(broker) == [*range(5)]
    assert committed(broker, GROUP) == 5


class LastMoment(MemoryTransport):
    """A transport on which a former owner commits at the last moment before it is fenced."""

    def __init__(self, broker: MemoryBroker, former: MemoryTransactionalProducer) -> None:
        super().__init__(broker)
        self._former = former

    def transactional_producer(self, transactional_id: str, **_options: Any) -> MemoryTransactionalProducer:
        former = self._former

        class Producer(MemoryTransactionalProducer):
            async def start(self) -> None:
                await former.commit()
                await super().start()

        return Producer(self.broker, transactional_id)


async def test_committed_offsets_are_read_when_the_former_owner_can_change_them_no_more(
    virtual_time: VirtualTime,
) -> None:
    broker = MemoryBroker()
    broker.create_topic("out")
    former = MemoryTransport(broker).transactional_producer("app.handle/t/0")
    await former.start()
    await former.begin()
    await former.send_many([Outgoing("out", b"0"), Outgoing("out", b"1")])
    publish(broker, *range(4))
    await former.send_offsets(GROUP, {P0: Commit(2)})
    app = copying()
    given = config.load(config.merge({"topics": {"partitions": 1}}, app.settings))
    async with Worker(app, given, transport=LastMoment(broker, former)) as worker:
        await worker.caught_up()
    assert outputs(broker) == [*range(4)]


async def test_an_owner_that_is_fenced_begins_anew(virtual_time: VirtualTime) -> None:
    broker = MemoryBroker()
    async with working(copying(), broker) as worker:
        publish(broker, 0)
        await worker.caught_up()
        await MemoryTransport(broker).transactional_producer("app.handle/t/0").start()
        publish(broker, 1, 2)
        await worker.caught_up()
        assert worker.failures == []
    assert outputs(broker) == [0, 1, 2]


async def test_a_partition_that_is_lost_in_the_moment_before_its_transaction_is_no_failure(
    virtual_time: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, is_due, losing = MemoryBroker(), TransactionalCommits.is_due, []
    groups: list[GroupWorker] = []
    run = GroupWorker.run

    async def run_and_be_known(group: GroupWorker) -> None:
        groups.append(group)
        await run(group)

    def is_due_and_lost(commits: TransactionalCommits, assignment: Assignment) -> bool:
        """Lose the partition once, between the decision for a transaction and its beginning."""
        due = is_due(commits, assignment)
        if due and not losing:
            losing.append(asyncio.ensure_future(groups[-1].lost([assignment.partition])))
            broker.expel(GROUP)
        return due

    monkeypatch.setattr(GroupWorker, "run", run_and_be_known)
    monkeypatch.setattr(TransactionalCommits, "is_due", is_due_and_lost)
    publish(broker, *range(5))
    async with working(copying(), broker) as worker:
        await until(lambda: committed(broker, GROUP) == 5, 60)
        assert worker.failures == []
    assert losing
    assert outputs(broker) == [*range(5)]


async def test_a_stop_commits_what_is_finished(virtual_time: VirtualTime) -> None:
    broker = MemoryBroker()
    publish(broker, *range(5))
    async with working(copying(), broker, worker={"transaction_interval": 1000}):
        await until(lambda: "out" in broker.topics and "side" in broker.topics)
        await asyncio.sleep(1)
        assert outputs(broker) == []
    assert outputs(broker) == [*range(5)]
    assert committed(broker, GROUP) == 5


async def test_a_refused_commit_of_the_group_ends_it(virtual_time: VirtualTime) -> None:
    broker = MemoryBroker()
    publish(broker, 1)
    broker.faults.fail_next("send_offsets", NotAuthorized("not yours"))
    async with working(copying(), broker) as worker:
        with pytest.raises(NotAuthorized):
            await worker.wait()
    assert outputs(broker) == []


def test_a_function_refuses_to_deliver_exactly_once_when_it_is_built() -> None:
    app = copying()
    with pytest.raises(
        ConfigurationError, match="'handle' wants delivery='exactly_once', which a function cannot give"
    ):
        handler(app)

    @app.on("t")
    async def other(value: int) -> None: ...

    handler(app, only=["other"])


def test_handlers_that_share_a_group_must_agree_on_delivery() -> None:
    app = Octopus("app")
    for name, delivery in (("a", "exactly_once"), ("b", "at_least_once")):

        @app.on("t", group="both", name=name, delivery=delivery)  # type: ignore[arg-type]
        async def handle(value: int) -> None: ...

    with pytest.raises(ConfigurationError, match="differ in delivery"), TestClient(app):
        pass


def test_a_delivery_that_does_not_exist_is_refused() -> None:
    app = Octopus("app")
    with pytest.raises(ConfigurationError, match="delivery='at_most_once' is neither"):
        app.on("t", delivery="at_most_once")(print)  # type: ignore[arg-type]
