"""A planted bug, and whether its tests notice it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

TIMEOUT = 180.0
"""Seconds; by itself each of these takes a few."""


class Mutation(NamedTuple):
    """A bug.

    Attributes:
        name: What it does wrong.
        file: Below the package's root.
        good: Text that is there exactly once.
        bad: What it becomes.
        tests: Files or tests, of which one must fail at least.
        options: Of pytest, for these tests.
    """

    name: str
    file: str
    good: str
    bad: str
    tests: tuple[str, ...]
    options: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """What became of a bug.

    Attributes:
        is_caught: Whether a test noticed.
        text: Which one, or why none did.
    """

    is_caught: bool
    text: str


def try_out(mutation: Mutation, copy: Path) -> Verdict:
    """Plant a bug in a copy of the package, run its tests there, and take it out again."""
    file = copy / mutation.file
    text = file.read_text(encoding="utf-8")
    if (count := text.count(mutation.good)) != 1:
        return Verdict(False, f"its place is {count} times in {mutation.file}: bring it up to date")
    file.write_text(text.replace(mutation.good, mutation.bad), encoding="utf-8")
    try:
        return _run_tests(mutation, copy)
    finally:
        file.write_text(text, encoding="utf-8")


def _run_tests(mutation: Mutation, copy: Path) -> Verdict:
    always = ("-x", "-q", "--no-header", "-p", "no:cacheprovider", "--timeout=60", "-m", "not slow")
    command = [sys.executable, "-m", "pytest", *always, *mutation.options, *mutation.tests]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return Verdict(True, f"no end within {TIMEOUT:g} s")  # a worker that waits for ever has noticed, too
    match done.returncode:
        case 1:
            failed = re.search(r"^(?:FAILED|ERROR) (tests/.+?)(?: - |$)", done.stdout, re.MULTILINE)
            return Verdict(True, failed[1] if failed else done.stdout[-500:])
        case 0:
            return Verdict(False, f"no test of {', '.join(mutation.tests)} noticed")
        case code:
            return Verdict(False, f"pytest ended with {code}: {done.stdout[-500:]}{done.stderr[-500:]}")
