"""What happens to files, as events.

Notifications only say where to look; what happened is told by comparing the disk with what was known. So nothing is
missed while the watch begins, when a directory is moved in with everything in it, or when the broker was away for hours:
then some states in between go unseen, but never the last one.
"""

import asyncio
import fnmatch
import os
import socket
import stat
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import watchfiles

from octopus.logs import get_logger

DEBOUNCE_MILLISECONDS = 200
STEP_MILLISECONDS = 50

RESTART_WAIT = 0.5
"""Seconds before a notifier that has ended is replaced."""

logger = get_logger("octopus.watch")


class FileEvent(msgspec.Struct, frozen=True):
    """What happened to a file.

    Attributes:
        event: `created`, `modified` or `deleted`.
        path: The file, absolute.
        name: Its last part.
        directory: What it is in, absolute.
        size: Bytes; None when it is gone.
        modified: Seconds since the epoch; None when it is gone.
        host: The machine.
        time: When it was noticed, seconds since the epoch.
    """

    event: str
    path: str
    name: str
    directory: str
    size: int | None
    modified: float | None
    host: str
    time: float


class State(NamedTuple):
    """What tells one content of a file from another."""

    inode: int
    size: int
    modified_nanoseconds: int


class FileWatcher:
    """Watches directories.

    Args:
        directories: Which.
        recursive: Whether everything below them counts.
        patterns: Of names (`*.tif`); all when empty.
        existing: Whether files that are there already count as created.
        exclude: Directories below them that do not count, such as the embedded broker's: what it writes about an event
            would be the next event.
        polling: Look at the files again and again instead of being notified, for network file systems.
    """

    def __init__(
        self,
        directories: Sequence[Path],
        *,
        recursive: bool = True,
        patterns: Sequence[str] = (),
        existing: bool = False,
        exclude: Sequence[Path] = (),
        polling: bool | None = None,
    ) -> None:
        self._directories = [directory.absolute() for directory in directories]
        self._excluded = [directory.expanduser().absolute() for directory in exclude]
        self._recursive = recursive
        self._patterns = patterns
        self._existing = existing
        self._polling = polling
        self._known: dict[str, State] = {}
        self._has_looked = False
        self._complaints: set[str] = set()
        self._host = socket.gethostname()

    async def look(self) -> None:
        """Take in what is there already: from now on, everything that happens is told. `events` does it, too."""
        if not self._existing and not self._has_looked:
            self._known = await asyncio.to_thread(self._scan, self._directories)
        self._has_looked = True

    async def events(self) -> AsyncIterator[list[FileEvent]]:
        """Yield what happened, in order for each path, until cancelled."""
        await self.look()
        while True:
            try:
                async for found in self._notified():
                    yield found
            except (RuntimeError, OSError, ExceptionGroup) as error:
                # One name that is not UTF-8 ends the notifier, as does a limit of the system. Beginning again compares
                # everything, so at the worst this is polling.
                self._complain(error)
            await asyncio.sleep(RESTART_WAIT)

    async def _notified(self) -> AsyncIterator[list[FileEvent]]:
        """Yield what changed until the notifier ends."""
        stop = asyncio.Event()
        changes = watchfiles.awatch(
            *self._directories,
            watch_filter=None,
            recursive=self._recursive,
            debounce=DEBOUNCE_MILLISECONDS,
            step=STEP_MILLISECONDS,
            force_polling=self._polling,
            stop_event=stop,
            ignore_permission_denied=True,
        )
        following = asyncio.ensure_future(anext(changes, None))
        try:
            await asyncio.sleep(0)  # the watch begins with the first step of its generator
            if found := await asyncio.to_thread(self._compare, self._directories):
                yield found
            while (notices := await asyncio.shield(following)) is not None:
                following = asyncio.ensure_future(anext(changes, None))
                if found := await asyncio.to_thread(self._compare, {Path(path) for _, path in notices}):
                    yield found
        finally:
            stop.set()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await changes.aclose()

    def _complain(self, error: Exception) -> None:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        text = str(error)
        if text not in self._complaints:
            self._complaints.add(text)
            logger.warning("%s; looking at everything again", text)

    def _compare(self, touched: Iterable[Path]) -> list[FileEvent]:
        """Return what changed at these paths and below, and remember it."""
        seen: dict[str, State] = {}
        gone: set[str] = set()
        for path in touched:
            below = self._scan([path])
            seen |= below
            if str(path) in self._known:
                gone |= {str(path)} - below.keys()
            elif not path.is_file():
                prefix = f"{path}{os.sep}"
                gone |= {known for known in self._known if known.startswith(prefix)} - below.keys()
        now = time.time()
        found = [self._event("deleted", name, None, now) for name in sorted(gone)]
        for name in gone:
            del self._known[name]
        for name, state in sorted(seen.items(), key=lambda item: item[1].modified_nanoseconds):
            before = self._known.get(name)
            if before != state:
                found.append(self._event("created" if before is None else "modified", name, state, now))
                self._known[name] = state
        return found

    def _scan(self, paths: Iterable[Path]) -> dict[str, State]:
        """Return the state of each file at these paths and below."""
        return {str(path): state for top in paths for path, state in self._walk(top)}

    def _walk(self, path: Path) -> Iterator[tuple[Path, State]]:
        is_top = path in self._directories
        if any(path.is_relative_to(directory) for directory in self._excluded):
            return
        try:
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                if self._counts(path.name):
                    yield path, State(status.st_ino, status.st_size, status.st_mtime_ns)
                return
            # A link to a directory may lead in a circle, so only what was named is followed.
            if not stat.S_ISDIR(status.st_mode) or (path.is_symlink() and not is_top):
                return
            children = list(path.iterdir()) if is_top or self._recursive else []
        except OSError:
            return  # it went away while we looked, or may not be looked at
        for child in children:
            yield from self._walk(child)

    def _counts(self, name: str) -> bool:
        return not self._patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in self._patterns)

    def _event(self, event: str, path: str, state: State | None, now: float) -> FileEvent:
        # A name need not be UTF-8; JSON text must be.
        text = os.fsencode(path).decode("utf-8", "backslashreplace")
        return FileEvent(
            event=event,
            path=text,
            name=text.rpartition(os.sep)[2],
            directory=text.rpartition(os.sep)[0] or os.sep,
            size=None if state is None else state.size,
            modified=None if state is None else state.modified_nanoseconds / 1e9,
            host=self._host,
            time=now,
        )
