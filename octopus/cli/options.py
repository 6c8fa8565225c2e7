"""Options that every verb has, and the settings they make."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Group, Parameter

from octopus import config
from octopus.config import Settings, Source
from octopus.errors import ConfigurationError
from octopus.worker.launch import is_json_asked_for, read_sources

COMMON = Group("Common options", sort_key=100)


@Parameter(name="*", group=COMMON)
@dataclass(frozen=True, kw_only=True)
class Options:
    """What every verb understands. Attributes are described where `--help` takes them from."""

    brokers: Annotated[
        str | None,
        Parameter(help="Addresses of the brokers: host:port, separated by commas. The default is the embedded broker."),
    ] = None
    config: Annotated[
        tuple[str, ...],
        Parameter(help="Any setting, as NAME=VALUE: --config worker.drain_timeout=5s. May be repeated."),
    ] = ()
    json: Annotated[bool, Parameter(help="Write JSON, for machines.")] = False
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"), help="Print only results, warnings and errors.")] = False
    verbose: Annotated[bool, Parameter(name=("--verbose", "-v"), help="Print details, too.")] = False
    traceback: Annotated[bool, Parameter(help="Show where an error comes from.")] = False

    def overrides(self) -> dict[str, Any]:
        """Return what the command line says, as a mapping of settings.

        Raises:
            ConfigurationError: A `--config` without `=`, or `--brokers` without any.
        """
        if self.brokers == "":  # from a variable that is not set: that is no way to ask for the embedded broker
            raise ConfigurationError("--brokers is empty, and names none: leave it out for the embedded broker.")
        level = "debug" if self.verbose else "warning" if self.quiet else None
        found = config.merge({"brokers": self.brokers}, {"log": {"level": level}} if level else {})
        for text in self.config:
            path, separator, value = text.partition("=")
            if not separator:
                raise ConfigurationError(f"--config {text!r} says no value: write --config {text}=VALUE.")
            nested: Any = value
            for name in reversed(path.strip().split(".")):
                nested = {name: nested}
            found = config.merge(found, nested)
        return found

    def sources(self, base: Mapping[str, Any] | None = None) -> list[Source]:
        """Return everything that is set: in code, in the file, in the environment, on the command line."""
        return [config.in_code(base or {}), *self.sources_outside()]

    def sources_outside(self) -> list[Source]:
        """Return everything that is set outside of code, the file first."""
        return [*read_sources(), Source(self.overrides(), self._option_of)]

    def logs_json(self, base: Mapping[str, Any]) -> bool:
        """Tell whether the log of a run is JSON, also where the settings are refused: that is logged, too.

        Args:
            base: Settings of the app.
        """
        given = [text.partition("=") for text in self.config]
        asked = [value for name, _, value in given if name.strip() == "log.format"]
        return self.json or is_json_asked_for(base, {"log": {"format": asked[-1]}} if asked else {})

    def _option_of(self, path: str) -> str:
        """Return the option that gave a setting; the last one that did."""
        given = [text.partition("=")[0].strip() for text in self.config]
        name = next((name for name in reversed(given) if f"{name}.".startswith(f"{path}.")), None)
        return f"--config {name}" if name is not None else "--brokers"

    def settings(self, base: Mapping[str, Any] | None = None) -> Settings:
        """Return the settings to use.

        Args:
            base: Those of the app, if there is one.

        Raises:
            ConfigurationError: A setting is unknown or its value does not fit.
        """
        return config.load_from(*self.sources(base))


DEFAULTS = Options()
