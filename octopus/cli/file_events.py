"""What happens to files, as events.

Notifications only say where to look; what happened is told by comparing the disk with what was known. So nothing is
missed while the watch begins, when a directory is moved in with everything in it, or when the broker was away for hours:
then some states in between go unseen, but never the last one.
"""

import asyncio
import fnmatch
import os
import socket
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import watchfiles

DEBOUNCE_MILLISECONDS = 200
STEP_MILLISECONDS = 50


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
        polling: Look at the files again and again instead of being notified, for network file systems.
    """

    def __init__(
        self,
        directories: Sequence[Path],
        *,
        recursive: bool = True,
        patterns: Sequence[str] = (),
        existing: bool = False,
        polling: bool | None = None,
    ) -> None:
        self._directories = [directory.absolute() for directory in directories]
        self._recursive = recursive
        self._patterns = patterns
        self._existing = existing
        self._polling = polling
        self._known: dict[str, State] = {}
        self._host = socket.gethostname()

    async def events(self) -> AsyncIterator[list[FileEvent]]:
        """Yield what happened, in order for each path, until cancelled."""
        stop = asyncio.Event()
        if not self._existing:
            self._known = await asyncio.to_thread(self._scan, self._directories)
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
        following = asyncio.ensure_future(anext(changes))
        try:
            await asyncio.sleep(0)  # the watch begins with the first step of its generator
            if found := await asyncio.to_thread(self._compare, self._directories):
                yield found
            while True:
                touched = {Path(path) for _, path in await asyncio.shield(following)}
                following = asyncio.ensure_future(anext(changes))
                if found := await asyncio.to_thread(self._compare, touched):
                    yield found
        finally:
            stop.set()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await changes.aclose()

    def _compare(self, touched: Iterable[Path]) -> list[FileEvent]:
        """Return what changed at these paths and below, and remember it."""
        seen: dict[str, State] = {}
        gone: set[str] = set()
        for path in touched:
            below = self._scan([path])
            seen |= below
            text = str(path)
            if text in self._known and text not in below:
                gone.add(text)
            elif not path.is_file():
                prefix = text + os.sep
                gone |= {known for known in self._known if known.startswith(prefix) and known not in below}
        now = time.time()
        found = [self._event("deleted", path, None, now) for path in sorted(gone)]
        for path in gone:
            del self._known[path]
        for path, state in sorted(seen.items(), key=lambda item: item[1].modified_nanoseconds):
            before = self._known.get(path)
            if before != state:
                found.append(self._event("created" if before is None else "modified", path, state, now))
                self._known[path] = state
        return found

    def _scan(self, paths: Iterable[Path]) -> dict[str, State]:
        return {path: state for top in paths for path, state in self._walk(str(top), self._is_deep(top))}

    def _is_deep(self, path: Path) -> bool:
        return self._recursive or path in self._directories

    def _walk(self, path: str, deep: bool) -> Iterator[tuple[str, State]]:
        try:
            if not os.path.isdir(path) or os.path.islink(path) and path not in map(str, self._directories):
                if self._counts(path):
                    status = os.stat(path)
                    yield path, State(status.st_ino, status.st_size, status.st_mtime_ns)
                return
            if not deep:
                return
            with os.scandir(path) as entries:
                names = [entry.path for entry in entries]
        except OSError:
            return  # it went away while we looked, or may not be looked at
        for name in names:
            yield from self._walk(name, self._recursive)

    def _counts(self, path: str) -> bool:
        name = os.path.basename(path)
        return os.path.isfile(path) and (
            not self._patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in self._patterns)
        )

    def _event(self, event: str, path: str, state: State | None, now: float) -> FileEvent:
        # A name need not be UTF-8; JSON text must be.
        path = os.fsencode(path).decode("utf-8", "backslashreplace")
        return FileEvent(
            event=event,
            path=path,
            name=os.path.basename(path),
            directory=os.path.dirname(path),
            size=None if state is None else state.size,
            modified=None if state is None else state.modified_nanoseconds / 1e9,
            host=self._host,
            time=now,
        )
