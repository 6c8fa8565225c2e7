"""MSK tokens are what Amazon's own signer makes, from credentials that are still good."""

import base64
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest

from octopus.auth.msk import Credentials, MskTokenProvider, environment_credentials, msk_token
from octopus.errors import AuthError, ConfigurationError, LoginRequired, TokenExpired

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DOCUMENTED = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def url_of(token: str) -> str:
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()


def signature_of(token: str) -> str:
    return parse_qs(urlsplit(url_of(token)).query)["X-Amz-Signature"][0]


@pytest.mark.parametrize(
    ("secret", "session", "signature"),
    [
        ("example-secret", None, "198457f32e4ce40e9d038c37fd49b515ea42f04e268c9b92fc5be5e4e47dd55a"),
        ("example-secret", "tok/+=", "ae1b4bc84e20f853b65aadb6ba3b8233b30e08d4bc2502934fcb3a188bb78dff"),
        (DOCUMENTED, None, "24ebada2ed545858377591fc84af1a1bff3c40c5e8ab0c1fc85eee156cfb42da"),
    ],
    ids=["plain", "with a session token", "with symbols in the secret"],
)
def test_signatures_agree_with_known_ones(secret: str, session: str | None, signature: str) -> None:
    token = msk_token("us-east-1", Credentials("AKIDEXAMPLE", secret, session), NOW)
    assert signature_of(token.value) == signature
    assert token.expires_at == 1_767_323_945


def test_the_token_has_the_length_and_form_that_amazons_signer_gives() -> None:
    token = msk_token("us-east-1", Credentials("AKIDEXAMPLE", DOCUMENTED), NOW, "aws-msk-iam-sasl-signer-python/1.0.1")
    assert len(token.value) == 516
    assert "=" not in token.value
    assert url_of(token.value).endswith("&User-Agent=aws-msk-iam-sasl-signer-python%2F1.0.1")


@pytest.mark.parametrize("session", [None, "tok/+=& ü"])
@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_botocore_signs_the_same(monkeypatch: pytest.MonkeyPatch, region: str, session: str | None) -> None:
    auth = pytest.importorskip("botocore.auth", reason="botocore is not installed")
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials as BotoCredentials

    class Fixed(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return NOW

        @classmethod
        def utcnow(cls) -> datetime:
            return NOW.replace(tzinfo=None)

    clock = type("clock", (), {"datetime": Fixed})
    monkeypatch.setattr(auth, "datetime", clock if hasattr(auth.datetime, "datetime") else Fixed)
    if hasattr(auth, "get_current_datetime"):
        monkeypatch.setattr(auth, "get_current_datetime", lambda *_, **__: NOW.replace(tzinfo=None))
    request = AWSRequest("GET", f"https://kafka.{region}.amazonaws.com/", params={"Action": "kafka-cluster:Connect"})
    auth.SigV4QueryAuth(BotoCredentials("AKID", "secret", session), "kafka-cluster", region, expires=900).add_auth(
        request
    )
    theirs = parse_qs(urlsplit(request.url).query)
    ours = parse_qs(urlsplit(url_of(msk_token(region, Credentials("AKID", "secret", session), NOW).value)).query)
    del ours["User-Agent"]
    assert ours == theirs


async def test_a_token_is_signed_again_before_it_ends() -> None:
    now = NOW.timestamp()
    provider = MskTokenProvider("us-east-1", credentials=Credentials("AKID", "secret"), clock=lambda: now)
    first = await provider.token()
    now += 600
    assert await provider.token() == first
    now += 130
    assert await provider.token() != first


async def test_credentials_about_to_end_are_refused_and_short_ones_are_not_used_beyond_their_end() -> None:
    now = NOW.timestamp()
    credentials = Credentials("AKID", "secret", "session", now + 300)
    provider = MskTokenProvider("us-east-1", credentials=lambda: credentials, clock=lambda: now)
    first = await provider.token()
    now += 245
    with pytest.raises(TokenExpired, match="55 s left"):
        await MskTokenProvider("us-east-1", credentials=credentials, clock=lambda: now).token()
    credentials = Credentials("AKID2", "secret", "session", now + 3600)
    assert await provider.token() != first


async def test_credentials_of_the_environment_are_read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = NOW.timestamp()
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDONE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    provider = MskTokenProvider(clock=lambda: now)
    assert provider.region == "eu-west-1"
    assert "AKIDONE" in url_of(await provider.token())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDTWO")
    now += 800
    assert "AKIDTWO" in url_of(await provider.token())


def test_the_region_must_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    with pytest.raises(ConfigurationError, match="region"):
        MskTokenProvider()


def test_environment_variables_make_credentials_or_say_what_is_wrong() -> None:
    assert environment_credentials({}) is None
    full = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_SESSION_TOKEN": "c",
        "AWS_CREDENTIAL_EXPIRATION": "2026-01-02T03:04:05Z",
    }
    assert environment_credentials(full) == Credentials("a", "b", "c", NOW.timestamp())
    assert "b" not in repr(environment_credentials(full)).replace("Credentials", "")
    with pytest.raises(LoginRequired):
        environment_credentials({"AWS_ACCESS_KEY_ID": "a"})
    with pytest.raises(AuthError, match="not a time"):
        environment_credentials({**full, "AWS_CREDENTIAL_EXPIRATION": "soon"})
