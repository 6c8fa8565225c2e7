"""Text from outside, made harmless for terminals and logs: events, names and exceptions may say anything.

Control characters (C0 and C1, escape sequences among them), characters that turn or hide their neighbours, and
bytes that are not UTF-8 become escapes. So nothing moves a cursor, rings a bell, or begins a line that it did not write.
"""

import unicodedata
from collections.abc import Iterable

INDENT = "    "
"""Before every line of a block but the first one."""


def visible(data: bytes | str | None) -> str:
    """Return text that is safe to print and stays on one line; None as `-`."""
    if data is None:
        return "-"
    text = data.decode("utf-8", "backslashreplace") if isinstance(data, bytes) else data
    return text if text.isprintable() else "".join(map(_harmless, text))


def visible_lines(text: str) -> str:
    """Return text of several lines, each safe to print."""
    return "\n".join(visible(line.expandtabs(4)) for line in text.split("\n"))


def block(text: str) -> str:
    """Return text of several lines, each safe to print, that look like one entry: all but the first are indented."""
    return visible_lines(text).replace("\n", f"\n{INDENT}")


def first_few(names: Iterable[object], most: int = 8) -> str:
    """Return names in a row, of many the first ones and how many more there are."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def printable_json(text: str) -> str:
    """Return JSON of the same meaning that is safe to print; its line breaks stay."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _harmless(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape", "backslashreplace").decode()


def _escaped(character: str) -> str:
    # Outside of strings JSON has no other characters than printable ones and white space.
    if character.isprintable() or character == "\n" or unicodedata.category(character) == "Zs":
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{int.from_bytes(units[at : at + 2], 'big'):04x}" for at in range(0, len(units), 2))
