"""The search for records by their timestamps."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from octopus.broker.batch import Header, decode_records, read_header
from octopus.broker.codecs import Codecs, UnreadableBatch
from octopus.broker.log.segment import Segment

Found = tuple[int, int]
"""(offset, timestamp in ms)."""


@dataclass(frozen=True, slots=True)
class Search:
    """A search in the part of a log that consumers may see.

    Attributes:
        segments: In order, from the one on that has the first visible offset.
        start: First visible offset.
        end: One past the last visible offset.
        codecs: Unpack records; a batch that none of them opens answers with its first offset.
    """

    segments: list[Segment]
    start: int
    end: int
    codecs: Codecs

    def first_since(self, timestamp: int) -> Found | None:
        """Find the first record at or after a time.

        Raises:
            BrokerError: 56 the disk failed.
        """
        for header, batch in self._batches_since(timestamp):
            if not header.is_control:
                found = self._in_batch(timestamp, header, batch)
                if found is not None:
                    return found
        return None

    def newest(self) -> Found | None:
        """Find the first record with the largest timestamp; as in Kafka, it may be the marker of a transaction.

        Raises:
            BrokerError: 56 the disk failed.
        """
        timestamp = max((segment.max_timestamp for segment in self.segments), default=-1)
        for header, batch in self._batches_since(timestamp) if timestamp >= 0 else ():
            return self._in_batch(timestamp, header, batch)
        return None

    def _batches_since(self, timestamp: int) -> Iterator[tuple[Header, bytes]]:
        """Yield the visible batches that have a record at or after a time."""
        for segment in self.segments:
            if segment.max_timestamp < timestamp:
                continue
            for header, batch in _batches(segment.groups_since(timestamp)):
                if header.base_offset >= self.end:
                    return
                if header.max_timestamp >= timestamp and header.last_offset >= self.start:
                    yield header, batch

    def _in_batch(self, timestamp: int, header: Header, batch: bytes) -> Found | None:
        try:
            for record in decode_records(batch, codecs=self.codecs):
                if record.timestamp >= timestamp and record.offset >= self.start:
                    return record.offset, record.timestamp
        except UnreadableBatch:
            return max(header.base_offset, self.start), max(header.base_timestamp, timestamp)
        return None


def _batches(groups: Iterable[bytes]) -> Iterator[tuple[Header, bytes]]:
    for group in groups:
        position = 0
        while position < len(group):
            header = read_header(group, position)
            yield header, group[position : position + header.size]
            position += header.size
