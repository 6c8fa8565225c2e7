"""What is on disk below some directories, as far as it may be looked at."""

import errno
import fnmatch
import os
import stat
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

GONE = (errno.ENOENT, errno.ENOTDIR)
"""What is said of a path that is not there. Anything else (no permission, a server that does not answer) says nothing of it."""


class State(NamedTuple):
    """What tells one content of a file from another."""

    inode: int
    size: int
    modified_nanoseconds: int


class Identity(NamedTuple):
    """What tells a directory from another one at the same path: made anew, mounted over it, or what a link leads to now."""

    device: int
    inode: int


class Scan:
    """What was found.

    Attributes:
        files: State of each file that counts.
        directories: Identity of each directory that was looked into.
        linked: Files that can change without a notice in their directory: they have other names, or are links themselves.
        hidden: Paths that nothing can be said of, nor of what is below them.
    """

    def __init__(self) -> None:
        self.files: dict[str, State] = {}
        self.directories: dict[str, Identity] = {}
        self.linked: set[str] = set()
        self.hidden: set[str] = set()

    def hides(self, path: str) -> bool:
        """Tell whether nothing can be said of a path."""
        return any(path == each or path.startswith(f"{each.rstrip(os.sep)}{os.sep}") for each in self.hidden)


class Scanner:
    """Looks at directories.

    Args:
        tops: Directories that count also if links lead there.
        recursive: Whether everything below them counts.
        patterns: Of names (`*.tif`); all when empty.
        excluded: What does not count.
    """

    def __init__(
        self, tops: Collection[Path], recursive: bool, patterns: Sequence[str], excluded: Collection[Path]
    ) -> None:
        self._tops = {str(top) for top in tops}
        self._recursive = recursive
        self._patterns = patterns
        self._excluded = excluded

    def scan(self, paths: Iterable[Path]) -> Scan:
        """Return what is at these paths and below."""
        found = Scan()
        for path in paths:
            self._look(str(path), path.is_symlink(), found)
        return found

    def _look(self, path: str, is_link: bool, found: Scan) -> None:
        is_top = path in self._tops
        if any(Path(path).is_relative_to(directory) for directory in self._excluded):
            return
        try:
            status = Path(path).stat()
            if stat.S_ISREG(status.st_mode):
                if self._counts(Path(path).name):
                    found.files[path] = State(status.st_ino, status.st_size, status.st_mtime_ns)
                    if is_link or status.st_nlink > 1:
                        found.linked.add(path)
                return
            # A link to a directory may lead in a circle, so only what was named is followed.
            if not stat.S_ISDIR(status.st_mode) or (is_link and not is_top):
                return
            if not (is_top or self._recursive):
                return
            found.directories[path] = Identity(status.st_dev, status.st_ino)
            with os.scandir(path) as entries:
                children = [(entry.path, entry.is_symlink()) for entry in entries]
        except OSError as error:
            if error.errno not in GONE:
                found.hidden.add(path)
            return
        for child, is_child_link in children:
            self._look(child, is_child_link, found)

    def _counts(self, name: str) -> bool:
        return not self._patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in self._patterns)


def identity_of(path: str) -> Identity | None:
    """Return which directory is at a path now; None when there is none, or it cannot be told."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return Identity(status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None
