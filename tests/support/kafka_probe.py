"""Ask a broker which brokers its cluster has: one Metadata request, written by hand.

Kept free of any Kafka client so that readiness is not judged by the code under test.
"""

import socket
import struct
import time

METADATA, VERSION, CORRELATION = 3, 1, 7


def brokers_in_metadata(address: str, timeout: float = 2.0) -> set[int]:
    """Return the ids of the brokers that `address` (`host:port`) lists.

    Sends Metadata v1 for no topics (https://kafka.apache.org/protocol#The_Messages_Metadata).

    Raises:
        OSError: Nothing answers there, or not within `timeout` seconds.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=timeout) as connection:
        body = struct.pack(">hhih", METADATA, VERSION, CORRELATION, -1) + struct.pack(">i", 0)
        connection.sendall(struct.pack(">i", len(body)) + body)
        (size,) = struct.unpack(">i", _receive(connection, 4))
        answer = _receive(connection, size)
    (count,) = struct.unpack_from(">i", answer, 4)
    brokers, at = set(), 8
    for _ in range(count):
        node, host_length = struct.unpack_from(">ih", answer, at)
        at += 6 + host_length + 4  # id, host, port
        (rack_length,) = struct.unpack_from(">h", answer, at)
        at += 2 + max(rack_length, 0)
        brokers.add(node)
    return brokers


def wait_for_brokers(address: str, wanted: set[int], timeout: float) -> bool:
    """Poll until `address` lists every broker of `wanted`; say whether it did within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            if wanted <= brokers_in_metadata(address):
                return True
        except (OSError, struct.error):
            pass
        time.sleep(0.1)
    return False


def _receive(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise ConnectionResetError("the broker closed the connection")
        parts += part
    return bytes(parts)
