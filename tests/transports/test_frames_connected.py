"""Connections whose frames we read ourselves: plain and on TLS, on both event loops, whatever the broker does."""

import asyncio
import gc
import logging
import ssl
import struct
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiokafka
import aiokafka.conn
import pytest
import uvloop
from aiokafka.errors import CorrelationIdError, KafkaConnectionError

from octopus.transports.base import Outgoing
from octopus.transports.kafka.client_name import ClientName
from octopus.transports.kafka.connection import Connection, create_connection
from octopus.transports.kafka.frames import SMALL
from octopus.transports.opening import open_transport
from tests.support.kafka_cluster import KafkaCluster
from tests.support.kafka_security import make_certificate

from .members import Member
from .scripted_broker import Dialogue, Script, ScriptedBroker, fetch_answer, fetch_request, framed, produce_request

Run = Callable[[Callable[[], Awaitable[None]]], None]
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
SOON = 5.0


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine function on an event loop; nothing may be left open."""

    def run_on(main: Callable[[], Awaitable[None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30):
                await main()
            for _ in range(5):
                await asyncio.sleep(0.01)  # closed sockets are let go of in later turns

        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always", ResourceWarning)
            with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
                runner.run(bounded())
            gc.collect()
        left = [str(warning.message) for warning in seen if issubclass(warning.category, ResourceWarning)]
        assert left == []

    return run_on


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


class Place:
    """Where scripted brokers run: on TLS or without.

    Args:
        certificate: PEM file of the authority, the server's beside it.
    """

    def __init__(self, certificate: Path | None) -> None:
        self._server = self._client = None
        if certificate is not None:
            self._server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._server.load_cert_chain(certificate.with_name("server.pem"))
            self._client = ssl.create_default_context(cafile=str(certificate))

    def broker(self, script: Script, also: bytes = b"") -> ScriptedBroker:
        return ScriptedBroker(script, self._server, also)

    async def connect(self, broker: ScriptedBroker, **options: Any) -> Connection:
        protocol = "PLAINTEXT" if self._client is None else "SSL"
        return await create_connection(
            "127.0.0.1",
            broker.port,
            client_id=ClientName("test"),
            ssl_context=self._client,
            security_protocol=protocol,
            **options,
        )


@pytest.fixture(params=["plain", "tls"])
def place(request: pytest.FixtureRequest, certificate: Path) -> Place:
    return Place(certificate if request.param == "tls" else None)


def records_in(answer: Any) -> list[bytes]:
    return [bytes(row[-1]) for _, rows in answer.topics for row in rows]


SIZES = [0, 1, 100, SMALL - 100, *range(SMALL - 75, SMALL - 50), SMALL, SMALL + 1, 3 * SMALL, 1_000_000, 5, 700_000]


def test_answers_of_every_size_arrive_whole_one_by_one(run: Run, place: Place) -> None:
    async def script(dialogue: Dialogue) -> None:
        for number, size in enumerate(SIZES):
            frame = framed(fetch_answer(await dialogue.asked(), bytes([number]) * size))
            await dialogue.send(frame, 1, 2, 3, number + 1, SMALL - number, size // 2)
        await dialogue.ended()

    async def main() -> None:
        async with place.broker(script) as broker:
            connection = await place.connect(broker)
            for number, size in enumerate(SIZES):
                answer = await connection.send(fetch_request())
                assert records_in(answer) == [bytes([number]) * size]
            await connection.close()

    run(main)


def test_many_answers_in_one_go_find_their_requests(run: Run, place: Place) -> None:
    async def script(dialogue: Dialogue) -> None:
        asked = [await dialogue.asked() for _ in SIZES]
        answers = [
            fetch_answer(number, b"%d" % turn * size)
            for turn, (number, size) in enumerate(zip(asked, SIZES, strict=True))
        ]
        await dialogue.send(framed(*answers))
        await dialogue.ended()

    async def main() -> None:
        async with place.broker(script) as broker:
            connection = await place.connect(broker)
            waiting = [asyncio.ensure_future(connection.send(fetch_request())) for _ in SIZES]
            for turn, (answer, size) in enumerate(zip(await asyncio.gather(*waiting), SIZES, strict=True)):
                assert records_in(answer) == [b"%d" % turn * size]
            assert not connection._requests
            await connection.close()

    run(main)


def test_an_answer_that_is_kept_is_not_overwritten_by_later_ones(run: Run, place: Place) -> None:
    async def script(dialogue: Dialogue) -> None:
        for number in range(12):
            await dialogue.send(framed(fetch_answer(await dialogue.asked(), bytes([number]) * 300_000)))
        await dialogue.ended()

    async def main() -> None:
        async with place.broker(script) as broker:
            connection = await place.connect(broker)
            kept = {}
            for number in range(12):
                answer = await connection.send(fetch_request())
                if number % 3 == 0:
                    kept[number] = answer.topics[0][1][0][-1][1000:2000]
                del answer
            assert {number: bytes(view) for number, view in kept.items()} == {n: bytes([n]) * 1000 for n in kept}
            await connection.close()

    run(main)


# endings


def hopeless(number: int) -> dict[str, bytes]:
    """What may come instead of an answer, after which a connection is of no use."""
    answer = framed(fetch_answer(number, bytes(100)))
    return {
        "a negative size": struct.pack(">i", -1),
        "nothing in a frame": framed(b""),
        "less than a correlation id": framed(b"\0\0"),
        "no more than a correlation id": framed(struct.pack(">i", number)),
        "an answer that is cut": framed(fetch_answer(number, bytes(100))[:-1]),
        "a large answer that is cut": framed(fetch_answer(number, bytes(SMALL))[:-1]),
        "the answer to something else": framed(fetch_answer(number + 7)),
        "a name that is no text": answer.replace(b"topic", b"\xff\xfe\xff\xfe\xff"),
    }


@pytest.mark.parametrize("what", hopeless(0))
@pytest.mark.parametrize("more", [0, 100_000], ids=["", "and more behind it"])
def test_an_answer_that_cannot_be_read_fails_all_that_wait_at_once(
    run: Run, place: Place, what: str, more: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(dialogue: Dialogue) -> None:
        first, second = await dialogue.asked(), await dialogue.asked()
        await dialogue.asked()
        await dialogue.send(framed(fetch_answer(first, b"good")) + hopeless(second)[what] + bytes(more))
        await dialogue.ended()

    closed: list[Any] = []

    async def main() -> None:
        async with place.broker(script) as broker:
            connection = await place.connect(broker, on_close=lambda *args: closed.append(args[1]))
            started = time.monotonic()
            waiting = [asyncio.ensure_future(connection.send(fetch_request())) for _ in range(3)]
            good, *bad = await asyncio.gather(*waiting, return_exceptions=True)
            assert time.monotonic() - started < SOON
            assert records_in(good) == [b"good"]
            assert all(isinstance(error, KafkaConnectionError | CorrelationIdError) for error in bad)
            assert not connection.connected()
            with pytest.raises(KafkaConnectionError):
                await connection.send(fetch_request())
            await asyncio.wait_for(connection._closed_fut, SOON)

    with caplog.at_level(logging.ERROR):
        run(main)
    assert len(closed) == 1
    said = [record for record in caplog.records if "cannot be read" in record.message]
    assert bool(said) == (what != "the answer to something else")
    others = [record.getMessage() for record in caplog.records if record not in said]
    assert others == [], "neither the event loop nor aiokafka has anything to complain of"


@pytest.mark.parametrize("sent", [0, 3, 50, SMALL + 1000])
def test_a_broker_that_hangs_up_in_the_middle_of_an_answer_fails_what_waits(run: Run, place: Place, sent: int) -> None:
    async def script(dialogue: Dialogue) -> None:
        frame = framed(fetch_answer(await dialogue.asked(), bytes(2 * SMALL)))
        await dialogue.send(frame[:sent])

    async def main() -> None:
        async with place.broker(script) as broker:
            connection = await place.connect(broker)
            with pytest.raises(KafkaConnectionError):
                await asyncio.wait_for(connection.send(fetch_request()), SOON)
            assert not connection.connected()
            await asyncio.wait_for(connection._closed_fut, SOON)

    run(main)


def test_a_broker_that_hangs_up_as_soon_as_we_are_connected_is_noticed(run: Run, place: Place) -> None:
    async def script(dialogue: Dialogue) -> None:
        pass

    async def main() -> None:
        async with place.broker(script) as broker:
            for _ in range(20):
                try:
                    connection = await place.connect(broker)
                    with pytest.raises(KafkaConnectionError):
                        await asyncio.wait_for(connection.send(fetch_request()), SOON)
                except KafkaConnectionError:
                    continue
                assert not connection.connected()

    run(main)


def test_what_is_published_on_a_connection_that_was_just_reset_leaves_nothing_behind(run: Run, place: Place) -> None:
    async def script(dialogue: Dialogue) -> None:
        await dialogue.ended()

    async def main() -> None:
        async with place.broker(script) as broker:
            connection = await place.connect(broker)
            transport = connection.transport
            assert transport is not None
            number = transport.get_extra_info("socket").fileno()
            transport.abort()  # in this turn it is lost, and only the next one says so
            for _ in range(2):
                with pytest.raises(KafkaConnectionError):
                    await connection.send(produce_request())
            await asyncio.sleep(0.01)
            selector = getattr(asyncio.get_running_loop(), "_selector", None)
            assert selector is None or number not in selector.get_map()
            again = await place.connect(broker)  # with the same number, mostly
            assert again.connected()
            await again.close()

    run(main)


async def test_an_end_that_was_seen_before_we_took_over_is_noticed() -> None:
    async def script(dialogue: Dialogue) -> None:
        await dialogue.ended()

    async with ScriptedBroker(script) as broker:
        connection = Connection("127.0.0.1", broker.port, client_id=ClientName("test"))
        take_over = connection._take_over

        def late() -> None:
            connection._protocol.eof_received()  # in the turn in which the last answer was read
            take_over()

        connection._take_over = late
        await connection.connect()
        with pytest.raises(KafkaConnectionError):
            await asyncio.wait_for(connection.send(fetch_request()), SOON)
        assert not connection.connected()


def test_an_answer_that_nobody_asked_for_ends_the_connection(run: Run, place: Place) -> None:
    async def script(dialogue: Dialogue) -> None:
        await dialogue.send(framed(fetch_answer(await dialogue.asked())))
        await dialogue.send(framed(fetch_answer(99)))
        await dialogue.ended()

    async def main() -> None:
        async with place.broker(script) as broker:
            connection = await place.connect(broker)
            await connection.send(fetch_request())
            await asyncio.wait_for(connection._closed_fut, SOON)
            assert not connection.connected()

    run(main)


def test_a_request_that_was_given_up_does_not_disturb_the_next(run: Run, place: Place) -> None:
    async def script(dialogue: Dialogue) -> None:
        asked = [await dialogue.asked() for _ in range(2)]
        await dialogue.send(framed(*[fetch_answer(number, b"%d" % turn) for turn, number in enumerate(asked)]))
        await dialogue.ended()

    async def main() -> None:
        async with place.broker(script) as broker:
            connection = await place.connect(broker)
            given_up = asyncio.ensure_future(connection.send(fetch_request()))
            await asyncio.sleep(0)
            given_up.cancel()
            assert records_in(await connection.send(fetch_request())) == [b"1"]
            await connection.close()

    run(main)


def test_closing_while_answers_come_ends_quietly(run: Run, place: Place) -> None:
    async def script(dialogue: Dialogue) -> None:
        number = await dialogue.asked()
        await dialogue.send(framed(*[fetch_answer(number + at, bytes(100_000)) for at in range(20)]))
        await dialogue.ended()

    async def main() -> None:
        async with place.broker(script) as broker:
            connection = await place.connect(broker)
            waiting = [asyncio.ensure_future(connection.send(fetch_request())) for _ in range(20)]
            waiting[3].add_done_callback(lambda done: connection.close())
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert len(records_in(results[0])[0]) == 100_000
            assert isinstance(results[-1], KafkaConnectionError) or len(records_in(results[-1])[0]) == 100_000
            await asyncio.wait_for(connection._closed_fut, SOON)

    run(main)


# what aiokafka's connections do


def test_writers_wait_for_a_broker_that_does_not_read_and_go_on_when_it_does(run: Run, place: Place) -> None:
    async def main() -> None:
        reads = asyncio.Event()

        async def script(dialogue: Dialogue) -> None:
            dialogue.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await reads.wait()
            dialogue.writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert len(await dialogue.request()) == 20_000_000
            await dialogue.ended()

        async with place.broker(script) as broker:
            connection = await place.connect(broker)
            connection._writer.write(struct.pack(">i", 20_000_000))
            for _ in range(2):  # TLS has encrypted all of the first before it hears that nothing leaves
                connection._writer.write(bytes(10_000_000))
            drained = asyncio.ensure_future(connection._writer.drain())
            await asyncio.wait([drained], timeout=0.1)
            assert not drained.done()
            reads.set()
            await asyncio.wait_for(drained, SOON)
            await connection.close()

    run(main)


def test_half_a_connection_ends_even_if_the_broker_reads_nothing_any_more(run: Run) -> None:
    async def main() -> None:
        done = asyncio.Event()

        async def script(dialogue: Dialogue) -> None:
            await dialogue.asked()
            dialogue.writer.transport.pause_reading()  # type: ignore[attr-defined]
            dialogue.writer.write_eof()
            await done.wait()

        place = Place(None)
        async with place.broker(script) as broker:
            connection = await place.connect(broker)
            waiting = asyncio.ensure_future(connection.send(fetch_request()))
            await asyncio.sleep(0)
            connection._writer.write(bytes(20_000_000))
            with pytest.raises(KafkaConnectionError):
                await asyncio.wait_for(waiting, SOON)
            assert not connection.connected()
            done.set()

    run(main)


def test_an_idle_connection_closes_itself_and_a_busy_one_does_not(run: Run, place: Place) -> None:
    async def script(dialogue: Dialogue) -> None:
        while True:
            await dialogue.send(framed(fetch_answer(await dialogue.asked())))

    reasons: list[Any] = []

    async def main() -> None:
        async with place.broker(script) as broker:
            connection = await place.connect(
                broker, max_idle_ms=300, on_close=lambda connection, reason: reasons.append(reason)
            )
            started = time.monotonic()
            while time.monotonic() - started < 0.7:
                await connection.send(fetch_request())
                await asyncio.sleep(0.02)
            assert connection.connected()
            await asyncio.wait_for(connection._closed_fut, SOON)

    run(main)
    assert reasons == [aiokafka.conn.CloseReason.IDLE_DROP]


def test_tokens_of_a_login_before_kafka_1_0_have_frames_without_a_header(run: Run, place: Place) -> None:
    async def script(dialogue: Dialogue) -> None:
        assert await dialogue.request() == b"token"
        await dialogue.send(framed(b"challenge"))
        await dialogue.ended()

    async def main() -> None:
        async with place.broker(script) as broker:
            connection = await place.connect(broker)
            assert await connection._send_sasl_token(b"token") == b"challenge"
            await connection.close()

    run(main)


async def test_a_connection_that_is_forgotten_closes_its_socket_and_says_so() -> None:
    hung_up = asyncio.Event()

    async def script(dialogue: Dialogue) -> None:
        await dialogue.ended()
        hung_up.set()

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with ScriptedBroker(script) as broker:
        connection = await create_connection("127.0.0.1", broker.port, client_id=ClientName("test"))
        with pytest.warns(ResourceWarning):
            del connection
        await asyncio.wait_for(hung_up.wait(), SOON)


# genuine Apache Kafka


@pytest.fixture(scope="module")
def encrypted() -> Iterator[KafkaCluster]:
    """Apache Kafka on TLS."""
    with KafkaCluster(secure="tls", properties={"message.max.bytes": "10000000"}) as cluster:
        yield cluster


@pytest.mark.kafka
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_large_and_small_records_come_through_tls_from_apache_kafka(
    run: Run, encrypted: KafkaCluster, fresh: str, compression: str | None
) -> None:
    values = [bytes([number % 251]) * (number * 9001 % 200_000) for number in range(200)] + [bytes(5_000_000)]

    async def main() -> None:
        transport = open_transport(encrypted.bootstrap, security_protocol="SSL", ca_file=str(encrypted.certificate))
        admin = transport.admin()
        producer = transport.producer(compression=compression, max_batch_bytes=6_000_000)
        await admin.start()
        await admin.create_topic(fresh)
        await producer.start()
        await asyncio.gather(*(producer.send(Outgoing(fresh, value)) for value in values))
        member = Member(transport, fresh, {fresh})
        await member.consumer.start(member)
        await member.until(lambda: member.count == len(values))
        assert member.values() == values
        await member.consumer.stop()
        await producer.stop()
        await admin.stop()

    run(main)
