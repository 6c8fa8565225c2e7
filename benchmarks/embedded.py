"""The embedded broker as a process of its own, with everything chosen: directory, port, what it advertises.

python -m benchmarks.embedded DIRECTORY PORT ADVERTISED_PORT DURABILITY
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from octopus.broker.lock import read_owner
from octopus.broker.process import run
from octopus.broker.settings import BrokerSettings, StorageSettings
from octopus.transports.broker_codecs import codecs
from octopus.transports.checksum import crc32c

IDLE_EXIT = 900.0
"""Seconds without a connection after which it ends, in case nobody is left to end it."""

START = 60.0


def start_embedded(
    directory: Path, *, port: int = 0, advertised: int = 0, durability: str = "os"
) -> tuple[subprocess.Popen[bytes], str]:
    """Start a broker; return its process and address once it listens.

    Raises:
        RuntimeError: It ended, or took longer than `START` seconds.
    """
    command = [sys.executable, "-m", "benchmarks.embedded", str(directory), str(port), str(advertised), durability]
    # A session of its own, so that Ctrl-C reaches it through us, last; it ends with us in any case.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and process.poll() is None:
        pid, address = read_owner(directory)
        if pid == process.pid and address:
            return process, address
        time.sleep(0.002)
    process.kill()
    raise RuntimeError(f"the embedded broker did not start; exit code {process.wait()}")


def _end_with_parent() -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    run(
        Path(sys.argv[1]),
        BrokerSettings(port=int(sys.argv[2]), advertised_port=int(sys.argv[3]) or None),
        StorageSettings(durability="fsync" if sys.argv[4] == "fsync" else "os"),
        idle_exit=IDLE_EXIT,
        checksum=crc32c,
        codecs=codecs(),
    )
