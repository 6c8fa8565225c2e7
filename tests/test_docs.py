"""Every code block of README and docs runs.

Python blocks of a page run one after the other in one namespace, in one event loop (so `await` may stand alone). A block
that begins with `# name.py` (or `# name.toml`) is also written to that file. Shell blocks run in the page's directory, each line must succeed; a worker
that would run for ever is stopped with SIGTERM once it reads its topics, and must end well. Blocks marked `text` are not code.
"""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w/]+\.(?:py|toml))\n")
FOR_EVER = re.compile(r"octopus run (?!.*--drain)")

SESSION = """
import ast, asyncio, inspect, sys
sys.path.insert(0, ".")
namespace = {"__name__": "page"}
with asyncio.Runner() as runner:
    for number, source in enumerate(open(sys.argv[1], encoding="utf-8").read().split("\\0")):
        code = compile(source, f"block {number + 1}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, namespace)
        if inspect.iscoroutine(result):
            runner.run(result)
"""


def blocks(page: Path) -> list[tuple[str, str]]:
    return [(kind, text) for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind != "text"]


def type_checked(directory: Path, what: str) -> "subprocess.CompletedProcess[str]":
    """Check files of a directory as strictly as the project itself, with its cache."""
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", ROOT / ".mypy_cache", what],
        cwd=directory,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


@pytest.mark.process
@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_code_block_of_the_page_runs(page: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "scripts").mkdir()
    shim = tmp_path / "scripts" / "octopus"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m octopus "$@"\n')
    shim.chmod(0o755)
    (tmp_path / "bin").mkdir()
    shutil.copy(shim, tmp_path / "bin" / "octopus")
    python = tmp_path / "bin" / "python"  # no link: a virtual environment is found by the path of its interpreter
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OCTOPUS_")},
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),  # where its broker is, also for a program that reads no settings
    }
    pending: list[str] = []
    try:
        for kind, text in blocks(page):
            if kind == "bash":
                run_python(pending, tmp_path, environment)
                run_shell(text, tmp_path, environment)
            elif kind == "python":
                pending.append(text)
                if named := FILE.match(text):
                    (tmp_path / named[1]).write_text(text)
            elif kind == "toml":
                assert FILE.match(text), f"a {kind} block of {page.name} does not say which file it is"
            else:
                pytest.fail(f"{page.name} has a block of kind {kind!r}, which nothing runs; mark it `text`")
        run_python(pending, tmp_path, environment)
    finally:
        subprocess.run(
            [shim, "broker", "stop"], cwd=tmp_path, env=environment, capture_output=True, timeout=30, check=False
        )


def run_python(sources: list[str], directory: Path, environment: dict[str, str]) -> None:
    """Run all Python blocks of the page so far; the earlier ones again, which is what makes a page one session."""
    if not sources:
        return
    script = directory / "page.txt"
    script.write_text("\0".join(sources))
    result = subprocess.run(
        [sys.executable, "-c", SESSION, script],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def run_shell(text: str, directory: Path, environment: dict[str, str]) -> None:
    """Run a block; bash gives way to a command that stands alone, so a signal reaches the command itself."""
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        output = []
        try:
            for line in process.stdout:
                output.append(line)
                if " reads " in line and FOR_EVER.search(text):
                    os.killpg(process.pid, signal.SIGTERM)
        except BaseException:  # the test's time is over
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, f"{text}\n{''.join(output)}"


@pytest.mark.process
def test_the_reference_says_what_the_code_says() -> None:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert written == module.reference(), "docs/reference.md is out of date: run scripts/docs"


TYPED = (
    "codecs",
    "filters",
    "lifespan",
    "logging",
    "middleware",
    "ordering-and-retries",
    "routers",
    "testing",
    "timers",
    "tutorial",
)


@pytest.mark.process
@pytest.mark.parametrize("page", TYPED)
def test_a_strict_type_checker_finds_nothing_in_the_apps_of_a_guide(page: str, tmp_path: Path) -> None:
    apps = [text for kind, text in blocks(ROOT / "docs" / f"{page}.md") if kind == "python" and "Octopus(" in text]
    modules = [text for kind, text in blocks(ROOT / "docs" / f"{page}.md") if kind == "python" and "Router()" in text]
    assert apps
    for number, text in enumerate(apps):
        (tmp_path / f"app_{number}.py").write_text(text)
    for text in modules:
        named = FILE.match(text)
        assert named is not None
        (tmp_path / named[1]).write_text(text)
    result = type_checked(tmp_path, ".")
    assert result.returncode == 0, result.stdout


@pytest.mark.process
def test_a_type_checker_knows_the_state_of_an_app(tmp_path: Path) -> None:
    source = next(text for _, text in blocks(ROOT / "docs" / "lifespan.md") if "Octopus(" in text)
    (tmp_path / "app.py").write_text(f"{source}\n\nreveal_type(app.state)\napp.state.missing\n")
    result = type_checked(tmp_path, "app.py")
    assert 'Revealed type is "app.State"' in result.stdout
    assert '"State" has no attribute "missing"' in result.stdout
