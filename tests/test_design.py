"""The map of the code in docs/design.md is true."""

import re
from pathlib import Path

import octopus

PACKAGE = Path(octopus.__file__).parent
DESIGN = (PACKAGE.parent / "docs" / "design.md").read_text(encoding="utf-8")
FILES = DESIGN.split("## The files\n")[1].split("```")[1]
NAMED = {*re.findall(r"[a-z_]+(?:\.py|/)", FILES)}


def test_every_module_and_package_at_the_top_has_a_line_in_the_list_of_files() -> None:
    modules = {path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("__")}
    packages = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    assert modules | packages <= NAMED


def test_the_list_has_every_file_of_the_worker() -> None:
    assert {path.name for path in PACKAGE.glob("worker/[a-z]*.py")} <= NAMED


def test_every_file_that_is_named_exists() -> None:
    there = {path.name for path in PACKAGE.rglob("*.py")} | {f"{path.parent.name}/" for path in PACKAGE.rglob("*.py")}
    named = NAMED | {path.rpartition("/")[2] for path in re.findall(r"`([a-z_/]+\.py)`", DESIGN)}
    assert named <= there
