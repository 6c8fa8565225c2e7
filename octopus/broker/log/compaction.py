"""Compaction: keep the newest record of each key. Runs in any thread on sealed segments, which never change."""

import copy
import struct
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import NamedTuple

from octopus.broker.batch import (
    TRANSACTIONAL,
    Header,
    Record,
    checksum_of,
    decode_records,
    encode_batch,
    is_commit,
    read_header,
)
from octopus.broker.codecs import UnreadableBatch
from octopus.broker.environment import Environment
from octopus.broker.files import Descriptors, DiskFile, LogFile
from octopus.broker.log.producers import Producers
from octopus.broker.log.segment import Segment

MAXIMUM_KEYS = 500_000
"""Most keys remembered in one run (about 60 MB); the next run continues from there."""


class Replacement(NamedTuple):
    """One compacted segment and those it stands for."""

    sources: list[Segment]
    segment: Segment


class Compaction:
    """One run over a log's sealed segments.

    Args:
        segments: From the log's first on; sealed, and below the stable offset.
        since: Up to which offset an earlier run came: no key below is there twice.
        producers: Knows which transactions were aborted.
        new_file: Makes the file of a replacement, by its base offset.
        segment_bytes: Neighbouring segments are joined up to this size.
        delete_retention_ms: How long tombstones are kept after their segment's last append.
        now: ms since the epoch.

    Records without a key are kept: nothing supersedes them. Batches that cannot be decoded are kept whole. Offsets never
    change, so gaps remain.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        since: int,
        producers: Producers,
        new_file: Callable[[int], LogFile],
        environment: Environment,
        *,
        segment_bytes: int,
        delete_retention_ms: int,
        now: int,
    ) -> None:
        self.sources = list(segments)
        self.through = segments[-1].next_offset
        self.replacements: list[Replacement] = []
        self._since = since
        self._producers = producers
        self._new_file = new_file
        self._environment = environment
        self._segment_bytes = segment_bytes
        self._now = now
        self._delete_before = now - delete_retention_ms
        self._newest: dict[bytes, int] = {}

    def run(self) -> None:
        """Write the replacements; the log does not change before `Log.swap`.

        Raises:
            OSError: The disk refused; nothing changed.
            BrokerError: A segment could not be read (perhaps deleted meanwhile); nothing changed.
        """
        descriptors = Descriptors()  # the log's own belong to another thread
        readers = [_reader(segment, descriptors, self._environment) for segment in self.sources]
        try:
            self._find_newest(readers)
            self._rewrite(readers)
        except BaseException:
            for replacement in self.replacements:
                replacement.segment.file.delete()
            raise
        finally:
            for reader in readers:
                reader.file.close()

    def _find_newest(self, readers: Sequence[Segment]) -> None:
        for reader in readers:
            if reader.next_offset <= self._since:
                continue
            for header, batch in reader.batches(self._since):
                for record in self._records(header, batch) or ():
                    if record.key is not None:
                        self._newest[_digest(record.key)] = record.offset
            if len(self._newest) > MAXIMUM_KEYS:
                self.through = reader.next_offset
                break

    def _rewrite(self, readers: Sequence[Segment]) -> None:
        target: Segment | None = None
        changed = False
        for source, reader in zip(self.sources, readers, strict=True):
            if source.base_offset >= self.through:
                break
            if target is not None and target.size + source.size > self._segment_bytes:
                self._finish(changed)
                target = None
            if target is None:
                target = Segment(source.base_offset, self._new_file(source.base_offset), now=source.created)
                self.replacements.append(Replacement([], target))
                changed = False
            self.replacements[-1].sources.append(source)
            changed = self._copy(source, reader, target) or changed
        self._finish(changed)

    def _copy(self, source: Segment, reader: Segment, target: Segment) -> bool:
        """Append the remaining batches of a segment to `target`; say whether any changed."""
        changed = False
        for header, batch in reader.batches():
            kept = self._kept(header, batch, source)
            changed = changed or kept is not batch
            if kept is not None:
                target.append([kept], read_header(kept), self._now)
        target.modified = source.modified
        return changed

    def _finish(self, changed: bool) -> None:
        sources, target = self.replacements[-1]
        if changed or len(sources) > 1:
            target.file.sync()
        else:
            self.replacements.pop()
            target.file.delete()

    def _kept(self, header: Header, batch: bytes, source: Segment) -> bytes | None:
        """Return the rest of a batch: itself, a smaller one, or nothing."""
        is_old = source.modified < self._delete_before
        if header.is_control:
            # Abort markers stay: clients that are told of an aborted transaction wait for its marker.
            return None if is_old and is_commit(batch) else batch
        if header.is_transactional:
            if self._producers.is_aborted(header):
                return None
            # Decided, and its marker may go: without the flag no reader takes it for an open transaction.
            batch = _committed(batch, header, self._environment)
        records = self._records(header, batch)
        if records is None:
            return batch
        kept = [record for record in records if self._is_kept(record, is_old)]
        if len(kept) == len(records):
            return batch
        if not kept:
            return None
        return encode_batch(
            kept,
            attributes=header.attributes & ~TRANSACTIONAL,
            base_offset=header.base_offset,
            last_offset=header.last_offset,
            producer_id=header.producer_id,
            producer_epoch=header.producer_epoch,
            base_sequence=header.base_sequence,
            checksum=self._environment.checksum,
            codecs=self._environment.codecs,
        )

    def _is_kept(self, record: Record, is_old: bool) -> bool:
        if record.key is None:
            return True
        if record.offset < self._newest.get(_digest(record.key), -1):
            return False
        return record.value is not None or not is_old

    def _records(self, header: Header, batch: bytes) -> list[Record] | None:
        if header.is_control or (header.is_transactional and self._producers.is_aborted(header)):
            return None
        try:
            return list(decode_records(batch, codecs=self._environment.codecs))
        except UnreadableBatch:
            return None


def _reader(segment: Segment, descriptors: Descriptors, environment: Environment) -> Segment:
    reader = copy.copy(segment)
    if isinstance(segment.file, DiskFile):
        reader.file = DiskFile(segment.file.path, descriptors, environment.faults)
    return reader


def _committed(batch: bytes, header: Header, environment: Environment) -> bytes:
    changed = bytearray(batch)
    struct.pack_into(">h", changed, 21, header.attributes & ~TRANSACTIONAL)
    struct.pack_into(">I", changed, 17, checksum_of(memoryview(changed), environment.checksum))
    return bytes(changed)


def _digest(key: bytes) -> bytes:
    # Short keys stand for themselves; digests are longer than any of them.
    return key if len(key) < 16 else blake2b(key, digest_size=16).digest()
