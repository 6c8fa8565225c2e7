"""Addresses that carry settings: `kafka://host:port,host:port?security_protocol=SASL_SSL&username=…`, for every client."""

from typing import Any
from urllib.parse import parse_qsl

LIBRDKAFKA = {
    "security_protocol": "security.protocol",
    "sasl_mechanism": "sasl.mechanism",
    "username": "sasl.username",
    "password": "sasl.password",
    "ca_file": "ssl.ca.location",
    "certificate_file": "ssl.certificate.location",
    "key_file": "ssl.key.location",
    "key_password": "ssl.key.password",
}
"""What an address may carry, by Octopus' names and by librdkafka's."""

RENAMED = {"security_protocol": "protocol", "sasl_mechanism": "mechanism"}
"""What `[security]` calls differently."""


def for_librdkafka(address: str) -> dict[str, Any]:
    """Return what librdkafka is to be told."""
    brokers, carried = _split(address)
    return {"bootstrap.servers": brokers} | {LIBRDKAFKA[name]: value for name, value in carried.items()}


def for_octopus(address: str) -> dict[str, Any]:
    """Return settings of an app."""
    brokers, carried = _split(address)
    security = {RENAMED.get(name, name): value for name, value in carried.items()}
    return {"brokers": [brokers]} | ({"security": security} if security else {})


def _split(address: str) -> tuple[str, dict[str, str]]:
    brokers, _, query = address.removeprefix("kafka://").partition("?")
    carried = dict(parse_qsl(query))
    if unknown := carried.keys() - LIBRDKAFKA.keys():
        raise ValueError(f"An address cannot carry {', '.join(sorted(unknown))}; it can carry {', '.join(LIBRDKAFKA)}.")
    return brokers, carried
