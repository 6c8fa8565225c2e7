"""What the checks of every client have in common. Standard library only: one client runs in an environment of its own."""

import ast
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

# Group members are declared dead after so long, on any client and broker; none lets a test wait for its default.
SESSION_TIMEOUT = 6.0
HEARTBEAT_INTERVAL = 0.5

Function = TypeVar("Function", bound=Callable[..., object])


@dataclass(frozen=True)
class Target:
    """The broker under test.

    Attributes:
        bootstrap: `host:port`.
        kind: `embedded` or `kafka`, for the few answers that differ by design.
    """

    bootstrap: str
    kind: str

    @property
    def host(self) -> str:
        """The host of the first address."""
        return self.bootstrap.split(",")[0].rpartition(":")[0]

    @property
    def port(self) -> int:
        """The port of the first address."""
        return int(self.bootstrap.split(",")[0].rpartition(":")[2])


@dataclass(frozen=True)
class Check:
    """One thing a client does to a broker, run in a process group of its own.

    Attributes:
        name: The function that does it.
        limit: Seconds after which the whole group is killed and the check has failed.
        races: Depends on who comes first: worth repeating.
        quick_on_kafka: Belongs to the quick suite against Apache Kafka too, not only against the embedded broker.
        auto_create: Needs a broker that creates unknown topics.
        only: The one client it is for, where a module serves several.
    """

    name: str
    limit: float = 40.0
    races: bool = False
    quick_on_kafka: bool = False
    auto_create: bool = False
    only: str | None = None


def check(**_: float | bool | str) -> Callable[[Function], Function]:
    """Mark a function as a check; the arguments are those of `Check`, as literals, for `checks_in` to read."""
    return lambda function: function


def checks_in(source: Path) -> list[Check]:
    """Return the checks in a module without importing it: collecting tests must neither need nor load every client."""
    found = []
    for node in ast.parse(source.read_text()).body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == check.__name__:
                given = {word.arg: ast.literal_eval(word.value) for word in mark.keywords if word.arg}
                found.append(Check(node.name, **given))
    return found


def fresh(stem: str) -> str:
    """Return a name that no other check uses."""
    return f"{stem}-{uuid.uuid4().hex[:10]}"


def milliseconds_ago(seconds: float) -> int:
    """Return a record timestamp in the recent past, which no retention touches."""
    return int((time.time() - seconds) * 1000)


def eventually(condition: Callable[[], object], timeout: float, otherwise: str, pause: float = 0.1) -> None:
    """Poll `condition` until it is true.

    Raises:
        AssertionError: It still was not after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{otherwise} (after {timeout:.0f} s)"
        time.sleep(pause)


def companion(client: str, function: str, target: Target, *arguments: str) -> list[str]:
    """Return the command of a second process of the same check, one that can be killed."""
    runner = [sys.executable, "-m", "tests.broker.clients.run"]
    return [*runner, "--kind", target.kind, client, function, target.bootstrap, *arguments]
