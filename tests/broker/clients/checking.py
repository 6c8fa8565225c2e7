"""What the checks of every client have in common. Standard library only: one client runs in an environment of its own."""

import sys
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType

# Group members are declared dead after so long, on any client and broker; none lets a test wait for its default.
SESSION_TIMEOUT = 6.0
HEARTBEAT_INTERVAL = 0.5


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


Function = Callable[[Target], object]


@dataclass(frozen=True)
class Check:
    """One thing a client does to a broker, run in a process group of its own.

    Attributes:
        limit: Seconds after which the whole group is killed and the check has failed.
        races: Depends on who comes first: worth repeating.
        slow_on: Kinds of target on which it takes too long for the quick suite.
        auto_create: Needs a broker that creates unknown topics.
    """

    function: Function
    limit: float = 40.0
    races: bool = False
    slow_on: frozenset[str] = frozenset({"kafka"})
    auto_create: bool = False


def check(
    *,
    limit: float = 40.0,
    races: bool = False,
    quick: Iterable[str] = ("embedded",),
    auto_create: bool = False,
) -> Callable[[Function], Function]:
    """Mark a function as a check; `quick` names the kinds of target on which it belongs to the quick suite."""

    def mark(function: Function) -> Function:
        slow_on = frozenset({"embedded", "kafka"} - set(quick))
        function.check = Check(function, limit, races, slow_on, auto_create)  # type: ignore[attr-defined]
        return function

    return mark


def checks_of(module: ModuleType) -> dict[str, Check]:
    """Return the checks that a module defines, by name, in their order."""
    return {name: value.check for name, value in vars(module).items() if hasattr(value, "check")}


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
