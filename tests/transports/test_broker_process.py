"""A broker that owns its process: what it is told, when it ends, and why it could not start."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from octopus.broker.lock import read_owner
from octopus.broker.settings import BrokerSettings, StorageSettings
from octopus.broker.thread import BrokerThread
from octopus.transports.broker_process import BrokerProcess, main


def arguments(directory: Path | None, **storage: Any) -> str:
    """The one argument that the program takes."""
    made = BrokerProcess(directory, BrokerSettings(), StorageSettings(**storage), idle_exit=0.05)
    return json.dumps(made._arguments)


def test_a_broker_that_nobody_visits_ends_and_leaves_its_directory_to_the_next(tmp_path: Path) -> None:
    for _ in range(2):
        assert main(arguments(tmp_path, durability="os")) == 0
        assert read_owner(tmp_path) == (None, None)


def test_a_broker_in_memory_needs_no_directory() -> None:
    assert main(arguments(None)) == 0


def test_who_finds_the_directory_taken_says_so_with_a_code_of_its_own(tmp_path: Path) -> None:
    with BrokerThread(tmp_path, storage_settings=StorageSettings(durability="os")):
        assert main(arguments(tmp_path)) == 75


@pytest.mark.process
def test_the_reason_for_a_failed_start_is_the_last_thing_the_process_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    broken = BrokerProcess(tmp_path / "file" / "data", BrokerSettings(), StorageSettings(), idle_exit=0.05)
    assert broken.failure() is None, "it was not started yet"
    broken.start(sys.executable)
    deadline = time.monotonic() + 20
    while (reason := broken.failure()) is None:
        assert time.monotonic() < deadline, "it did not end"
        time.sleep(0.02)
    assert "is a file, not a directory" in reason


@pytest.mark.process
def test_a_process_that_ends_without_a_word_is_named_by_its_exit_code(tmp_path: Path) -> None:
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\nexit 3\n")
    silent.chmod(0o755)
    broken = BrokerProcess(None, BrokerSettings(), StorageSettings(), idle_exit=0.05)
    broken.start(str(silent))
    deadline = time.monotonic() + 20
    while (reason := broken.failure()) is None:
        assert time.monotonic() < deadline, "it did not end"
        time.sleep(0.02)
    assert reason == "it ended with exit code 3."
