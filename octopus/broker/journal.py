"""A journal: lines appended to a file, each showing whether it is whole; the base of small durable tables."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from octopus.broker.codes import BrokerError, Code
from octopus.broker.environment import Environment
from octopus.broker.files import DiskFile, open_line, replace_file, sealed_line
from octopus.logs import get_logger

_SLACK_BYTES = 2**20

_log = get_logger(__name__)


class Journal:
    """Entries (values for JSON) that rebuild a table when replayed in order.

    The table's owner changes its table first and then writes the changes. A journal that failed is written anew from
    the table, so a full disk leaves nothing behind once there is space again.

    Args:
        path: The file; None keeps nothing.
        environment: Shared by all that is stored.
        replay: Called with each entry found.
        snapshot: Returns entries that rebuild the table as it is now.

    Attributes:
        is_broken: Whether written entries may be lost; the next write writes everything anew.

    Raises:
        OSError: The file cannot be read.
    """

    def __init__(
        self,
        path: Path | None,
        environment: Environment,
        replay: Callable[[Any], None],
        snapshot: Callable[[], Iterable[Any]],
    ) -> None:
        self._path = path
        self._environment = environment
        self._snapshot = snapshot
        self.is_broken = False
        self._is_closed = False
        self._size = self._snapshot_size = 0
        if path is None:
            return
        self._file = DiskFile(path, environment.descriptors, environment.faults)
        for entry in _entries(path):
            replay(entry)
        try:
            self._rewrite()
        except OSError as error:  # a full disk is no reason not to start: the entries can be read
            _log.warning("%s: cannot be written: %s", path, error)
            self.is_broken = True

    def write(self, *entries: Any) -> None:
        """Append entries, all of them or none; durable after a sync.

        Raises:
            BrokerError: 56 the disk refused, 15 the broker has stopped.
        """
        if self._is_closed:  # another process may own the file by now
            raise BrokerError(Code.COORDINATOR_NOT_AVAILABLE, "The broker has stopped.")
        if self._path is None:
            return
        try:
            if self.is_broken or self._size > 4 * self._snapshot_size + _SLACK_BYTES:
                self._rewrite()
            else:
                lines = b"".join(map(_line, entries))
                self._file.write([lines], self._size)
                self._size += len(lines)
        except OSError as error:
            self.is_broken = True
            raise BrokerError(Code.KAFKA_STORAGE_ERROR, f"The disk refused: {error}.") from error
        if self._environment.is_durable:
            self._environment.commit.mark(self)

    def begin_sync(self) -> Callable[[], None]:
        """Return the work, for any thread, that makes durable all that was written so far (see `Durable`)."""
        return self._file.sync

    def end_sync(self, error: Exception | None) -> None:
        """Take note of the work's result (see `Durable`)."""
        if error is not None:
            # The file's content is unknown now. The next write replaces it as a whole.
            self.is_broken = True

    def close(self) -> None:
        """Leave a short journal for the next start.

        Raises:
            BrokerError: 56 the disk refused; durable entries stay.
        """
        if self._path is None or self._is_closed:
            return
        self._is_closed = True
        try:
            self._rewrite()
        except OSError as error:
            raise BrokerError(Code.KAFKA_STORAGE_ERROR, f"The disk refused: {error}.") from error
        finally:
            self._file.close()

    def _rewrite(self) -> None:
        assert self._path is not None
        content = b"".join(map(_line, self._snapshot()))
        self._file.close()
        replace_file(self._path, [content], self._environment.faults)
        self._size = self._snapshot_size = len(content)
        self.is_broken = False


def _line(entry: Any) -> bytes:
    return sealed_line(json.dumps(entry, separators=(",", ":")).encode())


def _entries(path: Path) -> Iterable[Any]:
    if not path.exists():
        return
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for line in file:
            content = open_line(line)
            if content is not None:
                yield json.loads(content)
            elif file.tell() < size:
                _log.warning("%s: skipping a damaged line before byte %d", path, file.tell())
            else:
                _log.warning("%s: dropping an unfinished last line of %d bytes", path, len(line))
