"""Topics that vanish while they are published to: made again or waited for, and nothing is stored twice."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiokafka.errors as kafka
import pytest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.structs import TopicPartition as KafkaTopicPartition

from octopus.config import TopicSettings
from octopus.errors import TopicNotFound, TransportError
from octopus.events import TopicPartition
from octopus.transports.base import Admin, Outgoing, Transport
from octopus.transports.kafka import missing
from octopus.transports.topic_creation import TopicCreatingProducer

from .engines import KAFKA


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look soon, and believe it soon: there is one broker."""
    for name, seconds in (("LOOK_AFTER", 0.2), ("LOOK_CLOSELY", 0.1), ("MISSING_FOR", 0.3)):
        monkeypatch.setattr(missing, name, seconds)


@asynccontextmanager
async def ensuring(
    transport: Transport, *, create: bool = True, **options: Any
) -> AsyncIterator[TopicCreatingProducer]:
    ensurer = TopicCreatingProducer(
        transport, TopicSettings(create=create, partitions=3), delivery_timeout=30.0, **options
    )
    await ensurer.start()
    try:
        yield ensurer
    finally:
        await ensurer.stop()


async def values(admin: Admin, topic: str) -> int:
    """Return how many records there are."""
    (count,) = [info.partitions for info in await admin.topics() if info.name == topic]
    places = [TopicPartition(topic, number) for number in range(count)]
    ends, starts = await admin.offsets(places, "latest"), await admin.offsets(places, "earliest")
    return sum(ends[place] - starts[place] for place in places)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.02)


def keyed(topic: str, count: int = 40) -> list[Outgoing]:
    return [Outgoing(topic, b"%d" % number, b"k%d" % number) for number in range(count)]


@pytest.mark.parametrize("many", [False, True], ids=["one by one", "together"])
@pytest.mark.parametrize("partitions", [None, 1, 5], ids=["not", "with fewer partitions", "with more partitions"])
async def test_a_topic_that_is_deleted_and_made_again_takes_every_record_once(
    transport: Transport, admin: Admin, fresh: str, partitions: int | None, many: bool
) -> None:
    async def publish() -> None:
        if many:
            published = await ensurer.send_many(keyed(fresh))
        else:
            published = await asyncio.gather(*[ensurer.send(message) for message in keyed(fresh)])
        assert {each.topic for each in published} == {fresh}

    async with ensuring(transport) as ensurer:
        await publish()
        await admin.delete_topic(fresh)
        if partitions is not None:
            await admin.create_topic(fresh, partitions=partitions)
        for round_ in range(1, 4):
            await publish()
            assert await values(admin, fresh) == 40 * round_


async def test_what_is_waited_for_is_said_and_holds_up_no_other_topic(
    transport: Transport, admin: Admin, fresh: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "octopus.transports")
    other = f"{fresh}-other"
    await admin.create_topic(fresh, partitions=1)
    await admin.create_topic(other, partitions=1)
    async with ensuring(transport, create=False) as ensurer:
        await ensurer.send(Outgoing(fresh, b"before"))
        await admin.delete_topic(fresh)
        waiting = [asyncio.create_task(ensurer.send(message)) for message in keyed(fresh, 10)]

        async def is_said() -> bool:
            return "cannot be made again (topics.create is off); events for it wait" in caplog.text

        await until(is_said)
        for number in range(5):
            assert (await ensurer.send(Outgoing(other, b"goes on"))).offset == number
        assert not any(task.done() for task in waiting)
        await admin.create_topic(fresh, partitions=2)
        await asyncio.gather(*waiting)
        await ensurer.send(Outgoing(fresh, b"after"))
        assert await values(admin, fresh) == 11
    assert f"topic {fresh!r} is there again" in caplog.text
    assert caplog.text.count("events for it wait") == 1, "once for all who wait"


async def test_whoever_waits_too_long_may_try_again(transport: Transport, admin: Admin, fresh: str) -> None:
    await admin.create_topic(fresh)
    async with ensuring(transport, create=False) as ensurer:
        await ensurer.send(Outgoing(fresh, b"before"))
        await admin.delete_topic(fresh)
        ensurer._patience = 0.5
        for _ in range(2):
            with pytest.raises(
                TopicNotFound, match=f"was not made again within .*octopus topics create {fresh}"
            ) as caught:
                await ensurer.send(Outgoing(fresh, b"waits"))
            assert caught.value.retryable
        await admin.create_topic(fresh)
        assert (await ensurer.send(Outgoing(fresh, b"after"))).offset == 0


async def test_a_partition_that_is_gone_is_an_error_for_who_asked_for_it(
    transport: Transport, admin: Admin, fresh: str
) -> None:
    async with ensuring(transport) as ensurer:
        await ensurer.send(Outgoing(fresh, b"before", partition=2))
        await admin.delete_topic(fresh)
        await admin.create_topic(fresh, partitions=1)
        with pytest.raises(TransportError) as caught:
            await ensurer.send(Outgoing(fresh, b"nowhere", partition=2))
        assert not caught.value.retryable
        assert (await ensurer.send(Outgoing(fresh, b"there", partition=0))).offset == 0


async def test_of_several_topics_only_what_was_not_stored_is_sent_again(
    transport: Transport, admin: Admin, fresh: str
) -> None:
    async with ensuring(transport) as ensurer:
        await ensurer.send_many([*keyed(fresh, 5), *keyed(f"{fresh}-2", 5)])
        await admin.delete_topic(fresh)
        published = await ensurer.send_many([*keyed(fresh, 5), *keyed(f"{fresh}-2", 5)])
        assert [each.topic for each in published] == [fresh] * 5 + [f"{fresh}-2"] * 5
        assert (await values(admin, fresh), await values(admin, f"{fresh}-2")) == (5, 10)


@pytest.mark.parametrize("transport", ["embedded", KAFKA], indirect=True)
async def test_a_leader_that_nobody_knows_is_asked_for_only_so_often(
    transport: Transport, admin: Admin, fresh: str
) -> None:
    await admin.create_topic(fresh)
    producer = transport.producer()
    await producer.start()
    await producer.send(Outgoing(fresh, b"before"))
    client: Any = producer.engine.current.client  # type: ignore[attr-defined]
    update, asked = client._metadata_update, 0

    async def counted(*arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return await update(*arguments)

    client._metadata_update = counted
    loop = asyncio.get_running_loop()
    began = loop.time()
    await admin.delete_topic(fresh)
    with pytest.raises(TopicNotFound):
        await producer.send(Outgoing(fresh, b"nowhere"))
    assert asked <= 5 + (loop.time() - began) * 3 / missing.ASK_EVERY
    await producer.stop()


# ── sequence numbers ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_producer_whose_sequence_numbers_the_broker_does_not_expect_begins_anew(
    wire_transport: Transport, fresh: str
) -> None:
    admin, producer = wire_transport.admin(), wire_transport.producer()
    await admin.start()
    await admin.create_topic(fresh)
    await producer.start()
    await producer.send(Outgoing(fresh, b"1"))
    engine: Any = producer.engine.current  # type: ignore[attr-defined]
    engine._txn_manager.increment_sequence_number(KafkaTopicPartition(fresh, 0), 7)
    assert (await producer.send(Outgoing(fresh, b"2"))).offset == 1, "nothing but a new producer is needed"
    assert (await producer.send(Outgoing(fresh, b"3"))).offset == 2
    await producer.stop()
    await admin.stop()


async def test_a_batch_that_is_given_up_without_an_answer_never_makes_the_next_one_look_like_it(
    wire_transport: Transport, fresh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin, producer = wire_transport.admin(), wire_transport.producer()
    await admin.start()
    await admin.create_topic(fresh)
    await producer.start()
    await producer.send(Outgoing(fresh, b"before"))
    engine: Any = producer.engine.current  # type: ignore[attr-defined]
    client, send = engine.client, engine.client.send

    async def answer_is_lost(node: int, request: Any, **options: Any) -> Any:
        answer = await send(node, request, **options)
        if isinstance(request, ProduceRequest):
            client.cluster.leader_for_partition = lambda _: None  # and now the partition has no leader
            for batch in engine._message_accumulator._pending_batches:
                batch._ttl = 0.0
            raise kafka.RequestTimedOutError
        return answer

    monkeypatch.setattr(client, "send", answer_is_lost)
    with pytest.raises(TransportError) as caught:
        await producer.send(Outgoing(fresh, b"stored, and nobody knows"))
    assert caught.value.retryable
    monkeypatch.undo()
    client.cluster.__dict__.pop("leader_for_partition", None)
    assert (await producer.send(Outgoing(fresh, b"the next"))).offset == 2
    assert await values(admin, fresh) == 3
    await producer.stop()
    await admin.stop()
