"""The checks of `octopus doctor`. None changes or starts anything."""

import os
import platform
import shlex
import shutil
import time
from collections.abc import Iterator
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from octopus import config
from octopus.app import Octopus
from octopus.broker.lock import owner_of
from octopus.cli.options import Options
from octopus.cli.reaching import CLIENT
from octopus.cli.screen import spell_bytes, spell_count
from octopus.config import Secret, Settings
from octopus.errors import OctopusError
from octopus.operations.apps import find_app
from octopus.operations.dead_letters import count_dead_letters
from octopus.operations.exposed_files import exposed_files
from octopus.operations.standing import lag_of, misplaced, standings_of
from octopus.transports.base import Admin, Transport
from octopus.transports.opening import administering, connect, open_transport
from octopus.worker.process import read_sources

LOW_DISK_BYTES = 1_000_000_000
SLOW_BROKER = 0.5
"""Seconds for one question, beyond which it is worth a look."""


class State(Enum):
    """How a check ended."""

    GOOD = "✓"
    DOUBTFUL = "!"
    WRONG = "✗"


class Finding(NamedTuple):
    """What one check found.

    Attributes:
        state: Good, doubtful or wrong.
        subject: What was looked at.
        text: What is so; further lines are details.
        mend: What to do, where something is to be done.
    """

    state: State
    subject: str
    text: str
    mend: str = ""

    def as_json(self) -> dict[str, str]:
        """Return it for machines."""
        return {"check": self.subject, "state": self.state.name.lower(), "text": self.text, "mend": self.mend}


async def examine(options: Options, target: str | None) -> list[Finding]:
    """Run all checks that make sense after those before them.

    Args:
        options: Of the command line.
        target: The app, or None.
    """
    findings = [_python(), _loop(), _kafka_client()]
    app: Octopus | None = None
    if target is not None:
        try:
            app = find_app(target)
            findings.append(Finding(State.GOOD, "app", _spell_app(app, target)))
        except OctopusError as error:
            findings.append(
                Finding(State.WRONG, "app", str(error), "Mend the app; everything about it is left out below.")
            )
    try:
        settings = options.settings(app.settings if app is not None else None)
    except OctopusError as error:
        return [*findings, Finding(State.WRONG, "settings", str(error), f"It comes from {_spell_sources(options)}.")]
    findings.append(
        Finding(State.GOOD, "settings", "\n".join([f"from {_spell_sources(options)}", *_changed(settings)]))
    )
    findings += _exposed(settings)
    if not settings.brokers or settings.brokers[0].startswith("embedded:"):
        findings += _directory(settings)
    transport = _transport(settings)
    if transport is None:
        findings.append(
            Finding(State.GOOD, "broker", "the embedded one, which does not run now and starts when it is needed")
        )
        return findings
    return findings + [finding async for finding in _broker(transport, settings, app)]


def _python() -> Finding:
    return Finding(State.GOOD, "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _loop() -> Finding:
    if find_spec("uvloop") is not None:
        return Finding(State.GOOD, "event loop", f"uvloop {version('uvloop')}")
    return Finding(State.DOUBTFUL, "event loop", "asyncio's own: it works, more slowly", "pip install uvloop")


def _kafka_client() -> Finding:
    from octopus.transports.kafka.guards import TESTED

    try:
        found = version("aiokafka")
    except PackageNotFoundError:
        return Finding(State.WRONG, "kafka client", "aiokafka is not installed", "pip install aiokafka")
    if found == TESTED:
        return Finding(State.GOOD, "kafka client", f"aiokafka {found}, with our guards")
    return Finding(
        State.WRONG,
        "kafka client",
        f"aiokafka {found}; Octopus reads the inside of {TESTED}, and takes no other",
        f"pip install aiokafka=={TESTED}",
    )


def _spell_app(app: Octopus, target: str) -> str:
    handlers = ", ".join(route.name for route in app.routes) or "no handlers"
    return f"{app.name} in {target}\n{handlers}"


def _spell_sources(options: Options) -> str:
    file = _settings_file()
    variables = sorted(name for name, text in os.environ.items() if name.startswith("OCTOPUS_") and text)
    sources = [file] if file else []
    sources += [", ".join(variables)] if variables else []
    sources += ["the command line"] if options.overrides() else []
    return "; ".join(sources) or "defaults only: no octopus.toml here, no OCTOPUS_* variables"


def _settings_file() -> str | None:
    """Return the file here that holds settings, if there is one."""
    file = next((name for name in ("octopus.toml", "pyproject.toml") if Path(name).is_file()), None)
    if file == "pyproject.toml" and "tool.octopus" not in Path(file).read_text(encoding="utf-8", errors="replace"):
        return None
    return file


def _changed(settings: Settings) -> Iterator[str]:
    """Yield the settings that are not the defaults; secrets are masked by their class."""
    for setting in config.describe():
        value: Any = settings
        for name in setting.path.split("."):
            value = getattr(value, name)
        if value != setting.default and not (setting.default == "auto" and value in (None, "PLAINTEXT")):
            shown = str(value) if isinstance(value, Secret) else ", ".join(value) if isinstance(value, tuple) else value
            yield f"{setting.path} = {shown}"


def _exposed(settings: Settings) -> Iterator[Finding]:
    name = _settings_file()
    for path, what, mode in exposed_files({} if name is None else {name: read_sources()[0]}, settings):
        text = f"{path} holds {what}, and others on this machine may read it (mode {mode:o})"
        yield Finding(State.DOUBTFUL, "secrets", text, f"chmod 600 {shlex.quote(str(path))}")


def _directory(settings: Settings) -> Iterator[Finding]:
    if settings.broker.directory is None:
        yield Finding(
            State.DOUBTFUL,
            "records",
            "in memory: they are gone when the embedded broker ends",
            "octopus … --config broker.directory=DIR keeps them.",
        )
        return
    directory = Path(settings.broker.directory).expanduser().absolute()
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK) or not existing.is_dir():
        yield Finding(State.WRONG, "records", f"{existing} cannot be written", "Choose another broker.directory.")
        return
    free = shutil.disk_usage(existing).free
    if free < LOW_DISK_BYTES:
        text, mend = f"{directory}, {spell_bytes(free)} free", "Make room, or set broker.retention_bytes."
        yield Finding(State.DOUBTFUL, "records", text, mend)
    else:
        yield Finding(State.GOOD, "records", f"{directory}, {spell_bytes(free)} free")


def _transport(settings: Settings) -> Transport | None:
    """Return the way to the broker; None for an embedded one that does not run, since connecting would start it."""
    brokers = ",".join(settings.brokers)
    if brokers and not brokers.startswith("embedded:"):
        return connect(settings, client_id=CLIENT)
    place = brokers.partition("://")[2] or settings.broker.directory
    if place is None:
        port = settings.broker.port
        return (
            open_transport(f"{settings.broker.host}:{port}") if port and _listens(settings.broker.host, port) else None
        )
    owner = owner_of(Path(place).expanduser().absolute())
    return open_transport(owner.address) if owner.lives and owner.address is not None else None


def _listens(host: str, port: int) -> bool:
    import socket

    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


async def _broker(transport: Transport, settings: Settings, app: Octopus | None) -> Any:
    kind = "embedded" if not settings.brokers else "Kafka"
    began = time.monotonic()
    try:
        await transport.open()
    except OctopusError as error:
        yield Finding(State.WRONG, "broker", str(error), f"Brokers are set to {transport.address}: see settings above.")
        return
    opened = time.monotonic() - began
    try:
        async with administering(transport) as admin:
            began = time.monotonic()
            topics = {topic.name: topic.partitions for topic in await admin.topics()}
            asked = time.monotonic() - began
            text = f"{transport.address} ({kind}), connects in {opened * 1000:.0f} ms, answers in {asked * 1000:.0f} ms"
            state = State.GOOD if asked < SLOW_BROKER else State.DOUBTFUL
            yield Finding(state, "broker", text, "" if state is State.GOOD else "Is it far away, or busy?")
            for finding in _topics(topics, settings, app):
                yield finding
            for finding in await _groups(admin, settings, app):
                yield finding
            yield await _dead_letters(admin)
    except OctopusError as error:
        yield Finding(State.WRONG, "broker", str(error), "It answers, but refuses: check what this principal may do.")
    finally:
        await transport.close()


def _topics(topics: dict[str, int], settings: Settings, app: Octopus | None) -> Iterator[Finding]:
    shown = [name for name in topics if not name.startswith("__")]
    if app is None:
        yield Finding(State.GOOD, "topics", spell_count(len(shown), "topic"))
        return
    wanted = {name for route in app.routes if isinstance(route.topics, tuple) for name in route.topics}
    wanted |= {route.to for route in app.routes if route.to is not None}
    wanted |= {topic for route in app.routes if (topic := app.retry_topic_of(route)) is not None}
    missing = sorted(wanted - topics.keys())
    if not missing:
        yield Finding(
            State.GOOD, "topics", f"all {len(wanted)} that {app.name} uses exist" if wanted else "none needed"
        )
    elif settings.topics.create:
        yield Finding(State.GOOD, "topics", f"{', '.join(missing)} will be created by octopus run")
    else:
        commands = f"octopus topics create {missing[0]}"
        yield Finding(State.WRONG, "topics", f"{', '.join(missing)} missing, and topics.create is off", commands)


async def _groups(admin: Admin, settings: Settings, app: Octopus | None) -> list[Finding]:
    groups = {group.name: group for group in await admin.groups()}
    names = sorted(groups)
    if app is not None:
        names = sorted(
            {app.group_of(route) for route in app.routes}
            | {app.retry_group_of(route) for route in app.routes if route.retry_topic}
        )
    lines, idle, findings = [], [], []
    for name in names:
        if name not in groups:
            lines.append(f"{name}: has never run")
            continue
        standings = await standings_of(admin, await admin.group_offsets(name))
        lag = lag_of(standings)
        troubles = [*misplaced(name, standings, settings.consumer.recreated_topics, is_ours=app is not None)]
        findings += [Finding(State.WRONG, "offsets", each.sentence, each.mend) for each in troubles]
        members = len(groups[name].members)
        lines.append(f"{name}: {spell_count(members, 'member')}, lag {'?' if lag is None else f'{lag:,}'}")
        if lag and not members and not troubles:
            idle.append(name)
    head = spell_count(len(names), "group")
    if idle:
        mend = "octopus run" if app is not None else "Run their apps, or forget them: octopus groups delete"
        text = "\n".join([f"{head}; events wait and nobody reads", *lines])
        return [Finding(State.DOUBTFUL, "groups", text, mend), *findings]
    return [Finding(State.GOOD, "groups", "\n".join([head, *lines])), *findings]


async def _dead_letters(admin: Admin) -> Finding:
    waiting = [each for each in await count_dead_letters(admin) if each.waiting]
    if not waiting:
        return Finding(State.GOOD, "dead letters", "none wait")
    text = ", ".join(f"{each.waiting:,} in {each.topic}" for each in waiting)
    return Finding(State.DOUBTFUL, "dead letters", text, "octopus dead-letters list, then mend, then replay")
