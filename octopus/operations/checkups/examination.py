"""All checks, in an order in which each makes sense after those before it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from octopus import config
from octopus.app import Octopus
from octopus.config import Secret, Settings, Source
from octopus.errors import OctopusError
from octopus.operations.apps import find_app
from octopus.operations.checkups.broker import check_broker, transport_without_starting
from octopus.operations.checkups.findings import Checkup, Finding, good, wrong
from octopus.operations.checkups.machine import (
    check_event_loop,
    check_kafka_client,
    check_python,
    check_records,
    check_secrets,
)


class Origin(NamedTuple):
    """Where settings come from.

    Attributes:
        spelled: The same for people: `octopus.toml; the command line`.
        file: The name of the file of settings; None for none.
        read: Returns what overrides the settings in the app's code, the file first; raises `ConfigurationError`.
    """

    spelled: str
    file: str | None
    read: Callable[[], Sequence[Source]]


async def examine(target: str | None, origin: Origin, *, client_id: str) -> Checkup:
    """Run all checks that make sense. Nothing is changed and nothing started; an app is imported.

    What is wrong is a finding, never an exception.

    Args:
        target: The app: `module:app` or `path/to/file.py:app`; None leaves it out.
        origin: Where settings come from.
        client_id: The name of this examination in the broker's logs.
    """
    findings = [check_python(), check_event_loop(), check_kafka_client()]
    app: Octopus | None = None
    if target is not None:
        try:
            app = find_app(target)
            findings.append(good("app", _spell_app(app, target)))
        except OctopusError as error:
            findings.append(wrong("app", str(error), "Mend the app; everything about it is left out below."))
    try:
        sources = origin.read()
        settings = config.load_from(config.in_code({} if app is None else app.settings), *sources)
    except OctopusError as error:
        return Checkup.of([*findings, wrong("settings", str(error), f"It comes from {origin.spelled}.")])
    findings.append(good("settings", "\n".join([f"from {origin.spelled}", *_changed(settings)])))
    findings += check_secrets({} if origin.file is None else {origin.file: sources[0]}, settings)
    if not settings.brokers or settings.brokers[0].startswith("embedded:"):
        findings.append(check_records(settings))
    return Checkup.of([*findings, *await _broker(settings, app, client_id)])


async def _broker(settings: Settings, app: Octopus | None, client_id: str) -> list[Finding]:
    transport = transport_without_starting(settings, client_id=client_id)
    if transport is None:
        return [good("broker", "the embedded one, which does not run now and starts when it is needed")]
    return [finding async for finding in check_broker(transport, settings, app)]


def _spell_app(app: Octopus, target: str) -> str:
    handlers = ", ".join(route.name for route in app.routes) or "no handlers"
    return f"{app.name} in {target}\n{handlers}"


def _changed(settings: Settings) -> Iterator[str]:
    """Yield the settings that are not the defaults; secrets are masked by their class."""
    for setting in config.describe():
        value: Any = settings
        for name in setting.path.split("."):
            value = getattr(value, name)
        if value != setting.default and not (setting.default == "auto" and value in (None, "PLAINTEXT")):
            shown = str(value) if isinstance(value, Secret) else ", ".join(value) if isinstance(value, tuple) else value
            yield f"{setting.path} = {shown}"
