"""Internet addresses as event patterns read them: any spelling of one address is that address."""

import re
from ipaddress import AddressValueError, IPv6Address

#: An address as (version, number), or a network as (version, first, last).
Address = tuple[int, int]
Network = tuple[int, int, int]

_V4 = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+")
_V4_LONGEST = len("255.255.255.255")
_V6 = re.compile(r"[0-9A-Fa-f:]*:[0-9A-Fa-f:]*")  # no zone, no embedded IPv4


def read_address(text: str) -> Address | None:
    """Read an IPv4 address (leading zeros are decimal: 10.0.0.01) or an IPv6 address; None if it is neither."""
    if _V4.fullmatch(text) and len(text) <= _V4_LONGEST:
        octets = [int(octet) for octet in text.split(".")]
        return (4, int.from_bytes(octets)) if max(octets) < 256 else None
    if _V6.fullmatch(text):
        try:
            return 6, int(IPv6Address(text))
        except AddressValueError:
            return None
    return None


def read_network(text: str) -> Network:
    """Read `address/bits`; bits of the host part are ignored.

    Raises:
        ValueError: With a sentence that names the fault.
    """
    written, slash, mask = text.partition("/")
    address = read_address(written)
    if not slash:
        raise ValueError(f"{text!r} has no mask; write it as 10.0.0.0/24 or 2001:db8::/32")
    if address is None:
        raise ValueError(f"{written!r} is not an IPv4 or IPv6 address")
    version, number = address
    width = 32 if version == 4 else 128
    if not (mask.isascii() and mask.isdecimal() and len(mask) <= 3 and int(mask) < width):
        raise ValueError(
            f"the mask {mask!r} is not a number below {width}; for a single address write {written!r} alone"
        )
    host = (1 << (width - int(mask))) - 1
    return version, number & ~host, number | host
