"""Opens any transport: by address, or as the settings ask for."""

import contextlib
import difflib
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from octopus.auth.tokens import TokenProvider
from octopus.config import ConsumerSettings, ProducerSettings, Settings, WorkerSettings
from octopus.config.addresses import SCHEMES, check_addresses
from octopus.errors import ConfigurationError
from octopus.transports.aiokafka_version import check_aiokafka
from octopus.transports.base import Admin, Transport
from octopus.transports.topic_creation import TopicCreatingProducer


def open_transport(brokers: str, **settings: Any) -> Transport:
    """Return the transport for an address. Nothing connects yet.

    Args:
        brokers: `memory://name`, `embedded://` or `embedded:///directory`, `kafka://host:port,host:port` or just
            `host:port,host:port`. A query (`?security_protocol=SASL_SSL`) gives settings as text.
        settings: Passed to the transport: see `MemoryBroker`, `EmbeddedTransport`, `KafkaSettings`.

    Raises:
        ConfigurationError: Unknown scheme or setting.
    """
    scheme, separator, rest = brokers.strip().partition("://")
    if not separator:
        scheme, rest = "kafka", scheme
    location, _, query = rest.partition("?")
    settings = {**dict(parse_qsl(query)), **settings}
    match scheme:
        case "memory":
            from octopus.transports.memory import memory_transport

            return memory_transport(location, settings)
        case "embedded":
            check_aiokafka()
            from octopus.transports.embedded import EmbeddedTransport

            return _configured(EmbeddedTransport, unquote(urlsplit(f"//{location}").path or location), settings)
        case "kafka":
            check_aiokafka()
            from octopus.transports.kafka import KafkaTransport

            check_addresses(text.strip() for text in location.split(","))
            return KafkaTransport.at(location, settings)
        case _:
            close = difflib.get_close_matches(scheme, SCHEMES, 1)
            hint = f" Did you mean {close[0]}://{rest}?" if close else f" Known are {', '.join(SCHEMES)} and host:port."
            raise ConfigurationError(f"There is no transport for {brokers!r}.{hint}")


def connect(settings: Settings, *, client_id: str | None = None) -> Transport:
    """Return the transport that the settings ask for. Nothing connects yet.

    Args:
        settings: No `brokers` means the embedded broker.
        client_id: Our name in the broker's logs; the app's name if None.

    Raises:
        ConfigurationError: It cannot be made from these settings.
    """
    brokers = ",".join(settings.brokers)
    if not brokers or brokers.startswith("embedded:"):
        check_aiokafka()
        from octopus.transports.embedded import EmbeddedTransport

        return EmbeddedTransport.from_settings(settings, brokers, client_id=client_id or settings.app)
    if brokers.startswith("memory:"):
        return open_transport(brokers)
    return _kafka(settings, client_id or settings.app)


@contextlib.asynccontextmanager
async def connected(settings: Settings, *, client_id: str) -> AsyncIterator[Transport]:
    """Open the transport that the settings ask for, for as long as a block lasts; `connect` documents which, and its errors."""
    transport = connect(settings, client_id=client_id)
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


@contextlib.asynccontextmanager
async def administering(transport: Transport) -> AsyncIterator[Admin]:
    """Open an admin client for as long as a block lasts."""
    admin = transport.admin()
    await admin.start()
    try:
        yield admin
    finally:
        await admin.stop()


@contextlib.asynccontextmanager
async def producing(transport: Transport, settings: Settings) -> AsyncIterator[TopicCreatingProducer]:
    """Open the producer of `make_producer` for as long as a block lasts."""
    producer = make_producer(transport, settings)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


def _kafka(settings: Settings, client_id: str) -> Transport:
    check_aiokafka()
    from octopus.transports.kafka import KafkaSettings, KafkaTransport, consumer_class

    consumer_class(settings.consumer.engine)  # a package that is missing is named here, not when a group begins
    security = settings.security
    return KafkaTransport(
        KafkaSettings(
            brokers=",".join(settings.brokers).removeprefix("kafka://"),
            client_id=client_id,
            security_protocol=security.protocol,  # type: ignore[arg-type]  # "auto" is resolved when settings are made
            sasl_mechanism="OAUTHBEARER" if security.mechanism == "AWS_MSK_IAM" else security.mechanism,  # type: ignore[arg-type]
            username=security.username or "",
            password=security.password.reveal() if security.password else "",
            token_provider=_token_provider(settings),
            ca_file=security.ca_file,
            certificate_file=security.certificate_file,
            key_file=security.key_file,
            key_password=security.key_password.reveal() if security.key_password else None,
            request_timeout=settings.producer.request_timeout,
            metadata_max_age=settings.consumer.metadata_max_age,
            commit_timeout=settings.worker.commit_timeout,
            decompression_limit_bytes=settings.consumer.decompression_limit_bytes,
        )
    )


def _token_provider(settings: Settings) -> TokenProvider | None:
    security = settings.security
    if security.mechanism == "AWS_MSK_IAM":
        from octopus.auth.msk import MskTokenProvider

        return MskTokenProvider(security.region)
    if security.token or security.token_file:
        from octopus.auth.tokens import FixedToken, TokenFile

        return FixedToken(security.token.reveal()) if security.token else TokenFile(security.token_file or "")
    return None


def make_producer(transport: Transport, settings: Settings, *, reports_outages: bool = False) -> TopicCreatingProducer:
    """Return a producer as the settings want it; it creates missing topics where they allow that. Nothing connects yet.

    Args:
        transport: To the cluster.
        settings: Of the app.
        reports_outages: Whether it says when an outage begins and ends: where no worker does.
    """
    options = producer_options(settings.producer) | {"reports_outages": reports_outages}
    return TopicCreatingProducer(transport, settings.topics, **options)


def producer_options(producer: ProducerSettings) -> dict[str, Any]:
    """Return the arguments of `Transport.producer`."""
    return {
        "linger": producer.linger,
        "max_batch_bytes": producer.max_batch_bytes,
        "max_record_bytes": producer.max_record_bytes,
        "max_in_flight_bytes": producer.max_in_flight_bytes,
        "compression": None if producer.compression == "none" else producer.compression,
        "delivery_timeout": producer.delivery_timeout,
    }


def consumer_options(consumer: ConsumerSettings, worker: WorkerSettings, place: str | None = None) -> dict[str, Any]:
    """Return the arguments of `Transport.consumer` besides group and topics.

    Args:
        consumer: The settings of that name.
        worker: These, too.
        place: The supervisor's name for this process in its groups.
    """
    options: dict[str, Any] = {
        "session_timeout": consumer.session_timeout,
        # Longer than the drain budget, or a slow drain would be thrown out of the group it hands over to.
        "rebalance_timeout": max(
            consumer.rebalance_timeout, max(worker.revoke_budget, worker.drain_timeout) + worker.commit_timeout + 5.0
        ),
        "fetch_max_wait": consumer.fetch_max_wait,
        "fetch_max_bytes": consumer.fetch_max_bytes,
        "max_partition_fetch_bytes": consumer.max_partition_fetch_bytes,
        "isolation": consumer.isolation,
        "group_instance_id": place or consumer.group_instance_id,
        "keeps_place": consumer.group_instance_id is not None,
    }
    if consumer.assignor != "auto":
        options["assignor"] = consumer.assignor
    elif consumer.engine == "aiokafka":
        options["assignor"] = "sticky"
    if consumer.engine == "librdkafka":
        options |= {"engine": consumer.engine, "group_protocol": consumer.group_protocol}
    return options


def _configured(kind: Any, location: str, settings: Mapping[str, Any]) -> Transport:
    try:
        transport: Transport = kind(location or None, **settings)
    except TypeError as error:
        raise ConfigurationError(f"{kind.__name__} does not take these settings: {error}.") from error
    return transport


__all__ = [
    "administering",
    "connect",
    "connected",
    "consumer_options",
    "make_producer",
    "open_transport",
    "producer_options",
    "producing",
]
