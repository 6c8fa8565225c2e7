"""A partition's directory: made with the first record, so a topic is a line in the catalog until a client writes to it."""

from pathlib import Path

from octopus.broker.faults import Faults
from octopus.broker.files import sync_directory


class Directory:
    """Where a partition's files are, once there are some.

    Args:
        path: `topics/<folder>/<number>`, of which `topics` is there.
        faults: Disk faults on demand.

    Attributes:
        path: As given.
        is_made: Whether it is there.
        is_durable: Whether its name, and its topic's, survive a power loss: nothing in it is acknowledged before.
    """

    def __init__(self, path: Path, faults: Faults) -> None:
        self.path = path
        self.is_made = path.exists()
        self.is_durable = self.is_made  # the start syncs what a crash left
        self._faults = faults

    def make(self) -> None:
        """Make it, and its topic's, where they are missing; durable after `sync`.

        Raises:
            OSError: The disk refused.
        """
        for each in (self.path.parent, self.path):
            each.mkdir(mode=0o700, exist_ok=True)
        self.is_made = True

    def sync(self) -> None:
        """Make durable the names of the files in it, and its own at first; in any thread.

        Raises:
            OSError: The disk refused.
        """
        sync_directory(self.path, self._faults)
        if not self.is_durable:
            # The topic's in any case: another partition may have made it and not have synced it yet.
            for each in (self.path.parent, self.path.parent.parent):
                sync_directory(each, self._faults)
            self.is_durable = True
