"""Groups on a running loop: real time-outs, caps, and how long a quiet group keeps its place."""

import asyncio

import pytest

from octopus.broker.codes import BrokerError, Code
from octopus.broker.group_coordinator import GroupCoordinator
from octopus.broker.limits import Limits
from octopus.broker.node import Node
from octopus.broker.offsets import Committed
from octopus.broker.request_faults import RequestFaults
from octopus.broker.settings import BrokerSettings
from octopus.broker.storage import Storage
from octopus.broker.wire import Reader, Writer
from tests.broker.groups.group_cast import wish
from tests.broker.requests_and_answers import CREATE_TOPICS, OFFSET_COMMIT, create_topic
from tests.broker.wire_client import WireClient, connected

QUICK = Limits(min_session_timeout_ms=10)


async def refusal(call: object) -> int:
    with pytest.raises(BrokerError) as caught:
        await call
    return caught.value.code


async def test_members_that_join_within_the_window_share_a_generation() -> None:
    groups = GroupCoordinator(Limits(), 20)
    joined = await asyncio.gather(*(groups.join("g", wish(fresh=f"m{i}")) for i in range(5)))
    assert {each.generation for each in joined} == {1}
    assert sum(bool(each.peers) for each in joined) == 1
    groups.stop()


async def test_a_silent_member_is_replaced_after_its_session() -> None:
    groups = GroupCoordinator(QUICK, 1)
    first = await groups.join("g", wish(fresh="first", session=100))
    assert (await groups.sync("g", first.member, None, 1, [])).code == Code.NONE
    started = GroupCoordinator.now()
    second = await groups.join("g", wish(fresh="second", session=10_000))
    assert second.leader == "second"
    assert GroupCoordinator.now() - started >= 90
    groups.stop()


@pytest.mark.parametrize("session", [5_999, 30 * 60 * 1000 + 1])
async def test_session_timeouts_out_of_range_are_refused(session: int) -> None:
    groups = GroupCoordinator(Limits(), 1)
    assert await refusal(groups.join("g", wish(fresh="m", session=session))) == Code.INVALID_SESSION_TIMEOUT


@pytest.mark.parametrize("name", ["", "x" * 2000])
async def test_empty_and_overlong_group_ids_are_refused(name: str) -> None:
    groups = GroupCoordinator(Limits(), 1)
    assert await refusal(groups.join(name, wish(fresh="m"))) == Code.INVALID_GROUP_ID


async def test_refused_joins_leave_no_group_behind_and_groups_are_capped() -> None:
    groups = GroupCoordinator(Limits(max_groups=1), 1)
    assert (await groups.join("a", wish(fresh="m", protocols=()))).code == Code.INCONSISTENT_GROUP_PROTOCOL
    assert await refusal(groups.join("b", wish("stranger"))) == Code.UNKNOWN_MEMBER_ID
    assert groups.groups == {}
    await groups.join("c", wish(fresh="m"))
    assert await refusal(groups.join("d", wish(fresh="m"))) == Code.POLICY_VIOLATION
    groups.stop()


async def test_stopping_answers_everybody_who_waits() -> None:
    groups = GroupCoordinator(Limits(), 60_000)
    waiting = asyncio.create_task(groups.join("g", wish(fresh="m")))
    await asyncio.sleep(0)
    groups.stop()
    assert (await waiting).code == Code.NOT_COORDINATOR


async def test_a_quiet_group_keeps_its_place_through_a_restart_of_its_last_member() -> None:
    day = 24 * 3600 * 1000
    now = 1_700_000_000_000
    storage = Storage.open(None)
    storage.create_topic("t")
    storage.offsets.commit("g", {("t", 0): Committed(5, "", now - 30 * day)})
    node = Node(storage, BrokerSettings(), RequestFaults())
    assert node.kept_groups(now) == {"g"}, "seen for the first time: it may be about to return"
    assert node.kept_groups(now + 6 * day) == {"g"}
    joined = await node.groups.join("g", wish(fresh="m"))
    assert node.kept_groups(now + 8 * day) == {"g"}
    node.groups.leave("g", joined.member, None)
    assert node.kept_groups(now + 9 * day) == {"g"}
    assert node.kept_groups(now + 15 * day) == {"g"}
    assert node.kept_groups(now + 16 * day) == set()


async def test_offsets_of_more_groups_than_the_cap_are_refused(start: object) -> None:
    broker = await start(limits=Limits(max_groups=1))

    async def commit(client: WireClient, group: str) -> int:
        body = Writer().string(group).int32(-1).string("").int64(-1)
        body.int32(1).string("t").int32(1).int32(0).int64(5).string("")
        return code_of(await client.ask(OFFSET_COMMIT, 2, body))

    async with connected(broker.address) as client:
        await client.ask(CREATE_TOPICS, 2, create_topic("t"))
        assert [await commit(client, group) for group in ("a", "b", "a")] == [
            Code.NONE,
            Code.POLICY_VIOLATION,
            Code.NONE,
        ]


def code_of(answer: Reader) -> int:
    [(_, [code])] = answer.array(lambda: (answer.string(), answer.array(lambda: (answer.int32(), answer.int16())[1])))
    return code
