"""Members of a consumer group on either broker, in bytes."""

import asyncio

from octopus.broker.codes import Code
from octopus.broker.wire import Reader, Writer
from tests.broker.requests_and_answers import HEARTBEAT, JOIN_GROUP, SYNC_GROUP
from tests.broker.topics_on_either import find_coordinator
from tests.broker.wire_client import WireClient, content_of

LEAVE_GROUP = 13
SESSION = 30_000
_AGAIN = {Code.COORDINATOR_LOAD_IN_PROGRESS, Code.COORDINATOR_NOT_AVAILABLE, Code.NOT_COORDINATOR}


async def join(
    peer: WireClient,
    group: str,
    *,
    topics: tuple[str, ...] = (),
    kind: str = "consumer",
    session: int = SESSION,
    rebalance: int = SESSION,
) -> Reader:
    """Join as a newcomer, in a version that gives out member ids at once; return the answer, from its code on."""
    await find_coordinator(peer, group)
    subscription = Writer().int16(0)
    subscription.array(topics, subscription.string).blob(None)
    body = Writer().string(group).int32(session).int32(rebalance).string("").string(kind)
    body.int32(1).string("range").blob(content_of(subscription))
    async with asyncio.timeout(30):
        while True:
            answer = await peer.ask(JOIN_GROUP, 2, body)
            answer.int32()
            if (code := answer.int16()) not in _AGAIN:
                return Reader(code.to_bytes(2, "big", signed=True) + answer.rest())
            await asyncio.sleep(0.05)


async def joined(peer: WireClient, group: str, **wishes: object) -> tuple[str, int]:
    """Join as a newcomer; return the member's id and the generation."""
    answer = await join(peer, group, **wishes)  # type: ignore[arg-type]
    assert answer.int16() == Code.NONE
    generation, _protocol, _leader = answer.int32(), answer.string(), answer.string()
    return answer.string(), generation


async def synced(peer: WireClient, group: str, member: str, generation: int) -> None:
    """Bring an assignment as the leader."""
    body = Writer().string(group).int32(generation).string(member).int32(1).string(member).blob(b"share")
    answer = await peer.ask(SYNC_GROUP, 1, body)
    answer.int32()
    assert answer.int16() == Code.NONE


async def beat(peer: WireClient, group: str, member: str, generation: int) -> int:
    """Send a heartbeat and return its code."""
    answer = await peer.ask(HEARTBEAT, 1, Writer().string(group).int32(generation).string(member))
    answer.int32()
    return answer.int16()


async def left(peer: WireClient, group: str, member: str) -> None:
    """Leave."""
    answer = await peer.ask(LEAVE_GROUP, 1, Writer().string(group).string(member))
    answer.int32()
    assert answer.int16() == Code.NONE
