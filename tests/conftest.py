"""Fixtures of the whole suite, and what a run says about Apache Kafka."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that `tests.support` is found from anywhere

from tests.support.kafka_fixtures import SKIPPED_BECAUSE, kafka_cluster, kafka_cluster_of_three, why_kafka_is_missing

__all__ = ["kafka_cluster", "kafka_cluster_of_three"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs Apache Kafka where it cannot run."""
    needing = [item for item in items if item.get_closest_marker("kafka")]
    if needing and (why := why_kafka_is_missing()):
        for item in needing:
            item.add_marker(pytest.mark.skip(reason=SKIPPED_BECAUSE + why))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly that the Apache Kafka suites did not run: a green run without them proves less."""
    reasons = [
        report.longrepr[2] for report in terminalreporter.getreports("skipped") if isinstance(report.longrepr, tuple)
    ]
    missing = [reason.removeprefix("Skipped: ") for reason in reasons if SKIPPED_BECAUSE in reason]
    if missing:
        terminalreporter.write_line(
            f"THE APACHE KAFKA SUITES DID NOT RUN ({len(missing)} tests skipped). {missing[0]}", red=True, bold=True
        )
