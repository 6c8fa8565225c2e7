"""Writes history files, one a process, and reads all of a run."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from octopus.testing.history import Event, read_lines, write_line

now = time.monotonic


class Journal:
    """A history file. A line is one `write`, so that a kill leaves whole lines, and several threads may write.

    Args:
        path: Appended to.
        durable: Whether an effect waits for the disk.
    """

    def __init__(self, path: Path, *, durable: bool = False) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._durable = durable

    def write(self, *events: Event) -> None:
        """Append events."""
        os.write(self._file, b"".join(map(write_line, events)))

    def write_effects(self, *events: Event) -> None:
        """Append events, and return when they are on disk."""
        self.write(*events)
        if self._durable:
            os.fdatasync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read_all(directory: Path, name: str = "") -> Iterator[Event]:
    """Return everything that the processes of a run wrote, or one of them, file by file."""
    for path in sorted(directory.glob(f"{name}*.history")):
        with path.open("rb") as lines:
            yield from read_lines(lines)
