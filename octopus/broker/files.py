"""Files as the broker needs them: positioned, all-or-nothing writes; atomic replacement; few descriptors."""

import fcntl
import os
import resource
import sys
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from octopus.broker.faults import Faults

_FOR_FILES = 512
_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync alone stops at the drive's cache


def raise_descriptor_limit() -> None:
    """Let this process have as many files open as its hard limit allows; for a process that is a broker and nothing else."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS refuses more than its kernel can do, even below the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def descriptors_for_connections() -> int:
    """Return how many connections the limit of open files leaves room for, beside all other files of the process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(soft - _FOR_FILES, soft // 4)


class LogFile(Protocol):
    """A segment's bytes, in memory or on disk."""

    def write(self, parts: Sequence[bytes | memoryview], position: int) -> None:
        """Write all parts at `position`, the end of the file, or leave the file as it was and raise `OSError`."""

    def read(self, position: int, size: int) -> bytes:
        """Return `size` bytes; copied once."""

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes."""

    def sync(self) -> None:
        """Make the writes so far durable; may be called in another thread."""

    def close(self) -> None:
        """Release the descriptor; the file can still be used."""

    def abandon(self) -> None:
        """Never use the file again; the caller removes it."""

    def delete(self) -> None:
        """Remove the file."""


class MemoryFile:
    """A `LogFile` that is gone with the process."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, parts: Sequence[bytes | memoryview], position: int) -> None:
        del self._data[position:]
        for part in parts:
            self._data += part

    def read(self, position: int, size: int) -> bytes:
        with memoryview(self._data) as view:
            return bytes(view[position : position + size])

    def truncate(self, size: int) -> None:
        del self._data[size:]

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        self._data = bytearray()

    def delete(self) -> None:
        self.abandon()


class Descriptors:
    """Keeps at most `limit` descriptors open, closing those unused for longest; thousands of partitions need few."""

    def __init__(self, limit: int = 200) -> None:
        self._limit = limit
        self._open: OrderedDict[DiskFile, int] = OrderedDict()

    def get(self, file: "DiskFile") -> int:
        """Return the file's descriptor, opening it at need."""
        descriptor = self._open.get(file)
        if descriptor is not None:
            self._open.move_to_end(file)
            return descriptor
        while len(self._open) >= self._limit:
            self.close(next(iter(self._open)))
        descriptor = os.open(file.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._open[file] = descriptor
        return descriptor

    def close(self, file: "DiskFile") -> None:
        """Close the file's descriptor, if it is open."""
        descriptor = self._open.pop(file, None)
        if descriptor is not None:
            os.close(descriptor)


class DiskFile:
    """A `LogFile` on disk."""

    def __init__(self, path: Path, descriptors: Descriptors, faults: Faults) -> None:
        self.path = path
        self.is_deleted = False
        self._descriptors = descriptors
        self._faults = faults

    def write(self, parts: Sequence[bytes | memoryview], position: int) -> None:
        descriptor = self._descriptors.get(self)
        try:
            write_all(descriptor, parts, position, self._faults)
        except OSError:
            # The bytes behind `position` would look like a torn batch after a crash. If even this fails, the next
            # write goes to the same position.
            with suppress(OSError):
                os.ftruncate(descriptor, position)
            raise

    def read(self, position: int, size: int) -> bytes:
        return os.pread(self._descriptors.get(self), size, position)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptors.get(self), size)

    def sync(self) -> None:
        # A descriptor of its own: the shared one may be closed meanwhile by the thread that owns it. fsync concerns
        # the file, whichever descriptor wrote to it.
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            if self.is_deleted:
                return
            raise
        try:
            sync(descriptor, self._faults)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        self._descriptors.close(self)

    def abandon(self) -> None:
        self.is_deleted = True
        self.close()

    def delete(self) -> None:
        self.abandon()
        self.path.unlink(missing_ok=True)


def write_all(descriptor: int, parts: Sequence[bytes | memoryview], position: int, faults: Faults) -> None:
    """Write all parts at `position`; a write may be partial, so go on until everything is written.

    Raises:
        OSError: The disk is full or failed; some bytes may have been written.
    """
    views = [memoryview(part) for part in parts]
    left = sum(map(len, views))
    while left:
        allowed = faults.before_write(left)
        written = os.pwritev(descriptor, views if allowed == left else _limited(views, allowed), position)
        position += written
        left -= written
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]


def _limited(views: Sequence[memoryview], size: int) -> list[memoryview]:
    limited = []
    for view in views:
        limited.append(view[:size])
        size -= len(limited[-1])
    return limited


def sync(descriptor: int, faults: Faults) -> None:
    """Make a file durable, down to the medium.

    Raises:
        OSError: It may not be durable; the kernel's copy is unknown.
    """
    faults.before_sync()
    if _FULL_SYNC is not None:
        fcntl.fcntl(descriptor, _FULL_SYNC)
    else:
        os.fdatasync(descriptor)


def sync_directory(path: Path, faults: Faults) -> None:
    """Make the names in a directory durable: a new file is not, before its directory is."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        faults.before_sync()
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, parts: Sequence[bytes | memoryview], faults: Faults, *, durable: bool = True) -> None:
    """Replace a file's content as a whole: after a crash it is the old or the new one.

    Raises:
        OSError: The old content stays.
    """
    temporary = path.with_name(path.name + ".temp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(descriptor, parts, 0, faults)
        if durable:
            sync(descriptor, faults)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    temporary.replace(path)
    if durable:
        sync_directory(path.parent, faults)


def sealed_line(content: bytes) -> bytes:
    """Return `content` (without line breaks) as a line that shows whether it is whole."""
    return b"%08x %b\n" % (zlib.crc32(content), content)


def open_line(line: bytes) -> bytes | None:
    """Return the content of a `sealed_line`, or None when it is torn or altered."""
    content = line[9:-1]
    return content if line == sealed_line(content) else None
