"""How long members may be silent and rebalances may take, on either broker."""

import asyncio

import pytest

from octopus.broker.codes import Code
from tests.broker.members_on_either import beat, join, joined
from tests.broker.topics_on_either import fresh
from tests.broker.wire_client import WireClient


@pytest.mark.parametrize("session", [5_999, 1_800_001, 0, -1])
async def test_a_session_that_is_too_short_or_too_long_is_refused(peer: WireClient, session: int) -> None:
    assert (await join(peer, fresh("group"), session=session)).int16() == Code.INVALID_SESSION_TIMEOUT


@pytest.mark.parametrize("rebalance", [100, 999])
async def test_a_member_that_does_not_sync_within_a_short_rebalance_is_dropped_although_it_heartbeats(
    peer: WireClient, rebalance: int
) -> None:
    group = fresh("group")
    member, generation = await joined(peer, group, rebalance=rebalance)
    async with asyncio.timeout(15):  # its session would last for twice as long
        while (code := await beat(peer, group, member, generation)) == Code.NONE:
            await asyncio.sleep(0.02)
    assert code == Code.UNKNOWN_MEMBER_ID
