"""Checks of the broker, and of what an app needs there."""

import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from octopus.app import Octopus
from octopus.broker.lock import owner_of
from octopus.config import Settings
from octopus.errors import OctopusError
from octopus.operations.checkups.findings import Finding, doubtful, good, wrong
from octopus.operations.dead_letters import count_dead_letters
from octopus.operations.spelling import spell_count
from octopus.operations.standing import lag_of, misplaced, standings_of
from octopus.transports.base import Admin, Transport
from octopus.transports.opening import administering, connect, open_transport

SLOW_BROKER = 0.5
"""Seconds for one question, beyond which it is worth a look."""


def transport_without_starting(settings: Settings, *, client_id: str) -> Transport | None:
    """Return the way to the broker; None for an embedded one that does not run, since connecting would start it."""
    brokers = ",".join(settings.brokers)
    if brokers and not brokers.startswith("embedded:"):
        return connect(settings, client_id=client_id)
    place = brokers.partition("://")[2] or settings.broker.directory
    if place is None:
        port = settings.broker.port
        return (
            open_transport(f"{settings.broker.host}:{port}") if port and _listens(settings.broker.host, port) else None
        )
    owner = owner_of(Path(place).expanduser().absolute())
    return open_transport(owner.address) if owner.lives and owner.address is not None else None


async def check_broker(transport: Transport, settings: Settings, app: Octopus | None) -> AsyncIterator[Finding]:
    """Ask a broker, and yield what is to be said of it, its topics, its groups and its dead letters.

    Args:
        transport: The way to it, not open yet.
        settings: What is in force.
        app: Whose topics and groups matter; None for all that are there.
    """
    kind = "embedded" if not settings.brokers else "Kafka"
    began = time.monotonic()
    try:
        await transport.open()
    except OctopusError as error:
        yield wrong("broker", str(error), f"Brokers are set to {transport.address}: see settings above.")
        return
    opened = time.monotonic() - began
    try:
        async with administering(transport) as admin:
            began = time.monotonic()
            topics = {topic.name: topic.partitions for topic in await admin.topics()}
            asked = time.monotonic() - began
            text = f"{transport.address} ({kind}), connects in {opened * 1000:.0f} ms, answers in {asked * 1000:.0f} ms"
            yield good("broker", text) if asked < SLOW_BROKER else doubtful("broker", text, "Is it far away, or busy?")
            for finding in _topics(topics, settings, app):
                yield finding
            for finding in await _groups(admin, settings, app):
                yield finding
            yield await _dead_letters(admin)
    except OctopusError as error:
        yield wrong("broker", str(error), "It answers, but refuses: check what this principal may do.")
    finally:
        await transport.close()


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def _topics(topics: dict[str, int], settings: Settings, app: Octopus | None) -> Iterator[Finding]:
    shown = [name for name in topics if not name.startswith("__")]
    if app is None:
        yield good("topics", spell_count(len(shown), "topic"))
        return
    wanted = {name for route in app.routes if isinstance(route.topics, tuple) for name in route.topics}
    wanted |= {route.to for route in app.routes if route.to is not None}
    wanted |= {topic for route in app.routes if (topic := app.retry_topic_of(route)) is not None}
    missing = sorted(wanted - topics.keys())
    if not missing:
        yield good("topics", f"all {len(wanted)} that {app.name} uses exist" if wanted else "none needed")
    elif settings.topics.create:
        yield good("topics", f"{', '.join(missing)} will be created by octopus run")
    else:
        commands = f"octopus topics create {missing[0]}"
        yield wrong("topics", f"{', '.join(missing)} missing, and topics.create is off", commands)


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
        findings += [wrong("offsets", each.sentence, each.mend) for each in troubles]
        members = len(groups[name].members)
        lines.append(f"{name}: {spell_count(members, 'member')}, lag {'?' if lag is None else f'{lag:,}'}")
        if lag and not members and not troubles:
            idle.append(name)
    head = spell_count(len(names), "group")
    if idle:
        mend = "octopus run" if app is not None else "Run their apps, or forget them: octopus groups delete"
        text = "\n".join([f"{head}; events wait and no member reads", *lines])
        return [doubtful("groups", text, mend), *findings]
    return [good("groups", "\n".join([head, *lines])), *findings]


async def _dead_letters(admin: Admin) -> Finding:
    waiting = [each for each in await count_dead_letters(admin) if each.waiting]
    if not waiting:
        return good("dead letters", "none wait")
    text = ", ".join(f"{each.waiting:,} in {each.topic}" for each in waiting)
    return doubtful("dead letters", text, "octopus dead-letters list, then mend, then replay")
