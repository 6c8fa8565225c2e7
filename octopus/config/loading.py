"""From mappings to `Settings`. Pure: the starter of the program reads files and the environment."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from octopus.config.addresses import check_addresses
from octopus.config.secret import Secret
from octopus.config.settings import Settings
from octopus.config.tree import Leaf, Tree, sections, tree
from octopus.config.units import duration, size
from octopus.errors import ConfigurationError


class SettingRefused(ConfigurationError):
    """A setting has a value that it cannot have.

    Attributes:
        path: Which: `worker.drain_timeout`.
    """

    def __init__(self, sentence: str, path: str) -> None:
        super().__init__(sentence)
        self.path = path


class Source(NamedTuple):
    """Settings, and where they stand.

    Attributes:
        settings: A nested mapping.
        place: Says where one of them stands, given its path: `worker.drain_timeout in octopus.toml`.
    """

    settings: Mapping[str, Any]
    place: Callable[[str], str]


def in_code(settings: Mapping[str, Any]) -> Source:
    """Return the settings that an app is made with as a source."""
    return Source(settings, lambda path: f"{path} in the app's code")


def load_from(*sources: Source) -> Settings:
    """Return the settings that several sources make together; later ones win.

    Raises:
        ConfigurationError: As `load` does, with the place where the setting stands.
    """
    try:
        return load(merge(*(source.settings for source in sources)))
    except SettingRefused as error:
        places = [s.place(error.path) for s in reversed(sources) if _has(s.settings, error.path.split("."))]
        if not places:
            raise
        # Settings of a section that contradict each other may come from several; of one setting the last source counts.
        shown = " and ".join(places if error.path in sections() else places[:1])
        raise SettingRefused(f"{error} It comes from {shown}.", error.path) from error


def _has(settings: Any, names: list[str]) -> bool:
    for name in names:
        if not isinstance(settings, Mapping) or settings.get(name) is None:
            return False
        settings = settings[name]
    return True


def load(mapping: Mapping[str, Any]) -> Settings:
    """Check a nested mapping and return the settings it makes, with defaults for the rest.

    Raises:
        ConfigurationError: An unknown name (with a suggestion), or a value that does not fit: the sentence says which
            setting, its value unless it is secret, and the expected form.
    """
    values = _load(mapping, tree(), "")
    _check_brokers(mapping.get("brokers"), values.get("brokers", ()))
    for name, kind in sections().items():
        try:
            values[name] = kind(**values.get(name, {}))
        except ConfigurationError as error:
            raise SettingRefused(str(error), name) from error
    return Settings(**values)


def merge(*mappings: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings into a new one; later ones win. None means "not given"."""
    merged: dict[str, Any] = {}
    for mapping in mappings:
        for name, value in mapping.items():
            if isinstance(value, Mapping):
                below = merged.get(name)
                merged[name] = merge(below if isinstance(below, Mapping) else {}, value)
            elif value is not None:
                merged[name] = value
    return merged


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean …?`, or nothing when nothing is near."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f" Did you mean {close[0]}?" if close else ""


def _load(mapping: Mapping[str, Any], known: Tree, path: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in mapping.items():
        node = known.get(name)
        where = f"{path}{name}"
        if node is None:
            raise SettingRefused(f"There is no setting {where}.{suggestion(str(name), known)}", where)
        if isinstance(node, Leaf):
            values[name] = _convert(node, value, where)
        elif isinstance(value, Mapping):
            values[name] = _load(value, node, f"{where}.")
        else:
            # Not shown: it may be a secret that lost its name.
            raise SettingRefused(
                f"{where} is a table of settings ({', '.join(node)}), not {type(value).__name__}.", where
            )
    return values


def _convert(leaf: Leaf, value: Any, where: str) -> Any:
    if leaf.is_optional and (value is None or (value == "none" and leaf.kind is not Secret)):
        return None  # TOML and the environment have no other word for it
    try:
        converted = _read(leaf, value)
        if leaf.kind is Secret:
            return converted
        return msgspec.convert(converted, leaf.annotation, strict=False)
    except (ValueError, TypeError, OverflowError):
        if leaf.kind is Secret:
            # `from None`: neither the value nor an exception that quotes it goes further.
            sentence = f"{where} is a {type(value).__name__}; expected {leaf.expected()}."
            raise SettingRefused(sentence, where) from None
        shown = repr(value)
        shown = shown if len(shown) <= 100 else f"{shown[:99]}…"
        raise SettingRefused(f"{where} is {shown}; expected {leaf.expected()}.", where) from None


def _read(leaf: Leaf, value: Any) -> Any:
    if leaf.unit == "seconds":
        return duration(value)
    if leaf.unit == "bytes":
        return size(value)
    if leaf.kind is Secret:
        if not isinstance(value, str | Secret):
            raise TypeError
        return value if isinstance(value, Secret) else Secret(value)
    if leaf.choices and isinstance(value, str):
        return next((choice for choice in leaf.choices if choice.lower() == value.lower()), value)
    if leaf.kind is tuple:
        texts = value.split(",") if isinstance(value, str) else value
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            raise TypeError
        return tuple(text.strip() for text in texts if text.strip())
    return value


def _check_brokers(given: Any, brokers: Iterable[str]) -> None:
    if isinstance(given, str) and given and not brokers:
        raise SettingRefused(
            f"brokers is {given!r}, which names none: leave it out for the embedded broker.", "brokers"
        )
    try:
        _refuse_secrets(brokers)
        check_addresses(brokers)
    except ConfigurationError as error:
        raise SettingRefused(str(error), "brokers") from error


def _refuse_secrets(brokers: Iterable[str]) -> None:
    # Addresses are printed and logged everywhere, so no address may hold a secret.
    for address in brokers:
        _, _, query = address.partition("?")
        if "@" in address or any(word in query.lower() for word in ("password", "token", "secret")):
            raise ConfigurationError(
                "An address in brokers holds a credential; put it into security (security.password)."
            )
