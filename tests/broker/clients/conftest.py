"""The embedded broker as the clients' target."""

import resource
from collections.abc import Iterator

import pytest

from octopus.broker.settings import BrokerSettings
from octopus.broker.thread import BrokerThread
from octopus.transports.broker_codecs import codecs
from octopus.transports.checksum import crc32c


@pytest.fixture(scope="session")
def embedded_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an embedded broker with its data in a directory; it tidies up twice a second, not twice a minute."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))  # five hundred readers at once
    with BrokerThread(
        tmp_path_factory.mktemp("broker"),
        BrokerSettings(maintenance_interval=0.5),
        checksum=crc32c,
        codecs=codecs(),
    ) as broker:
        yield broker.address
