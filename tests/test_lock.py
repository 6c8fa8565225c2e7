"""The lock holds what pyproject.toml asks for, whole, and the scripts find what they set up with it."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MEND = "requirements/ does not fit pyproject.toml: run scripts/lock"

NEEDED = (
    PROJECT["build-system"]["requires"] + PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["build"]
)
WANTED = {"run": NEEDED, "dev": NEEDED + PROJECT["dependency-groups"]["dev"]}
LOCKS = {kind: (ROOT / "requirements" / f"{kind}.txt").read_text(encoding="utf-8") for kind in WANTED}


class Locked(NamedTuple):
    """An entry of a lock."""

    version: str
    marker: str
    hashes: list[str]


def locked(kind: str) -> dict[str, Locked]:
    """Read a lock; anything in it but packages and comments is an error."""
    lines = [line for line in LOCKS[kind].replace("\\\n", "").splitlines() if not line.lstrip().startswith("#")]
    found = {}
    for line in lines:
        entry = re.fullmatch(r"([\w.-]+)==(\S+)( ; .*?)?((?: +--hash=sha256:[0-9a-f]{64})+)", line)
        assert entry, f"{line!r} is no locked package"
        found[canonicalize_name(entry[1])] = Locked(entry[2], entry[3] or "", entry[4].split())
    return found


@pytest.mark.parametrize("kind", WANTED)
def test_the_lock_has_all_that_pyproject_asks_for_in_versions_that_it_admits(kind: str) -> None:
    entries = locked(kind)
    for requirement in map(Requirement, WANTED[kind]):
        entry = entries.get(canonicalize_name(requirement.name))
        assert entry is not None, f"{requirement}: {MEND}"
        assert requirement.specifier.contains(entry.version), f"{requirement} is locked at {entry.version}: {MEND}"


@pytest.mark.parametrize("kind", WANTED)
def test_the_lock_names_no_index_and_says_how_to_renew_it(kind: str) -> None:
    assert not re.search(r"https?:|--(extra-)?index|--find-links", LOCKS[kind])
    assert "scripts/lock" in "".join(LOCKS[kind].splitlines()[:2])


def test_who_works_on_it_has_the_versions_that_users_of_the_checkout_have() -> None:
    run, dev = locked("run"), locked("dev")
    assert run == {name: dev.get(name) for name in run}, MEND


# scripts


@pytest.mark.process
@pytest.mark.parametrize(
    "command",
    [["scripts/python", "3.7"], ["scripts/python", "9.9"], ["scripts/test", "--python", "9.9"]],
    ids=" ".join,
)
def test_an_interpreter_that_is_not_there_or_too_old_is_one_sentence(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(r"Python [\d.]+ was not found.*3\.11 or newer\.", line)


@pytest.mark.process
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_an_interpreter_that_is_found_is_of_the_version_that_was_asked_for(version: str) -> None:
    found = subprocess.run(
        ["scripts/python", version], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    if found.returncode:
        assert f"Python {version} was not found" in found.stderr
        return
    told = subprocess.run([found.stdout.strip(), "-V"], capture_output=True, text=True, timeout=30, check=True)
    assert told.stdout.startswith(f"Python {version}.")


@pytest.mark.process
def test_a_python_that_is_named_is_taken_before_the_one_on_the_path(tmp_path: Path) -> None:
    named = tmp_path / "python"
    named.symlink_to(
        subprocess.run(["scripts/python"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    )
    found = subprocess.run(
        ["scripts/python"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "OCTOPUS_PYTHON": str(named)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str(named)
