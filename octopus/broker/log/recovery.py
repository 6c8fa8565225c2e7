"""From a partition's directory to segments and producer states, after any crash.

00000000000000000000.log        batches; the name is the first offset
00000000000000000000.index      sparse index of a sealed segment: no scan needed
00000000000000004711.state      producers and transactions as of that offset
log-start                       first offset, where DeleteRecords moved it
00…0000-00…4711.swap            compacted replacement for the segments of that range, complete
*.temp                          unfinished; removed
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octopus.broker.batch import HEADER_BYTES, Header, checksum_of, is_commit, read_header
from octopus.broker.checksum import Checksum
from octopus.broker.environment import Environment
from octopus.broker.files import DiskFile, LogFile, MemoryFile, open_line, replace_file, sealed_line, sync_directory
from octopus.broker.log.producers import Producers
from octopus.broker.log.segment import Segment
from octopus.logs import get_logger

_log = get_logger(__name__)


@dataclass
class Recovered:
    """A partition as found.

    Attributes:
        segments: At least one, in order; the last is the active one.
        producers: Producers and transactions at the end of the log.
        start: The first offset.
        compacted: Up to which offset the log was compacted.
    """

    segments: list[Segment]
    producers: Producers
    start: int
    compacted: int


def recover(
    directory: Path | None, environment: Environment, *, now: int, clean: bool, end: int | None = None
) -> Recovered:
    """Read a partition's directory, cutting off incomplete batches.

    Args:
        directory: The partition's; it is missing where nothing was written yet. None for one in memory.
        now: ms since the epoch.
        clean: Whether the broker was stopped in order, so that an index of the active segment can be believed.
        end: Cut the log here: the records behind it were taken back.

    Raises:
        OSError: The disk refused.
    """
    if directory is None or (end is None and not directory.exists()):
        return Recovered([Segment(0, _first_file(directory, environment), now=now)], Producers(), 0, 0)
    _tidy(directory, environment)
    segments = _segments(directory, environment, now=now, clean=clean, end=end)
    values = _newest_state(directory, segments[-1].next_offset)
    producers = Producers.load(values) if values else Producers()
    offset = values["offset"] if values else 0
    for segment in segments:
        if segment.next_offset > offset:
            for header, batch in segment.batches(offset):
                replay(producers, header, batch, segment.modified)
    start = max(read_start(directory), segments[0].base_offset)
    producers.forget_before(start)
    return Recovered(segments, producers, start, values["compacted"] if values else 0)


def replay(producers: Producers, header: Header, batch: bytes, now: int) -> None:
    """Tell the producer states of a stored batch."""
    if header.is_control:
        producers.ended(header, is_commit(batch), now)
    else:
        producers.appended(header, now)


def segment_path(directory: Path, base_offset: int, suffix: str = ".log") -> Path:
    """Return the path of a segment, or of a file that belongs to it."""
    return directory / f"{base_offset:020d}{suffix}"


def state_line(producers: Producers, offset: int, compacted: int) -> bytes:
    """Return the producer states as they are at `offset`, to be written with `write_state`."""
    values = producers.dump() | {"offset": offset, "compacted": compacted}
    return sealed_line(json.dumps(values, separators=(",", ":")).encode())


def write_state(directory: Path, offset: int, line: bytes, environment: Environment, *, durable: bool) -> None:
    """Write producer states; older ones are removed once these are durable.

    Raises:
        OSError: The disk refused; the older ones stay.
    """
    path = segment_path(directory, offset, ".state")
    replace_file(path, [line], environment.faults, durable=durable)
    if durable:
        for other in directory.glob("*.state"):
            if other.name < path.name:
                other.unlink(missing_ok=True)


def read_start(directory: Path) -> int:
    """Return the first offset that was set; 0 for none."""
    with suppress(FileNotFoundError):
        content = open_line((directory / "log-start").read_bytes())
        if content is not None:
            return int(content)
        _log.warning("%s: log-start is damaged; deleted records may be seen again", directory)
    return 0


def write_start(directory: Path, offset: int, environment: Environment) -> None:
    """Set the first offset durably."""
    replace_file(directory / "log-start", [sealed_line(b"%d" % offset)], environment.faults)


def finish_swap(swap: Path, environment: Environment) -> Path:
    """Put a compacted segment in the place of those it replaces; may be repeated after a crash."""
    first, end = (int(number) for number in swap.stem.split("-"))
    directory = swap.parent
    target = segment_path(directory, first)
    # The index must go first: it would describe the wrong file.
    for path in directory.glob("*.index"):
        if first <= int(path.stem) < end:
            path.unlink()
    for path in directory.glob("*.log"):
        if first < int(path.stem) < end:
            path.unlink()
    sync_directory(directory, environment.faults)
    swap.replace(target)
    sync_directory(directory, environment.faults)
    return target


def _first_file(directory: Path | None, environment: Environment) -> LogFile:
    if directory is None:
        return MemoryFile()
    return DiskFile(segment_path(directory, 0), environment.descriptors, environment.faults)


def _tidy(directory: Path, environment: Environment) -> None:
    for path in directory.glob("*.temp"):
        path.unlink()
    for path in directory.glob("*.swap"):
        finish_swap(path, environment)
    for path in directory.glob("*.index"):
        if not path.with_suffix(".log").exists():
            path.unlink()


def _segments(directory: Path, environment: Environment, *, now: int, clean: bool, end: int | None) -> list[Segment]:
    bases = sorted(int(path.stem) for path in directory.glob("*.log"))
    if end is not None:
        for base in [base for base in bases[1:] if base >= end]:
            segment_path(directory, base).unlink()
            segment_path(directory, base, ".index").unlink(missing_ok=True)
            bases.remove(base)
    segments: list[Segment] = []
    expected, has_crashed = 0, False
    for base in bases:
        path = segment_path(directory, base)
        file = DiskFile(path, environment.descriptors, environment.faults)
        stat = path.stat()
        segment = Segment(base, file, now=now)
        segment.sealed = (clean or base != bases[-1]) and segment.read_index(path.with_suffix(".index"), stat.st_size)
        if not segment.sealed:
            segment.modified = segment.created = int(stat.st_mtime * 1000) if stat.st_size else now
            _scan(segment, path, max(expected, base), environment.checksum, stat.st_size)
            if end is not None and segment.next_offset > end:
                segment.truncate(end)
            file.sync()
            has_crashed = True
        expected = max(segment.next_offset, base)
        segments.append(segment)
    if has_crashed:
        sync_directory(directory, environment.faults)  # a file may be new, and its records are going to be seen
    if not segments:
        start = read_start(directory)
        path = segment_path(directory, start)
        segments.append(Segment(start, DiskFile(path, environment.descriptors, environment.faults), now=now))
        segments[0].file.truncate(0)  # creates it
        sync_directory(directory, environment.faults)
    segments[-1].sealed = False
    return segments


def _scan(segment: Segment, path: Path, expected: int, checksum: Checksum, size: int) -> None:
    """Index a segment batch by batch, and cut it at the first that is not whole."""
    flaw = ""
    with path.open("rb", buffering=2**20) as file:
        while segment.size < size:
            data = file.read(HEADER_BYTES)
            if len(data) == HEADER_BYTES:
                data += file.read(max(0, min(read_header(data).size, size - segment.size) - HEADER_BYTES))
            flaw = _flaw(data, expected, checksum)
            if flaw:
                break
            segment.note(read_header(data))
            expected = segment.next_offset
    if flaw:
        lost = size - segment.size
        _log.warning("%s: cutting off %d bytes after offset %d: %s", path, lost, segment.next_offset - 1, flaw)
        segment.file.truncate(segment.size)


def _flaw(batch: bytes, expected: int, checksum: Checksum) -> str:
    """Describe the fault of a batch as read; empty for none. By its length alone a run of zeros would pass."""
    if len(batch) < HEADER_BYTES:
        return "an incomplete header"
    header = read_header(batch)
    if header.size < HEADER_BYTES:
        return f"a batch of {header.size} bytes"
    if header.magic != 2:
        return f"a batch of format {header.magic}"
    if header.base_offset < expected or header.last_offset_delta < 0:
        return f"a batch at offset {header.base_offset} where {expected} or more was expected"
    if header.size > len(batch):
        return "an incomplete batch"
    return "" if checksum_of(batch, checksum) == header.crc else "a batch with a wrong checksum"


def _newest_state(directory: Path, end: int) -> dict[str, Any] | None:
    for path in sorted(directory.glob("*.state"), reverse=True):
        content = open_line(path.read_bytes())
        if content is not None and int(path.stem) <= end:
            values: dict[str, Any] = json.loads(content)
            return values
        _log.warning("%s: not usable, reading the log instead", path)
        path.unlink()
    return None
