"""`octopus broker`: start, find and stop the embedded broker."""

import logging
from pathlib import Path

from cyclopts import App

from octopus import config
from octopus.cli.logs import configure_logs
from octopus.cli.options import DEFAULTS, Options
from octopus.cli.reaching import reaching, run_async
from octopus.cli.screen import document, note, notices, say, table
from octopus.config import Settings
from octopus.operations.brokers import (
    RunningBroker,
    find_broker,
    meant_broker,
    plan_start,
    run_here,
    running_brokers,
    start_broker,
    stop_broker,
)
from octopus.operations.spelling import spell_count
from octopus.transports.opening import administering
from octopus.worker.exit_codes import ExitCode

verb = App(name="broker", help="Start, find and stop the embedded broker.", help_epilogue="")


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
    if running := plan_start(settings, port):
        _report(running, "is running already", options)
    elif foreground:
        configure_logs(settings.log, notices())
        logging.getLogger("octopus.broker").setLevel("INFO" if not options.quiet else "WARNING")
        run_here(settings)
    else:
        _report(run_async(options, start_broker(settings)), "runs", options)


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
    running = find_broker(options.settings(), dir, port)
    run_async(options, stop_broker(running))
    _report(running, "has stopped", options)


def _settings(options: Options, dir: Path | None, host: str | None, port: int | None) -> Settings:
    given = {"directory": None if dir is None else str(dir), "host": host, "port": port}
    names = {"broker.directory": "--dir", "broker.host": "--host", "broker.port": "--port"}
    return config.load_from(*options.sources(), config.Source({"broker": given}, names.__getitem__))


def _report(running: RunningBroker, what: str, options: Options) -> None:
    if options.json:
        document(running._asdict())
    else:
        kept = f"records in {running.directory}" if running.directory else "records in memory"
        where = f" at {running.address}" if running.address else ""
        say(f"The broker{where} {what} (process {running.pid}, {kept}).", "green")


async def _count_topics(settings: Settings) -> int:
    async with reaching(settings) as transport, administering(transport) as admin:
        return len(await admin.topics())
