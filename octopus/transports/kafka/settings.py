"""How to reach a Kafka cluster, and everything aiokafka is told about it."""

import difflib
import ssl
from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

from octopus.auth.tokens import TokenProvider
from octopus.errors import ConfigurationError
from octopus.transports.kafka.authentication import Password, TokenBridge
from octopus.transports.kafka.client_name import ClientName
from octopus.transports.kafka.greeting import Greeting

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the cluster is and who we are to it. Times in seconds, sizes in bytes.

    Attributes:
        brokers: `host:port`, several with commas; any of them will do to find the rest.
        client_id: What the broker's logs call us.
        security_protocol: Kafka's own name; without one it follows from the other settings.
        sasl_mechanism: Kafka's own name. Amazon MSK with IAM is OAUTHBEARER with the provider of `octopus.auth.msk`.
        username: For PLAIN and SCRAM.
        password: For PLAIN and SCRAM.
        token_provider: For OAUTHBEARER.
        ca_file: PEM file of the authority that signed the brokers' certificates; the system's without.
        certificate_file: PEM file of our own certificate, for mutual TLS.
        key_file: PEM file of its key.
        key_password: Of the key file.
        ssl_context: A ready context instead of the four files.
        request_timeout: For one request to a broker.
        metadata_max_age: How long new partitions and topics may go unnoticed.
        metadata_timeout: How long a topic may be unknown before that is an error.
        commit_timeout: For one commit, retries included.
        create_topics: Whether naming a topic creates it, where the broker allows that; else it is an error.
        decompression_limit_bytes: A batch that decompresses to more is not read.
        locate: Returns where the only broker is now (`host:port`), asked for each connection; None where brokers stay put.
        greeting: What all clients made from these settings know of the cluster's first answer.
    """

    brokers: str
    client_id: str = "octopus"
    security_protocol: SecurityProtocol | None = None
    sasl_mechanism: Mechanism | None = None
    username: str = ""
    password: str = ""
    token_provider: Any = None
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    key_password: str | None = None
    ssl_context: Any = None
    request_timeout: float = 30.0
    metadata_max_age: float = 30.0
    metadata_timeout: float = 10.0
    commit_timeout: float = 30.0
    create_topics: bool = False
    decompression_limit_bytes: int = 64 * 1024 * 1024
    locate: Any = None
    greeting: Any = msgspec.field(default_factory=Greeting)

    def __repr__(self) -> str:
        return f"KafkaSettings({self.brokers!r}, {self.protocol}, {self.sasl_mechanism})"

    @property
    def protocol(self) -> SecurityProtocol:
        """The security protocol, given or implied."""
        if self.security_protocol is not None:
            return self.security_protocol
        encrypted = any((self.ca_file, self.certificate_file, self.ssl_context))
        # a bearer token is as good as a password: unless told otherwise it never travels in the clear
        if self.sasl_mechanism == "OAUTHBEARER" or (self.sasl_mechanism and encrypted):
            return "SASL_SSL"
        if self.sasl_mechanism:
            return "SASL_PLAINTEXT"
        return "SSL" if encrypted else "PLAINTEXT"

    def client_options(self) -> dict[str, Any]:
        """Return what aiokafka's consumer, producer and admin client have in common. New for every client.

        Raises:
            ConfigurationError: A credential that the mechanism needs is missing, or a TLS file cannot be read.
        """
        options: dict[str, Any] = {
            "bootstrap_servers": self.brokers,
            "client_id": ClientName(
                self.client_id, create_topics=self.create_topics, locate=self.locate, greeting=self.greeting
            ),
            "request_timeout_ms": int(self.request_timeout * 1000),
            "metadata_max_age_ms": int(min(self.metadata_max_age, 60.0) * 1000),
            "security_protocol": self.protocol,
        }
        if self.protocol.endswith("SSL"):
            options["ssl_context"] = self.ssl_context or self._ssl_context()
        if self.protocol.startswith("SASL"):
            options |= self._credentials()
        return options

    def _credentials(self) -> dict[str, Any]:
        mechanism = self.sasl_mechanism or ("OAUTHBEARER" if self.token_provider else "PLAIN")
        if mechanism == "OAUTHBEARER":
            if self.token_provider is None:
                raise ConfigurationError("The mechanism OAUTHBEARER needs a token provider (`token_provider=`).")
            provider: TokenProvider = self.token_provider
            return {"sasl_mechanism": mechanism, "sasl_oauth_token_provider": TokenBridge(provider)}
        if not self.username or not self.password:
            raise ConfigurationError(f"The mechanism {mechanism} needs `username` and `password`.")
        return {
            "sasl_mechanism": mechanism,
            "sasl_plain_username": self.username,
            "sasl_plain_password": Password(self.password),
        }

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.certificate_file:
                context.load_cert_chain(self.certificate_file, self.key_file, self.key_password)
        except OSError as error:
            files = [name for name in (self.ca_file, self.certificate_file, self.key_file) if name]
            raise ConfigurationError(f"The TLS files {files} cannot be used: {error}.") from error
        return context


def kafka_settings(brokers: str, given: Mapping[str, Any]) -> KafkaSettings:
    """Check settings that come as text or as values.

    Raises:
        ConfigurationError: Unknown name, with a suggestion, or a value that does not fit.
    """
    names = KafkaSettings.__struct_fields__
    for name in given:
        if name not in names or name == "brokers":
            close = difflib.get_close_matches(name, names, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigurationError(f"There is no Kafka setting {name!r}.{hint}")
    for name, allowed in (("security_protocol", SecurityProtocol), ("sasl_mechanism", Mechanism)):
        value = given.get(name)
        if value is not None and value not in get_args(allowed):
            raise ConfigurationError(f"{name} is {value!r}; it must be one of {', '.join(get_args(allowed))}.")
    for broker in brokers.split(","):
        host, _, port = broker.strip().rpartition(":")
        if broker.strip().endswith("]") or not host:
            host, port = broker.strip(), "9092"
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ConfigurationError(f"{broker.strip()!r} is not the address of a broker. Write host:port.")
    try:
        return msgspec.convert({"brokers": brokers, **given}, KafkaSettings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"A Kafka setting cannot be used: {error}.") from error
