"""One process owns a data directory; the lock file says which, and where it listens."""

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from octopus.errors import ConfigurationError

LOOKS = 10
"""Attempts to take a lock that another process may only be looking at (`owner_of`) …"""

LOOK_WAIT = 0.02
"""… and seconds between them."""


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


class Owner(NamedTuple):
    """The state of a directory, from its lock file and the kernel.

    Attributes:
        lives: Whether a broker owns it now.
        pid: Its process id, or that of one which died; None after one that ended in order.
        address: Where it listens, or listened when it died; None when it does not, or not yet.
        was_stopped: Whether the last owner was asked to end, rather than died or ran out of clients.
    """

    lives: bool = False
    pid: int | None = None
    address: str | None = None
    was_stopped: bool = False


class DirectoryLock:
    """The lock of a data directory. The kernel releases it with the process, so a dead owner's lock is free.

    Raises:
        LockedError: Another process, or this one, holds it.

    Attributes:
        last_address: Where the directory's broker listened the last time; clients of that one may still look there.
        was_stopped: Whether this owner was asked to end; its waiting clients are told.
    """

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take()
        except BlockingIOError:
            entry = _read(os.pread(self._descriptor, 4096, 0))
            os.close(self._descriptor)
            raise LockedError(directory, entry.get("pid"), entry.get("address")) from None
        before = _read(os.pread(self._descriptor, 4096, 0))
        self.last_address: str | None = before.get("address") or before.get("last")
        self.was_stopped = False
        self.announce(None)

    def _take(self) -> None:
        for look in range(LOOKS):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if look + 1 == LOOKS:
                    raise
                time.sleep(LOOK_WAIT)
            else:
                return

    def announce(self, address: str | None) -> None:
        """Write this process's id and `address` for processes that find the directory taken."""
        self.last_address = address or self.last_address
        self._write(os.getpid(), address)

    def release(self) -> None:
        """Let others have the directory. The file stays: removing it would race with them."""
        self._write(None, None)
        os.close(self._descriptor)

    def _write(self, pid: int | None, address: str | None) -> None:
        entry = {"pid": pid, "address": address, "last": self.last_address, "stopped": self.was_stopped}
        # One write, padded, so that a reader never sees half of the old and half of the new.
        os.pwrite(self._descriptor, json.dumps(entry).encode().ljust(1024), 0)


def read_owner(directory: Path) -> tuple[int | None, str | None]:
    """Return (pid, address) from a directory's lock file; it may be a dead owner's."""
    owner = owner_of(directory)
    return owner.pid, owner.address


def owner_of(directory: Path) -> Owner:
    """Return the owner of a directory. A process id may be another's by now, and an address too; the lock cannot.

    Raises:
        OSError: The lock file cannot be read.
    """
    try:
        descriptor = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return Owner()
    try:
        lives = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared with other readers, for a moment
        except BlockingIOError:
            lives = True
        entry = _read(os.pread(descriptor, 4096, 0))
    finally:
        os.close(descriptor)
    return Owner(lives, entry.get("pid"), entry.get("address"), not lives and entry.get("stopped") is True)


def _read(content: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        entry = json.loads(content)
        if isinstance(entry, dict):
            return entry
    return {}
