"""What a client's batch must be like to be stored. Looks at the header only, and at the bytes through the checksum."""

from octopus.broker.batch import HEADER_BYTES, TRANSACTIONAL, ZSTD, Header, checksum_of, read_header
from octopus.broker.checksum import Checksum
from octopus.broker.codes import BrokerError, Code


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
    has_producer = header.producer_id >= 0
    if has_producer and (header.base_sequence < 0 or header.producer_epoch < 0):
        raise BrokerError(Code.INVALID_RECORD, "A producer's batch needs an epoch and a sequence number.")
    if header.attributes & TRANSACTIONAL and not has_producer:
        raise BrokerError(Code.INVALID_RECORD, "A transactional batch needs a producer id.")
    return header
