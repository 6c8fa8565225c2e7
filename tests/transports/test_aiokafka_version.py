"""Octopus goes into one aiokafka only, and says which."""

import importlib.metadata
import re
from pathlib import Path

import pytest

from octopus.errors import ConfigurationError
from octopus.transports.aiokafka_version import TESTED
from octopus.transports.opening import open_transport

OTHER = "0.14.99"


@pytest.mark.parametrize("brokers", ["127.0.0.1:1", "embedded://"])
async def test_another_aiokafka_is_refused_in_one_sentence_before_anything_connects(
    brokers: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("octopus.transports.aiokafka_version.version", lambda package: OTHER)
    options = {"mode": "thread"} if brokers == "embedded://" else {}
    with pytest.raises(ConfigurationError, match=f"{re.escape(OTHER)} is installed.*pip install aiokafka=={TESTED}"):
        await open_transport(f"{brokers}{tmp_path}" if options else brokers, **options).open()


def test_the_package_asks_for_the_aiokafka_that_it_takes() -> None:
    asked = [one for one in importlib.metadata.requires("octopus-fabric") or () if one.startswith("aiokafka")]
    assert asked == [f"aiokafka=={TESTED}"]
