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


class Histories:
    """Reads what the processes of a run write, while they write it.

    Args:
        directory: Of the run.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: dict[Path, tuple[int, list[Event]]] = {}
        self._told: dict[Path, int] = {}

    def events(self, name: str = "") -> Iterator[Event]:
        """Return everything so far, or what one process wrote, file by file."""
        for path in sorted(self._directory.glob(f"{name}*.history")):
            yield from self._of(path)

    def news(self, name: str = "") -> Iterator[Event]:
        """Return what was not returned by this before, file by file: all of a long run, again and again, would take ever longer."""
        for path in sorted(self._directory.glob(f"{name}*.history")):
            events, told = self._of(path), self._told.get(path, 0)
            self._told[path] = len(events)
            yield from events[told:]

    def _of(self, path: Path) -> list[Event]:
        position, events = self._read.get(path, (0, []))
        with path.open("rb") as file:
            file.seek(position)
            lines = file.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()  # is being written, or was when its process was killed
        events.extend(read_lines(lines))
        self._read[path] = position + sum(map(len, lines)), events
        return events
