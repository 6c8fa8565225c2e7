"""Where settings come from, as text: the environment and TOML. Each gives a mapping for `octopus.config.merge`."""

import difflib
from collections.abc import Mapping
from typing import Any

from octopus.config.loading import Source, suggestion
from octopus.config.tree import leaves, tree
from octopus.errors import ConfigurationError

PREFIX = "OCTOPUS_"


def environment_name(path: str) -> str:
    """Return the variable of a setting: `consumer.session_timeout` is `OCTOPUS_CONSUMER__SESSION_TIMEOUT`.

    Two underscores lead into a section. One would not do: Kubernetes defines `OCTOPUS_BROKER_PORT` and its like for
    every service named `octopus-broker`.
    """
    return PREFIX + path.replace(".", "__").upper()


def from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings among environment variables, nested. Empty ones count as not set.

    Other variables that begin with `OCTOPUS_` are left alone, except misspellings of ours.

    Raises:
        ConfigurationError: A variable is nearly one of ours.
    """
    known = {environment_name(path): path for path, _ in leaves(tree())}
    found: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or not text:
            continue
        path = known.get(variable)
        if path is None:
            _refuse_mistakes(variable, text, known)
            continue
        section, _, name = path.rpartition(".")
        (found.setdefault(section, {}) if section else found)[name] = text
    return found


def in_environment(environ: Mapping[str, str]) -> Source:
    """Return the settings among environment variables as a source; see `from_environment`."""

    def place(path: str) -> str:
        name = environment_name(path)
        given = sorted(each for each, text in environ.items() if text and f"{each}__".startswith(f"{name}__"))
        return f"the variable{'s' if len(given) > 1 else ''} {', '.join(given)}"

    return Source(from_environment(environ), place)


def in_file(settings: Mapping[str, Any], name: str) -> Source:
    """Return the settings of a file as a source."""
    return Source(settings, lambda path: f"{path} in {name}")


def from_toml(text: str, *, pyproject: bool = False) -> dict[str, Any]:
    """Return the settings in the text of `octopus.toml`, or with `pyproject` those in its `[tool.octopus]`.

    Raises:
        ConfigurationError: The text is not TOML; the sentence says where.
    """
    import tomllib  # most programs start without a file

    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # its own error is a ValueError; so is a number of 5000 digits
        name = "pyproject.toml" if pyproject else "octopus.toml"
        raise ConfigurationError(f"{name} is not TOML: {error}.") from error
    if not pyproject:
        return document
    settings = document.get("tool", {}).get("octopus", {})
    if not isinstance(settings, dict):
        raise ConfigurationError("tool.octopus in pyproject.toml is not a table of settings.")
    return settings


def _refuse_mistakes(variable: str, text: str, known: Mapping[str, str]) -> None:
    if "__" in variable.removeprefix(PREFIX):
        raise ConfigurationError(f"There is no setting for the variable {variable}.{suggestion(variable, known)}")
    if text.startswith(("tcp://", "udp://")):
        return  # made by Kubernetes for a service of that name
    single = {name.replace("__", "_"): name for name in known}
    # Nearer than for other suggestions: this one stops the program.
    close = [single[variable]] if variable in single else difflib.get_close_matches(variable, known, 1, cutoff=0.9)
    if close:
        raise ConfigurationError(f"There is no setting for the variable {variable}. Did you mean {close[0]}?")
