"""What aiokafka lacks and data needs: a limit to decompression, and attention to errors of OffsetFetch.

Installed once for the process, before the first client starts; and only into the version that was read for it.
"""

from types import ModuleType
from typing import Any

import aiokafka
import aiokafka.errors
import aiokafka.record.default_records
import aiokafka.record.legacy_records
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.protocol.commit import OffsetFetchRequest

from octopus.errors import ConfigurationError
from octopus.transports.decompression import DECOMPRESSORS, Decompressor
from octopus.transports.kafka import connection

TESTED = "0.14.0"
"""The only aiokafka whose inside is known. With another one nobody could say that no event is lost."""

_NAMES = {1: "gzip_decode", 2: "snappy_decode", 3: "lz4_decode", 4: "zstd_decode"}


class Guards:
    """The state of the installation: one for the process, as the modules are that it changes.

    Attributes:
        decompression_limit_bytes: Read for every batch, so that a later setting counts too.
    """

    def __init__(self) -> None:
        self.decompression_limit_bytes = 64 * 1024 * 1024
        self._installed = False

    def install(self, decompression_limit_bytes: int) -> None:
        """Install everything; a second call only sets the limit.

        Raises:
            ConfigurationError: aiokafka is not the version that was tested.
        """
        if aiokafka.__version__ != TESTED:
            raise ConfigurationError(
                f"aiokafka {aiokafka.__version__} is installed, and Octopus reads the inside of {TESTED}. "
                f"Install that one: pip install aiokafka=={TESTED}."
            )
        self.decompression_limit_bytes = decompression_limit_bytes
        if self._installed:
            return
        self._installed = True
        connection.install()
        for module in _record_modules():
            for codec, name in _NAMES.items():
                if hasattr(module, name):
                    setattr(module, name, self._limited(DECOMPRESSORS[codec]))
        _check_offset_fetch()

    def _limited(self, decompress: Decompressor) -> Any:
        return lambda payload: bytes(decompress(payload, self.decompression_limit_bytes))


guards = Guards()


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
    coordinator: Any = GroupCoordinator
    send = coordinator._send_req

    async def checked(self: Any, request: Any) -> Any:
        reply = await send(self, request)
        code = getattr(reply, "error_code", 0) if isinstance(request, OffsetFetchRequest) else 0
        if code:
            if code in (15, 16):
                self.coordinator_dead()
            raise aiokafka.errors.for_code(code)(self.group_id)  # callers retry those that are retriable
        return reply

    coordinator._send_req = checked
