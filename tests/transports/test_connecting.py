"""The security settings choose the credential that a cluster is shown."""

from pathlib import Path
from typing import Any

import pytest

from octopus.config import load
from octopus.transports.kafka import KafkaTransport
from octopus.transports.kafka.settings import KafkaSettings
from octopus.transports.opening import connect, consumer_options, producer_options


def reached(security: dict[str, Any], **other: Any) -> KafkaSettings:
    """What the transport knows of the cluster."""
    transport = connect(load({"brokers": ["kafka://a:1", "b:2"], "security": security, **other}), client_id="me")
    assert isinstance(transport, KafkaTransport)
    return transport.settings


def test_without_security_there_is_no_credential() -> None:
    settings = reached({})
    assert (settings.brokers, settings.client_id) == ("a:1,b:2", "me")
    assert (settings.protocol, settings.sasl_mechanism, settings.token_provider) == ("PLAINTEXT", None, None)


def test_a_user_name_is_shown_with_its_password() -> None:
    settings = reached({"username": "ada", "password": "secret", "mechanism": "SCRAM-SHA-512"})
    assert (settings.sasl_mechanism, settings.username, settings.password) == ("SCRAM-SHA-512", "ada", "secret")
    assert settings.protocol == "SASL_SSL"


async def test_a_fixed_token_is_shown_as_it_is() -> None:
    settings = reached({"token": "fixed-token"})
    assert settings.sasl_mechanism == "OAUTHBEARER"
    assert await settings.token_provider.token() == "fixed-token"


async def test_a_token_file_is_read_when_it_is_needed(tmp_path: Path) -> None:
    settings = reached({"token_file": str(tmp_path / "token")})
    (tmp_path / "token").write_text("token-from-a-file\n")
    assert await settings.token_provider.token() == "token-from-a-file"


async def test_a_region_means_tokens_signed_for_that_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    settings = reached({"region": "eu-west-1"})
    assert (settings.sasl_mechanism, settings.protocol) == ("OAUTHBEARER", "SASL_SSL")
    assert settings.token_provider.region == "eu-west-1"
    assert await settings.token_provider.token()


def test_no_compression_is_no_codec_and_a_rebalance_outlasts_the_drain() -> None:
    settings = load({"producer": {"compression": "none"}, "worker": {"revoke_budget": 500.0, "commit_timeout": 10.0}})
    assert producer_options(settings.producer)["compression"] is None
    assert consumer_options(settings.consumer, settings.worker)["rebalance_timeout"] == 515.0
