"""The conditions under which a client's batch is stored."""

from collections.abc import Iterable
from typing import NamedTuple

from octopus.broker.batch import (
    HEADER_BYTES,
    TRANSACTIONAL,
    Header,
    Record,
    checksum_of,
    decode_unpacked,
    holds,
    read_header,
    repacked,
    stamped,
    unpacked,
)
from octopus.broker.checksum import Checksum
from octopus.broker.codecs import LIMIT, NONE, ZSTD, NotUnpacked, TooLarge, UnreadableBatch
from octopus.broker.codes import BrokerError, Code
from octopus.broker.environment import Environment
from octopus.broker.log.values import LogConfig

_NO_TIMESTAMP = -1


class Admitted(NamedTuple):
    """A batch that may be stored.

    Attributes:
        header: Its header.
        batch: As it is to be stored.
        time: Of appending, ms, where the topic's records carry that; else -1.
    """

    header: Header
    batch: bytes | memoryview
    time: int


def check_batch(data: bytes | memoryview, max_bytes: int, checksum: Checksum) -> Header:
    """Return the header of the one batch in `data`.

    Raises:
        BrokerError: 2 broken, 10 too large, 43 old format, -1 unknown codec, 87 a batch that clients may not send.
    """
    if len(data) < HEADER_BYTES:
        raise BrokerError(Code.CORRUPT_MESSAGE, f"{len(data)} bytes are no batch.")
    header = read_header(data)
    if header.magic in {0, 1}:
        raise BrokerError(Code.UNSUPPORTED_FOR_MESSAGE_FORMAT, f"Records of format {header.magic} are not supported.")
    if header.magic != 2 or header.size < HEADER_BYTES or header.size > len(data):
        raise BrokerError(Code.CORRUPT_MESSAGE, f"A batch of {header.size} bytes does not fit the {len(data)} sent.")
    _check_size(header.size, max_bytes)
    if header.size < len(data):
        raise BrokerError(Code.INVALID_RECORD, "A request may hold one batch per partition.")
    if checksum_of(data, checksum) != header.crc:
        raise BrokerError(Code.CORRUPT_MESSAGE, "The batch's checksum is wrong.")
    if header.codec > ZSTD:
        raise BrokerError(Code.UNKNOWN_SERVER_ERROR, f"There is no codec {header.codec}.")  # as Kafka
    if header.is_control:
        raise BrokerError(Code.INVALID_RECORD, "Only the broker writes control batches.")
    if header.count < 1 or header.count != header.last_offset_delta + 1:
        raise BrokerError(
            Code.INVALID_RECORD,
            f"A batch of {header.count} records cannot end at offset delta {header.last_offset_delta}.",
        )
    if header.base_offset != 0:
        raise BrokerError(Code.INVALID_RECORD, f"A batch to be appended begins at offset 0, not {header.base_offset}.")
    has_producer = header.producer_id >= 0
    if has_producer and (header.base_sequence < 0 or header.producer_epoch < 0):
        raise BrokerError(Code.INVALID_RECORD, "A producer's batch needs an epoch and a sequence number.")
    if header.attributes & TRANSACTIONAL and not has_producer:
        raise BrokerError(Code.INVALID_RECORD, "A transactional batch needs a producer id.")
    return header


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise BrokerError(Code.MESSAGE_TOO_LARGE, f"A batch of {size} bytes exceeds max.message.bytes, {most}.")


def admit(
    data: bytes | memoryview, config: LogConfig, now: int, environment: Environment, limit: int = LIMIT
) -> Admitted:
    """Return a client's batch as it is to be stored: as it was sent, unless the topic wants another codec or its own time.

    It takes time for large batches. It uses its arguments only, so any thread may do it.

    Args:
        limit: Most bytes that the records may decompress to.

    Raises:
        BrokerError: As `check_batch`; -1 cannot be decompressed, 10 decompresses to too much, 87 records that cannot be read,
            more or fewer than the header says, or without a key in a compacted topic; 32 a time too far from `now`, ms. It
            names the records.
    """
    header = check_batch(data, config.max_message_bytes, environment.checksum)
    try:
        records = unpacked(header, data, limit, environment.codecs)
        if records is not None:
            _check_records(header, records, config, now)
            if config.codec not in (None, header.codec):
                data, header = _repacked(header, data, records, config, environment)
    except TooLarge as error:
        raise BrokerError(Code.MESSAGE_TOO_LARGE, str(error)) from error
    except NotUnpacked as error:  # as Kafka, whose libraries fail
        raise BrokerError(Code.UNKNOWN_SERVER_ERROR, str(error)) from error
    except UnreadableBatch as error:
        raise BrokerError(Code.INVALID_RECORD, str(error)) from error
    if not config.log_append_time:
        return Admitted(header, data, -1)
    data = stamped(data, now, environment.checksum)
    return Admitted(read_header(data), data, now)


def admit_quickly(data: bytes | memoryview, config: LogConfig, now: int, environment: Environment) -> Admitted | None:
    """Do the work of `admit` if it takes a few milliseconds at most; otherwise, return None."""
    if len(data) < HEADER_BYTES:
        return admit(data, config, now, environment)
    header = read_header(data)
    is_repacked = config.codec not in (None, NONE, header.codec)
    if is_repacked or len(data) > _QUICK_BYTES or header.count > _QUICK_RECORDS:
        return None
    try:
        return admit(data, config, now, environment, _QUICK_BYTES)
    except BrokerError as error:
        if isinstance(error.__cause__, TooLarge):
            return None
        raise


_QUICK_BYTES, _QUICK_RECORDS = 512 * 1024, 2048


def _repacked(
    header: Header, data: bytes | memoryview, records: bytes | memoryview, config: LogConfig, environment: Environment
) -> tuple[bytes, Header]:
    assert config.codec is not None
    batch = repacked(header, data, records, config.codec, config.codec_level, environment.codecs, environment.checksum)
    _check_size(len(batch), config.max_message_bytes)
    return batch, read_header(batch)


def _check_records(header: Header, records: bytes | memoryview, config: LogConfig, now: int) -> None:
    """Refuse records that differ from the header, or that the topic does not take.

    Only where the header or the topic asks for it does this look further than at the lengths of the records.
    """
    if not holds(records, header.count):
        raise UnreadableBatch(f"There are not the {header.count} records that the batch announces.")
    earliest, latest = now - config.timestamp_before_max_ms, now + config.timestamp_after_max_ms
    is_dated = not config.log_append_time
    if (
        config.compact
        or (is_dated and not earliest <= min(header.base_timestamp, header.max_timestamp))
        or (is_dated and header.max_timestamp > latest)
    ):
        each = decode_unpacked(header, records)
        _check_each(each, config.compact, (earliest, latest) if is_dated else None)


def _check_each(records: Iterable[Record], needs_key: bool, times: tuple[int, int] | None) -> None:
    keyless, dated = [], []
    for number, record in enumerate(records):
        if needs_key and record.key is None:
            keyless.append((number, "A compacted topic takes no record without a key."))
        elif times is not None and record.timestamp != _NO_TIMESTAMP and not times[0] <= record.timestamp <= times[1]:
            dated.append((number, f"The timestamp {record.timestamp} is not between {times[0]} and {times[1]}."))
    if keyless or dated:
        wrong = sorted(keyless + dated)
        code = Code.INVALID_TIMESTAMP if dated else Code.INVALID_RECORD
        raise BrokerError(code, f"{len(wrong)} records of the batch are refused; the first: {wrong[0][1]}", wrong)
