"""Fetch sessions (KIP-227): the embedded broker gives none, and otherwise answers as Apache Kafka does."""

import pytest

from octopus.broker.codes import Code
from tests.broker.requests_and_answers import FETCH, PRODUCE, batch, produce
from tests.broker.topics_on_either import fetch_from, fresh, make_topic, read
from tests.broker.wire_client import WireClient

NEITHER = 1_234_567


@pytest.mark.parametrize("version", [7, 11, 12])
@pytest.mark.parametrize(
    ("session", "code"),
    [
        ((0, -1), Code.NONE),
        ((0, 0), Code.NONE),
        ((-1, -1), Code.NONE),
        ((-1, 0), Code.NONE),
        ((NEITHER, -1), Code.NONE),
        ((NEITHER, 0), Code.NONE),
        ((NEITHER, 3), Code.FETCH_SESSION_ID_NOT_FOUND),
        ((0, 5), Code.FETCH_SESSION_ID_NOT_FOUND),
        ((0, -2), Code.FETCH_SESSION_ID_NOT_FOUND),
    ],
)
async def test_a_full_fetch_is_answered_whatever_session_it_names_and_going_on_with_an_unknown_one_is_not(
    peer: WireClient, version: int, session: tuple[int, int], code: Code
) -> None:
    name = fresh("session")
    await make_topic(peer, name)
    await peer.ask(PRODUCE, 3, produce(name, batch(b"here")))
    parts = read(await peer.ask(FETCH, version, fetch_from(name, version, session=session)), version, code)
    assert [b"here" in part.records for part in parts] == ([True] if code == Code.NONE else [])
