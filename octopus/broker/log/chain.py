"""The segments of one log as files: rolled, made durable, dropped, exchanged."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from octopus.broker.batch import Header, placed
from octopus.broker.environment import Environment
from octopus.broker.files import DiskFile, LogFile, MemoryFile
from octopus.broker.log.compaction import Replacement
from octopus.broker.log.directory import Directory
from octopus.broker.log.recovery import finish_swap, segment_path, write_state
from octopus.broker.log.segment import Segment


class Chain:
    """Segments in order of their offsets; the last is the active one, the only one appended to.

    Attributes:
        segments: At least one.
    """

    def __init__(self, directory: Directory | None, environment: Environment, segments: Sequence[Segment]) -> None:
        self.segments = list(segments)
        self._directory = directory
        self._environment = environment
        self._unsynced: list[LogFile] = []
        self._unsealed: list[tuple[Segment, int, bytes]] = []  # with producer states, and the offset they are of
        self._has_new_file = False

    @property
    def active(self) -> Segment:
        """The segment that is appended to."""
        return self.segments[-1]

    @property
    def next_offset(self) -> int:
        """The offset of the next record."""
        return self.segments[-1].next_offset

    @property
    def size(self) -> int:
        """Bytes of all batches."""
        return sum(segment.size for segment in self.segments)

    @property
    def has_unsealed(self) -> bool:
        """Whether segments wait to be sealed."""
        return bool(self._unsealed)

    def since(self, offset: int) -> int:
        """Return the number of the segment that holds `offset`."""
        return max(0, bisect_right(self.segments, offset, key=lambda segment: segment.base_offset) - 1)

    def append(self, batch: bytes | memoryview, header: Header, now: int) -> Header:
        """Write a batch at the end; return its header with the offset it got.

        Raises:
            OSError: The disk refused; nothing changed.
        """
        active = self.segments[-1]
        if self._directory is not None and not self._directory.is_made:
            self._directory.make()
        header = header._replace(base_offset=active.next_offset)
        active.append([placed(header, header.base_offset), memoryview(batch)[16:]], header, now)
        if active.file not in self._unsynced:
            self._unsynced.append(active.file)
        return header

    def roll(self, now: int, state: bytes) -> None:
        """Begin a new segment; the old one is sealed with the next sync, together with the producer states at its end."""
        old = self.segments[-1]
        if self._directory is None:
            file: LogFile = MemoryFile()
            old.sealed = True
        else:
            path = segment_path(self._directory.path, old.next_offset)
            file = DiskFile(path, self._environment.descriptors, self._environment.faults)
            self._has_new_file = True
            self.seal(old, old.next_offset, state)
        self.segments.append(Segment(old.next_offset, file, now=now))

    def seal(self, segment: Segment, offset: int, state: bytes) -> None:
        """Have a segment sealed with the next sync, together with the producer states as of `offset`, at or after its end."""
        self._unsealed.append((segment, offset, state))
        if segment.file not in self._unsynced:
            self._unsynced.append(segment.file)

    def forgo_sync(self) -> None:
        """Forget the appends that await a sync: durability is left to the operating system."""
        self._unsynced.clear()

    def begin_sync(self) -> tuple[Callable[[], None], list[Segment]]:
        """Return the work, for any thread, that makes everything durable, and a list that it fills with sealed segments."""
        files, self._unsynced = self._unsynced, []
        has_new_file, self._has_new_file = self._has_new_file, False
        unsealed, sealed = list(self._unsealed), list[Segment]()
        directory, environment = self._directory, self._environment

        def work() -> None:
            for file in files:
                file.sync()
            if directory is None:
                return
            if has_new_file or not directory.is_durable:
                directory.sync()
            for segment, offset, state in unsealed:
                # The records are safe by now. If this fails the segment waits for the next sync, and stays until then.
                # The states go first: an index tells the next start that they were written.
                with suppress(OSError):
                    write_state(directory.path, offset, state, environment, durable=True)
                    segment.write_index(segment_path(directory.path, segment.base_offset, ".index"), environment.faults)
                    sealed.append(segment)

        return work, sealed

    def end_sync(self, sealed: Sequence[Segment]) -> None:
        """Record the segments that the work sealed."""
        for segment in sealed:
            segment.sealed = True
        self._unsealed = [each for each in self._unsealed if not each[0].sealed]

    def shorten(self, end: int) -> None:
        """Forget segments that begin at `end` or later; the files stay.

        Raises:
            BrokerError: 56: a file cannot be read.
        """
        self.segments = [segment for segment in self.segments if segment.base_offset < end] or self.segments[:1]
        self.segments[-1].shorten(end)

    def drop(self, count: int) -> int:
        """Delete the first segments, oldest first so that a crash leaves no hole; return their bytes."""
        dropped, self.segments = self.segments[:count], self.segments[count:]
        for segment in dropped:
            segment.file.delete()
            if self._directory is not None:
                segment_path(self._directory.path, segment.base_offset, ".index").unlink(missing_ok=True)
        return sum(segment.size for segment in dropped)

    def sealed_before(self, offset: int) -> list[Segment]:
        """Return the first segments, as far as they are sealed and end at or before `offset`."""
        found: list[Segment] = []
        for segment in self.segments[:-1]:
            if segment.next_offset > offset or not segment.sealed:
                break
            found.append(segment)
        return found

    def new_replacement(self, base_offset: int) -> LogFile:
        """Return an empty file for a compacted segment; it counts once it is exchanged."""
        if self._directory is None:
            return MemoryFile()
        path = segment_path(self._directory.path, base_offset, ".compacted.temp")
        file = DiskFile(path, self._environment.descriptors, self._environment.faults)
        file.truncate(0)  # creates it, or empties the rest of a failed run
        return file

    def exchange(self, replacements: Iterable[Replacement]) -> None:
        """Put compacted segments in the places of those they stand for, unless these are gone meanwhile.

        Raises:
            OSError: The disk refused; segments already in place stay, the rest is as before.
        """
        for sources, segment in replacements:
            if any(source not in self.segments for source in sources):
                segment.file.delete()
                continue
            if self._directory is not None and isinstance(segment.file, DiskFile):
                name = f"{sources[0].base_offset:020d}-{sources[-1].base_offset + 1:020d}.swap"
                swap = segment.file.path.rename(self._directory.path / name)
                for source in sources:
                    source.file.close()
                segment.file.path = finish_swap(swap, self._environment)
                with suppress(OSError):  # then the next start scans it
                    segment.write_index(segment.file.path.with_suffix(".index"), self._environment.faults)
            segment.sealed = True
            index = self.segments.index(sources[0])
            self.segments[index : index + len(sources)] = [segment]

    def close(self) -> None:
        """Release the descriptors."""
        for segment in self.segments:
            segment.file.close()

    def abandon(self) -> None:
        """Never use the files again; the caller removes them."""
        for segment in self.segments:
            segment.file.abandon()
