"""Quotas of a genuine Apache Kafka: no Python client can set them, so this speaks the protocol. Standard library only."""

import socket
import struct
from collections.abc import Mapping

ALTER_CLIENT_QUOTAS = 49
NAMES = {"produce": "producer_byte_rate", "fetch": "consumer_byte_rate", "request": "request_percentage"}


def set_quotas(address: str, client_id: str, rates: Mapping[str, float]) -> None:
    """Set what clients with an id may use on each broker.

    Args:
        address: `host:port` of any broker.
        client_id: Whose.
        rates: Bytes per second of `produce` and `fetch`; of `request`, percent of the time of one request thread.

    Raises:
        AssertionError: The broker refused.
    """
    host, _, port = address.split(",")[0].rpartition(":")
    entity = _array([_string("client-id") + _string(client_id)])
    operations = _array([_string(NAMES[name]) + struct.pack(">d?", rate, False) for name, rate in rates.items()])
    body = _array([entity + operations]) + struct.pack(">?", False)
    head = struct.pack(">hhi", ALTER_CLIENT_QUOTAS, 0, 1) + _string("quotas")
    with socket.create_connection((host, int(port)), timeout=15) as connection:
        connection.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
        answer = _exactly(connection, struct.unpack(">i", _exactly(connection, 4))[0])
    correlation, _throttle, count, code = struct.unpack_from(">iiih", answer)
    assert (correlation, count, code) == (1, 1, 0), f"error {code}: {answer[14:]!r}"


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text.encode())) + text.encode()


def _array(items: list[bytes]) -> bytes:
    return struct.pack(">i", len(items)) + b"".join(items)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        assert more, "the broker closed the connection"
        data += more
    return data
