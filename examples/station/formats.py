"""What the loggers of the station send: lines of comma-separated values, announced as `text/csv`."""

from collections.abc import Callable
from typing import Any

import msgspec

FIELDS = ("sensor", "kelvin")


class CommaSeparated:
    """One line, its fields in the order of `FIELDS`."""

    content_type = "text/csv"

    def decoder(self, annotation: Any) -> Callable[[bytes], Any]:
        """Return what makes of a line what a handler asks for, or the mapping that a filter asks for."""

        def decode(value: bytes) -> Any:
            sensor, kelvin = value.decode().strip().split(",")
            return msgspec.convert({"sensor": sensor, "kelvin": float(kelvin)}, annotation)

        return decode

    def encode(self, value: Any) -> bytes:
        """Return the line of an object or a mapping."""
        fields = msgspec.to_builtins(value)
        return ",".join(str(fields[name]) for name in FIELDS).encode()
