"""Transactions listed and described, and the producers of partitions, on either broker."""

import asyncio
import time
from dataclasses import dataclass

import pytest

from octopus.broker.codes import Code
from octopus.broker.wire import Writer
from tests.broker.topics_on_either import find_coordinator, fresh, make_topic
from tests.broker.transactions_on_either import ended, initialized, with_partitions, written
from tests.broker.wire_client import WireClient

DESCRIBE_PRODUCERS, DESCRIBE_TRANSACTIONS, LIST_TRANSACTIONS = 61, 65, 66
LOADING = {Code.COORDINATOR_LOAD_IN_PROGRESS, Code.COORDINATOR_NOT_AVAILABLE, Code.NOT_COORDINATOR}
NOW = int(time.time() * 1000)
TIMEOUT = 61_234


@dataclass(frozen=True)
class Listing:
    code: int
    unknown: list[str]
    states: dict[str, tuple[int, str]]


async def listed(
    peer: WireClient,
    version: int,
    states: tuple[str, ...] = (),
    producers: tuple[int, ...] = (),
    duration: int = -1,
    pattern: str | None = None,
) -> Listing:
    body = Writer(is_flexible=True)
    body.array(states, body.string)
    body.array(producers, body.int64)
    if version >= 1:
        body.int64(duration)
    if version >= 2:
        body.string(pattern)
    answer = (await peer.ask(LIST_TRANSACTIONS, version, body)).become_flexible()
    answer.int32()
    code, unknown = answer.int16(), answer.array(answer.string)
    found = answer.structs(lambda: (answer.string(), (answer.int64(), answer.string())))
    answer.tags()
    assert answer.remaining == 0
    return Listing(code, unknown, dict(found))


@dataclass(frozen=True)
class Description:
    code: int
    state: str
    timeout: int
    started: int
    producer: tuple[int, int]
    topics: dict[str, list[int]]


async def described(peer: WireClient, *names: str) -> dict[str, Description]:
    body = Writer(is_flexible=True)
    body.array(names, body.string)
    answer = (await peer.ask(DESCRIBE_TRANSACTIONS, 0, body)).become_flexible()
    answer.int32()

    def state() -> tuple[str, Description]:
        code, name, state, timeout = answer.int16(), answer.string(), answer.string(), answer.int32()
        started, producer = answer.int64(), (answer.int64(), answer.int16())
        topics = answer.structs(lambda: (answer.string(), sorted(answer.array(answer.int32))))
        return name, Description(code, state, timeout, started, producer, dict(topics))

    found = dict(answer.structs(state))
    answer.tags()
    assert answer.remaining == 0
    return found


async def producers(peer: WireClient, topic: str, *numbers: int) -> dict[int, tuple[int, list[tuple[int, ...]]]]:
    """Return for each partition its code, and id, epoch, last sequence and timestamp, coordinator's epoch, first offset of each."""
    body = Writer(is_flexible=True)
    body.structs([topic], lambda name: body.string(name).array(numbers, body.int32))
    answer = (await peer.ask(DESCRIBE_PRODUCERS, 0, body)).become_flexible()
    answer.int32()

    def producer() -> tuple[int, ...]:
        return answer.int64(), answer.int32(), answer.int32(), answer.int64(), answer.int32(), answer.int64()

    def partition() -> tuple[int, tuple[int, list[tuple[int, ...]]]]:
        number, code, message = answer.int32(), answer.int16(), answer.nullable_string()
        assert code or message is None
        return number, (code, answer.structs(producer))

    ((name, parts),) = answer.structs(lambda: (answer.string(), answer.structs(partition)))
    answer.tags()
    assert answer.remaining == 0
    assert name == topic
    return dict(parts)


async def settled(peer: WireClient, name: str, state: str) -> Description:
    """Wait until a transaction is in a state: markers are written after its end was answered."""
    async with asyncio.timeout(15):
        while (found := (await described(peer, name))[name]).state != state:
            await asyncio.sleep(0.02)
    return found


async def test_a_transaction_is_described_in_each_of_its_states(peer: WireClient) -> None:
    topic, name = fresh("t"), fresh("transaction")
    await make_topic(peer, topic, partitions=3)
    before = int(time.time() * 1000)
    producer = await initialized(peer, name, TIMEOUT)
    who = producer.id, producer.epoch
    assert await settled(peer, name, "Empty") == Description(Code.NONE, "Empty", TIMEOUT, -1, who, {})
    await with_partitions(peer, producer, (topic, [2, 0]))
    found = await settled(peer, name, "Ongoing")
    assert found == Description(Code.NONE, "Ongoing", TIMEOUT, found.started, who, {topic: [0, 2]})
    assert before <= found.started <= int(time.time() * 1000)
    await ended(peer, producer, commit=True)
    assert await settled(peer, name, "CompleteCommit") == Description(
        Code.NONE, "CompleteCommit", TIMEOUT, found.started, who, {}
    )
    await with_partitions(peer, producer, (topic, [1]))
    await ended(peer, producer, commit=False)
    assert (await settled(peer, name, "CompleteAbort")).topics == {}


async def test_a_transactional_id_that_is_none_is_not_found(peer: WireClient) -> None:
    name = fresh("unknown")
    await find_coordinator(peer, name, is_transaction=True)
    async with asyncio.timeout(15):
        while (found := await described(peer, name, ""))[name].code in LOADING:
            await asyncio.sleep(0.05)
    nothing = "", 0, 0, (0, 0), {}
    assert found == {
        name: Description(Code.TRANSACTIONAL_ID_NOT_FOUND, *nothing),
        "": Description(Code.INVALID_REQUEST, *nothing),
    }
    assert await described(peer) == {}


@pytest.mark.parametrize("version", [0, 1, 2])
async def test_transactions_are_listed_by_state_and_producer(peer: WireClient, version: int) -> None:
    topic, idle, busy = fresh("t"), fresh("idle"), fresh("busy")
    await make_topic(peer, topic)
    first, second = await initialized(peer, idle), await initialized(peer, busy)
    await with_partitions(peer, second, (topic, [0]))
    ours = {idle: (first.id, "Empty"), busy: (second.id, "Ongoing")}

    async def found(*states: str, ids: tuple[int, ...] = (first.id, second.id)) -> dict[str, tuple[int, str]]:
        listing = await listed(peer, version, states, ids)
        assert (listing.code, listing.unknown) == (Code.NONE, [])
        return {name: state for name, state in listing.states.items() if name in ours}

    assert await found() == await found(ids=()) == await found("Empty", "Ongoing") == ours
    assert await found("Ongoing") == await found(ids=(second.id,)) == {busy: ours[busy]}
    assert await found("PrepareCommit", "Dead") == await found(ids=(2**60,)) == {}


async def test_states_that_are_none_are_named_and_match_nothing(peer: WireClient) -> None:
    name = fresh("transaction")
    await initialized(peer, name)
    listing = await listed(peer, 1, ("ongoing", "Nonsense"))
    assert (listing.code, set(listing.unknown), listing.states) == (Code.NONE, {"ongoing", "Nonsense"}, {})
    listing = await listed(peer, 1, ("Nonsense", "Empty"))
    assert (listing.unknown, listing.states[name][1]) == (["Nonsense"], "Empty")


async def test_transactions_are_listed_by_how_long_they_have_been_open(peer: WireClient) -> None:
    topic, name = fresh("t"), fresh("transaction")
    await make_topic(peer, topic)
    producer = await initialized(peer, name)
    assert name in (await listed(peer, 1, (), (producer.id,), 1000)).states, "one that never began is older than any"
    await with_partitions(peer, producer, (topic, [0]))
    assert (await listed(peer, 1, (), (producer.id,), 3_600_000)).states == {}
    async with asyncio.timeout(15):
        while name not in (await listed(peer, 1, (), (producer.id,), 50)).states:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        (None, "a-1 a-22 b.1"),
        ("", "a-1 a-22 b.1"),
        ("{}a-1", "a-1"),
        ("a-1", ""),
        (".*-[0-9]{2}", "a-22"),
        ("{}(a|b).1", "a-1 b.1"),
        (r"^.*[ab][^-]\d$", "b.1"),
        ("(?:.+)*(?:a-1|a-2)2*", "a-1 a-22"),
        (".*nowhere", ""),
    ],
    ids=str,
)
async def test_transactions_are_listed_by_a_pattern_that_the_whole_id_matches(
    peer: WireClient, pattern: str | None, found: str
) -> None:
    prefix = fresh("transaction")
    ids = {(await initialized(peer, prefix + name)).id: name for name in ("a-1", "a-22", "b.1")}
    listing = await listed(peer, 2, (), tuple(ids), pattern=pattern and pattern.replace("{}", prefix))
    names = sorted(ids[producer] for producer, _ in listing.states.values())
    assert (listing.code, names) == (Code.NONE, found.split())


@pytest.mark.parametrize("pattern", ["(", "a)", "[z-a]", "a**", "*", "a{2,1}", "a{1001}", "\\", r"(a)\1", "[a"])
async def test_a_pattern_that_is_none_lists_nothing(peer: WireClient, pattern: str) -> None:
    await initialized(peer, fresh("transaction"))
    listing = await listed(peer, 2, ("Nonsense",), pattern=pattern)
    assert (listing.code, listing.unknown, listing.states) == (Code.INVALID_REGULAR_EXPRESSION, [], {})


async def test_the_producers_of_a_partition_are_described_while_their_transaction_is_open_and_after_it(
    peer: WireClient,
) -> None:
    topic, name = fresh("t"), fresh("transaction")
    await make_topic(peer, topic, partitions=2)
    assert await producers(peer, topic, 0, 1) == {0: (Code.NONE, []), 1: (Code.NONE, [])}
    producer = await initialized(peer, name)
    who = producer.id, producer.epoch
    await with_partitions(peer, producer, (topic, [0]))
    await written(peer, producer, topic, NOW, NOW + 7, NOW + 3)
    assert await producers(peer, topic, 0) == {0: (Code.NONE, [(*who, 2, NOW + 7, -1, 0)])}
    await written(peer, producer, topic, NOW + 1, first=3)
    assert await producers(peer, topic, 0, 1) == {0: (Code.NONE, [(*who, 3, NOW + 1, -1, 0)]), 1: (Code.NONE, [])}
    await ended(peer, producer, commit=True)
    await settled(peer, name, "CompleteCommit")
    (after,) = (await producers(peer, topic, 0))[0][1]
    assert (after[:3], after[4:]) == ((*who, 3), (0, -1))
    assert after[3] >= NOW, "when the marker was written"
    await with_partitions(peer, producer, (topic, [0]))
    await written(peer, producer, topic, NOW + 2, first=4)
    assert await producers(peer, topic, 0) == {0: (Code.NONE, [(*who, 4, NOW + 2, 0, 5)])}
    again = await initialized(peer, name)
    (after,) = (await producers(peer, topic, 0))[0][1]
    assert (after[0], after[2], after[4:]) == (again.id, -1, (0, -1)), "fenced, in an epoch in which nothing was sent"


async def test_producers_of_partitions_that_are_none_are_not_described(peer: WireClient) -> None:
    topic, unknown = fresh("t"), fresh("unknown")
    await make_topic(peer, topic)
    refused = (Code.UNKNOWN_TOPIC_OR_PARTITION, [])
    assert await producers(peer, topic, 0, 1, -1) == {0: (Code.NONE, []), 1: refused, -1: refused}
    assert await producers(peer, unknown, 0) == {0: refused}
