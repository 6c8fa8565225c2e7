"""What only a hand-written connection can ask: order, limits, malformed requests, many waiting readers."""

import random
import resource
import struct
import time

from tests.broker.clients.checking import Target, check, fresh
from tests.broker.clients.wire import (
    API_VERSIONS,
    FETCH,
    METADATA,
    PRODUCE,
    Connection,
    batch,
    fetch_request,
    fetched,
    produce_request,
)

CORRUPT_MESSAGE, UNKNOWN_TOPIC, INVALID_TOPIC, INVALID_REPLICATION = 2, 3, 17, 38
UNSUPPORTED_VERSION, OUT_OF_ORDER_SEQUENCE, INVALID_RECORD = 35, 45, 87
ALL_TOPICS = struct.pack(">ib", -1, 0)


@check(quick_on_kafka=True)
def a_newer_ApiVersions_is_answered_in_version_0(target: Target) -> None:
    with Connection(target) as connection:
        # From version 3 on: tagged fields after the header, then compact strings (one byte: length + 1).
        answer = connection.ask(API_VERSIONS, 99, b"\0" + b"\x05wire" + b"\x021" + b"\0")
        assert answer.i16() == UNSUPPORTED_VERSION
        for _ in range(answer.i32()):
            answer.i16(), answer.i16(), answer.i16()
        answer = connection.ask(API_VERSIONS, 0, b"")
        assert answer.i16() == 0
        versions = {answer.i16(): (answer.i16(), answer.i16()) for _ in range(answer.i32())}
        # librdkafka 2.0 does not compress for a broker that does not offer Produce from version 0 on.
        assert versions[PRODUCE][0] == 0


@check(quick_on_kafka=True)
def answers_come_in_the_order_of_the_requests(target: Target) -> None:
    """A waiting fetch holds back what was asked after it, on its own connection."""
    topic = fresh("ordered")
    with Connection(target) as connection:
        connection.create_topic(topic)
        sent = [connection.send(FETCH, 11, fetch_request(topic, 0, 0.3))]
        sent += [connection.send(METADATA, 4, ALL_TOPICS) for _ in range(20)]
        assert [connection.receive()[0] for _ in sent] == sent


@check(quick_on_kafka=True)
def acks_0_gets_no_answer(target: Target) -> None:
    topic = fresh("unacknowledged")
    with Connection(target) as connection:
        connection.create_topic(topic)
        connection.send(PRODUCE, 8, produce_request(topic, batch(b"silent"), acks=0))
        asked = connection.send(METADATA, 4, ALL_TOPICS)
        assert connection.receive()[0] == asked
        assert b"silent" in connection.fetch(topic, wait=5).records


@check(quick_on_kafka=True)
def a_waiting_fetch_ends_when_records_arrive(target: Target) -> None:
    topic = fresh("awaited")
    with Connection(target) as reader, Connection(target) as writer:
        writer.create_topic(topic)
        reader.send(FETCH, 11, fetch_request(topic, 0, 10))
        time.sleep(0.2)  # not a wait for a condition: the fetch has to be waiting, which nothing tells
        started = time.monotonic()
        assert writer.produce(topic, batch(b"x"))[0] == 0
        assert b"x" in fetched(reader.receive()[1]).records
        assert time.monotonic() - started < 2


@check()
def a_waiting_fetch_ends_when_its_topic_is_deleted(target: Target) -> None:
    topic = fresh("deleted")
    with Connection(target) as reader, Connection(target) as writer:
        writer.create_topic(topic)
        reader.send(FETCH, 11, fetch_request(topic, 0, 12))
        time.sleep(0.2)  # as above
        started = time.monotonic()
        writer.delete_topic(topic)
        answer = fetched(reader.receive()[1])
        assert answer.error in (UNKNOWN_TOPIC, 6), answer
        assert time.monotonic() - started < 5


@check(quick_on_kafka=True)
def names_that_are_paths_are_refused(target: Target) -> None:
    with Connection(target) as connection:
        for name in ("../x", "a/b", "a\\b", "..", ".", "a\0b", "n" * 250, "", "ä"):
            error = connection.try_to_create_topic(name)
            assert error == INVALID_TOPIC, f"{name!r} was answered {error}"
            assert connection.partition_errors(name) == []


@check(quick_on_kafka=True)
def damaged_batches_are_refused(target: Target) -> None:
    topic = fresh("damaged")
    good = batch(b"one", b"two")
    flipped = bytearray(good)
    flipped[-3] ^= 0x40
    old_magic = bytearray(good)
    old_magic[16] = 1
    cases = {
        "a flipped bit": (bytes(flipped), {CORRUPT_MESSAGE}),
        "a batch cut short": (good[:-4], {CORRUPT_MESSAGE, INVALID_RECORD}),
        "a control batch": (batch(b"x", attributes=0x20), {INVALID_RECORD}),
        "more offsets than records": (batch(b"x", b"y", count=5), {INVALID_RECORD, CORRUPT_MESSAGE}),
    }
    with Connection(target) as connection:
        connection.create_topic(topic)
        for what, (records, expected) in cases.items():
            error, _ = connection.produce(topic, records)
            assert error in expected, f"{what} was answered {error}"
        assert connection.produce(topic, good) == (0, 0), "a refused batch left something behind"


@check(quick_on_kafka=True)
def a_repeated_batch_is_stored_once(target: Target) -> None:
    topic = fresh("repeated")
    with Connection(target) as connection:
        connection.create_topic(topic)
        producer = connection.producer_id()
        first = batch(b"a", b"b", producer_id=producer, epoch=0, sequence=0)
        second = batch(b"c", producer_id=producer, epoch=0, sequence=2)
        assert connection.produce(topic, first) == (0, 0)
        assert connection.produce(topic, second) == (0, 2)
        assert connection.produce(topic, first) == (0, 0), "not the original offset"
        assert connection.produce(topic, second) == (0, 2), "not the original offset"
        gap = batch(b"z", producer_id=producer, epoch=0, sequence=9)
        assert connection.produce(topic, gap)[0] == OUT_OF_ORDER_SEQUENCE
        assert connection.fetch(topic).high_watermark == 3


@check(quick_on_kafka=True)
def impossible_frames_close_their_connection_only(target: Target) -> None:
    with Connection(target) as witness:
        for size in (0x7FFFFFFF, 0x70000000, -5):
            with Connection(target) as connection:
                connection.socket.sendall(struct.pack(">i", size) + b"x" * 20)
                assert connection.is_closed_by_peer(), f"a frame of {size} bytes is still waited for"
        for key, version in ((999, 0), (METADATA, 99), (PRODUCE, -1)):
            with Connection(target) as connection:
                connection.send(key, version, b"\0" * 8)
                assert connection.is_closed_by_peer(), f"API {key} version {version} was not refused"
        with Connection(target) as connection:
            connection.socket.sendall(struct.pack(">i", 500) + b"only the beginning")
        assert witness.ask(METADATA, 4, ALL_TOPICS)


@check(quick_on_kafka=True)
def counts_beyond_the_frame_are_refused(target: Target) -> None:
    """An array said to have two thousand million items must not be allocated for."""
    with Connection(target) as witness:
        for key, version, body in (
            (METADATA, 4, struct.pack(">i", 0x7FFFFFFF)),
            (FETCH, 11, struct.pack(">iiiibiii", -1, 0, 1, 1, 0, 0, -1, 0x7FFFFFFF)),
            (PRODUCE, 8, struct.pack(">hhii", -1, -1, 1000, 0x7FFFFFFF)),
        ):
            with Connection(target) as connection:
                connection.send(key, version, body)
                assert connection.is_closed_by_peer(), f"API {key} was not refused"
        assert witness.ask(METADATA, 4, ALL_TOPICS)


@check(limit=60)
def noise_does_no_harm(target: Target) -> None:
    """Three hundred requests of random bytes, the same ones each time."""
    noise = random.Random(20)
    with Connection(target) as witness:
        for n in range(300):
            with Connection(target) as connection:
                key, version = noise.choice((*range(48), -1, 500)), noise.randrange(-1, 12)
                if key in (CONTROLLED_SHUTDOWN, STOP_REPLICA):
                    continue
                connection.send(key, version, noise.randbytes(noise.randrange(200)))
                connection.is_closed_by_peer(timeout=0.05)  # or answers, or waits for more: all fine
            if n % 50 == 0:
                assert witness.ask(METADATA, 4, ALL_TOPICS)
        assert witness.ask(METADATA, 4, ALL_TOPICS)


# Requests between brokers. A broker that had them would be right to obey.
STOP_REPLICA, CONTROLLED_SHUTDOWN = 5, 7


@check()
def a_slow_reader_slows_only_itself(target: Target) -> None:
    topic = fresh("slow-reader")
    with Connection(target) as writer, Connection(target) as slow:
        writer.create_topic(topic)
        value = bytes(10_000)
        for _ in range(10):
            assert writer.produce(topic, batch(value))[0] == 0
        for _ in range(500):  # fifty megabytes that nobody takes
            slow.send(FETCH, 11, fetch_request(topic, 0, 0))
        started = time.monotonic()
        for _ in range(20):
            assert writer.produce(topic, batch(b"x"))[0] == 0
            assert writer.fetch(topic, offset=9).error == 0
        assert time.monotonic() - started < 5
        assert slow.receive()[1]


@check(limit=60)
def five_hundred_waiting_fetches_cost_nothing(target: Target) -> None:
    """Others are served as quickly as ever, and one append wakes them all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 2048), hard), hard))
    idle, busy = fresh("idle"), fresh("busy")
    with Connection(target) as other:
        other.create_topic(idle)
        other.create_topic(busy)
        waiting = [Connection(target, timeout=30) for _ in range(500)]
        for connection in waiting:
            connection.send(FETCH, 11, fetch_request(idle, 0, 25))
        time.sleep(1)  # all of them have to be waiting, which nothing tells
        times = []
        for _ in range(50):
            started = time.perf_counter()
            assert other.produce(busy, batch(b"x"))[0] == 0
            times.append(time.perf_counter() - started)
        assert sorted(times)[25] < 0.05, f"median {sorted(times)[25] * 1000:.0f} ms"
        assert other.produce(idle, batch(b"wake up"))[0] == 0
        for connection in waiting:
            assert b"wake up" in fetched(connection.receive()[1]).records
            connection.socket.close()
