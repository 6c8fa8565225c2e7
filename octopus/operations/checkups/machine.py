"""Checks of this machine: what is installed, who may read its secrets, where the embedded broker keeps records."""

import os
import platform
import shlex
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from octopus.config import Settings, Source
from octopus.operations.checkups.findings import Finding, doubtful, good, wrong
from octopus.operations.exposed_files import exposed_files
from octopus.operations.spelling import spell_bytes
from octopus.transports.aiokafka_version import TESTED

LOW_DISK_BYTES = 1_000_000_000


def check_python() -> Finding:
    """Say which Python runs, and where."""
    return good("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def check_event_loop() -> Finding:
    """Say which event loop workers use."""
    if find_spec("uvloop") is not None:
        return good("event loop", f"uvloop {version('uvloop')}")
    return doubtful("event loop", "asyncio's own: it works, more slowly", "pip install uvloop")


def check_kafka_client() -> Finding:
    """Compare the Kafka client with the one whose inside is known."""
    try:
        found = version("aiokafka")
    except PackageNotFoundError:
        return wrong("kafka client", "aiokafka is not installed", "pip install aiokafka")
    if found == TESTED:
        return good("kafka client", f"aiokafka {found}")
    return wrong(
        "kafka client",
        f"aiokafka {found}; Octopus reads the inside of {TESTED}, and takes no other",
        f"pip install aiokafka=={TESTED}",
    )


def check_secrets(files: Mapping[str, Source], settings: Settings) -> Iterator[Finding]:
    """Yield files with secrets that others on this machine may read.

    Args:
        files: What files of settings say, by the name of the file.
        settings: What is in force.
    """
    for path, what, mode in exposed_files(files, settings):
        text = f"{path} holds {what}, and others on this machine may read it (mode {mode:o})"
        yield doubtful("secrets", text, f"chmod 600 {shlex.quote(str(path))}")


def check_records(settings: Settings) -> Finding:
    """Say where the embedded broker keeps its records, and whether there is room."""
    if settings.broker.directory is None:
        return doubtful(
            "records",
            "in memory: they are gone when the embedded broker ends",
            "octopus … --config broker.directory=DIR keeps them.",
        )
    directory = Path(settings.broker.directory).expanduser().absolute()
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK) or not existing.is_dir():
        return wrong("records", f"{existing} cannot be written", "Choose another broker.directory.")
    free = shutil.disk_usage(existing).free
    text = f"{directory}, {spell_bytes(free)} free"
    if free < LOW_DISK_BYTES:
        return doubtful("records", text, "Make room, or set broker.retention_bytes.")
    return good("records", text)
