"""Fixtures of the whole suite, and what a run says about the suites that could not run."""

import gc
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that `tests.support` is found from anywhere

from octopus import invariants
from tests.support.kafka_fixtures import kafka_cluster, kafka_cluster_of_three, why_kafka_is_missing
from tests.support.loud_skips import loud_lines, loud_reason

__all__ = ["kafka_cluster", "kafka_cluster_of_three"]

# A run starts hundreds of processes: what they import is compiled once, and not beside the sources, where some tests watch.
COMPILED = str(Path(__file__).resolve().parents[1] / ".pytest_cache" / "compiled")
os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = COMPILED
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# How fast a machine is, and how busy, says nothing about what is tested.
settings.register_profile("octopus", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("octopus")


def pytest_configure() -> None:
    """Assert the invariants of machines; let Ctrl-C reach the processes that tests start: a shell in the background ignores it."""
    invariants.switch_on()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def switched_off() -> Iterator[None]:
    """Assert no invariants of machines for the length of a test."""
    invariants.switch_off()
    yield
    invariants.switch_on()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts a command line as a process; skip what needs Apache Kafka where it cannot run."""
    for item in items:
        if "tests/cli/" in item.nodeid and "start" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.process)
    needing = [item for item in items if item.get_closest_marker("kafka")]
    if needing and (why := why_kafka_is_missing()):
        for item in needing:
            item.add_marker(pytest.mark.skip(reason=loud_reason("the Apache Kafka suites", why)))


def pytest_collection_finish() -> None:
    """Let no garbage collection of a test look through what was collected: ten thousand tests that live to the end."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None]:
    """Say last and loudly what did not run: a green run without it proves less."""
    yield
    for line in loud_lines(terminalreporter):
        terminalreporter.write_line(line, red=True, bold=True)
