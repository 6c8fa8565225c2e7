"""`octopus broker`: start, find and stop the embedded broker."""

import asyncio
import logging
import os
import signal
import sys
import time
from pathlib import Path

from cyclopts import App

from octopus import config
from octopus.broker.process import run as run_broker
from octopus.broker.settings import BrokerSettings
from octopus.broker.storage import StorageSettings
from octopus.cli.logs import configure_logs
from octopus.cli.options import DEFAULTS, Options
from octopus.cli.reaching import reaching, run_async
from octopus.cli.screen import document, note, notices, say, table
from octopus.config import LogSettings, Settings
from octopus.errors import ConfigurationError, ConnectionFailed, OperationFailed, TransportError
from octopus.operations.brokers import RunningBroker, meant_broker, running_brokers
from octopus.operations.spelling import spell_count
from octopus.transports.broker_codecs import codecs
from octopus.transports.broker_process import BrokerProcess
from octopus.transports.checksum import crc32c
from octopus.transports.opening import administering
from octopus.worker.exit_codes import ExitCode

verb = App(name="broker", help="Start, find and stop the embedded broker.", help_epilogue="")

START_WAIT = 30.0
STOP_WAIT = 15.0


@verb.command
def start(
    *,
    dir: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    foreground: bool = False,
    options: Options = DEFAULTS,
) -> None:
    """Start a broker that stays until it is stopped.

    Commands and apps without --brokers find it by themselves where they have the
    same settings: the same broker.directory, or the same broker.port.

    Args:
        dir: Where to keep records; none for memory. Short for --config broker.directory=DIR.
        host: Address to listen on. Short for --config broker.host=HOST.
        port: Port to listen on; 0 takes a free one. Short for --config broker.port=PORT.
        foreground: Stay in this terminal and log here.
    """
    settings = _settings(options, dir, host, port)
    if settings.broker.port == 0 and settings.broker.directory is None:
        raise ConfigurationError("A broker in memory on a free port could be found by nobody: give --port or --dir.")
    if running := meant_broker(settings):
        if port not in (None, 0, running.port):
            kept = running.directory or "memory"
            raise OperationFailed(
                f"The broker with records in {kept} runs already, at {running.address}. Stop it first: octopus broker stop"
            )
        _report(running, "is running already", options)
        return
    arguments = _broker_arguments(settings)
    if foreground:
        configure_logs(settings.log, notices())
        logging.getLogger("octopus.broker").setLevel("INFO" if not options.quiet else "WARNING")
        run_broker(*arguments, checksum=crc32c, codecs=codecs())
        return
    # At "warning" because clients say that it does not answer yet.
    configure_logs(LogSettings(level="debug" if options.verbose else "warning"), notices())
    child = BrokerProcess(*arguments, idle_exit=float("inf"))
    child.start(sys.executable)
    deadline = time.monotonic() + START_WAIT
    while time.monotonic() < deadline:
        if (failure := child.failure()) is not None:
            raise ConfigurationError(f"The broker did not start: {failure}")
        running = meant_broker(settings)
        if running is not None and running.address is not None and asyncio.run(_answers(running.address)):
            _report(running, "runs", options)
            return
        time.sleep(0.1)
    raise ConnectionFailed(f"The broker did not answer within {START_WAIT:g} s.")


@verb.command
def status(*, options: Options = DEFAULTS) -> int:
    """Show the brokers that run on this machine; exit code 0 when there is one, 1 otherwise."""
    brokers = running_brokers()
    if options.json:
        document([running._asdict() for running in brokers])
    elif not brokers:
        say("No embedded broker runs. It starts by itself when it is needed, or with: octopus broker start")
    else:
        rows = [(running.address, running.pid, running.directory or "(in memory)") for running in brokers]
        table(("address", ">process", "records in"), rows, styles=("cyan", "dim"))
        meant = meant_broker(options.settings())
        if meant is not None:
            with_topics = run_async(options, _count_topics(options.settings()))
            note(f"Commands here use the one at {meant.address}, which has {spell_count(with_topics, 'topic')}.")
    return ExitCode.OK if brokers else ExitCode.FAILED


@verb.command
def stop(*, dir: Path | None = None, port: int | None = None, options: Options = DEFAULTS) -> None:
    """Stop a broker: the one that commands here use, or the one that is named.

    What it has on disk stays; what it has in memory is gone.

    Args:
        dir: Only a broker that keeps its records there.
        port: Only a broker that listens on this port.
    """
    running = _named_broker(dir, port, options)
    try:
        os.kill(running.pid, signal.SIGTERM)
    except PermissionError as error:
        raise OperationFailed(f"Process {running.pid} belongs to somebody else.") from error
    deadline = time.monotonic() + STOP_WAIT
    while running.pid in (other.pid for other in running_brokers()):
        if time.monotonic() > deadline:
            raise OperationFailed(f"Process {running.pid} did not end within {STOP_WAIT:g} s.")
        time.sleep(0.05)
    _report(running, "has stopped", options)


def _named_broker(dir: Path | None, port: int | None, options: Options) -> RunningBroker:
    """Return the one to stop. What is named must fit: a broker of somebody else may run beside ours."""
    if dir is None and port is None:
        meant = meant_broker(options.settings())
        found = [] if meant is None else [meant]
    else:
        found = [
            running
            for running in running_brokers()
            if (dir is None or running.directory == str(dir.expanduser().absolute()))
            and (port is None or running.port == port)
        ]
    if not found:
        raise OperationFailed("No such embedded broker runs. Those that run: octopus broker status")
    if len(found) > 1:
        places = ", ".join(running.directory or "in memory" for running in found)
        raise ConfigurationError(f"{len(found)} brokers fit ({places}); say which with --dir.")
    return found[0]


def _settings(options: Options, dir: Path | None, host: str | None, port: int | None) -> Settings:
    given = {"directory": None if dir is None else str(dir), "host": host, "port": port}
    names = {"broker.directory": "--dir", "broker.host": "--host", "broker.port": "--port"}
    return config.load_from(*options.sources(), config.Source({"broker": given}, names.__getitem__))


def _broker_arguments(settings: Settings) -> tuple[Path | None, BrokerSettings, StorageSettings]:
    broker = settings.broker
    retention = -1 if broker.retention is None else int(broker.retention * 1000)
    return (
        Path(broker.directory).expanduser().absolute() if broker.directory else None,
        BrokerSettings(host=broker.host, port=broker.port, default_partitions=broker.partitions),
        StorageSettings(
            durability=broker.durability,
            topic_defaults={
                "retention.ms": str(retention),
                "retention.bytes": str(-1 if broker.retention_bytes is None else broker.retention_bytes),
            },
        ),
    )


def _report(running: RunningBroker, what: str, options: Options) -> None:
    if options.json:
        document(running._asdict())
    else:
        kept = f"records in {running.directory}" if running.directory else "records in memory"
        where = f" at {running.address}" if running.address else ""
        say(f"The broker{where} {what} (process {running.pid}, {kept}).", "green")


async def _answers(address: str) -> bool:
    from octopus.transports.opening import open_transport

    transport = open_transport(address)
    try:
        await transport.open()
    except TransportError:
        return False
    await transport.close()
    return True


async def _count_topics(settings: Settings) -> int:
    async with reaching(settings) as transport, administering(transport) as admin:
        return len(await admin.topics())
