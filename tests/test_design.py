"""The map of the code in docs/design.md, the tree of errors and the tree of tests are as the code is."""

import re
from pathlib import Path

import pytest

import octopus
from octopus import errors

PACKAGE = Path(octopus.__file__).parent
DESIGN = (PACKAGE.parent / "docs" / "design.md").read_text(encoding="utf-8")
FILES = DESIGN.split("## The files\n")[1].split("```")[1]
NAMED = {*re.findall(r"[a-z_]+(?:\.py|/)", FILES)}

TESTS = Path(__file__).parent
WITHOUT_A_PACKAGE = {
    "benchmarks": "benchmarks/ is measured, not installed",
    "broker/clients": "what clients expect, of either broker",
    "faults": "whole workers, whatever they are made of",
    "support": "what runs Apache Kafka for the tests",
}
"""Directories of tests that mirror no package."""

TESTED_ELSEWHERE = {
    "testing/faults": "faults/test_tools.py",
    "transports/kafka": "transports",
    "triggers/aws": "triggers",
}
"""Packages whose tests stand elsewhere: every transport keeps the same promises, and there is one trigger."""


def test_every_module_and_package_at_the_top_has_a_line_in_the_list_of_files() -> None:
    modules = {path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("__")}
    packages = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    assert modules | packages <= NAMED


@pytest.mark.parametrize("package", ["runner", "pipeline", "worker"])
def test_the_list_has_every_file_of_the_packages_that_a_record_goes_through(package: str) -> None:
    assert {path.name for path in PACKAGE.glob(f"{package}/[a-z]*.py")} <= NAMED


def test_every_file_that_is_named_exists() -> None:
    there = {path.name for path in PACKAGE.rglob("*.py")} | {f"{path.parent.name}/" for path in PACKAGE.rglob("*.py")}
    named = NAMED | {path.rpartition("/")[2] for path in re.findall(r"`([a-z_/]+\.py)`", DESIGN)}
    assert named <= there


def test_every_test_stands_where_the_package_that_it_tests_stands() -> None:
    directories = {path.parent.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py")}
    packages = {".", *_packages()}
    assert directories - packages == {*WITHOUT_A_PACKAGE}


def test_every_package_has_a_directory_or_a_file_of_tests() -> None:
    missing = {package for package in _packages() if not _has_tests(package)}
    assert missing == {*TESTED_ELSEWHERE}
    assert {place for place in TESTED_ELSEWHERE.values() if not (TESTS / place).exists()} == set()


def _packages() -> set[str]:
    return {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.glob("*/**/__init__.py")}


def _has_tests(package: str) -> bool:
    """Whether the directory of the package has tests, or the directory above has a file of its name."""
    directory = TESTS / package
    return any(directory.rglob("test_*.py")) or directory.with_name(f"test_{directory.name}.py").exists()


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    assert errors.__doc__ is not None
    drawn: dict[str, str | None] = {}
    above: dict[int, str] = {}
    for line in errors.__doc__.splitlines():
        if match := re.match(r"    ((?:│  |   )*)(?:[├└]─ )?([A-Z]\w+)(?: |$)", line):
            depth = len(match[1]) // 3 + ("─" in line)
            above[depth] = match[2]
            drawn[match[2]] = above[depth - 1] if depth else None
    classes = {each for each in vars(errors).values() if isinstance(each, type) and each.__module__ == errors.__name__}
    there = {each.__name__: None if each is errors.OctopusError else each.__bases__[0].__name__ for each in classes}
    assert drawn == there
