"""What aiokafka lacks and data needs: a limit to decompression, and attention to errors of OffsetFetch.

Installed once for the process, before the first client starts.
"""

import struct
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import aiokafka
import aiokafka.errors
import aiokafka.record.default_records
import aiokafka.record.legacy_records
import cramjam
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.protocol.commit import OffsetFetchRequest

from octopus.errors import BatchTooLarge, CorruptBatch
from octopus.transports.kafka import connection

_XERIAL_MAGIC = b"\x82SNAPPY\x00"


class Limit:
    """The decompression limit: one value that all codecs read, so that a later setting counts too."""

    size_bytes = 64 * 1024 * 1024


limit = Limit()


def install(decompression_limit_bytes: int) -> None:
    """Install the guards; again only sets the limit."""
    limit.size_bytes = decompression_limit_bytes
    connection.install()
    if getattr(aiokafka, "_octopus_guarded", False):
        return
    aiokafka._octopus_guarded = True
    for module in _record_modules():
        for name, decode in _CODECS.items():
            if hasattr(module, name):
                setattr(module, name, decode)
    if aiokafka.__version__ == connection.TESTED:
        _check_offset_fetch()


def _record_modules() -> list[ModuleType]:
    """Return the modules that decompress: the compiled ones, and the pure ones behind them."""
    modules: list[ModuleType] = [aiokafka.record.default_records, aiokafka.record.legacy_records]
    try:
        from aiokafka.record._crecords import default_records, legacy_records
    except ImportError:
        return modules
    return [*modules, default_records, legacy_records]


def _check_offset_fetch() -> None:
    """Make request-level errors of OffsetFetch errors.

    Brokers answer OffsetFetch with "coordinator loading", "not available" or "not coordinator" and no partitions (errors
    14, 15, 16). aiokafka takes that for "nothing committed", and a group starts over or skips to the end.
    """
    send = GroupCoordinator._send_req

    async def checked(self: Any, request: Any) -> Any:
        reply = await send(self, request)
        code = getattr(reply, "error_code", 0) if isinstance(request, OffsetFetchRequest) else 0
        if code:
            error = aiokafka.errors.for_code(code)
            if code in (15, 16):
                self.coordinator_dead()
            raise error(self.group_id)  # aiokafka's caller retries those that are retriable
        return reply

    GroupCoordinator._send_req = checked


def _too_large() -> BatchTooLarge:
    return BatchTooLarge(
        f"The batch decompresses to more than {limit.size_bytes} bytes. Raise decompression_limit_bytes if that is meant."
    )


def _bounded(decompress_into: Callable[[Any, bytearray], int]) -> Callable[[Any], bytes]:
    """Decompress into growing buffers, so that memory follows the data and never passes the limit."""

    def decode(payload: Any) -> bytes:
        size = min(limit.size_bytes, max(65_536, 4 * len(payload)))
        while True:
            out = bytearray(size)
            try:
                length = decompress_into(payload, out)
            except cramjam.DecompressionError as error:
                if "write whole buffer" not in str(error):  # cramjam's words for an output that is too small
                    raise CorruptBatch(f"The batch does not decompress: {error}.") from error
                if size >= limit.size_bytes:
                    raise _too_large() from None
                size = min(limit.size_bytes, size * 4)
            else:
                del out[length:]
                return bytes(out)

    return decode


def _gunzip(payload: Any) -> bytes:
    stream = zlib.decompressobj(31)
    try:
        out = stream.decompress(payload, limit.size_bytes + 1)
    except zlib.error as error:
        raise CorruptBatch(f"The batch does not decompress: {error}.") from error
    if len(out) > limit.size_bytes:
        raise _too_large()
    if not stream.eof:
        raise CorruptBatch("The batch does not decompress: its gzip stream ends early.")
    return out


def _unsnappy(payload: Any) -> bytes:
    """Decompress raw snappy, or the blocks of the Java library; lengths are added up before anything is unpacked."""
    data = bytes(payload)
    try:
        blocks = list(_snappy_blocks(data))
        if sum(map(cramjam.snappy.decompress_raw_len, blocks)) > limit.size_bytes:
            raise _too_large()
        return b"".join(bytes(cramjam.snappy.decompress_raw(block)) for block in blocks)
    except (cramjam.DecompressionError, struct.error, ValueError) as error:
        raise CorruptBatch(f"The batch does not decompress: {error}.") from error


def _snappy_blocks(data: bytes) -> Any:
    if not data.startswith(_XERIAL_MAGIC):
        yield data
        return
    position = 16
    while position < len(data):
        (length,) = struct.unpack_from("!i", data, position)
        position += 4
        if not 0 <= length <= len(data) - position:
            raise ValueError("a snappy block is longer than the batch")
        yield data[position : position + length]
        position += length


_CODECS: dict[str, Callable[[Any], bytes]] = {
    "gzip_decode": _gunzip,
    "snappy_decode": _unsnappy,
    "lz4_decode": _bounded(cramjam.lz4.decompress_into),
    "zstd_decode": _bounded(cramjam.zstd.decompress_into),
}
