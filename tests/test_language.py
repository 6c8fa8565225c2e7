"""Prose names its actors: docs, docstrings and comments say which caller, client, member or process they mean."""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PRONOUN = re.compile(
    r"\b(?:whoever|whomever|whatever|somebody|someone|anybody|anyone|nobody|everybody|everyone)\b", re.IGNORECASE
)
NOT_PROSE = re.compile(r"^```.*?^```$|<!-- table.*?<!-- end -->|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def prose_of(path: Path) -> Iterator[str]:
    """Yield the docstrings and comments of a module, or the text of a page without code, tables of figures and names."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield NOT_PROSE.sub("", source)
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def pronouns(paths: Iterable[Path]) -> list[str]:
    """Return each pronoun of these files, with its file and the words around it."""
    return [
        f"{path.relative_to(ROOT)}: {text[max(match.start() - 50, 0) : match.end() + 20]!r}"
        for path in paths
        for text in prose_of(path)
        for match in PRONOUN.finditer(text)
    ]


MODULES = sorted((ROOT / "octopus").rglob("*.py"))
PARTS = sorted({module.relative_to(ROOT / "octopus").parts[0] for module in MODULES})
PAGES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "reference.md")]


def test_guides_name_who_acts() -> None:
    assert pronouns(PAGES) == []


@pytest.mark.parametrize("part", PARTS)
def test_docstrings_and_comments_name_who_acts(part: str) -> None:
    home = ROOT / "octopus" / part
    assert pronouns(module for module in MODULES if module.is_relative_to(home)) == []


def test_a_planted_pronoun_is_found_in_a_docstring_a_comment_and_a_page(tmp_path: Path) -> None:
    module, page = tmp_path / "planted.py", tmp_path / "planted.md"
    module.write_text('"""Whoever."""\nnobody = "someone"  # somebody\n')
    page.write_text("Everyone, `anyone`.\n\n```python\nwhatever = 1\n```\n")
    found = [match[0] for path in (module, page) for text in prose_of(path) for match in PRONOUN.finditer(text)]
    assert found == ["Whoever", "somebody", "Everyone"]
