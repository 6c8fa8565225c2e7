"""Runners that are closed with their test, virtual time, and every test with records read and unread."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from octopus.runner import Runner
from octopus.testing import VirtualTime
from tests.runner.begun import HANDED_OVER, Function, OnStage, Plain, RunWith
from tests.staged import Stage


@pytest.fixture
async def virtual_time() -> AsyncIterator[VirtualTime]:
    """Let time pass at once whenever nothing else can happen; it begins at 0."""
    with VirtualTime().installed(asyncio.get_running_loop()) as clock:
        yield clock


@pytest.fixture(params=[False, True], ids=["read", "unread"])
def handed_over_unread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test twice: with records that were read, and with those that are when their turn comes."""
    monkeypatch.setitem(HANDED_OVER, "unread", request.param)


@pytest.fixture
async def runners() -> AsyncIterator[list[Runner]]:
    """Close every runner that a test has put here."""
    begun: list[Runner] = []
    yield begun
    for runner in begun:
        await runner.close()


@pytest.fixture
def on_stage(handed_over_unread: None, runners: list[Runner]) -> OnStage:
    """Return what makes stages."""

    def make(**options: Any) -> tuple[Stage, Runner]:
        stage = Stage()
        runners.append(Runner(stage, **options))
        return stage, runners[-1]

    return make


@pytest.fixture
def run_with(handed_over_unread: None, runners: list[Runner]) -> RunWith:
    """Return what makes runners from functions."""

    def make(function: Function, **options: Any) -> Runner:
        runners.append(Runner(Plain(function), **options))
        return runners[-1]

    return make
