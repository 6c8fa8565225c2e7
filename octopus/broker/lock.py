"""One process owns a data directory; the lock file says which, and where it listens."""

import fcntl
import json
import os
from pathlib import Path

from octopus.errors import ConfigurationError


class LockedError(ConfigurationError):
    """A living broker owns the data directory.

    Attributes:
        pid: Its process id; None when it has not written it yet.
        address: Where it listens (`host:port`); None when it does not, or not yet.
    """

    def __init__(self, directory: Path, pid: int | None, address: str | None) -> None:
        where = f" and listens at {address}" if address else ""
        super().__init__(
            f"The data directory {str(directory)!r} is in use: process {pid or 'unknown'} owns it{where}. "
            "Connect to that broker, or stop it first."
        )
        self.pid = pid
        self.address = address


class DirectoryLock:
    """The lock of a data directory. The kernel releases it with the process, so a dead owner's lock is free.

    Raises:
        LockedError: Another process, or this one, holds it.
    """

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid, address = _owner(os.pread(self._descriptor, 4096, 0))
            os.close(self._descriptor)
            raise LockedError(directory, pid, address) from None
        self.announce(None)

    def announce(self, address: str | None) -> None:
        """Write this process's id and `address` for those who find the directory taken."""
        self._write(os.getpid(), address)

    def release(self) -> None:
        """Let others have the directory. The file stays: removing it would race with them."""
        self._write(None, None)
        os.close(self._descriptor)

    def _write(self, pid: int | None, address: str | None) -> None:
        # One write, padded, so that a reader never sees half of the old and half of the new.
        os.pwrite(self._descriptor, json.dumps({"pid": pid, "address": address}).encode().ljust(1024), 0)


def read_owner(directory: Path) -> tuple[int | None, str | None]:
    """Return (pid, address) from a directory's lock file; it may be a dead owner's."""
    try:
        return _owner((directory / "lock").read_bytes())
    except FileNotFoundError:
        return None, None


def _owner(content: bytes) -> tuple[int | None, str | None]:
    try:
        owner = json.loads(content)
        return owner["pid"], owner["address"]
    except (ValueError, TypeError, KeyError):
        return None, None
