"""Whoever stops leaves its group, in whatever state it is: the others would wait for it until its session ends."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient

from octopus.broker.request_faults import RequestFaults
from octopus.errors import TransportError
from octopus.transports.base import Admin, Commit, GroupInfo, Transport
from tests.support.peers import Peer

from .conftest import Join
from .engines import KAFKA, LIBRDKAFKA
from .members import PATIENCE, Member, together

CLASSIC = ["embedded", KAFKA, *LIBRDKAFKA[:-1]]
"""Those whose members join and sync; with KIP-848 they do not wait for each other."""

JOIN, LEAVE = 11, 13
LONG = 60.0  # seconds of session: nobody is gone because of silence
LASTING = {"group_instance_id": "lasting", "session_timeout": LONG}

on_classic = pytest.mark.parametrize("transport", CLASSIC, indirect=True)
on_embedded = pytest.mark.parametrize("transport", ["embedded", *LIBRDKAFKA[:2]], indirect=True)


@pytest.fixture
async def peer(transport: Transport, topic: str) -> AsyncIterator[Peer]:
    """A member by hand that is alone in its group, and leads it."""
    client: Any = AIOKafkaClient(bootstrap_servers=transport.address)
    await client.bootstrap()
    made = Peer(client, topic, topic)
    await made.join()
    await made.sync()
    yield made
    await client.close()


@pytest.fixture
async def member(join: Join, topic: str) -> Member:
    """A member that is about to join."""
    return await join(topic, topic, wait=False, session_timeout=LONG, heartbeat_interval=0.2)


async def described(admin: Admin, name: str) -> GroupInfo:
    return next(group for group in await admin.groups() if group.name == name)


async def until(member: Member, condition: Callable[[], Any]) -> None:
    """Give a member its turns until something is true of its group."""
    deadline = time.monotonic() + PATIENCE
    while not await condition():
        assert time.monotonic() < deadline, "waited in vain"
        await member.turn(timeout=0.02)


async def is_joining(peer: Peer, member: Member, admin: Admin) -> None:
    await until(member, lambda: _has(admin, peer.group, 2))


async def is_syncing(peer: Peer, member: Member, admin: Admin) -> None:
    await is_joining(peer, member, admin)
    await peer.join()


async def has_nothing(peer: Peer, member: Member, admin: Admin) -> None:
    await is_syncing(peer, member, admin)
    await peer.sync()
    await until(member, lambda: _is(admin, peer.group, "Stable"))
    await member.turn(timeout=0.1)


async def has_partitions(peer: Peer, member: Member, admin: Admin) -> None:
    await is_syncing(peer, member, admin)
    other = next(each for each in peer.members if each != peer.id)
    await peer.sync({other: [0, 1]})
    await member.until(lambda: len(member.mine) == 2)


async def is_joining_again(peer: Peer, member: Member, admin: Admin) -> None:
    await has_partitions(peer, member, admin)
    third = Peer(peer.client, peer.group, peer.topic)
    joining = asyncio.ensure_future(third.join())
    await until(member, lambda: _has(admin, peer.group, 3))
    await until(member, lambda: _hears(member))
    joining.cancel()


async def _has(admin: Admin, name: str, count: int) -> bool:
    return len((await described(admin, name)).members) == count


async def _is(admin: Admin, name: str, state: str) -> bool:
    return (await described(admin, name)).state == state


async def _hears(member: Member) -> bool:
    """Whether an eager member has given everything back, and so joins again; one that keeps its partitions has had time."""
    begun = getattr(member, "begun", None) or time.monotonic()
    member.begun = begun  # type: ignore[attr-defined]
    return not member.mine or time.monotonic() - begun > 1.0


@on_classic
@pytest.mark.parametrize("state", [is_joining, is_syncing, has_nothing, has_partitions, is_joining_again])
async def test_who_stops_is_no_member_any_more(
    state: Callable[..., Any], peer: Peer, member: Member, admin: Admin
) -> None:
    await state(peer, member, admin)
    before = {each.member_id for each in (await described(admin, peer.group)).members}
    await member.consumer.stop()
    left = before - {each.member_id for each in (await described(admin, peer.group)).members}
    assert len(left) == 1
    assert peer.id not in left


@on_classic
async def test_who_stops_while_its_listener_is_busy_has_left(peer: Peer, member: Member, admin: Admin) -> None:
    await has_partitions(peer, member, admin)
    member.on_revoked = asyncio.Event().wait
    third = asyncio.ensure_future(Peer(peer.client, peer.group, peer.topic).join())
    await until(member, lambda: _has(admin, peer.group, 3))
    await asyncio.wait_for(member.consumer.stop(), PATIENCE)
    assert await _has(admin, peer.group, 2)
    third.cancel()


@on_embedded
@pytest.mark.parametrize("answered", [0, 1], ids=["it has no id yet", "it was only given an id"])
async def test_nobody_waits_for_who_stops_between_the_two_requests_of_a_join(
    answered: int, transport: Transport, peer: Peer, topic: str
) -> None:
    faults: RequestFaults = transport.faults  # type: ignore[attr-defined]
    if answered:
        faults.fail(JOIN, 0)
    faults.delay(JOIN, 0.3)
    member = Member(transport, topic, [topic], session_timeout=LONG)
    await member.consumer.start(member)
    deadline = time.monotonic() + PATIENCE
    while faults._queues[JOIN] and time.monotonic() < deadline:
        await member.turn(timeout=0.01)
    await member.consumer.stop()
    faults.clear()
    await asyncio.wait_for(peer.join(), PATIENCE)  # or else when the session of the one that left is over
    assert [*peer.members] == [peer.id]


@on_embedded
@pytest.mark.parametrize(
    "disturb",
    [
        pytest.param(lambda faults: faults.fail(LEAVE, 16, 14, 15), id="the coordinator moves"),
        pytest.param(lambda faults: faults.drop(LEAVE), id="the connection breaks"),
    ],
)
async def test_a_member_is_told_to_leave_again_when_the_coordinator_did_not_hear_it(
    disturb: Callable[[RequestFaults], None], transport: Transport, peer: Peer, member: Member, admin: Admin
) -> None:
    await is_joining(peer, member, admin)
    disturb(transport.faults)  # type: ignore[attr-defined]
    await member.consumer.stop()
    assert await _has(admin, peer.group, 1)


@on_classic
async def test_a_static_member_keeps_its_place_when_it_stops_and_the_next_of_its_name_gets_it_at_once(
    transport: Transport, join: Join, topic: str, admin: Admin
) -> None:
    other = await join(topic, topic, session_timeout=LONG)
    first = await join(topic, topic, wait=False, **LASTING)
    await together(lambda: first.mine and other.mine, first, other)
    place, changes = {*first.mine}, len(other.changes)
    await first.consumer.stop()
    assert await _has(admin, topic, 2)
    second = await join(topic, topic, wait=False, **LASTING)
    await together(lambda: second.mine, second, other)
    assert second.mine == place
    assert len(other.changes) == changes, "the other one did not notice"


@on_classic
@pytest.mark.parametrize("state", [is_joining, is_syncing, has_partitions])
async def test_a_static_member_that_does_not_keep_its_place_leaves_like_any_other(
    state: Callable[..., Any], join: Join, peer: Peer, topic: str, admin: Admin
) -> None:
    member = await join(topic, topic, wait=False, session_timeout=LONG, group_instance_id="lasting", keeps_place=False)
    await state(peer, member, admin)
    await member.consumer.stop()
    assert [each.member_id for each in (await described(admin, topic)).members] == [peer.id]


@on_classic
async def test_a_static_member_that_led_notices_new_partitions_when_it_is_back(
    join: Join, topic: str, admin: Admin
) -> None:
    leader, other = await leading_and_following(join, topic)
    await leader.consumer.stop()
    back = await join(topic, topic, **LASTING)
    await admin.alter_topic(topic, partitions=6)
    await together(lambda: len(back.mine | other.mine) == 6, back, other)


@pytest.mark.parametrize("transport", [each for each in CLASSIC if "eager" not in str(each)], indirect=True)
async def test_a_static_member_that_led_notices_partitions_that_came_while_it_was_away(
    join: Join, topic: str, admin: Admin
) -> None:
    leader, other = await leading_and_following(join, topic)
    await leader.consumer.stop()
    await admin.alter_topic(topic, partitions=6)
    back = await join(topic, topic, wait=False, **LASTING)
    await together(lambda: len(back.mine | other.mine) == 6, back, other)


async def leading_and_following(join: Join, topic: str) -> tuple[Member, Member]:
    leader = await join(topic, topic, **LASTING)
    other = await join(topic, topic, session_timeout=LONG)
    await together(lambda: leader.mine and other.mine, leader, other)
    return leader, other


@on_classic
async def test_of_two_members_with_one_name_the_first_ends_and_says_why(join: Join, topic: str) -> None:
    first = await join(topic, topic, **LASTING)
    second = await join(topic, topic, **LASTING)
    with pytest.raises(TransportError, match=r"(?i)instance"):
        await first.until(lambda: False)
    await second.consumer.commit({place: Commit(0) for place in second.mine})


@pytest.mark.parametrize("transport", ["embedded", KAFKA], indirect=True)
async def test_who_leaves_takes_no_connection_from_requests_that_are_under_way(
    peer: Peer, member: Member, admin: Admin
) -> None:
    """aiokafka closes the connection of a request that times out where it keeps it: one that was taken is a KeyError."""

    await is_joining(peer, member, admin)
    client: Any = member.consumer._engine._client
    before = {name: connection for name, connection in client._conns.items() if connection.connected()}
    close, kept = client.close, {}

    async def look_and_close() -> None:
        kept.update(client._conns)
        await close()

    client.close = look_and_close
    await member.consumer.stop()
    assert before.items() <= kept.items()
