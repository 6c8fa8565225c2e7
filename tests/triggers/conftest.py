"""What every test of the trigger has."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from octopus.triggers.aws.handler import Trigger


@pytest.fixture(autouse=True)
def end_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End what the test makes as Lambda would: a function keeps its loop for as long as its environment lives."""
    made: list[Trigger] = []
    begin = Trigger.__init__

    def remembered(self: Trigger, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(Trigger, "__init__", remembered)
    yield
    for trigger in made:
        with contextlib.suppress(Exception):  # lifespans of tests fail on purpose
            trigger.close()
