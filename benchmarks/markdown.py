"""Tables of Markdown, the same text each time for the same figures."""

from collections.abc import Iterable, Sequence


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; columns whose cells are figures stand to the right."""
    rows = [list(row) for row in rows]
    right = [bool(rows) and all(_is_figure(row[column]) for row in rows) for column in range(len(headings))]
    lines = [_line(headings), _line(["--:" if one else "---" for one in right]), *map(_line, rows)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _is_figure(cell: str) -> bool:
    return not cell or cell[0].isdigit() or cell[0] in "+−–"


def number(value: float) -> str:
    """Return three significant digits: `1,230,000`, `12.3`, `0.0123`."""
    if value != value or value in (float("inf"), 0.0):
        return "–" if value else "0"
    digits = 3
    text = f"{value:.{digits}g}"
    rounded = float(text)
    if abs(rounded) >= 100:
        return f"{rounded:,.0f}"
    return f"{rounded:#.{digits}g}".rstrip(".")


def error(simulated: float, measured: float) -> str:
    """Return by how many percent the first is off."""
    return f"{100 * (simulated / measured - 1):+.0f} %".replace("-", "−") if measured else "–"


def size(count: int) -> str:
    """Return bytes as people write them."""
    return f"{count} B" if count < 1024 else f"{count // 1024} KB"
