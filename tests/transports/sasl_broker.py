"""A broker of a few requests that is strict about authentication: it refuses as RFC 7628 says and ends sessions (KIP-368)."""

import asyncio
import contextlib
import re
import struct
import time

API_VERSIONS, METADATA, PRODUCE, HANDSHAKE, AUTHENTICATE, INIT_PRODUCER_ID = 18, 3, 0, 17, 36, 22
VERSIONS = {
    PRODUCE: (3, 3),
    METADATA: (1, 1),
    HANDSHAKE: (1, 1),
    API_VERSIONS: (0, 0),
    AUTHENTICATE: (1, 1),
    INIT_PRODUCER_ID: (0, 0),
}
UNSUPPORTED_VERSION = 35
CHALLENGE = b'{"status":"invalid_token"}'


class SaslBroker:
    """Takes records for any topic with one partition.

    Args:
        session: Seconds after which a session that was not renewed is cut off.

    Attributes:
        accepted: The tokens that are good.
        seen: Every token presented, in order.
        kills: Connections cut off because their session was over.
        lost: So many of the next records take their connection with them, unanswered.
        stored: Records taken.
    """

    def __init__(self, session: float = 0.0) -> None:
        self.session = session
        self.accepted = {"good"}
        self.seen: list[str] = []
        self.kills = 0
        self.lost = 0
        self.stored = 0
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "SaslBroker":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    @property
    def address(self) -> str:
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._talk(reader, writer)
        finally:
            self._serving.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_until, refused = 0.0, False
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                data = await reader.readexactly(size)
                key, version, correlation, name = struct.unpack_from(">hhih", data)
                body = data[10 + max(0, name) :]
                if key not in (API_VERSIONS, HANDSHAKE, AUTHENTICATE) and time.monotonic() > open_until:
                    self.kills += bool(open_until)
                    break
                if key == PRODUCE and self.lost:
                    self.lost -= 1
                    break
                if key == AUTHENTICATE:
                    (length,) = struct.unpack_from(">i", body)
                    token = body[4 : 4 + length]
                    if refused:
                        assert token == b"\x01", "a refusal must be acknowledged"
                        answer = struct.pack(">hh", 58, 7) + b"refused" + struct.pack(">iq", 0, 0)
                    else:
                        found = re.fullmatch(rb"n,,\x01auth=Bearer ([^\x01]+)\x01\x01", token)
                        assert found, token
                        self.seen.append(found[1].decode())
                        refused = self.seen[-1] not in self.accepted
                        reply = CHALLENGE if refused else b""
                        lifetime = 0 if refused else int(self.session * 1000)
                        answer = struct.pack(">hhi", 0, -1, len(reply)) + reply + struct.pack(">q", lifetime)
                        if not refused:
                            open_until = time.monotonic() + (self.session or 1e6)
                else:
                    answer = self._answer(key, version, body)
                writer.write(struct.pack(">ii", 4 + len(answer), correlation) + answer)
                if key == AUTHENTICATE and answer.startswith(b"\x00\x3a"):
                    await asyncio.sleep(0.05)
                    break

    def _answer(self, key: int, version: int, body: bytes) -> bytes:
        host, port = self.address.split(":")
        if key == API_VERSIONS:
            rows = b"".join(struct.pack(">hhh", key, *versions) for key, versions in VERSIONS.items())
            # librdkafka asks in version 3 first, and is told in version 0 that this is not known
            return struct.pack(">hi", UNSUPPORTED_VERSION if version else 0, len(VERSIONS)) + rows
        if key == HANDSHAKE:
            return struct.pack(">hi", 0, 1) + _text("OAUTHBEARER")
        if key == METADATA:
            (count,) = struct.unpack_from(">i", body)
            topics, position = [], 4
            for _ in range(max(0, count)):
                (length,) = struct.unpack_from(">h", body, position)
                topics.append(body[position + 2 : position + 2 + length].decode())
                position += 2 + length
            rows = b"".join(
                struct.pack(">h", 0) + _text(topic) + struct.pack(">?ihiiiiii", False, 1, 0, 0, 1, 1, 1, 1, 1)
                for topic in topics
            )
            broker = struct.pack(">i", 1) + _text(host) + struct.pack(">ih", int(port), -1)
            return struct.pack(">i", 1) + broker + struct.pack(">ii", 1, len(topics)) + rows
        if key == INIT_PRODUCER_ID:
            return struct.pack(">ihqh", 0, 0, 1, 0)
        # Produce 3: one topic, one partition, one batch is all that the tests send at a time
        position = 2 + 2 + 4 + 4
        (length,) = struct.unpack_from(">h", body, position)
        topic = body[position + 2 : position + 2 + length]
        batch = position + 2 + length + 4 + 4 + 4
        (records,) = struct.unpack_from(">i", body, batch + 57)
        base, self.stored = self.stored, self.stored + records
        return struct.pack(">i", 1) + _text(topic.decode()) + struct.pack(">iihqqi", 1, 0, 0, base, -1, 0)


def _text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()
