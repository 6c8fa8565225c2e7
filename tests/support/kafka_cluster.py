"""A genuine Apache Kafka cluster on loopback, for tests and benchmarks. Standard library only.

    with KafkaCluster(brokers=3) as cluster:
        cluster.bootstrap            # "127.0.0.1:41001,127.0.0.1:41003,127.0.0.1:41005"
        cluster.kill(2)              # SIGKILL
        cluster.restart(2)           # on the same data
        cluster.pause(1)             # SIGSTOP: alive and silent
        cluster.resume(1)

Every node is broker and controller at once (KRaft, combined mode) and binds to 127.0.0.1 only. What runs is
recorded in `cluster.json` in the cluster's directory, so another process can find and steer it (`KafkaCluster.load`).
"""

import base64
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.support import kafka_security as security
from tests.support.kafka_jars import fetch_jars, kafka_version, require_java
from tests.support.kafka_probe import wait_for_brokers

START_DEADLINE = 90.0
STOP_DEADLINE = 6.0  # the last nodes of a combined quorum may hang in their shutdown
PROTOCOLS = {None: "PLAINTEXT", "sasl": "SASL_PLAINTEXT", "tls": "SSL", "sasl+tls": "SASL_SSL"}
STATE_FILE = "cluster.json"

# Small and quick to start. Benchmarks pass their own: `TieredStopAtLevel=1` keeps the JIT at its first stage.
TEST_JVM = ("-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

# Changes from Kafka's defaults, each so that a test does not wait for it.
TEST_PROPERTIES = {
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "500",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "log.retention.check.interval.ms": "1000",
    "log.initial.task.delay.ms": "500",
    "log.cleaner.backoff.ms": "500",
    "log.cleaner.min.cleanable.ratio": "0.01",
    "log.cleaner.dedupe.buffer.size": "2097152",
    "log.segment.delete.delay.ms": "500",
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "num.network.threads": "1",
    "num.io.threads": "2",
}

LOGGING = """\
Configuration:
  Appenders: {Console: {name: console, PatternLayout: {pattern: "%d{HH:mm:ss.SSS} %p %c{1}: %m%n"}}}
  Loggers: {Root: {level: warn, AppenderRef: {ref: console}}}
"""


class KafkaFailed(Exception):
    """The cluster did not start; the message ends with what the broker logged last."""


class KafkaCluster:
    """One or three brokers of Apache Kafka on loopback.

    Args:
        brokers: How many nodes, numbered from 1.
        directory: Where data, logs and `cluster.json` go; a fresh temporary folder when not given. Removed by `stop`
            when this object made it.
        properties: Broker settings that override ours, by Kafka's names.
        secure: None, `"sasl"`, `"tls"` or `"sasl+tls"`, for the listener that `bootstrap` names. Administration without a
            login stays possible at `internal`. See `kafka_security` for the users and the tokens.
        port: Port of the first broker, the others follow it; free ports when not given.
        advertised: Ports on loopback that clients are sent to, one for each broker: those of proxies before
            `listening`. Brokers do not use them among themselves.
        java_options: Options of the Java machine.

    Attributes:
        bootstrap: The addresses to connect to, `host:port` separated by commas.
        internal: The same for the listener of the brokers, unsecured and without proxies; equal to `bootstrap` in a
            plain cluster.
        listening: Where the brokers listen to clients, an address each.
        certificate: PEM file of the certificate authority, or None without TLS.
    """

    def __init__(
        self,
        brokers: int = 1,
        directory: Path | None = None,
        properties: Mapping[str, str] | None = None,
        secure: str | None = None,
        port: int | None = None,
        advertised: Sequence[int] | None = None,
        java_options: Sequence[str] = TEST_JVM,
    ) -> None:
        if secure not in PROTOCOLS:
            raise ValueError(f"secure={secure!r} is not one of {', '.join(map(repr, PROTOCOLS))}")
        self.nodes = list(range(1, brokers + 1))
        self._temporary = directory is None
        self._attached = False
        self.directory = Path(tempfile.mkdtemp(prefix="octopus-kafka-")) if directory is None else directory.resolve()
        self.secure = secure
        self.certificate: Path | None = None
        self._properties = dict(properties or {})
        self._java_options = list(java_options)
        self._cluster_id = "K" + base64.urlsafe_b64encode(os.urandom(16)).decode()[1:22]  # must not start with "-"
        self._pids: dict[int, int] = {}
        self._paused: set[int] = set()
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        free = _free_ports(3 * brokers)
        self._controllers = free[:brokers]
        self._internals = free[brokers : 2 * brokers]
        self._clients = free[2 * brokers :] if port is None else [port + n for n in range(brokers)]
        self._advertised = [*self._clients] if advertised is None else [*advertised]
        self.bootstrap = _addresses(self._advertised)
        self.listening = _addresses(self._clients).split(",")
        self._has_internal = bool(secure) or advertised is not None
        self.internal = _addresses(self._internals) if self._has_internal else self.bootstrap

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Return the cluster that another process started in `directory`, to steer its nodes.

        Raises:
            FileNotFoundError: None runs there.
        """
        state = json.loads((directory / STATE_FILE).read_text())
        cluster = cls(len(state["nodes"]), directory, secure=state["secure"])
        cluster.bootstrap, cluster.internal = state["bootstrap"], state["internal"]
        cluster.certificate = Path(state["certificate"]) if state["certificate"] else None
        cluster._attached = True
        cluster._java_options = state["java_options"]
        cluster._pids = {node["id"]: node["pid"] for node in state["nodes"]}
        return cluster

    def start(self, timeout: float = START_DEADLINE) -> Self:
        """Format and start all nodes, and wait until each lists all the others.

        Raises:
            KafkaUnavailable: Java, Maven or openssl is missing.
            KafkaFailed: The cluster was not ready within `timeout` seconds.
        """
        require_java()
        fetch_jars()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            (self.directory / "log4j2.yaml").write_text(LOGGING)
            secured = self._make_secrets()
            for node in self.nodes:
                text = "".join(f"{name}={value}\n" for name, value in (self._settings(node) | secured).items())
                self._settings_file(node).write_text(text)
            self._format()
            for node in self.nodes:
                self._spawn(node)
            self.wait_until_ready(timeout)
        except BaseException:
            self.stop(grace=0)
            raise
        return self

    def stop(self, grace: float = STOP_DEADLINE) -> None:
        """End every node (SIGTERM, after `grace` seconds SIGKILL) and remove the data."""
        for node in self.nodes:
            self._signal(node, signal.SIGCONT)  # a stopped process would not see the SIGTERM
            self._signal(node, signal.SIGTERM)
        deadline = time.monotonic() + grace
        for node in self.nodes:
            if not self._gone(node, deadline):
                self.kill(node)
        self._pids.clear()
        (self.directory / STATE_FILE).unlink(missing_ok=True)
        for node in self.nodes:
            shutil.rmtree(self.directory / f"data-{node}", ignore_errors=True)
            self._settings_file(node).unlink(missing_ok=True)
        for secret in ("server.key", "server.pem", "token.key"):
            (self.directory / secret).unlink(missing_ok=True)
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def terminate(self, node: int, grace: float = STOP_DEADLINE) -> None:
        """End one node in order (SIGTERM, after `grace` seconds SIGKILL); its data stays."""
        self._signal(node, signal.SIGTERM)
        if not self._gone(node, time.monotonic() + grace):
            self.kill(node)

    def kill(self, node: int) -> None:
        """End one node as a power cut would (SIGKILL); its data stays."""
        self._paused.discard(node)
        self._signal(node, signal.SIGKILL)
        self._gone(node, time.monotonic() + 5)

    def pause(self, node: int) -> None:
        """Stop one node's clock (SIGSTOP): its connections stay open and nothing answers."""
        self._paused.add(node)
        self._signal(node, signal.SIGSTOP)

    def resume(self, node: int) -> None:
        """Let a paused node go on (SIGCONT)."""
        self._paused.discard(node)
        self._signal(node, signal.SIGCONT)

    def restart(self, node: int, timeout: float = START_DEADLINE) -> None:
        """Start a killed node again on its data (a living one is killed first), and wait until it is back."""
        self.kill(node)
        self._spawn(node)
        self.wait_until_ready(timeout, {node})

    def heal(self, timeout: float = START_DEADLINE) -> None:
        """Bring back whatever a test left paused or killed."""
        for node in self.nodes:
            self.resume(node)
            if not self.is_running(node):
                self._spawn(node)
        self.wait_until_ready(timeout)

    def wait_until_ready(self, timeout: float, wanted: set[int] | None = None) -> None:
        """Wait until every node that runs and is not paused lists the `wanted` ones (all, when not given).

        Raises:
            KafkaFailed: It did not within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        wanted = set(self.nodes) if wanted is None else wanted
        for node, address in zip(self.nodes, self.internal.split(","), strict=True):
            if node in self._paused:
                continue
            while self.is_running(node) and time.monotonic() < deadline:
                if wait_for_brokers(address, wanted, 1.0):
                    break
            else:
                if node in wanted:
                    raise KafkaFailed(f"Node {node} of Apache Kafka is not ready: {self.last_log(node)}")

    def is_running(self, node: int) -> bool:
        """Say whether the process of `node` is alive (a paused one is)."""
        child = self._children.get(node)
        if child is not None:
            return child.poll() is None
        return node in self._pids and _is_ours(self._pids[node], self._settings_file(node))

    def last_log(self, node: int) -> str:
        """Return the end of what `node` logged, for the report of a failure."""
        log = self._log(node)
        return log.read_text(errors="replace")[-1500:].strip() if log.exists() else "it logged nothing"

    def token(
        self, subject: str = "alice", lifetime: float = 3600.0, claims: Mapping[str, object] | None = None
    ) -> str:
        """Return a JWT that the OAUTHBEARER listener accepts, unless `claims` spoil it (see `sign_token`)."""
        return security.sign_token(self.directory / "token.key", subject, lifetime, claims or {})

    def describe(self) -> dict[str, object]:
        """Return what `cluster.json` holds: addresses, and pid and log file of each node."""
        return {
            "bootstrap": self.bootstrap,
            "internal": self.internal,
            "secure": self.secure,
            "certificate": str(self.certificate) if self.certificate else None,
            "version": kafka_version(),
            "directory": str(self.directory),
            "java_options": self._java_options,
            "nodes": [{"id": node, "pid": self._pids.get(node), "log": str(self._log(node))} for node in self.nodes],
        }

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _settings(self, node: int) -> dict[str, str]:
        at = node - 1
        voters = zip(self.nodes, self._controllers, strict=True)
        listeners = {"CLIENTS": self._clients[at], "CONTROLLER": self._controllers[at]}
        protocols = {"CLIENTS": PROTOCOLS[self.secure], "CONTROLLER": "PLAINTEXT"}
        advertised = {"CLIENTS": self._advertised[at]}
        if self._has_internal:
            listeners["INTERNAL"], protocols["INTERNAL"] = self._internals[at], "PLAINTEXT"
            advertised["INTERNAL"] = self._internals[at]
        replicas = str(len(self.nodes))
        in_sync = str(min(2, len(self.nodes)))
        replication = {f"{topic}.replication.factor": replicas for topic in _REPLICATED} | {
            f"{topic}.min.isr": in_sync for topic in ("transaction.state.log", "share.coordinator.state.topic")
        }
        return (
            {
                "process.roles": "broker,controller",
                "node.id": str(node),
                "controller.quorum.voters": ",".join(f"{voter}@127.0.0.1:{port}" for voter, port in voters),
                "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items()),
                "advertised.listeners": ",".join(f"{name}://127.0.0.1:{p}" for name, p in advertised.items()),
                "listener.security.protocol.map": ",".join(f"{name}:{how}" for name, how in protocols.items()),
                "controller.listener.names": "CONTROLLER",
                "inter.broker.listener.name": "INTERNAL" if self._has_internal else "CLIENTS",
                "log.dirs": str(self.directory / f"data-{node}"),
                "min.insync.replicas": in_sync,
            }
            | replication
            | TEST_PROPERTIES
            | self._properties
        )

    def _make_secrets(self) -> dict[str, str]:
        settings: dict[str, str] = {}
        asked = (self.secure or "").split("+")
        if "sasl" in asked:
            settings |= security.sasl_properties(security.make_signing_key(self.directory))
        if "tls" in asked:
            self.certificate = security.make_certificate(self.directory)
            settings |= security.tls_properties(self.certificate)
        return settings | self._properties

    def _format(self) -> None:
        scram = security.scram_arguments() if "sasl" in (self.secure or "") else []
        java = [*self._java("-Xmx128m", "-XX:TieredStopAtLevel=1"), "kafka.tools.StorageTool", "format"]
        running = []
        for node in self.nodes:  # together: each takes a second and a half of starting Java
            command = [*java, "-t", self._cluster_id, "-c", str(self._settings_file(node)), *scram]
            with self._log(node).open("wb") as log:
                running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        for node, process in zip(self.nodes, running, strict=True):
            if process.wait(START_DEADLINE) != 0:
                raise KafkaFailed(f"The data directory of node {node} could not be formatted: {self.last_log(node)}")

    def _spawn(self, node: int) -> None:
        options = [f"-Dlog4j2.configurationFile={self.directory / 'log4j2.yaml'}"]
        if "sasl" in (self.secure or ""):
            jwks = (self.directory / "jwks.json").as_uri()
            options.append(f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={jwks}")
        with self._log(node).open("ab") as log:
            child = subprocess.Popen(
                [*self._java(*self._java_options, *options), "kafka.Kafka", str(self._settings_file(node))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C at a terminal is for us: we end the nodes in order
                preexec_fn=None if self._attached else _end_with_parent(),
            )
        self._children[node] = child
        self._pids[node] = child.pid
        text = json.dumps(self.describe(), indent=2)
        partial = self.directory / f"{STATE_FILE}.partial"
        partial.write_text(text)
        partial.rename(self.directory / STATE_FILE)

    def _java(self, *options: str) -> list[str]:
        return [require_java(), *options, "-cp", f"{fetch_jars()}/*"]

    def _signal(self, node: int, number: signal.Signals) -> None:
        if self.is_running(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pids[node], number)

    def _gone(self, node: int, deadline: float) -> bool:
        while self.is_running(node):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        return True

    def _settings_file(self, node: int) -> Path:
        return self.directory / f"node-{node}.properties"

    def _log(self, node: int) -> Path:
        return self.directory / f"node-{node}.log"


_REPLICATED = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic", "default")


def _addresses(ports: Sequence[int]) -> str:
    return ",".join(f"127.0.0.1:{port}" for port in ports)


def _free_ports(count: int) -> list[int]:
    # All are held open together, so that no two are the same.
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _is_ours(pid: int, settings: Path) -> bool:
    """Say whether `pid` still is the broker that was started with `settings`, and no other process with its number."""
    process = Path("/proc") / str(pid) / "cmdline"
    try:
        return str(settings).encode() in process.read_bytes()
    except OSError:
        if sys.platform == "linux":
            return False
    said = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return str(settings) in said.stdout


def _end_with_parent() -> Callable[[], object] | None:
    """Return what has Linux end a child when this process dies, so that even SIGKILL leaves no broker behind.

    The kernel means the *thread* that forked, hence None anywhere but in the main thread.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(set_parent_death_signal, signal.SIGKILL)
