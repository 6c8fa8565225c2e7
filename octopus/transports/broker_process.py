"""A broker as a process of its own: started here, run by `python -m octopus.transports.broker_process`."""

import dataclasses
import json
import subprocess
import sys
import tempfile
import warnings
import weakref
from pathlib import Path
from typing import IO, Any

from octopus.broker.lock import LockedError
from octopus.broker.process import run
from octopus.broker.settings import BrokerSettings, StorageSettings
from octopus.errors import ConfigurationError
from octopus.transports.broker_codecs import codecs
from octopus.transports.checksum import crc32c

_LOST_THE_RACE = 75  # another broker owns the directory: fine, that one is joined


class BrokerProcess:
    """A broker process, detached: it does not end with its parent or its terminal.

    Args:
        directory: Where it keeps records; None for memory.
        settings: How it is reached.
        storage: How it keeps records.
        idle_exit: Seconds without connections after which it ends.
    """

    def __init__(
        self, directory: Path | None, settings: BrokerSettings, storage: StorageSettings, idle_exit: float
    ) -> None:
        self._arguments = {
            "directory": str(directory) if directory is not None else None,
            "host": settings.host,
            "port": settings.port,
            "default_partitions": settings.default_partitions,
            "storage": dataclasses.asdict(storage),
            "idle_exit": idle_exit,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def start(self, executable: str) -> None:
        """Start it; returns before it answers."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - the child keeps writing to it
        weakref.finalize(self, self._errors.close)
        command = [executable, "-P", "-m", "octopus.transports.broker_process", json.dumps(self._arguments)]
        self._process = _Detached(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,
        )

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, for any reason."""
        return self._process is not None and self._process.poll() is not None

    def failure(self) -> str | None:
        """Return why it ended, in its last line, or None while it runs or when another broker was quicker."""
        if self._process is None or self._errors is None or self._process.poll() in (None, _LOST_THE_RACE):
            return None
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with exit code {self._process.returncode}."


class _Detached(subprocess.Popen[bytes]):
    """A process that outlives its starter. That is meant, so it warns of nothing."""

    def __del__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            super().__del__()  # it is reaped when the next one is started


def main(text: str) -> int:
    """Run a broker with the arguments that `BrokerProcess` gives; return the exit code."""
    given: dict[str, Any] = json.loads(text)
    try:
        run(
            Path(given["directory"]) if given["directory"] is not None else None,
            BrokerSettings(host=given["host"], port=given["port"], default_partitions=given["default_partitions"]),
            StorageSettings(**given["storage"]),
            idle_exit=given["idle_exit"],
            checksum=crc32c,
            codecs=codecs(),
        )
    except LockedError:
        return _LOST_THE_RACE
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")  # its starter passes on this last line
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
