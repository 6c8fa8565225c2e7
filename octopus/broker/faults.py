"""Disk faults on demand, for tests of the layers above the broker."""

import errno
import os
import signal
import time


class Faults:
    """Consulted before every write and fsync of a `Storage`; does nothing until told to.

    Attributes:
        space: Bytes that may still be written before the disk is full (`ENOSPC`); None for no limit.
        write_error: `errno` with which every write fails (for example `errno.EIO`); 0 for none.
        sync_error: `errno` with which every fsync fails; 0 for none.
        sync_delay: Seconds every fsync takes longer.
        kill_after: Bytes that may still be written before the process kills itself in the middle of a write (a torn
            write); None for never.
    """

    def __init__(self) -> None:
        self.space: int | None = None
        self.write_error = 0
        self.sync_error = 0
        self.sync_delay = 0.0
        self.kill_after: int | None = None

    def before_write(self, size: int) -> int:
        """Return how many of `size` bytes may be written now; the rest is asked for again.

        Raises:
            OSError: The fault that was set.
        """
        if self.write_error:
            raise OSError(self.write_error, os.strerror(self.write_error))
        if self.kill_after is not None:
            if self.kill_after <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            size = min(size, self.kill_after)
            self.kill_after -= size
        if self.space is not None:
            if self.space <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            size = min(size, self.space)
            self.space -= size
        return size

    def before_sync(self) -> None:
        """Wait or raise, as was set; called in the thread that syncs.

        Raises:
            OSError: The fault that was set.
        """
        if self.sync_delay:
            time.sleep(self.sync_delay)
        if self.sync_error:
            raise OSError(self.sync_error, os.strerror(self.sync_error))
