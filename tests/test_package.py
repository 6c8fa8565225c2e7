"""What the package itself promises: names, lightness, typing."""

import email
import inspect
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import pytest

import octopus
import octopus.testing

ROOT = Path(__file__).parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


@pytest.mark.parametrize("name", octopus.__all__)
def test_every_public_name_can_be_loaded(name: str) -> None:
    value = getattr(octopus, name)
    assert value is getattr(import_module(octopus._HOMES[name]), name)
    assert not inspect.isclass(value) or value.__name__ == name
    assert name in dir(octopus)


@pytest.mark.parametrize("name", octopus.testing.__all__)
def test_every_name_for_tests_of_apps_can_be_loaded(name: str) -> None:
    assert getattr(octopus.testing, name) is getattr(import_module(octopus.testing._HOMES[name]), name)
    assert name in dir(octopus.testing)


@pytest.mark.parametrize("package", [octopus, octopus.testing], ids=lambda package: package.__name__)
def test_an_unknown_name_is_an_attribute_error(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'Squid'"):
        package.Squid  # noqa: B018


def test_the_package_is_typed() -> None:
    assert files("octopus").joinpath("py.typed").is_file()


def test_importing_the_app_reaches_no_client_and_no_terminal_library() -> None:
    heavy = "aiokafka cyclopts rich watchfiles pydantic boto3 botocore globus_sdk uvloop attrs attr"
    code = f"import sys; from octopus import Octopus; print([m for m in {heavy.split()} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_importing_the_package_loads_nothing_of_asyncio() -> None:
    code = "import sys, octopus; print('asyncio' in sys.modules, 'msgspec' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "False False"


def test_a_broker_that_a_test_starts_loads_nothing_of_workers() -> None:
    code = "import sys, octopus.testing.faults; print([m for m in ('octopus.app', 'octopus.runner', 'octopus.worker') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_a_wheel_has_the_licence_and_a_page_whose_links_work(tmp_path: Path) -> None:
    wheel = subprocess.run(
        [sys.executable, "-c", f"from hatchling.build import build_wheel; print(build_wheel({str(tmp_path)!r}))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()[-1]
    with zipfile.ZipFile(tmp_path / wheel) as archive:
        names = archive.namelist()
        metadata = email.message_from_bytes(archive.read(next(name for name in names if name.endswith("/METADATA"))))
    assert [name.rpartition("/")[2] for name in names if "licenses/" in name] == ["LICENSE"]
    assert {url.partition(",")[0] for url in metadata.get_all("Project-URL", [])} >= {"Homepage", "Paper"}
    page = str(metadata.get_payload())
    assert page.startswith("# Octopus")
    assert [target for target in re.findall(r"\]\(([^)]*)\)", page) if not target.startswith("https://")] == []


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_something_uses_what_an_extra_brings(extra: str) -> None:
    imported = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "octopus").rglob("*.py"))
    for requirement in EXTRAS[extra]:
        module = re.split(r"[^a-z0-9-]", requirement)[0].replace("-", "_")
        assert re.search(rf"^\s*(import|from) {module}\b", imported, re.MULTILINE), requirement
