"""Bearer tokens: fixed, from a file, or obtained when needed and kept until shortly before they end."""

import asyncio
import base64
import concurrent.futures
import json
import random
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from octopus.errors import AuthError, LoginRequired, TokenExpired

Clock = Callable[[], float]

_RETRY_AFTER = 10.0  # seconds until a failed early refresh is tried again


class TokenProvider(Protocol):
    """Gives a currently valid bearer token and knows when it ends."""

    async def token(self) -> str:
        """Return a token that is valid now. Raises `AuthError`."""
        ...


class Token(NamedTuple):
    """A bearer token.

    Attributes:
        value: The token as sent.
        expires_at: Seconds since the epoch; None when it does not say.
    """

    value: str
    expires_at: float | None = None

    def __repr__(self) -> str:
        return f"Token(***, expires_at={self.expires_at})"


class CachedTokens:
    """Gives the token it has until 80 % of its life is over, then gets a new one: one request, however many ask.

    A token that cannot be renewed is given as long as it is valid, never longer. May be asked from several event loops.

    Args:
        obtain: Gets a new token; raises `AuthError`.
        clock: Seconds since the epoch.
        refresh_at: The part of a token's life after which it is renewed; made up to 5 % earlier at random, so that many
            programs that started together do not ask together.
        margin: Seconds before its end from which a token counts as expired: it still has to reach the broker.
    """

    def __init__(
        self,
        obtain: Callable[[], Awaitable[Token]],
        *,
        clock: Clock = time.time,
        refresh_at: float = 0.8,
        margin: float = 10.0,
    ) -> None:
        self._obtain = obtain
        self._clock = clock
        self._refresh_at = refresh_at
        self._margin = margin
        self._token: Token | None = None
        self._renew_after = 0.0
        self._under_way: concurrent.futures.Future[Token] | None = None
        self._lock = threading.Lock()  # held for a few assignments only, never while waiting

    async def token(self) -> str:
        """Return a token that is valid now.

        Raises:
            AuthError: There is none and none can be had; `TokenExpired` when the new one is over already.
        """
        while True:
            with self._lock:
                current, now = self._token, self._clock()
                if current is not None and self._is_valid(current, now) and now < self._renew_after:
                    return current.value
                waiting_for, mine = self._under_way, concurrent.futures.Future[Token]()
                if waiting_for is None:
                    self._under_way = mine
            if waiting_for is None:
                return (await self._renew(mine, current)).value
            try:
                return (await asyncio.shield(asyncio.wrap_future(waiting_for))).value
            except asyncio.CancelledError:
                if not waiting_for.cancelled():
                    raise
                # the asking caller gave up: another one has to ask

    async def _renew(self, result: "concurrent.futures.Future[Token]", current: Token | None) -> Token:
        try:
            token = await self._obtained(current)
        except BaseException as error:
            with self._lock:
                self._under_way = None
            if isinstance(error, Exception):
                result.set_exception(error)
                result.exception()
            else:
                result.cancel()
            raise
        with self._lock:
            self._token, self._under_way = token, None
        result.set_result(token)
        return token

    async def _obtained(self, current: Token | None) -> Token:
        now = self._clock()
        try:
            token = await self._obtain()
        except AuthError:
            if current is None or not self._is_valid(current, now):
                raise
            self._renew_after = now + _RETRY_AFTER
            return current
        if not self._is_valid(token, self._clock()):
            raise TokenExpired("The token that was issued is over already. Check this machine's clock.")
        if token.expires_at is None:
            self._renew_after = float("inf")
        else:
            life = token.expires_at - now
            self._renew_after = now + life * (self._refresh_at - random.uniform(0.0, 0.05))
        return token

    def _is_valid(self, token: Token, now: float) -> bool:
        return token.expires_at is None or now < token.expires_at - self._margin


class FixedToken:
    """Always the same token, as long as it lasts.

    Args:
        value: The token. When it is a JWT its `exp` is respected.
        clock: Seconds since the epoch.
    """

    def __init__(self, value: str, *, clock: Clock = time.time) -> None:
        self._token = Token(value.strip(), expiry_of(value.strip()))
        self._clock = clock
        if not self._token.value:
            raise LoginRequired("The token is empty.")

    def __repr__(self) -> str:
        return "FixedToken(***)"

    async def token(self) -> str:
        """Return the token. Raises `TokenExpired`."""
        return _valid(self._token, self._clock(), "given")


class TokenFile:
    """The token in a file that another program renews (a mounted secret, a login helper); read whenever it is needed.

    Args:
        path: The file: a token and nothing else.
        clock: Seconds since the epoch.
    """

    def __init__(self, path: str | Path, *, clock: Clock = time.time) -> None:
        self._path = Path(path).expanduser()
        self._clock = clock

    async def token(self) -> str:
        """Return the token. Raises `LoginRequired` when there is none, `TokenExpired`."""
        try:
            value = (await asyncio.to_thread(self._path.read_text, "utf-8")).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise LoginRequired(f"The token file {str(self._path)!r} cannot be read: {error}.") from error
        if not value:
            raise LoginRequired(f"The token file {str(self._path)!r} is empty.")
        return _valid(Token(value, expiry_of(value)), self._clock(), f"in {str(self._path)!r}")


def expiry_of(token: str) -> float | None:
    """Return when a JWT ends, without checking anything else of it; None when it does not say or is no JWT."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return float(claims["exp"])
    except (ValueError, KeyError, TypeError):
        return None


def _valid(token: Token, now: float, where: str) -> str:
    if token.expires_at is not None and now >= token.expires_at:
        raise TokenExpired(f"The token {where} ended {now - token.expires_at:.0f} s ago. Get a new one.")
    return token.value
