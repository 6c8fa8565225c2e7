"""The form of a broker's address, so that an invalid one is refused where it was written."""

import ipaddress
from collections.abc import Iterable

from octopus.errors import ConfigurationError

SCHEMES = ("memory", "embedded", "kafka")

EXAMPLE = "Write host:port, as in localhost:9092; several with commas; nothing for the embedded broker."


def check_addresses(addresses: Iterable[str]) -> None:
    """Refuse addresses that name no broker.

    Args:
        addresses: Each `host:port`, `[v6]:port`, a host alone, or an address with one of our schemes.

    Raises:
        ConfigurationError: One of them is no address; the sentence names the fault.
    """
    for address in addresses:
        scheme, separator, rest = address.partition("://")
        if separator and scheme not in SCHEMES:
            raise _none(address, f"Kafka's protocol has no {scheme}://")
        if separator and scheme != "kafka":
            continue
        if (wrong := _wrong_with((rest if separator else address).partition("?")[0])) is not None:
            raise _none(address, wrong)


def _wrong_with(place: str) -> str | None:
    """Return the reason why `place` is no host and port, or None."""
    if any(character.isspace() for character in place):
        return "there is a space in it"
    if "/" in place:
        return "there is a path in it"
    host, port = _split(place)
    if not host:
        return "there is no host in it"
    if ":" in host and not _is_v6(host):
        return "an IPv6 address stands in brackets, and there is one port" if "[" in place else "it has two ports"
    if port is not None and not (port.isascii() and port.isdecimal() and 1 <= int(port[:6]) <= 65535):
        return f"{port!r} is no port (1 to 65535)"
    return None


def _split(place: str) -> tuple[str, str | None]:
    if place.startswith("["):
        host, separator, rest = place[1:].partition("]")
        # Without its bracket it has a colon too many, and is refused for that.
        return (host, rest[1:] if rest.startswith(":") else rest or None) if separator else (f"{place}:", None)
    if _is_v6(place):
        return place, None
    host, separator, port = place.rpartition(":")
    return (host, port) if separator else (place, None)


def _is_v6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _none(address: str, wrong: str) -> ConfigurationError:
    return ConfigurationError(f"{address!r} is no address of a broker: {wrong}. {EXAMPLE}")
