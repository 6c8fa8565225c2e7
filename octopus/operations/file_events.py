"""What happens to files, as events.

Notifications only say where to look; what happened is told by comparing the disk with what was known. So nothing is
missed while the watch begins, when a directory is moved in with everything in it, or when the broker was away for hours:
then some states in between go unseen, but never the last one.

Notifications follow a directory, not its path. So it is looked every second whether what was watched is still what is
there (a directory is made anew, something is mounted over it, a link or a parent is moved), and whether files that have
other names changed through those. And because notifications get lost (their queue is short, their number limited), all
is compared now and then; if that finds anything, the watch begins anew.
"""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

import msgspec
import watchfiles

from octopus.logs import get_logger
from octopus.operations.file_states import Identity, Scanner, State, identity_of

DEBOUNCE_MILLISECONDS = 200
STEP_MILLISECONDS = 50

RESTART_WAIT = 0.5
"""Seconds before a notifier that has ended is replaced."""

LOOK_WAIT = 1.0
"""Seconds between looks at whether directories are still those that are watched."""

COMPARE_WAIT = 30.0
"""Seconds between comparisons of everything."""

SHARE, LOOK_SHARE = 50, 5
"""Comparing may take one part in so many of the time: large trees are looked at less often. A look takes less."""

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
        self._tops = {str(directory) for directory in self._directories}
        self._excluded = [directory.expanduser().absolute() for directory in exclude]
        self._recursive = recursive
        self._scanner = Scanner(self._directories, recursive, patterns, self._excluded)
        self._existing = existing
        self._polling = polling
        self._known: dict[str, State] = {}
        self._watched: dict[str, Identity | None] = {}
        self._doubtful: set[str] = set()  # what may change without a notice
        self._cost = 0.0  # seconds that the last comparison of everything took
        self._has_looked = False
        self._complaints: set[str] = set()
        self._host = socket.gethostname()

    async def look(self) -> None:
        """Take in what is there already: from now on, everything that happens is told. `events` does it, too."""
        if not self._existing and not self._has_looked:
            self._known = (await asyncio.to_thread(self._scanner.scan, self._directories)).files
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
            await asyncio.sleep(max(RESTART_WAIT, SHARE * self._cost))

    async def _notified(self) -> AsyncIterator[list[FileEvent]]:
        """Yield what changed until the notifier ends, or what it watches is not what is there."""
        there = [directory for directory in self._directories if directory.is_dir()]
        stop = asyncio.Event()
        changes = watchfiles.awatch(
            *there,
            watch_filter=None,
            recursive=self._recursive,
            debounce=DEBOUNCE_MILLISECONDS,
            step=STEP_MILLISECONDS,
            force_polling=self._polling,
            stop_event=stop,
            ignore_permission_denied=True,
        )
        following: asyncio.Future[set[tuple[watchfiles.Change, str]] | None] = (
            asyncio.get_running_loop().create_future()
        )
        if there:
            following = asyncio.ensure_future(anext(changes, None))
        try:
            await asyncio.sleep(0)  # the watch begins with the first step of its generator
            if found := await self._compare_everything():
                yield found
            looked = compared = time.monotonic()
            while True:
                await asyncio.wait((following,), timeout=LOOK_WAIT)
                touched: set[Path] = set()
                if following.done():
                    if (notices := following.result()) is None:
                        return
                    touched = {Path(path) for _, path in notices}
                    following = asyncio.ensure_future(anext(changes, None))
                    if found := await asyncio.to_thread(self._compare, touched):
                        yield found
                now = time.monotonic()
                if now - looked >= max(LOOK_WAIT, LOOK_SHARE * self._cost):
                    if found := await asyncio.to_thread(self._compare, map(Path, sorted(self._doubtful))):
                        yield found
                    if await asyncio.to_thread(self._is_moved):
                        return
                    looked = time.monotonic()
                if touched.intersection(self._directories):
                    return  # what is watched has ended; another may be there already, with the same identity
                if now - compared >= max(COMPARE_WAIT, SHARE * self._cost):
                    found = await self._compare_everything()
                    compared = time.monotonic()
                    if found:
                        yield found
                        return
        finally:
            stop.set()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await changes.aclose()

    def _is_moved(self) -> bool:
        """Tell whether a directory that was there is not the one that is there now, or one that was not there is."""
        return any(identity_of(path) != identity for path, identity in self._watched.items())

    async def _compare_everything(self) -> list[FileEvent]:
        began = time.monotonic()
        found = await asyncio.to_thread(self._compare, self._directories, is_everything=True)
        self._cost = time.monotonic() - began
        return found

    def _complain(self, error: Exception) -> None:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        text = str(error)
        if text not in self._complaints:
            self._complaints.add(text)
            logger.warning("%s; looking at everything again", text)

    def _compare(self, touched: Iterable[Path], *, is_everything: bool = False) -> list[FileEvent]:
        """Return what changed at these paths and below, and remember it."""
        seen: dict[str, State] = {}
        gone: set[str] = set()
        if is_everything:
            self._watched = dict.fromkeys(map(str, self._directories))
            self._doubtful.clear()
        for path in touched:
            below = self._scanner.scan([path])
            seen |= below.files
            if str(path) in self._known:
                were = {str(path)}
            elif str(path) in below.files:
                were = set()
            else:
                prefix = f"{path}{os.sep}"
                were = {known for known in self._known if known.startswith(prefix)}
                for directory in [each for each in self._watched if each == str(path) or each.startswith(prefix)]:
                    if directory not in self._tops:
                        del self._watched[directory]
            gone |= {known for known in were - below.files.keys() if not below.hides(known)}
            self._watched |= below.directories
            self._doubtful |= below.linked | below.hidden
        now = time.time()
        found = [self._event("deleted", name, None, now) for name in sorted(gone)]
        for name in gone:
            del self._known[name]
        self._doubtful -= gone
        for name, state in sorted(seen.items(), key=lambda item: item[1].modified_nanoseconds):
            before = self._known.get(name)
            if before != state:
                found.append(self._event("created" if before is None else "modified", name, state, now))
                self._known[name] = state
        return found

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
