"""A page whose tables are made by a script: each stands between `<!-- table: NAME -->` and `<!-- end -->`."""

import re
from collections.abc import Mapping

_PLACE = re.compile(r"(<!-- table: ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def put(tables: Mapping[str, str], page: str) -> str:
    """Return the page with these tables in their places; others stay."""

    def replaced(place: re.Match[str]) -> str:
        if place[2] not in tables:
            return place[0]
        return f"{place[1]}\n{tables[place[2]]}\n{place[3]}"

    return _PLACE.sub(replaced, page)


def found(page: str) -> dict[str, str]:
    """Return the tables of a page by their names."""
    return {
        place[2]: place[0].removeprefix(place[1]).removesuffix(place[3]).strip("\n") + "\n"
        for place in _PLACE.finditer(page)
    }
