"""The Kafka protocol by hand: enough of it to say what no client would say. Classic (non-flexible) versions only.

Layouts: https://kafka.apache.org/protocol and https://kafka.apache.org/documentation/#recordbatch.
"""

import socket
import struct
import time
from dataclasses import dataclass
from typing import Self

from tests.broker.clients.checking import Target

PRODUCE, FETCH, LIST_OFFSETS, METADATA, API_VERSIONS = 0, 1, 2, 3, 18
STARTING = (14, 15)  # the coordinator is loading, or not there yet
CREATE_TOPICS, DELETE_TOPICS, INIT_PRODUCER_ID = 19, 20, 22


class Connection:
    """One connection; requests may be sent without waiting for earlier answers."""

    def __init__(self, target: Target, timeout: float = 15.0) -> None:
        self.socket = socket.create_connection((target.host, target.port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._correlation = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, key: int, version: int, body: bytes) -> int:
        """Send a request; return its correlation id."""
        self._correlation += 1
        head = struct.pack(">hhi", key, version, self._correlation) + string("wire")
        self.socket.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
        return self._correlation

    def receive(self) -> tuple[int, "Reader"]:
        """Return the next answer: its correlation id and its body.

        Raises:
            ConnectionError: The broker closed the connection.
        """
        (size,) = struct.unpack(">i", self._exactly(4))
        answer = Reader(self._exactly(size))
        return answer.i32(), answer

    def ask(self, key: int, version: int, body: bytes) -> "Reader":
        """Send a request and return the body of its answer."""
        sent = self.send(key, version, body)
        correlation, answer = self.receive()
        assert correlation == sent, f"answer {correlation} to request {sent}"
        return answer

    def is_closed_by_peer(self, timeout: float = 10.0) -> bool:
        """Say whether the broker closes the connection, whatever it says before."""
        self.socket.settimeout(timeout)
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        return True

    def create_topic(self, topic: str, partitions: int = 1) -> None:
        """Create a topic and wait until its first partition has a leader that serves it."""
        error = self.try_to_create_topic(topic, partitions)
        assert error == 0, f"creating {topic!r} was answered {error}"
        deadline = time.monotonic() + 15
        while 0 not in self.partition_errors(topic) or self.fetch(topic, wait=0).error != 0:
            assert time.monotonic() < deadline, f"{topic} has no leader"
            time.sleep(0.05)

    def try_to_create_topic(self, topic: str, partitions: int = 1) -> int:
        """Ask for a topic and return the error code."""
        body = struct.pack(">i", 1) + string(topic) + struct.pack(">ihii", partitions, 1, 0, 0)
        answer = self.ask(CREATE_TOPICS, 4, body + struct.pack(">ib", 10_000, 0))
        answer.i32()  # throttle
        assert answer.i32() == 1
        answer.string()
        return answer.i16()

    def delete_topic(self, topic: str) -> None:
        """Delete a topic."""
        answer = self.ask(DELETE_TOPICS, 3, struct.pack(">i", 1) + string(topic) + struct.pack(">i", 10_000))
        answer.i32()
        assert answer.i32() == 1
        answer.string()
        assert answer.i16() == 0

    def partition_errors(self, topic: str) -> list[int]:
        """Return the error code of each partition in the topic's metadata; empty when the topic has none."""
        answer = self.ask(METADATA, 4, struct.pack(">i", 1) + string(topic) + b"\0")
        answer.i32()
        for _ in range(answer.i32()):
            answer.i32(), answer.string(), answer.i32(), answer.string()
        answer.string(), answer.i32()
        assert answer.i32() == 1
        answer.i16(), answer.string(), answer.i8()
        errors = []
        for _ in range(answer.i32()):
            errors.append(answer.i16())
            answer.i32(), answer.i32()
            for _ in range(2):
                answer.skip(4 * answer.i32())
        return errors

    def produce(self, topic: str, records: bytes, acks: int = -1) -> tuple[int, int]:
        """Produce a batch to partition 0; return the error code and the offset."""
        answer = self.ask(PRODUCE, 8, produce_request(topic, records, acks))
        assert answer.i32() == 1
        answer.string()
        assert answer.i32() == 1
        answer.i32()
        return answer.i16(), answer.i64()

    def fetch(self, topic: str, offset: int = 0, wait: float = 0.5) -> "Fetched":
        """Fetch from partition 0."""
        return fetched(self.ask(FETCH, 11, fetch_request(topic, offset, wait)))

    def producer_id(self) -> int:
        """Return a fresh producer id; Apache Kafka has none for a moment after its start."""
        deadline = time.monotonic() + 15
        while True:
            answer = self.ask(INIT_PRODUCER_ID, 1, struct.pack(">hi", -1, 60_000))
            answer.i32()
            error, producer = answer.i16(), answer.i64()
            if error == 0:
                return producer
            assert error in STARTING, f"asking for a producer id was answered {error}"
            assert time.monotonic() < deadline, "there is no producer id"
            time.sleep(0.1)

    def _exactly(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            part = self.socket.recv(min(size - len(received), 1 << 20))
            if not part:
                raise ConnectionError("the broker closed the connection")
            received += part
        return bytes(received)


@dataclass(frozen=True)
class Fetched:
    """What a fetch of one partition was answered."""

    error: int
    high_watermark: int
    records: bytes


class Reader:
    """Reads primitive types off a response."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def i8(self) -> int:
        return int(self._take(">b"))

    def i16(self) -> int:
        return int(self._take(">h"))

    def i32(self) -> int:
        return int(self._take(">i"))

    def i64(self) -> int:
        return int(self._take(">q"))

    def string(self) -> str | None:
        length = self.i16()
        return None if length < 0 else self.skip(length).decode()

    def data(self) -> bytes:
        return self.skip(max(self.i32(), 0))

    def skip(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        assert len(taken) == size, "the answer is shorter than its fields"
        self._at += size
        return taken

    def _take(self, layout: str) -> int:
        (value,) = struct.unpack(layout, self.skip(struct.calcsize(layout)))
        return int(value)


def string(text: str) -> bytes:
    """Encode a string."""
    encoded = text.encode()
    return struct.pack(">h", len(encoded)) + encoded


def produce_request(topic: str, records: bytes, acks: int = -1) -> bytes:
    """Return the body of Produce v8 to partition 0."""
    head = struct.pack(">hhi", -1, acks, 10_000) + struct.pack(">i", 1) + string(topic)
    return head + struct.pack(">iii", 1, 0, len(records)) + records


def fetch_request(topic: str, offset: int, wait: float, max_bytes: int = 50_000_000) -> bytes:
    """Return the body of Fetch v11 from partition 0."""
    head = struct.pack(">iiiibii", -1, int(wait * 1000), 1, max_bytes, 0, 0, -1)
    partition = struct.pack(">iiiqqi", 1, 0, -1, offset, -1, max_bytes)
    return head + struct.pack(">i", 1) + string(topic) + partition + struct.pack(">i", 0) + string("")


def fetched(answer: Reader) -> Fetched:
    """Read the answer to Fetch v11."""
    answer.i32()
    error = answer.i16()
    assert error == 0, f"the whole fetch was answered {error}"
    answer.i32()
    if answer.i32() == 0:
        return Fetched(0, -1, b"")
    answer.string()
    assert answer.i32() == 1
    answer.i32()
    error, high_watermark = answer.i16(), answer.i64()
    answer.i64(), answer.i64()
    answer.skip(16 * max(answer.i32(), 0))
    answer.i32()
    return Fetched(error, high_watermark, answer.data())


def batch(
    *values: bytes,
    producer_id: int = -1,
    epoch: int = -1,
    sequence: int = -1,
    attributes: int = 0,
    count: int | None = None,
) -> bytes:
    """Return an uncompressed record batch; `count` claims another number of records than there are."""
    records = b"".join(_record(delta, value) for delta, value in enumerate(values))
    claimed = len(values) if count is None else count
    now = int(time.time() * 1000)
    checked = (
        struct.pack(">hiqqqhii", attributes, claimed - 1, now, now, producer_id, epoch, sequence, len(values)) + records
    )
    head = struct.pack(">ibI", 0, 2, crc32c(checked))
    return struct.pack(">qi", 0, len(head) + len(checked)) + head + checked


def stored_attributes(target: Target, topic: str) -> list[int]:
    """Return the attribute bits of every batch in partition 0, as the broker stores them."""
    with Connection(target) as connection:
        records = connection.fetch(topic).records
    found, at = [], 0
    while at < len(records):
        (length,) = struct.unpack_from(">i", records, at + 8)
        found.append(struct.unpack_from(">h", records, at + 21)[0])
        at += 12 + length
    return found


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of a few bytes; far too slow for many."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _record(delta: int, value: bytes) -> bytes:
    body = b"\0\0" + _varint(delta) + _varint(-1) + _varint(len(value)) + value + b"\0"
    return _varint(len(body)) + body


def _varint(value: int) -> bytes:
    zigzag = value << 1 ^ value >> 63
    encoded = bytearray()
    while zigzag > 0x7F:
        encoded.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    encoded.append(zigzag)
    return bytes(encoded)
