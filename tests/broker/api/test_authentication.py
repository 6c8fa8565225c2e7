"""SASL: PLAIN and OAUTHBEARER, and nothing before them."""

import struct

import pytest

from octopus.broker.codes import Code
from octopus.broker.limits import Limits
from octopus.broker.server import Broker
from octopus.broker.wire import Writer
from tests.broker.requests_and_answers import API_VERSIONS, METADATA, SASL_AUTHENTICATE, SASL_HANDSHAKE
from tests.broker.wire_client import Start, WireClient, connected


async def only_ada(token: str) -> str:
    if token != "token-of-ada":
        raise ValueError("expired")
    return "ada"


PLAIN = {"passwords": {"ada": "sécret"}}
BEARER = {"validate_token": only_ada}


async def handshake(client: WireClient, mechanism: str, version: int = 1) -> tuple[int, list[str]]:
    answer = await client.ask(SASL_HANDSHAKE, version, Writer().string(mechanism))
    return answer.int16(), answer.array(answer.string)


async def authenticate(client: WireClient, token: bytes, version: int = 0) -> int:
    answer = await client.ask(SASL_AUTHENTICATE, version, Writer().blob(token))
    code, _message, payload = answer.int16(), answer.nullable_string(), answer.blob()
    assert payload == b""
    assert answer.remaining == (8 if version else 0)
    return code


async def may_ask(client: WireClient) -> bool:
    answer = await client.ask(METADATA, 0, Writer().int32(0))
    return bool(answer.array(lambda: (answer.int32(), answer.string(), answer.int32())))


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize(
    ("settings", "mechanism", "token"),
    [
        (PLAIN, "PLAIN", "\0ada\0sécret".encode()),
        (PLAIN, "PLAIN", "ada\0ada\0sécret".encode()),
        (BEARER, "OAUTHBEARER", b"n,,\x01auth=Bearer token-of-ada\x01\x01"),
        (BEARER, "OAUTHBEARER", b"n,a=ada,\x01host=h\x01auth=bearer token-of-ada\x01\x01"),
    ],
)
async def test_the_right_token_lets_a_client_in(
    start: Start, settings: dict[str, object], mechanism: str, token: bytes, version: int
) -> None:
    broker = await start(**settings)
    async with connected(broker.address) as client:
        assert (await client.ask(API_VERSIONS, 0)).int16() == Code.NONE
        assert await handshake(client, mechanism) == (Code.NONE, [mechanism])
        assert await authenticate(client, token, version) == Code.NONE
        assert await may_ask(client)


@pytest.mark.parametrize(
    ("settings", "mechanism", "token"),
    [
        (PLAIN, "PLAIN", b"\0ada\0wrong"),
        (PLAIN, "PLAIN", b"\0ada\0"),
        (PLAIN, "PLAIN", b"\0eve\0"),
        (PLAIN, "PLAIN", "eve\0ada\0sécret".encode()),
        (PLAIN, "PLAIN", b"ada"),
        (PLAIN, "PLAIN", b"\0\xff\0\xff"),
        (BEARER, "OAUTHBEARER", b"n,,\x01auth=Bearer stolen\x01\x01"),
        (BEARER, "OAUTHBEARER", b"n,,\x01auth=Basic token-of-ada\x01\x01"),
        (BEARER, "OAUTHBEARER", b"n,,\x01\x01"),
        (BEARER, "OAUTHBEARER", b"\xff"),
    ],
)
async def test_a_wrong_token_is_refused_and_closes_the_connection(
    start: Start, settings: dict[str, object], mechanism: str, token: bytes
) -> None:
    broker = await start(**settings)
    async with connected(broker.address) as client:
        await handshake(client, mechanism)
        assert await authenticate(client, token) == Code.SASL_AUTHENTICATION_FAILED
        assert await client.is_closed()
    async with connected(broker.address) as client:
        await handshake(client, mechanism, version=0)
        await client.send(struct.pack(">i", len(token)) + token)
        assert await client.is_closed()


async def test_after_an_old_handshake_the_bare_token_is_understood(start: Start) -> None:
    broker = await start(**PLAIN)
    token = "\0ada\0sécret".encode()
    async with connected(broker.address) as client:
        await handshake(client, "PLAIN", version=0)
        await client.send(struct.pack(">i", len(token)) + token)
        assert await client.raw() == b""
        assert await may_ask(client)


async def test_an_unknown_mechanism_is_answered_with_those_there_are(start: Start) -> None:
    broker = await start(**PLAIN, **BEARER)
    async with connected(broker.address) as client:
        assert await handshake(client, "SCRAM-SHA-256") == (
            Code.UNSUPPORTED_SASL_MECHANISM,
            ["PLAIN", "OAUTHBEARER"],
        )


async def test_a_token_without_a_handshake_is_refused(start: Start) -> None:
    broker = await start(**PLAIN)
    async with connected(broker.address) as client:
        assert await authenticate(client, b"\0ada\0x") == Code.ILLEGAL_SASL_STATE
        assert await client.is_closed()


async def test_nothing_else_is_served_before_authentication(start: Start) -> None:
    broker = await start(**PLAIN)
    async with connected(broker.address) as client:
        await client.put(METADATA, 0, Writer().int32(0))
        assert await client.is_closed()
    async with connected(broker.address) as client:
        await client.send(struct.pack(">i", 70_000))
        assert await client.is_closed(), "strangers may not send large requests"


async def test_a_client_that_does_not_authenticate_in_time_is_cut_off(start: Start) -> None:
    broker = await start(**PLAIN, limits=Limits(frame_timeout=0.05))
    async with connected(broker.address) as client:
        await client.ask(API_VERSIONS, 0)
        assert await client.is_closed()


async def test_without_authentication_no_mechanism_is_offered(broker: Broker, client: WireClient) -> None:
    assert await handshake(client, "PLAIN") == (Code.UNSUPPORTED_SASL_MECHANISM, [])
