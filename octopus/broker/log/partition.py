"""One partition's log."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from octopus.broker.batch import Header, control_batch, end_of, read_header
from octopus.broker.codes import BrokerError, Code
from octopus.broker.environment import Environment
from octopus.broker.log.admission import Admitted, admit, admit_quickly
from octopus.broker.log.chain import Chain
from octopus.broker.log.compaction import Compaction
from octopus.broker.log.directory import Directory
from octopus.broker.log.producers import ActiveProducer, Producers
from octopus.broker.log.recovery import (
    Recovered,
    recover,
    segment_path,
    state_line,
    write_start,
    write_state,
)
from octopus.broker.log.retention import are_worth_compacting, is_expired, is_full, surplus
from octopus.broker.log.search import Search
from octopus.broker.log.segment import Segment
from octopus.broker.log.values import Appended, LogConfig, Read, TransactionalCheck, Waiter
from octopus.broker.log.watermark import Watermark
from octopus.logs import get_logger

_log = get_logger(__name__)


class Log:
    """One partition's records: appended at the end, read anywhere, deleted from the start.

    Records that are not durable yet are not visible: a consumer must not act on, and commit past, a record that a power cut takes
    back and another record then replaces. So `end_offset` follows the syncs, not the appends (except in memory, or where
    durability is left to the operating system).

    Args:
        directory: The partition's own directory, made with its first batch; None keeps everything in memory.
        config: May be replaced at any time.
        environment: Shared by the logs of a `Storage`.
        now: ms since the epoch.
        clean: Whether the last owner closed the log in order.

    Raises:
        OSError: The directory cannot be read.
    """

    _chain: Chain
    _producers: Producers
    _start: int
    _compacted: int
    _syncing: tuple[int, list[Segment]]  # end of the running sync, and the segments it seals
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
        self._environment = environment or Environment()
        self._directory = None if directory is None else Directory(directory, self._environment.faults)
        self._waits_for_sync = directory is not None and self._environment.is_durable
        self._visible = Watermark(0)
        self._gone: BrokerError | None = None
        self._take(recover(directory, self._environment, now=now, clean=clean))

    @property
    def start_offset(self) -> int:
        """The first offset that can be read."""
        return self._start

    @property
    def end_offset(self) -> int:
        """The high watermark: one past the last record consumers may see."""
        return self._visible.end

    @property
    def stable_offset(self) -> int:
        """The last stable offset: first offset of the oldest open transaction, else `end_offset`."""
        visible = self._visible
        return max(self._start, visible.stable(self._producers.first_open(visible.end)))

    @property
    def is_gone(self) -> bool:
        """Whether it was closed or deleted."""
        return self._gone is not None

    @property
    def has_files(self) -> bool:
        """Whether anything of it is on disk; nothing is before the first batch."""
        return self._directory is not None and self._directory.is_made

    @property
    def size_bytes(self) -> int:
        """Bytes of all stored batches."""
        return self._chain.size

    @property
    def open_transactions(self) -> dict[int, int]:
        """Producer id → newest epoch seen, of the producers with an open transaction here."""
        return {producer_id: self._producers.epoch_of(producer_id) for producer_id in self._producers.open}

    @property
    def producers(self) -> list[ActiveProducer]:
        """The producers that are remembered here, in a transaction or not."""
        return self._producers.active()

    @property
    def largest_producer_id(self) -> int:
        """The largest producer id remembered; -1 for none."""
        return self._producers.largest_id

    def admit_quickly(self, batch: bytes | memoryview, now: int) -> Admitted | None:
        """Judge a client's batch, unless that takes long; raises as `admit`."""
        return admit_quickly(batch, self.config, now, self._environment)

    def admitting(self, batch: bytes | memoryview, now: int) -> Callable[[], Admitted]:
        """Return the check of a client's batch, for any thread; it raises as `admit`."""
        return partial(admit, batch, self.config, now, self._environment)

    def append(
        self, batch: bytes | memoryview | Admitted, now: int, *, transactional_check: TransactionalCheck | None = None
    ) -> Appended:
        """Append one produce request's batch (Kafka allows exactly one since format 2).

        Durable, and visible to reads, once `await storage.synced([log])` returned; call that in the same step.

        Args:
            batch: As the client sent it, or as it was admitted.
            now: ms since the epoch.
            transactional_check: Judges transactional batches.

        Raises:
            BrokerError: As `admit`; 48 outside its producer's transaction, 45 or 47 out of sequence, the error
                of `transactional_check`, 56 the disk refused, 3 the log was deleted.
        """
        self._ensure_usable(now)
        header, batch, time = batch if isinstance(batch, Admitted) else self.admitting(batch, now)()
        if header.is_transactional and transactional_check is not None:
            transactional_check(header.producer_id, header.producer_epoch)
        original = self._producers.check(header)
        if original is not None:
            return Appended(original, -1, True, self._start)
        header = self._write(batch, header, now)
        self._producers.appended(header, now)
        self._changed()
        return Appended(header.base_offset, time, False, self._start)

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
            self._visible.note_marker(header.base_offset, first)
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
        end = self._visible.end
        if not self._start <= offset <= end:
            raise BrokerError(
                Code.OFFSET_OUT_OF_RANGE, f"Offset {offset} is not in the log, which has {self._start} to {end}."
            )
        stable = self.stable_offset
        limit = stable if committed else end
        parts: list[bytes | memoryview] = []
        for segment in self._chain.segments[self._chain.since(offset) :]:
            if offset >= limit or (max_bytes <= 0 and (parts or not at_least_one)):
                break
            part, goes_on = segment.read(offset, limit, max_bytes, at_least_one=at_least_one and not parts)
            if part:
                parts.append(part)
                max_bytes -= len(part)
            if not goes_on:
                break
        aborted = self._aborted_in(parts, offset) if committed else []
        return Read(parts, end, stable, self._start, aborted)

    def find_timestamp(self, timestamp: int) -> tuple[int, int] | None:
        """Find the first record at or after a time: its (offset, timestamp in ms), or None.

        A batch that cannot be decoded (no decompressor) answers with its first offset.

        Raises:
            BrokerError: 3 the log was deleted; 56 the disk failed.
        """
        return self._search().first_since(timestamp)

    def find_newest(self) -> tuple[int, int] | None:
        """Find the first record with the largest timestamp; None for an empty log; raises as `find_timestamp`."""
        return self._search().newest()

    def delete_before(self, offset: int) -> int:
        """Make `offset` (-1: the end) the first offset, durably, and return the first offset of now.

        Raises:
            BrokerError: 1 the offset is past the end, 56 the disk refused, 3 the log was deleted.
        """
        self._ensure_usable(self._chain.active.modified)
        end = self._visible.end
        offset = end if offset == -1 else offset
        if not 0 <= offset <= end:
            raise BrokerError(Code.OFFSET_OUT_OF_RANGE, f"Offset {offset} is not in the log, which ends at {end}.")
        if offset > self._start:
            if offset == self._chain.next_offset:
                self._roll(self._chain.active.modified)
                self.flush()
            try:
                if self._directory is not None:
                    write_start(self._directory.path, offset, self._environment)
            except OSError as error:
                raise _refused(error) from error
            self._start = offset
            self._drop(len(self._chain.sealed_before(offset)))
        return self._start

    def retain(self, now: int) -> int:
        """Drop whole segments that are too old or too many; return how many bytes went.

        Raises:
            BrokerError: 56 the disk refused, 3 the log was deleted.
        """
        config = self.config
        if not config.delete:
            return 0
        self._ensure_usable(now)
        active = self._chain.active
        if active.size and is_expired(active, config, now) and active.next_offset == self._visible.end:
            self._roll(now)
            self.flush()
        return self._drop(surplus(self._chain.sealed_before(self.stable_offset), self.size_bytes, config, now))

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
        """Return a run to be made (`run` in any thread, then `swap` here); None while it is not worth it.

        Raises:
            BrokerError: 56 the disk refused, 3 the log was deleted.
        """
        if not self.config.compact:
            return None
        self._ensure_usable(now)
        if self._chain.active.size and now - self._chain.active.created >= self.config.segment_ms:
            self._roll(now)
        segments = self._chain.sealed_before(self.stable_offset)
        if not are_worth_compacting(segments, self._compacted):
            return None
        for segment in segments:
            segment.load()  # here: another thread is going to read it
        producers = Producers()
        producers.aborted = list(self._producers.aborted)
        return Compaction(
            segments,
            self._compacted,
            producers,
            self._chain.new_replacement,
            self._environment,
            segment_bytes=self.config.segment_bytes,
            delete_retention_ms=self.config.delete_retention_ms,
            now=now,
        )

    def swap(self, compaction: Compaction) -> int:
        """Put the result of a compaction in place; return how many bytes went.

        Raises:
            OSError: The disk refused; segments already in place stay, the rest is as before.
        """
        if self._gone is not None:
            for replacement in compaction.replacements:
                replacement.segment.file.delete()
            return 0
        before = self.size_bytes
        self._chain.exchange(compaction.replacements)
        self._compacted = max(self._compacted, compaction.through)
        return before - self.size_bytes

    def expire_producers(self, before: int) -> None:
        """Forget the sequence numbers of producers silent since a time in ms."""
        self._producers.expire(before)

    def add_waiter(self, waiter: Waiter) -> None:
        """Have `waiter` called once when more can be read, or when the log is closed or deleted."""
        self._visible.add_waiter(waiter)

    def remove_waiter(self, waiter: Waiter) -> None:
        """Forget a waiter; harmless when it was called already."""
        self._visible.remove_waiter(waiter)

    def flush(self) -> None:
        """Make everything appended so far durable and visible, without an event loop.

        Raises:
            BrokerError: 56 the disk refused; records that were not durable are taken back.
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
            if self._directory is not None and self._directory.is_made and not self._is_broken:
                self._leave_note(self._directory.path)
        finally:
            self._end_use(BrokerError(Code.NOT_LEADER_OR_FOLLOWER, "The log is closed."))
            self._chain.close()

    def abandon(self) -> None:
        """Let go of the files, which the caller removes; waiting and reading clients learn that the partition is unknown."""
        self._environment.commit.forget(self)
        self._end_use(BrokerError(Code.UNKNOWN_TOPIC_OR_PARTITION, "The topic was deleted."))
        self._chain.abandon()

    def begin_sync(self) -> Callable[[], None]:
        """Return the work, for any thread, that makes durable all that was appended so far (see `Durable`)."""
        end = self._chain.next_offset
        work, sealed = self._chain.begin_sync()
        self._syncing = end, sealed
        return work

    def end_sync(self, error: Exception | None) -> None:
        """Take note of the work's result (see `Durable`)."""
        if self._gone is not None:
            return
        end, sealed = self._syncing
        if error is None:
            self._chain.end_sync(sealed)
            self._visible.show(max(self._visible.end, end))
        else:
            # After a failed fsync the kernel may have dropped pages yet call them clean, so another fsync would succeed
            # without them. Records that were not durable, and so neither acknowledged nor visible, are taken back.
            _log.error(
                "%s: taking back what follows offset %d: %s",
                self._directory and self._directory.path,
                self._visible.end - 1,
                error,
            )
            self._is_broken = True
            with suppress(BrokerError):
                self._chain.shorten(self._visible.end)
                self._ensure_usable(self._chain.active.modified)

    def _take(self, recovered: Recovered) -> None:
        self._chain = Chain(self._directory, self._environment, recovered.segments)
        self._producers = recovered.producers
        self._start = recovered.start
        self._compacted = recovered.compacted
        end = self._chain.next_offset
        self._visible.begin_again(end)
        self._syncing = end, []
        for segment in recovered.segments[:-1]:
            if not segment.sealed:  # the crash came too early
                self._chain.seal(segment, end, state_line(self._producers, end, self._compacted))
                self._environment.commit.mark(self)
        self._is_broken = False

    def _ensure_usable(self, now: int) -> None:
        if self._gone is not None:
            raise self._gone
        if self._is_broken and self._directory is not None:
            try:
                self._chain.close()
                self._take(
                    recover(self._directory.path, self._environment, now=now, clean=False, end=self._visible.end)
                )
            except OSError as error:
                raise _refused(error) from error

    def _write(self, batch: bytes | memoryview, header: Header, now: int) -> Header:
        """Write a batch at the end and return its header with the offset it got."""
        if is_full(self._chain.active, header.size, self.config, now):
            self._roll(now)
        try:
            return self._chain.append(batch, header, now)
        except OSError as error:
            raise _refused(error) from error

    def _changed(self) -> None:
        if self._waits_for_sync or self._chain.has_unsealed:
            self._environment.commit.mark(self)
        else:
            self._chain.forgo_sync()
        if not self._waits_for_sync:
            self._visible.show(self._chain.next_offset)

    def _roll(self, now: int) -> None:
        self._chain.roll(now, state_line(self._producers, self._chain.next_offset, self._compacted))
        if self._directory is not None:
            self._environment.commit.mark(self)

    def _drop(self, count: int) -> int:
        dropped = self._chain.drop(count)
        self._start = max(self._start, self._chain.segments[0].base_offset)
        self._producers.forget_before(self._start)
        return dropped

    def _aborted_in(self, parts: list[bytes | memoryview], offset: int) -> list[tuple[int, int]]:
        is_none = not parts or not self._producers.aborted
        return [] if is_none else self._producers.aborted_between(offset, end_of(parts[-1]))

    def _search(self) -> Search:
        if self._gone is not None:
            raise self._gone
        segments = self._chain.segments[self._chain.since(self._start) :]
        return Search(segments, self._start, self._visible.end, self._environment.codecs)

    def _leave_note(self, directory: Path) -> None:
        """Write the files that make the next start quick; the records themselves are durable already."""
        active = self._chain.active
        line = state_line(self._producers, active.next_offset, self._compacted)
        with suppress(OSError):
            write_state(directory, active.next_offset, line, self._environment, durable=False)
            active.write_index(segment_path(directory, active.base_offset, ".index"), self._environment.faults)

    def _end_use(self, reason: BrokerError) -> None:
        self._gone = reason
        self._visible.wake()


def _refused(error: OSError) -> BrokerError:
    return BrokerError(Code.KAFKA_STORAGE_ERROR, f"The disk refused: {error}.")
