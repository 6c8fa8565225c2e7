"""Splits what a broker sends into frames, without copying large ones and without new memory for each.

A stream reader copies every byte three times into memory that the kernel has to clear first; of what a record of half a
kilobyte costs a consumer that was half (`scripts/bench "consume:463 B:octopus transport*"`). Here the socket writes a large
frame where it stays until its records have been read, and the place is used again for a later one.
"""

import asyncio
import mmap
import struct
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

SMALL = 64 * 1024
"""Bytes up to which frames share one buffer and are copied out of it: most answers are far smaller."""

SPARE = 3
"""Large buffers kept: one whose records are being read, one that waits to be, one that is being filled."""

GRAIN = 256 * 1024
"""Large buffers are multiples of this, so that one serves frames of slightly different sizes."""

WASTE = 4
"""How many times larger than its frame a buffer may be: a frame that is kept keeps its whole buffer."""

QUIET = 100
"""So many small frames in a row, and the large buffers that are not in use are given back."""

CLEARED = 8 * 1024 * 1024
"""Bytes up to which a new buffer is ordinary memory, cleared at once. Larger ones are the kernel's, which clears pages as they are
filled: so that neither rounding up nor a broker that lies about a size costs memory. For all of them that would be slow."""

_SIZE = struct.Struct(">i")


class Owner(Protocol):
    """A connection, as far as its frames are concerned."""

    def frame_received(self, frame: bytes | memoryview) -> None:
        """Take a frame; a view is valid for as long as a reference to it is kept."""
        ...

    def frames_ended(self, error: BaseException | None) -> None:
        """Hear, once, that nothing more will come, and close; not after `stop`."""
        ...


class Frames(asyncio.BufferedProtocol):
    """Takes over a connection's socket from the stream protocol that it was opened with.

    Args:
        owner: Gets the frames; not kept alive.
        streams: Goes on pausing and resuming the writer, and hears of the end.
    """

    def __init__(self, owner: Owner, streams: asyncio.Protocol) -> None:
        self._owner: Callable[[], Owner | None] = weakref.ref(owner)
        self._streams = streams
        self._small = memoryview(bytearray(SMALL))
        self._large: memoryview | None = None  # the frame that is being filled, if it is a large one
        self._filled = 0
        self._buffers = Buffers()
        self._stopped = False

    def stop(self) -> None:
        """Hand over nothing more. Belongs before closing: to close TLS reads once more, in the middle of closing."""
        self._stopped = True
        self._large, self._filled = None, 0

    def get_buffer(self, sizehint: int) -> Any:
        """Say where the next bytes go."""
        return (self._small if self._large is None else self._large)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Hand over the frames that are complete."""
        if self._stopped:
            return
        self._filled += nbytes
        try:
            if self._large is None:
                self._split()
            elif self._filled == len(self._large):
                frame, self._large, self._filled = self._large, None, 0
                self._deliver(frame)
        except Exception as error:  # noqa: BLE001 - behind a frame with any fault, the stream cannot be trusted
            self._end(error)

    def _split(self) -> None:
        start, filled, small = 0, self._filled, self._small
        while filled - start >= 4 and not self._stopped:
            (size,) = _SIZE.unpack_from(small, start)
            if size < 0:
                raise ValueError(f"a frame says that it has {size} bytes")
            start += 4
            if filled - start >= size:
                self._deliver(bytes(small[start : start + size]))
                self._buffers.rest()
                start += size
            elif size > SMALL - 4:
                self._large = self._buffers.take(size)
                self._filled = filled - start
                self._large[: self._filled] = small[start:filled]
                return
            else:
                start -= 4
                break
        if start:
            small[: filled - start] = bytes(small[start:filled])
        self._filled = filled - start

    def _deliver(self, frame: bytes | memoryview) -> None:
        owner = self._owner()
        if owner is not None:
            owner.frame_received(frame)

    def eof_received(self) -> bool:
        """End at once: half a connection is of no use, and what is still to be written would put off its end."""
        self._end(None)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Tell both."""
        self._streams.connection_lost(error)
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        if self._stopped:
            return
        self.stop()
        owner = self._owner()
        if owner is not None:
            owner.frames_ended(error)

    def pause_writing(self) -> None:
        """Let writers wait."""
        self._streams.pause_writing()

    def resume_writing(self) -> None:
        """Let writers go on."""
        self._streams.resume_writing()


_Buffer: TypeAlias = bytearray | mmap.mmap
# Not `io.BytesIO`, whose views keep it in a cycle that the garbage collector may take apart from the wrong end: it reports
# errors then, and CPython 3.12.0 and 3.12.1 crash (gh-111049).


class Buffers:
    """Large buffers that are used again once no view of them is left."""

    def __init__(self) -> None:
        self._all: list[_Buffer] = []
        self._rested = 0

    def take(self, size: int) -> memoryview:
        """Return a view of `size` bytes that no other view shares."""
        self._rested = 0
        for index, buffer in enumerate(self._all):
            if size <= len(buffer) <= max(size * WASTE, GRAIN) and _is_free(buffer):
                self._all.append(self._all.pop(index))  # not `remove`, which compares what is in them
                return memoryview(buffer)[:size]
        buffer = _buffer(-(-size // GRAIN) * GRAIN)
        self._all = [*self._all[1 - SPARE :], buffer]
        return memoryview(buffer)[:size]

    def rest(self) -> None:
        """Hear of a frame that needed no large buffer."""
        self._rested += 1
        if self._rested == QUIET:
            self._all.clear()


def _buffer(size: int) -> _Buffer:
    if size <= CLEARED:
        return bytearray(size)
    try:
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:  # which would look as if the network had failed
        raise MemoryError(f"there is no memory for a frame of {size} bytes") from error


def _is_free(buffer: _Buffer) -> bool:
    """Tell whether no view of it is left, nor one of a part of it: with one its size is fixed, and it refuses to change it."""
    try:
        if isinstance(buffer, bytearray):
            buffer.append(buffer.pop())
        else:
            buffer.resize(len(buffer))
    except (BufferError, SystemError):  # SystemError: this system can change no mapping; its largest buffers serve once
        return False
    return True
