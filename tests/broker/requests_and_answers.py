"""Bodies of a few requests, and readers of their answers, in one version each."""

from octopus.broker.batch import Record, encode_batch
from octopus.broker.wire import Reader, Writer

API_VERSIONS, PRODUCE, FETCH, METADATA, CREATE_TOPICS, DELETE_TOPICS = 18, 0, 1, 3, 19, 20
OFFSET_COMMIT, OFFSET_FETCH, JOIN_GROUP, SYNC_GROUP, HEARTBEAT = 8, 9, 11, 14, 12
FIND_COORDINATOR, LIST_OFFSETS, INIT_PRODUCER_ID, END_TXN = 10, 2, 22, 26
SASL_HANDSHAKE, SASL_AUTHENTICATE = 17, 36


def batch(*values: bytes, **header: int) -> bytes:
    return encode_batch(
        [Record(offset, 1_700_000_000_000, None, value) for offset, value in enumerate(values)], **header
    )


def create_topic(name: str, partitions: int = 1, config: dict[str, str] | None = None) -> Writer:
    body = Writer().int32(1).string(name).int32(partitions).int16(1).int32(0)
    body.array(list((config or {}).items()), lambda entry: body.string(entry[0]).string(entry[1]))
    return body.int32(5000).boolean(False)


def produce(
    topic: str, records: bytes, acks: int = -1, partition: int = 0, transactional_id: str | None = None
) -> Writer:
    body = Writer().string(transactional_id).int16(acks).int32(5000)
    return body.int32(1).string(topic).int32(1).int32(partition).blob(records)


def produced(answer: Reader, throttle: int = 0) -> list[tuple[int, int]]:
    """Return (code, base offset) of every partition of a Produce v3 answer."""

    def part() -> tuple[int, int]:
        answer.int32()
        code, base, _ = answer.int16(), answer.int64(), answer.int64()
        return code, base

    topics = answer.array(lambda: (answer.string(), answer.array(part)))
    assert answer.int32() == throttle
    assert answer.remaining == 0
    return [each for _, parts in topics for each in parts]


def fetch(
    topic: str,
    offset: int = 0,
    *,
    max_wait: int = 0,
    min_bytes: int = 1,
    isolation: int = 0,
    partition: int = 0,
    max_bytes: int = 2**20,
) -> Writer:
    body = Writer().int32(-1).int32(max_wait).int32(min_bytes).int32(max_bytes).int8(isolation)
    return body.int32(1).string(topic).int32(1).int32(partition).int64(offset).int32(max_bytes)


def fetched(answer: Reader) -> list[tuple[int, int, bytes]]:
    """Return (code, last stable offset, records) of every partition of a Fetch v4 answer."""
    answer.int32()

    def part() -> tuple[int, int, bytes]:
        answer.int32()
        code, _high, stable = answer.int16(), answer.int64(), answer.int64()
        answer.array(lambda: (answer.int64(), answer.int64()))
        return code, stable, answer.blob()

    topics = answer.array(lambda: (answer.string(), answer.array(part)))
    assert answer.remaining == 0
    return [each for _, parts in topics for each in parts]
