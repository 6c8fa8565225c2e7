"""Credentials as aiokafka takes them: passwords, bearer tokens, and what a broker answers to those.

aiokafka 0.14 takes a refused bearer token for an accepted one. Here it is refused as RFC 7628 says.
"""

import re

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import SaslAuthenticationFailed

from octopus.auth.tokens import TokenProvider
from octopus.errors import OctopusError
from octopus.transports.kafka import engine


class Password(str):
    """A password that does not print itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class TokenBridge(AbstractTokenProvider):
    """Gives aiokafka the tokens of one of our providers, and its errors in a class that aiokafka expects."""

    def __init__(self, provider: TokenProvider) -> None:
        self._provider = provider

    async def token(self) -> str:
        """Return a valid token. Raises `SaslAuthenticationFailed` from the provider's own error."""
        try:
            return await self._provider.token()
        except OctopusError as error:
            raise SaslAuthenticationFailed(str(error)) from error


class Authenticator(engine.OAuth):
    """OAUTHBEARER that understands a refusal.

    Attributes:
        refusal: Why the broker refuses the token, in its words.
    """

    refusal: bytes | None = None

    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        """Answer the broker; a challenge that is not empty is a refusal, acknowledged before it is raised."""
        if not self.has_sent_token:
            first: tuple[bytes, bool] = await super().step(payload)
            return first
        if self.refusal is not None:
            raise SaslAuthenticationFailed("the broker accepted the acknowledgement of its refusal")
        if payload:
            self.refusal = bytes(payload)
            return b"\x01", True
        return None

    def check(self, token: str) -> None:
        """Refuse what cannot be sent. Raises `SaslAuthenticationFailed`."""
        if not token or not re.fullmatch(r"[!-+\--~]+", token):
            raise SaslAuthenticationFailed("The token is empty or has characters that a bearer token cannot have.")

    def explain(self, error: SaslAuthenticationFailed) -> None:
        """Raise the error with what the broker said of the token, if it said something. Raises `SaslAuthenticationFailed`."""
        if self.refusal is not None:
            reason = self.refusal.decode("utf-8", "replace")
            raise SaslAuthenticationFailed(f"{reason} {' '.join(map(str, error.args))}".strip()) from error
