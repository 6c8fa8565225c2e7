"""What a client's batch must be like to be stored."""

from octopus.broker.batch import (
    HEADER_BYTES,
    TRANSACTIONAL,
    ZSTD,
    Decompressors,
    Header,
    UnreadableBatch,
    checksum_of,
    decode_records,
    holds,
    read_header,
    unpacked,
)
from octopus.broker.checksum import Checksum
from octopus.broker.codes import BrokerError, Code
from octopus.broker.log.values import LogConfig

_NO_TIMESTAMP = -1


def check_batch(data: bytes | memoryview, max_bytes: int, checksum: Checksum) -> Header:
    """Return the header of the one batch in `data`.

    Raises:
        BrokerError: 2 broken, 10 too large, 43 old format, 76 unknown codec, 87 not what a client may send.
    """
    if len(data) < HEADER_BYTES:
        raise BrokerError(Code.CORRUPT_MESSAGE, f"{len(data)} bytes are no batch.")
    header = read_header(data)
    if header.magic in {0, 1}:
        raise BrokerError(Code.UNSUPPORTED_FOR_MESSAGE_FORMAT, f"Records of format {header.magic} are not supported.")
    if header.magic != 2 or header.size < HEADER_BYTES or header.size > len(data):
        raise BrokerError(Code.CORRUPT_MESSAGE, f"A batch of {header.size} bytes does not fit the {len(data)} sent.")
    if header.size > max_bytes:
        raise BrokerError(
            Code.MESSAGE_TOO_LARGE, f"A batch of {header.size} bytes exceeds max.message.bytes, {max_bytes}."
        )
    if header.size < len(data):
        raise BrokerError(Code.INVALID_RECORD, "A request may hold one batch per partition.")
    if checksum_of(data, checksum) != header.crc:
        raise BrokerError(Code.CORRUPT_MESSAGE, "The batch's checksum is wrong.")
    if header.codec > ZSTD:
        raise BrokerError(Code.UNSUPPORTED_COMPRESSION_TYPE, f"There is no codec {header.codec}.")
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


def check_records(
    header: Header, data: bytes | memoryview, config: LogConfig, now: int, decompressors: Decompressors
) -> None:
    """Refuse records that cannot be read, or that the topic does not take; what cannot be decompressed here passes.

    Only where the header or the topic asks for it does this look further than at the lengths of the records.

    Raises:
        BrokerError: 87 unreadable, more or fewer than the header says, or without a key in a compacted topic; 32 a time too far
            from `now`, ms. It names the records.
    """
    try:
        records = unpacked(header, data, decompressors=decompressors)
        if records is None:
            return
        if not holds(records, header.count):
            raise BrokerError(
                Code.INVALID_RECORD, f"There are not the {header.count} records that the batch announces."
            )
        earliest, latest = now - config.timestamp_before_max_ms, now + config.timestamp_after_max_ms
        is_dated = not config.log_append_time
        if (
            config.compact
            or (is_dated and not earliest <= min(header.base_timestamp, header.max_timestamp))
            or (is_dated and header.max_timestamp > latest)
        ):
            _check_each(data, decompressors, config.compact, (earliest, latest) if is_dated else None)
    except UnreadableBatch as error:
        raise BrokerError(Code.INVALID_RECORD, str(error)) from error


def _check_each(
    data: bytes | memoryview, decompressors: Decompressors, needs_key: bool, times: tuple[int, int] | None
) -> None:
    keyless, dated = [], []
    for number, record in enumerate(decode_records(data, decompressors=decompressors)):
        if needs_key and record.key is None:
            keyless.append((number, "A compacted topic takes no record without a key."))
        elif times is not None and record.timestamp != _NO_TIMESTAMP and not times[0] <= record.timestamp <= times[1]:
            dated.append((number, f"The timestamp {record.timestamp} is not between {times[0]} and {times[1]}."))
    if keyless or dated:
        wrong = sorted(keyless + dated)
        code = Code.INVALID_TIMESTAMP if dated else Code.INVALID_RECORD
        raise BrokerError(code, f"{len(wrong)} records of the batch are refused; the first: {wrong[0][1]}", wrong)
