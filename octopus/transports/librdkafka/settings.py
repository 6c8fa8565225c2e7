"""How to reach a cluster and be a member of a group, in librdkafka's words."""

from typing import Any, Literal

from octopus.errors import ConfigurationError
from octopus.logs import get_logger
from octopus.transports.base import MAX_BYTES
from octopus.transports.kafka.settings import KafkaSettings

Assignor = Literal["range", "roundrobin", "cooperative-sticky"]

ASSIGNORS = ("range", "roundrobin", "cooperative-sticky")
SERVER_ASSIGNORS = ("uniform", "range")
"""Of KIP-848, where the coordinator deals out."""

logger = get_logger("octopus.librdkafka")


class Quiet:
    """librdkafka's own log, for debugging: it repeats each attempt to connect, and important messages come as errors, too."""

    def log(self, level: int, text: str, *arguments: object) -> None:
        """Log one line, at any level of librdkafka's."""
        logger.debug(text, *arguments)


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return how to reach the cluster; without a token callback, which needs a loop to ask in.

    Raises:
        ConfigurationError: A credential is missing, or something was given that librdkafka cannot take.
    """
    if settings.ssl_context is not None:
        raise ConfigurationError(
            "ssl_context cannot be used with the engine librdkafka, which has a TLS of its own. "
            "Name files instead: ca_file, certificate_file, key_file."
        )
    checked = settings.client_options()  # raises if a setting is missing or a TLS file cannot be read
    options = {
        "bootstrap.servers": settings.brokers,
        "client.id": settings.client_id,
        "security.protocol": settings.protocol,
        "socket.timeout.ms": _milliseconds(settings.request_timeout),
        "reconnect.backoff.max.ms": 1000,
        "topic.metadata.refresh.interval.ms": _milliseconds(min(settings.metadata_max_age, 60.0)),
        "allow.auto.create.topics": settings.create_topics,
        "ssl.ca.location": settings.ca_file,
        "ssl.certificate.location": settings.certificate_file,
        # as for Python's ssl: without a key file the key is in the certificate's
        "ssl.key.location": settings.key_file or settings.certificate_file,
        "ssl.key.password": settings.key_password,
        "sasl.mechanism": checked.get("sasl_mechanism"),
        "sasl.username": settings.username or None,
        "sasl.password": settings.password or None,
        "logger": Quiet(),
    }
    return {name: value for name, value in options.items() if value is not None}


def group_options(
    group: str,
    *,
    session_timeout: float,
    heartbeat_interval: float | None,
    rebalance_timeout: float,
    group_instance_id: str | None,
    assignor: str | None,
    group_protocol: str,
) -> dict[str, Any]:
    """Return the configuration of a member of a group.

    Raises:
        ConfigurationError: An assignor that the protocol does not have.
    """
    options: dict[str, Any] = {
        "group.id": group,
        # the time to drain and join again, for both protocols; librdkafka wants it at least as long as a session
        "max.poll.interval.ms": _milliseconds(max(rebalance_timeout, session_timeout)),
    }
    if group_instance_id is not None:
        options["group.instance.id"] = group_instance_id
    if group_protocol == "consumer":
        if assignor not in (None, *SERVER_ASSIGNORS):
            raise ConfigurationError(
                f'assignor is {assignor!r}, but with group_protocol = "consumer" brokers deal partitions out: leave it '
                f"out, or name one of theirs, {' or '.join(SERVER_ASSIGNORS)}."
            )
        options["group.protocol"] = "consumer"
        return options | ({"group.remote.assignor": assignor} if assignor else {})
    if group_protocol != "classic":
        raise ConfigurationError(f"group_protocol is {group_protocol!r}; it must be classic or consumer.")
    assignor = assignor or "cooperative-sticky"
    if assignor not in ASSIGNORS:
        raise ConfigurationError(f"assignor is {assignor!r}; with librdkafka it must be one of {', '.join(ASSIGNORS)}.")
    return options | {
        "session.timeout.ms": _milliseconds(session_timeout),
        # a member hears of the second round of an incremental rebalance by its heartbeat; partitions that move wait for that
        "heartbeat.interval.ms": _milliseconds(heartbeat_interval or min(1.0, session_timeout / 3)),
        "partition.assignment.strategy": assignor,
    }


def fetch_options(
    settings: KafkaSettings,
    *,
    isolation: str,
    max_partition_fetch_bytes: int,
    fetch_max_bytes: int,
    fetch_max_wait: float,
) -> dict[str, Any]:
    """Return how records are read: nothing stored, reset or skipped by itself."""
    return {
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,  # says how far aborted and control records at the end reach
        "check.crcs": True,
        "isolation.level": isolation,
        "max.partition.fetch.bytes": max_partition_fetch_bytes,
        "fetch.max.bytes": max(fetch_max_bytes, max_partition_fetch_bytes),
        "message.max.bytes": max(1000, min(fetch_max_bytes, 1_000_000)),  # a producer's, but may not be more
        "fetch.wait.max.ms": _milliseconds(fetch_max_wait),
        "fetch.error.backoff.ms": 100,
        # an answer is bounded by the former; a zstd batch that announces more than the latter is refused
        "receive.message.max.bytes": max(
            fetch_max_bytes + 512, max_partition_fetch_bytes + 512, settings.decompression_limit_bytes
        ),
        # Fetching pauses when so much is queued, unpacked. By default it pauses for a whole second then, which caps a fast reader.
        "queued.max.messages.kbytes": max(1024, min(fetch_max_bytes, MAX_BYTES) // 1024),
        "queued.min.messages": 100_000,
        "fetch.queue.backoff.ms": 5,
    }


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
