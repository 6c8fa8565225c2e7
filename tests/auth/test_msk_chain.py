"""Without credentials in the environment, boto3's chain is asked: profiles, containers, roles."""

import base64
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from octopus.auth.msk import MskTokenProvider
from octopus.errors import AuthError, LoginRequired, TokenExpired

boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No credentials anywhere but in the files of this test; returns the credentials file."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path / "credentials"


def provider() -> MskTokenProvider:
    return MskTokenProvider("us-east-1", clock=NOW.timestamp)


def url_of(token: str) -> str:
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()


async def test_a_profile_on_disk_signs_the_token(empty_environment: Path) -> None:
    empty_environment.write_text("[default]\naws_access_key_id = AKIDOFPROFILE\naws_secret_access_key = secret\n")
    assert "AKIDOFPROFILE" in url_of(await provider().token())


async def test_no_credentials_anywhere_say_how_to_get_some() -> None:
    with pytest.raises(LoginRequired, match="aws configure sso"):
        await provider().token()


async def test_a_profile_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(AuthError, match="nobody"):
        await provider().token()


async def test_without_boto3_the_message_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(LoginRequired, match=r"octopus-fabric\[aws\]"):
        await provider().token()


@dataclass
class Role:
    """Credentials of a role as botocore hands them out: they end, and each look may find newer ones."""

    access_key: str
    secret_key: str
    token: str
    _expiry_time: datetime

    def get_frozen_credentials(self) -> "Role":
        return self


class RoleSession:
    """A boto3 session on a machine with a role."""

    made = 0
    role = Role("AKIDOFROLE", "secret", "session", NOW)

    def __init__(self) -> None:
        type(self).made += 1

    def get_credentials(self) -> Role:
        return self.role


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> type[RoleSession]:
    kind: Any = type("Session", (RoleSession,), {})
    monkeypatch.setattr(boto3.session, "Session", kind)
    return kind


async def test_a_token_of_a_role_ends_with_the_role_and_one_session_serves_them_all(
    session: type[RoleSession],
) -> None:
    now = NOW.timestamp()
    session.role = Role("AKIDONE", "secret", "session", datetime.fromtimestamp(now + 300, UTC))
    roles = MskTokenProvider("us-east-1", clock=lambda: now)
    first = await roles.token()
    assert "AKIDONE" in url_of(first)
    assert "X-Amz-Security-Token=session" in url_of(first)
    now += 245
    session.role = Role("AKIDTWO", "secret", "session", datetime.fromtimestamp(now + 3600, UTC))
    assert "AKIDTWO" in url_of(await roles.token())
    assert session.made == 1


async def test_a_role_about_to_end_is_not_used(session: type[RoleSession]) -> None:
    session.role = Role("AKIDOFROLE", "secret", "session", datetime.fromtimestamp(NOW.timestamp() + 10, UTC))
    with pytest.raises(TokenExpired, match="10 s left"):
        await provider().token()
