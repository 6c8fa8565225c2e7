"""Tokens are never expired, asked for once, and renewed in time."""

import asyncio
import base64
import json
import threading
from pathlib import Path

import pytest

from octopus.auth.tokens import CachedTokens, FixedToken, Token, TokenFile, expiry_of
from octopus.errors import AuthError, LoginRequired, TokenExpired
from tests.staged import turns


class Issuer:
    """Issues numbered tokens on a clock that tests turn."""

    def __init__(self, life: float | None = 100.0) -> None:
        self.now = 1000.0
        self.life = life
        self.issued = 0
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> Token:
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.issued += 1
        return Token(f"token-{self.issued}", None if self.life is None else self.now + self.life)

    def provider(self) -> CachedTokens:
        return CachedTokens(self, clock=lambda: self.now)


async def test_a_token_is_kept_until_four_fifths_of_its_life() -> None:
    issuer = Issuer()
    provider = issuer.provider()
    assert await provider.token() == "token-1"
    issuer.now += 74
    assert await provider.token() == "token-1"
    issuer.now += 7
    assert await provider.token() == "token-2"


async def test_many_who_ask_at_once_share_one_request() -> None:
    issuer = Issuer()
    issuer.gate.clear()
    provider = issuer.provider()
    asking = [asyncio.create_task(provider.token()) for _ in range(50)]
    await asyncio.sleep(0)
    issuer.gate.set()
    assert set(await asyncio.gather(*asking)) == {"token-1"}
    assert issuer.issued == 1


async def test_when_the_one_who_asks_is_cancelled_another_asks() -> None:
    issuer = Issuer()
    issuer.gate.clear()
    provider = issuer.provider()
    first = asyncio.create_task(provider.token())
    second = asyncio.create_task(provider.token())
    await turns()
    first.cancel()
    await asyncio.wait([first])
    issuer.gate.set()
    assert await second == "token-1"


async def test_a_failed_early_renewal_gives_the_old_token_while_it_is_valid_and_no_longer() -> None:
    issuer = Issuer()
    provider = issuer.provider()
    await provider.token()
    issuer.failure = AuthError("the issuer is away")
    issuer.now += 85
    assert await provider.token() == "token-1"
    issuer.now += 6
    with pytest.raises(AuthError, match="away"):
        await provider.token()
    issuer.failure = None
    assert await provider.token() == "token-2"


async def test_a_token_that_is_over_when_it_arrives_is_refused() -> None:
    issuer = Issuer(life=5.0)
    with pytest.raises(TokenExpired):
        await issuer.provider().token()


async def test_a_token_without_an_end_is_asked_for_once() -> None:
    issuer = Issuer(life=None)
    provider = issuer.provider()
    await provider.token()
    issuer.now += 1e9
    assert await provider.token() == "token-1"


def test_one_provider_serves_several_event_loops() -> None:
    issued = []

    async def obtain() -> Token:
        await asyncio.sleep(0.05)
        issued.append(1)
        return Token("shared", 1e12)

    provider = CachedTokens(obtain)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(provider.token()))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["shared"] * 5
    assert len(issued) == 1


def jwt(claims: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part(claims)}.c2ln"


@pytest.mark.parametrize(
    ("token", "expiry"),
    [(jwt({"exp": 1500}), 1500.0), (jwt({}), None), (jwt([1]), None), ("opaque", None), ("a.b.c", None)],
    ids=["jwt", "without exp", "no object", "opaque", "not json"],
)
def test_the_end_of_a_jwt_is_read_and_anything_else_has_none(token: str, expiry: float | None) -> None:
    assert expiry_of(token) == expiry


async def test_a_fixed_token_is_given_until_it_ends_and_never_printed() -> None:
    token = jwt({"exp": 1500})
    provider = FixedToken(f" {token}\n", clock=lambda: 1499.0)
    assert await provider.token() == token
    assert token not in repr(provider)
    assert "secret" not in repr(Token("secret"))
    with pytest.raises(TokenExpired, match="1 s ago"):
        await FixedToken(token, clock=lambda: 1501.0).token()
    with pytest.raises(LoginRequired):
        FixedToken("  ")


async def test_a_token_file_is_read_again_whenever_it_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "token"
    provider = TokenFile(path)
    with pytest.raises(LoginRequired, match="cannot be read"):
        await provider.token()
    path.write_text("")
    with pytest.raises(LoginRequired, match="empty"):
        await provider.token()
    path.write_text("one\n")
    assert await provider.token() == "one"
    path.write_text("two")
    assert await provider.token() == "two"
