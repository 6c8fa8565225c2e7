"""Every setting, with its default, its unit and its purpose. The reference pages are made from this file.

Durations are seconds, sizes bytes. Kafka's own names are kept where Kafka has one.
"""

from typing import Annotated, Literal

import msgspec

from octopus.config.secret import Secret
from octopus.errors import ConfigurationError

Seconds = Annotated[float, msgspec.Meta(ge=0, extra={"unit": "seconds"})]
Bytes = Annotated[int, msgspec.Meta(ge=1, extra={"unit": "bytes"})]
Count = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]

MEBIBYTE = 2**20


class SecuritySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the brokers and as which principal. A setting left on "auto" follows from the rest."""

    protocol: Annotated[
        Literal["auto", "PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
        "auto: SASL_SSL with a mechanism, SSL with a certificate or authority, else PLAINTEXT. "
        "Credentials travel unencrypted only if this says so.",
    ] = "auto"
    mechanism: Annotated[
        Literal["auto", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM"] | None,
        "auto: OAUTHBEARER with a token, AWS_MSK_IAM with a region, PLAIN with a user name, else none.",
    ] = "auto"
    username: Annotated[str | None, "For PLAIN and SCRAM."] = None
    password: Annotated[Secret | None, "For PLAIN and SCRAM."] = None
    token: Annotated[Secret | None, "A fixed bearer token, for OAUTHBEARER."] = None
    token_file: Annotated[str | None, "File with a bearer token, read again when it is renewed."] = None
    region: Annotated[str | None, "AWS region of the cluster, for AWS_MSK_IAM."] = None
    ca_file: Annotated[str | None, "Authorities that may vouch for brokers, PEM; the system's when not given."] = None
    certificate_file: Annotated[str | None, "Our certificate for mutual TLS, PEM."] = None
    key_file: Annotated[str | None, "Its private key, PEM, unless it is in certificate_file."] = None
    key_password: Annotated[Secret | None, "Opens the private key."] = None

    def __post_init__(self) -> None:
        # Struct keeps __setattr__ closed; derived fields are set once, here, before any code sees the object.
        msgspec.structs.force_setattr(self, "mechanism", self._derived_mechanism())
        msgspec.structs.force_setattr(self, "protocol", self._derived_protocol())
        self._check()

    def _derived_mechanism(self) -> str | None:
        if self.mechanism != "auto":
            return self.mechanism
        if self.token or self.token_file:
            return "OAUTHBEARER"
        if self.region:
            return "AWS_MSK_IAM"
        return "PLAIN" if self.username else None

    def _derived_protocol(self) -> str:
        if self.protocol != "auto":
            return self.protocol
        if self.mechanism:
            return "SASL_SSL"
        return "SSL" if self.ca_file or self.certificate_file else "PLAINTEXT"

    def _check(self) -> None:
        sasl, encrypted = self.protocol.startswith("SASL_"), self.protocol.endswith("SSL")
        for wrong, sentence in (
            (self.mechanism and not sasl, f"protocol is {self.protocol}, which has no mechanism {self.mechanism}"),
            (sasl and not self.mechanism, f"protocol is {self.protocol}; it needs mechanism"),
            (self.token and self.token_file, "token and token_file exclude each other"),
            (
                self.mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512") and not (self.username and self.password),
                f"mechanism is {self.mechanism}; it needs username and password",
            ),
            (self.password and not self.username, "password is given without username"),
            (self.mechanism == "AWS_MSK_IAM" and not encrypted, f"AWS_MSK_IAM needs SASL_SSL, not {self.protocol}"),
            (self.key_file and not self.certificate_file, "key_file is given without certificate_file"),
            (
                (self.ca_file or self.certificate_file) and not encrypted,
                f"protocol is {self.protocol}, which uses no ca_file and no certificate_file",
            ),
        ):
            if wrong:
                raise ConfigurationError(f"In security: {sentence}.")


_ASSIGNORS = {
    ("aiokafka", "classic"): (("sticky", "range", "roundrobin"), 'engine "aiokafka"'),
    ("librdkafka", "classic"): (("cooperative-sticky", "range", "roundrobin"), 'engine "librdkafka"'),
    ("librdkafka", "consumer"): (("uniform", "range"), 'group_protocol "consumer"'),
}


class ConsumerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Reading."""

    engine: Annotated[
        Literal["aiokafka", "librdkafka"],
        'Which client library reads. librdkafka needs `pip install "octopus-fabric[librdkafka]"`, and has incremental '
        "rebalances.",
    ] = "aiokafka"
    group_protocol: Annotated[
        Literal["classic", "consumer"],
        "consumer: brokers deal partitions out and watch sessions (KIP-848: Kafka 4, engine librdkafka).",
    ] = "classic"
    session_timeout: Annotated[Seconds, "Without a heartbeat for so long, a member has left its group."] = 45.0
    rebalance_timeout: Annotated[Seconds, "Time for all members to drain and join again."] = 60.0
    fetch_max_wait: Annotated[
        Seconds, "How long a broker may wait for records before it answers that there are none."
    ] = 0.1
    fetch_max_bytes: Annotated[Bytes, "Most of one answer, all partitions together."] = 50 * MEBIBYTE
    max_partition_fetch_bytes: Annotated[Bytes, "Most of one answer for one partition."] = MEBIBYTE
    assignor: Annotated[
        Literal["auto", "sticky", "range", "roundrobin", "cooperative-sticky", "uniform"],
        "How partitions are dealt out among the members of a group. auto: sticky with aiokafka, cooperative-sticky with "
        "librdkafka, the brokers' choice with group_protocol consumer.",
    ] = "auto"
    isolation: Annotated[
        Literal["read_committed", "read_uncommitted"], "Whether records of open or aborted transactions are left out."
    ] = "read_committed"
    group_instance_id: Annotated[
        str | None,
        "A lasting name of this member: it keeps its partitions over a restart shorter than session_timeout.",
    ] = None
    recreated_topics: Annotated[
        Literal["stop", "earliest"],
        "When a topic was deleted and made again: its partitions stop and say so, or the new one is read from its beginning.",
    ] = "stop"
    decompression_limit_bytes: Annotated[Bytes, "A batch that decompresses to more stops its partition."] = (
        64 * MEBIBYTE
    )
    metadata_max_age: Annotated[Seconds, "New topics and partitions are noticed within this time."] = 30.0

    def __post_init__(self) -> None:
        if self.group_protocol == "consumer" and self.engine != "librdkafka":
            raise ConfigurationError(
                'In consumer: group_protocol "consumer" needs engine "librdkafka"; aiokafka knows the classic one only.'
            )
        possible, why = _ASSIGNORS[self.engine, self.group_protocol]
        if self.assignor not in ("auto", *possible):
            raise ConfigurationError(
                f'In consumer: assignor "{self.assignor}" does not go with {why}, which takes auto, {", ".join(possible)}.'
            )


class ProducerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Publishing."""

    linger: Annotated[Seconds, "How long a record may wait for company in its batch."] = 0.002
    max_batch_bytes: Annotated[Bytes, "Most of one batch."] = 1_000_000
    max_record_bytes: Annotated[
        Bytes, "A larger record is refused before it is sent, unless it is a dead letter or a retry."
    ] = 64 * MEBIBYTE
    compression: Annotated[Literal["none", "gzip", "snappy", "lz4", "zstd"], "Of batches."] = "none"
    request_timeout: Annotated[Seconds, "For one request."] = 30.0
    delivery_timeout: Annotated[Seconds, "For a record, with all its retries."] = 60.0
    max_in_flight_bytes: Annotated[Bytes, "Published but not acknowledged; then publishing waits."] = 32 * MEBIBYTE


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Running handlers."""

    commit_interval: Annotated[Seconds, "Offsets are committed at least this often while records settle."] = 1.0
    commit_every: Annotated[Count, "And after so many settled records."] = 20_000
    transaction_interval: Annotated[
        Seconds, 'How often outputs of delivery="exactly_once" become visible; more often costs more.'
    ] = 0.1
    in_flight_bytes: Annotated[Bytes, "Fetched and not settled; then fetching pauses."] = 64 * MEBIBYTE
    in_flight_records: Annotated[
        Count,
        "The same, as a count; in all five times as many, if the others are finished and only their outputs are on their way.",
    ] = 10_000
    commit_timeout: Annotated[Seconds, "For one commit; after that it counts as unknown and is repeated."] = 10.0
    drain_timeout: Annotated[Seconds, "Time for running handlers after the first stop signal."] = 30.0
    revoke_budget: Annotated[
        Seconds, "Time for running handlers when partitions are taken away; all partitions together."
    ] = 10.0
    loop_block_warning: Annotated[Seconds, "A handler that blocks the event loop longer is logged."] = 1.0
    stall_timeout: Annotated[
        Seconds, "Without any progress for so long, the worker starts its client again or exits."
    ] = 300.0
    dead_letter_limit: Annotated[
        Count | None, 'So many dead letters of one handler in dead_letter_window stop it; "none" for no limit.'
    ] = 1000
    dead_letter_window: Annotated[Seconds, "See dead_letter_limit."] = 60.0
    health_port: Annotated[
        Port | None,
        "Answers /live, /ready and /status here, for all processes; each of several answers for itself on the ports that follow.",
    ] = None
    health_host: Annotated[str, "Address the health endpoints listen on."] = "127.0.0.1"


class TopicSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Topics that are read or published to and do not exist yet."""

    create: Annotated[bool, "Create them; otherwise a missing topic is an error."] = True
    partitions: Annotated[Count, "Partitions of created topics: at most that many workers share one."] = 4
    replication: Annotated[int, "Copies of created topics; -1 is the cluster's default."] = -1


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The embedded broker, which serves when `brokers` names none."""

    directory: Annotated[
        str | None, 'Where records are kept; programs that name the same directory share the broker. "none": in memory.'
    ] = "~/.local/state/octopus/broker"
    host: Annotated[str, "Address it listens on."] = "127.0.0.1"
    port: Annotated[Port, "Port it listens on; 0 takes a free one, which clients find in its directory."] = 0
    durability: Annotated[
        Literal["fsync", "os"],
        "Acknowledged records survive a power cut (fsync) or only the end of the process (os).",
    ] = "fsync"
    partitions: Annotated[Count, "Of topics that other programs create by first using them."] = 4
    retention: Annotated[Seconds | None, 'Older records are deleted; "none" keeps them.'] = 7 * 86400.0
    retention_bytes: Annotated[Bytes | None, "A partition's oldest records beyond this are deleted."] = None


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The program's own log."""

    level: Annotated[Literal["debug", "info", "warning", "error", "critical"], "The least that is written."] = "info"
    format: Annotated[Literal["text", "json"], "For people or for machines."] = "text"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything. Secrets are masked in its repr."""

    app: Annotated[str, "Name of the app, with which its consumer groups begin."] = "octopus"
    brokers: Annotated[tuple[str, ...], "Where to begin: host:port, or an address with a scheme; none: embedded."] = ()
    security: SecuritySettings = SecuritySettings()
    consumer: ConsumerSettings = ConsumerSettings()
    producer: ProducerSettings = ProducerSettings()
    worker: WorkerSettings = WorkerSettings()
    topics: TopicSettings = TopicSettings()
    broker: BrokerSettings = BrokerSettings()
    log: LogSettings = LogSettings()
