"""What people and programs see: results on standard output, everything else on standard error.

On a terminal, tables and colours; otherwise plain text without either, never cut to a width. Text from events is made
harmless first: a payload must not move the cursor, change colours or ring the bell.
"""

import sys
import traceback
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from rich.console import Console
from rich.text import Text

from octopus.text import block, printable_json, visible, visible_lines

COLUMN_GAP = 3
"""Characters between two columns on a terminal."""

LEAST_WIDTH = 20
"""Characters that a cut column keeps, however narrow the terminal is."""


@cache
def output() -> Console:
    """Return the console of results."""
    return Console(highlight=False, soft_wrap=True)


@cache
def notices() -> Console:
    """Return the console of notices, progress and errors."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def is_terminal() -> bool:
    """Tell whether a person looks at the results."""
    return output().is_terminal


def say(text: str, style: str = "") -> None:
    """Print one line of a result."""
    output().print(Text(visible_lines(text), style=style))


def note(text: str, style: str = "dim") -> None:
    """Print one line beside the result, on standard error."""
    notices().print(Text(block(text), style=style))


def warn(text: str) -> None:
    """Print a warning."""
    notices().print(Text.assemble(("! ", "bold yellow"), block(text)))


def print_error(text: str) -> None:
    """Print an error: one sentence, red."""
    notices().print(Text.assemble(("error: ", "bold red"), (block(text), "red")))


def print_traceback(error: Exception) -> None:
    """Print where an error comes from, beside the result."""
    note("".join(traceback.format_exception(error)).rstrip())


def document(value: Any) -> None:
    """Print one JSON document, on one line unless a person looks."""
    import msgspec

    encoded = msgspec.json.encode(value, enc_hook=str)
    text = msgspec.json.format(encoded, indent=2) if is_terminal() else encoded
    sys.stdout.write(printable_json(text.decode()) + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, styles: Sequence[str] = ()) -> None:
    """Print a table; columns of numbers are aligned to the right.

    Args:
        columns: Their heads; one that begins with `>` holds numbers, one that ends with `…` may be long: on a terminal it is
            cut to what the others leave.
        rows: Cells, made harmless here. None is shown as `-`.
        styles: Rich styles of the columns.
    """
    cells = [[cell if isinstance(cell, Text) else Text(_cell(cell)) for cell in row] for row in rows]
    if is_terminal():
        _print_rich(columns, cells, styles)
        return
    heads = [column.lstrip(">").rstrip("…").upper() for column in columns]
    lines = [heads, *([cell.plain for cell in row] for row in cells)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        aligned = [
            text.rjust(width) if column.startswith(">") else text.ljust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        ]
        sys.stdout.write("  ".join(aligned).rstrip() + "\n")


def _print_rich(columns: Sequence[str], cells: Sequence[Sequence[Text]], styles: Sequence[str]) -> None:
    from rich import box
    from rich.table import Table

    _cut(columns, cells)
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for index, column in enumerate(columns):
        shown.add_column(
            column.lstrip(">").rstrip("…"),
            justify="right" if column.startswith(">") else "left",
            style=styles[index] if index < len(styles) else "",
            overflow="fold",
        )
    for row in cells:
        shown.add_row(*row)
    output().print(shown, soft_wrap=False)


def _cut(columns: Sequence[str], cells: Sequence[Sequence[Text]]) -> None:
    """Cut what may be long to what the other columns leave of the terminal."""
    widths = [
        max([len(column), *(row[index].cell_len for row in cells)])
        for index, column in enumerate(columns)
        if not column.endswith("…")
    ]
    room = max(LEAST_WIDTH, output().width - sum(widths) - COLUMN_GAP * (len(columns) - 1))
    for index, column in enumerate(columns):
        for row in cells if column.endswith("…") else ():
            row[index].truncate(room, overflow="ellipsis")


def _cell(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}" if is_terminal() else str(value)
        case float():
            return f"{value:,.1f}"
        case bytes() | str() | None:
            return visible(value)
        case _:
            return visible(str(value))
