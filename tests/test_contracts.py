"""The import contracts of pyproject.toml: each of them refuses what it is there to refuse, and nothing escapes them."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]

pytestmark = pytest.mark.process

VIOLATIONS = {
    "Arrows point down; siblings separated by | are strangers": ("routing.py", "import octopus.worker"),
    "Inside the pipeline, too": ("pipeline/handling.py", "import octopus.pipeline.road"),
    "The core reads neither clock nor socket": ("runner/ledger.py", "import time"),
    "The embedded broker is standard library only": ("broker/codes.py", "import msgspec"),
    "aiokafka has one home": ("transports/memory/broker.py", "import aiokafka.errors"),
    "librdkafka has one home": ("transports/kafka/admin.py", "import confluent_kafka"),
    "boto3 has one home": ("triggers/aws/handler.py", "import boto3"),
    "The terminal has one home": ("worker/status.py", "import rich.text"),
    "Notices of changed files have one home": ("cli/watch.py", "import watchfiles"),
    "Compression has one home": ("serde/codecs.py", "import cramjam"),
    "The checksum has one home": ("worker/group.py", "import google_crc32c"),
    "The event loop has one home": ("app.py", "import uvloop"),
    "Pydantic has one home": ("signatures.py", "import pydantic"),
}
"""For each contract, a file and the import in it that breaks it."""


def broken(directory: Path) -> set[str]:
    """Return the contracts that the package in a directory breaks."""
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=directory,
        env={"PYTHONPATH": str(directory), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    verdicts = dict(re.findall(r"^(.+) (KEPT|BROKEN)$", ended.stdout, re.MULTILINE))
    assert verdicts.keys() == {each["name"] for each in CONTRACTS}, ended.stdout + ended.stderr
    return {name for name, verdict in verdicts.items() if verdict == "BROKEN"}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a directory with a copy of the package and its contracts."""
    shutil.copytree(ROOT / "octopus", tmp_path / "octopus", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def plant(package: Path, file: str, line: str) -> None:
    """Write an import into a file of the package."""
    path = package / "octopus" / file
    path.write_text((path.read_text(encoding="utf-8") if path.exists() else "") + f"\n{line}\n", encoding="utf-8")


def test_the_package_keeps_every_contract(package: Path) -> None:
    assert broken(package) == set()


def test_every_contract_fails_on_its_violation(package: Path) -> None:
    for file, line in VIOLATIONS.values():
        plant(package, file, line)
    assert broken(package) == {each["name"] for each in CONTRACTS} == VIOLATIONS.keys()


def test_a_new_module_escapes_neither_layers_nor_homes(package: Path) -> None:
    plant(package, "newcomer.py", "import aiokafka")
    assert broken(package) == {"Arrows point down; siblings separated by | are strangers", "aiokafka has one home"}


def test_an_operation_knows_no_terminal_and_no_command_line(package: Path) -> None:
    plant(package, "operations/groups.py", "import cyclopts")
    plant(package, "operations/topics.py", "import octopus.cli.screen")
    assert broken(package) == {
        "Arrows point down; siblings separated by | are strangers",
        "The terminal has one home",
    }


def test_no_import_is_ignored() -> None:
    assert [each["name"] for each in CONTRACTS if each.get("ignore_imports")] == []


def imports_between(package: Path) -> dict[str, set[str]]:
    """Return, for each module, those of the package that it imports anywhere: in functions too, and for types only."""
    modules = {}
    for path in (package / "octopus").rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        imported = found[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                named = [(f"{node.module}.{alias.name}", node.module) for alias in node.names]
                imported |= {module if module in modules else parent for module, parent in named}
        found[name] = (imported & modules.keys()) - {name}
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    [*TopologicalSorter(imports_between(ROOT)).static_order()]


def test_a_planted_circle_is_found_in_a_function_too(package: Path) -> None:
    plant(package, "claim.py", "def late() -> None:\n    from octopus.types import RunClaim")
    with pytest.raises(CycleError, match=r"octopus\.claim"):
        [*TopologicalSorter(imports_between(package)).static_order()]
