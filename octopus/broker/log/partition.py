"""One partition's log."""

import logging
import shutil
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from octopus.broker.batch import Header, UnreadableBatch, control_batch, decode_records, placed, read_header, stamped
from octopus.broker.codes import BrokerError, Code
from octopus.broker.environment import Environment
from octopus.broker.files import DiskFile, LogFile, MemoryFile, sync_directory
from octopus.broker.log.admission import check_batch
from octopus.broker.log.compaction import Compaction
from octopus.broker.log.producers import Producers
from octopus.broker.log.recovery import (
    Recovered,
    finish_swap,
    recover,
    segment_path,
    state_line,
    write_start,
    write_state,
)
from octopus.broker.log.segment import Segment
from octopus.broker.log.values import Appended, LogConfig, Read, TransactionalCheck, Waiter

_log = logging.getLogger(__name__)


class Log:
    """One partition's records: appended at the end, read anywhere, deleted from the start.

    What is not durable yet is not visible: a consumer must not act on, and commit past, a record that a power cut takes
    back and another record then replaces. So `end_offset` follows the syncs, not the appends (except in memory, or where
    durability is left to the operating system).

    Args:
        directory: The partition's own directory; None keeps everything in memory.
        config: May be replaced at any time.
        environment: Shared by the logs of a `Storage`.
        now: ms since the epoch.
        clean: Whether the last owner closed the log in order.

    Raises:
        OSError: The directory cannot be read.
    """

    _segments: list[Segment]
    _producers: Producers
    _start: int
    _end: int
    _compacted: int
    _ending: dict[int, int]  # offset of a marker not visible yet → first offset of its transaction
    _unsynced: list[LogFile]
    _rolled: list[tuple[Segment, bytes]]  # with the producer states at the segment's end
    _syncing: tuple[int, list[tuple[Segment, bytes]]]
    _has_new_file: bool
    _is_broken: bool

    def __init__(
        self,
        directory: Path | None = None,
        config: LogConfig | None = None,
        *,
        environment: Environment | None = None,
        now: int = 0,
        clean: bool = False,
    ) -> None:
        self.config = config or LogConfig()
        self._directory = directory
        self._environment = environment or Environment()
        self._waits_for_sync = directory is not None and self._environment.is_durable
        self._waiters: list[Waiter] = []
        self._gone: BrokerError | None = None
        self._take(
            Recovered([Segment(0, MemoryFile(), now=now)], Producers(), 0, 0)
            if directory is None
            else recover(directory, self._environment, now=now, clean=clean)
        )

    @property
    def start_offset(self) -> int:
        """The first offset that can be read."""
        return self._start

    @property
    def end_offset(self) -> int:
        """The high watermark: one past the last record consumers may see."""
        return self._end

    @property
    def stable_offset(self) -> int:
        """The last stable offset: first offset of the oldest open transaction, else `end_offset`."""
        # A transaction stays open for readers until its marker is visible.
        first = min(self._ending.values(), default=self._end)
        return max(self._start, min(first, self._producers.first_open(self._end)))

    @property
    def size_bytes(self) -> int:
        """Bytes of all stored batches."""
        return sum(segment.size for segment in self._segments)

    @property
    def open_transactions(self) -> dict[int, int]:
        """Producer id → newest epoch seen, of the producers with an open transaction here."""
        return {producer_id: self._producers.epoch_of(producer_id) for producer_id in self._producers.open}

    @property
    def largest_producer_id(self) -> int:
        """The largest producer id remembered; -1 for none."""
        return self._producers.largest_id

    def append(
        self, batch: bytes | memoryview, now: int, *, transactional_check: TransactionalCheck | None = None
    ) -> Appended:
        """Append one produce request's batch (Kafka allows exactly one since format 2).

        Durable, and visible to reads, once `await storage.synced([log])` returned; call that in the same step.

        Args:
            batch: As the client sent it.
            now: ms since the epoch.
            transactional_check: Judges transactional batches.

        Raises:
            BrokerError: 2 broken batch, 10 too large, 43 old format, 76 unknown codec, 87 not a client's batch, 45 or 47 out
                of sequence, whatever `transactional_check` raises, 56 the disk refused, 3 the log was deleted.
        """
        self._ensure_usable(now)
        header = check_batch(batch, self.config.max_message_bytes, self._environment.checksum)
        if header.is_transactional and transactional_check is not None:
            transactional_check(header.producer_id, header.producer_epoch)
        original = self._producers.check(header)
        if original is not None:
            return Appended(original, -1, True, self._start)
        if self.config.log_append_time:
            batch = stamped(batch, now, self._environment.checksum)
            header = read_header(batch)
        header = self._write(batch, header, now)
        self._producers.appended(header, now)
        self._changed()
        return Appended(header.base_offset, now if self.config.log_append_time else -1, False, self._start)

    def append_control(self, producer_id: int, producer_epoch: int, commit: bool, now: int) -> int:
        """Append the marker that ends a producer's transaction here; return its offset. Durable after `synced`.

        Raises:
            BrokerError: 56 the disk refused, 3 the log was deleted.
        """
        self._ensure_usable(now)
        marker = control_batch("commit" if commit else "abort", producer_id, producer_epoch, now)
        header = self._write(marker, read_header(marker), now)
        first = self._producers.ended(header, commit, now)
        if first is not None:
            self._ending[header.base_offset] = first
        self._changed()
        return header.base_offset

    def read(self, offset: int, max_bytes: int, *, committed: bool = False, at_least_one: bool = True) -> Read:
        """Read whole batches from the one that contains `offset`.

        Args:
            offset: First offset wanted; the end offset yields nothing.
            max_bytes: Most bytes to return.
            committed: Stop at the stable offset and list aborted transactions.
            at_least_one: Return the first batch even when it alone exceeds `max_bytes`.

        Raises:
            BrokerError: 1 the offset is below the start or past the end; 3 the log was deleted; 56 the disk failed.
        """
        if self._gone is not None:
            raise self._gone
        if not self._start <= offset <= self._end:
            raise BrokerError(
                Code.OFFSET_OUT_OF_RANGE, f"Offset {offset} is not in the log, which has {self._start} to {self._end}."
            )
        stable = self.stable_offset
        limit = stable if committed else self._end
        parts: list[bytes | memoryview] = []
        index = self._segment_of(offset)
        while offset < limit and index < len(self._segments) and (max_bytes > 0 or (at_least_one and not parts)):
            part, goes_on = self._segments[index].read(
                offset, limit, max_bytes, at_least_one=at_least_one and not parts
            )
            if part:
                parts.append(part)
                max_bytes -= len(part)
            if not goes_on:
                break
            index += 1
        aborted = self._aborted_in(parts, offset) if committed else []
        return Read(parts, self._end, stable, self._start, aborted)

    def find_timestamp(self, timestamp: int) -> tuple[int, int] | None:
        """Find the first record at or after a time: its (offset, timestamp in ms), or None.

        A batch that cannot be decoded (no decompressor) answers with its first offset.

        Raises:
            BrokerError: 3 the log was deleted; 56 the disk failed.
        """
        if self._gone is not None:
            raise self._gone
        for segment in self._segments[self._segment_of(self._start) :]:
            if segment.max_timestamp < timestamp:
                continue
            for group in segment.groups_since(timestamp):
                position = 0
                while position < len(group):
                    header = read_header(group, position)
                    if header.base_offset >= self._end:
                        return None
                    if header.max_timestamp >= timestamp and not header.is_control:
                        found = self._first_since(timestamp, header, group[position : position + header.size])
                        if found is not None:
                            return found
                    position += header.size
        return None

    def delete_before(self, offset: int) -> int:
        """Make `offset` (-1: the end) the first offset, durably, and return what the first offset is now.

        Raises:
            BrokerError: 1 the offset is past the end, 56 the disk refused, 3 the log was deleted.
        """
        if self._gone is not None:
            raise self._gone
        offset = self._end if offset == -1 else offset
        if not 0 <= offset <= self._end:
            raise BrokerError(
                Code.OFFSET_OUT_OF_RANGE, f"Offset {offset} is not in the log, which ends at {self._end}."
            )
        if offset > self._start:
            try:
                if self._directory is not None:
                    write_start(self._directory, offset, self._environment)
            except OSError as error:
                raise _refused(error) from error
            self._start = offset
            if offset == self._segments[-1].next_offset:
                self._roll(self._segments[-1].modified)
            self._drop(sum(1 for segment in self._segments[:-1] if segment.next_offset <= offset))
        return self._start

    def retain(self, now: int) -> int:
        """Drop whole segments that are too old or too many; return how many bytes went."""
        config = self.config
        if self._gone is not None or not config.delete:
            return 0
        active = self._segments[-1]
        if active.size and self._is_expired(active, now) and active.next_offset == self._end:
            self._roll(now)
        excess = self.size_bytes - config.retention_bytes if config.retention_bytes >= 0 else 0
        count, stable = 0, self.stable_offset
        for segment in self._segments[:-1]:
            if segment.next_offset > stable or not (
                self._is_expired(segment, now) or (segment.size and segment.size <= excess)
            ):
                break
            excess -= segment.size
            count += 1
        return self._drop(count)

    def compact(self, now: int) -> int:
        """Keep the newest record per key in sealed segments; return how many bytes went.

        Raises:
            OSError: The disk refused; nothing changed.
        """
        compaction = self.compaction(now)
        if compaction is None:
            return 0
        compaction.run()
        return self.swap(compaction)

    def compaction(self, now: int) -> Compaction | None:
        """Return a run to be made (`run` in any thread, then `swap` here); None while it is not worth it."""
        if self._gone is not None or not self.config.compact:
            return None
        if self._segments[-1].size and now - self._segments[-1].created >= self.config.segment_ms:
            self._roll(now)
        stable = self.stable_offset
        segments = []
        for segment in self._segments[:-1]:
            if segment.next_offset > stable or not (segment.sealed or self._directory is None):
                break
            segments.append(segment)
        dirty = sum(segment.size for segment in segments if segment.next_offset > self._compacted)
        # Half must be new (Kafka's `min.cleanable.dirty.ratio`): so rewriting costs a constant factor, not the square.
        if not dirty or 2 * dirty < sum(segment.size for segment in segments):
            return None
        for segment in segments:
            segment.load()
        producers = Producers()
        producers.aborted = list(self._producers.aborted)
        return Compaction(
            segments,
            self._compacted,
            producers,
            self._compacted_file,
            self._environment,
            segment_bytes=self.config.segment_bytes,
            delete_retention_ms=self.config.delete_retention_ms,
            now=now,
        )

    def swap(self, compaction: Compaction) -> int:
        """Put the result of a compaction in place; return how many bytes went.

        Raises:
            OSError: The disk refused; what was put in place stays, the rest is as before.
        """
        before = self.size_bytes
        for replacement in compaction.replacements:
            sources, segment = replacement.sources, replacement.segment
            if self._gone is not None or any(source not in self._segments for source in sources):
                segment.file.delete()  # deleted meanwhile
                continue
            if self._directory is not None and isinstance(segment.file, DiskFile):
                name = f"{sources[0].base_offset:020d}-{sources[-1].base_offset + 1:020d}.swap"
                swap = segment.file.path.rename(self._directory / name)
                for source in sources:
                    source.file.close()
                segment.file.path = finish_swap(swap, self._environment)
                with suppress(OSError):
                    segment.write_index(segment.file.path.with_suffix(".index"), self._environment.faults)
                    segment.sealed = True
            index = self._segments.index(sources[0])
            self._segments[index : index + len(sources)] = [segment]
        self._compacted = max(self._compacted, compaction.through)
        return before - self.size_bytes

    def expire_producers(self, before: int) -> None:
        """Forget the sequence numbers of producers silent since a time in ms."""
        self._producers.expire(before)

    def add_waiter(self, waiter: Waiter) -> None:
        """Have `waiter` called once when more can be read, or when the log is closed or deleted."""
        self._waiters.append(waiter)

    def remove_waiter(self, waiter: Waiter) -> None:
        """Forget a waiter; harmless when it was called already."""
        with suppress(ValueError):
            self._waiters.remove(waiter)

    def flush(self) -> None:
        """Make everything appended so far durable and visible, without an event loop.

        Raises:
            BrokerError: 56 the disk refused; what was not durable is taken back.
        """
        self._environment.commit.flush(self)

    def close(self) -> None:
        """Make everything durable and leave the files so that the next start need not scan them.

        Raises:
            BrokerError: 56 the disk refused.
        """
        if self._gone is not None:
            return
        try:
            self._environment.commit.flush(self)
            if self._directory is not None and not self._is_broken:
                self._leave_note()
        finally:
            self._end_use(BrokerError(Code.NOT_LEADER_OR_FOLLOWER, "The log is closed."))
            for segment in self._segments:
                segment.file.close()

    def delete(self) -> None:
        """Delete the log with its files; whoever waits or reads is told that the partition is unknown."""
        self._environment.commit.forget(self)
        self._end_use(BrokerError(Code.UNKNOWN_TOPIC_OR_PARTITION, "The topic was deleted."))
        for segment in self._segments:
            segment.file.delete()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)  # what stays is removed at the next start

    def begin_sync(self) -> Callable[[], None]:
        """Return the work, for any thread, that makes durable all that was appended so far (see `Durable`)."""
        files, self._unsynced = self._unsynced, []
        rolled, self._rolled = self._rolled, []
        has_new_file, self._has_new_file = self._has_new_file, False
        self._syncing = self._segments[-1].next_offset, rolled
        directory, environment = self._directory, self._environment

        def work() -> None:
            for file in files:
                file.sync()
            if directory is None:
                return
            if has_new_file:
                sync_directory(directory, environment.faults)
            for segment, line in rolled:
                # The records are safe; without these two files only the next start takes longer.
                with suppress(OSError):
                    segment.write_index(segment_path(directory, segment.base_offset, ".index"), environment.faults)
                    write_state(directory, segment.next_offset, line, environment, durable=True)

        return work

    def end_sync(self, error: Exception | None) -> None:
        """Take note of the work's result (see `Durable`)."""
        if self._gone is not None:
            return
        end, rolled = self._syncing
        if error is None:
            for segment, _ in rolled:
                segment.sealed = True
            self._show(max(self._end, end))
        else:
            # After a failed fsync the kernel may have dropped pages yet call them clean, so another fsync would succeed
            # without them. What was not durable, and so not acknowledged nor visible, is taken back.
            _log.error("%s: taking back what follows offset %d: %s", self._directory, self._end - 1, error)
            self._is_broken = True
            with suppress(BrokerError):
                kept = [segment for segment in self._segments if segment.base_offset < self._end]
                self._segments = kept or self._segments[:1]
                self._segments[-1].shorten(self._end)
                self._ensure_usable(self._segments[-1].modified)

    def _take(self, recovered: Recovered) -> None:
        self._segments = recovered.segments
        self._producers = recovered.producers
        self._start = recovered.start
        self._compacted = recovered.compacted
        self._end = self._segments[-1].next_offset
        self._ending = {}
        self._unsynced = []
        self._rolled = []
        self._syncing = self._end, []
        self._has_new_file = False
        self._is_broken = False

    def _ensure_usable(self, now: int) -> None:
        if self._gone is not None:
            raise self._gone
        if self._is_broken and self._directory is not None:
            try:
                for segment in self._segments:
                    segment.file.close()
                self._take(recover(self._directory, self._environment, now=now, clean=False, end=self._end))
            except OSError as error:
                raise _refused(error) from error

    def _write(self, batch: bytes | memoryview, header: Header, now: int) -> Header:
        """Write a batch at the end and return its header with the offset it got."""
        active = self._segments[-1]
        if active.size and (
            active.size + header.size > self.config.segment_bytes or now - active.created >= self.config.segment_ms
        ):
            self._roll(now)
            active = self._segments[-1]
        header = header._replace(base_offset=active.next_offset)
        try:
            active.append([placed(header, header.base_offset), memoryview(batch)[16:]], header, now)
        except OSError as error:
            raise _refused(error) from error
        if active.file not in self._unsynced:
            self._unsynced.append(active.file)
        return header

    def _changed(self) -> None:
        if self._waits_for_sync or self._rolled:
            self._environment.commit.mark(self)
        else:
            self._unsynced.clear()
        if not self._waits_for_sync:
            self._show(self._segments[-1].next_offset)

    def _show(self, end: int) -> None:
        self._end = end
        for marker in [marker for marker in self._ending if marker < end]:
            del self._ending[marker]
        self._wake()

    def _roll(self, now: int) -> None:
        """Begin a new segment; the old one is sealed with the next sync."""
        sealed = self._segments[-1]
        if self._directory is None:
            file: LogFile = MemoryFile()
        else:
            path = segment_path(self._directory, sealed.next_offset)
            file = DiskFile(path, self._environment.descriptors, self._environment.faults)
            self._has_new_file = True
            self._rolled.append((sealed, state_line(self._producers, sealed.next_offset, self._compacted)))
            if sealed.file not in self._unsynced:
                self._unsynced.append(sealed.file)
            self._environment.commit.mark(self)
        self._segments.append(Segment(sealed.next_offset, file, now=now))

    def _drop(self, count: int) -> int:
        """Delete the first segments, oldest first so that a crash leaves no hole; return their bytes."""
        dropped, self._segments = self._segments[:count], self._segments[count:]
        for segment in dropped:
            segment.file.delete()
            if self._directory is not None:
                segment_path(self._directory, segment.base_offset, ".index").unlink(missing_ok=True)
        self._start = max(self._start, self._segments[0].base_offset)
        self._producers.forget_before(self._start)
        return sum(segment.size for segment in dropped)

    def _is_expired(self, segment: Segment, now: int) -> bool:
        newest = segment.max_timestamp if segment.max_timestamp >= 0 else segment.modified
        return self.config.retention_ms >= 0 and now - newest > self.config.retention_ms

    def _segment_of(self, offset: int) -> int:
        return max(0, bisect_right(self._segments, offset, key=lambda segment: segment.base_offset) - 1)

    def _aborted_in(self, parts: list[bytes | memoryview], offset: int) -> list[tuple[int, int]]:
        if not parts or not self._producers.aborted:
            return []
        last, position = parts[-1], 0
        while True:
            header = read_header(last, position)
            position += header.size
            if position >= len(last):
                return self._producers.aborted_between(offset, header.next_offset)

    def _first_since(self, timestamp: int, header: Header, batch: bytes) -> tuple[int, int] | None:
        try:
            for record in decode_records(batch, decompressors=self._environment.decompressors):
                if record.timestamp >= timestamp and record.offset >= self._start:
                    return record.offset, record.timestamp
        except UnreadableBatch:
            return max(header.base_offset, self._start), max(header.base_timestamp, timestamp)
        return None

    def _compacted_file(self, base_offset: int) -> LogFile:
        if self._directory is None:
            return MemoryFile()
        path = segment_path(self._directory, base_offset, ".compacted.temp")
        file = DiskFile(path, self._environment.descriptors, self._environment.faults)
        file.truncate(0)  # creates it, or empties what a failed run left
        return file

    def _leave_note(self) -> None:
        """Write what makes the next start quick; the records themselves are durable already."""
        assert self._directory is not None
        active = self._segments[-1]
        line = state_line(self._producers, active.next_offset, self._compacted)
        with suppress(OSError):
            write_state(self._directory, active.next_offset, line, self._environment, durable=False)
            active.write_index(segment_path(self._directory, active.base_offset, ".index"), self._environment.faults)

    def _end_use(self, reason: BrokerError) -> None:
        self._gone = reason
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter()


def _refused(error: OSError) -> BrokerError:
    return BrokerError(Code.KAFKA_STORAGE_ERROR, f"The disk refused: {error}.")
