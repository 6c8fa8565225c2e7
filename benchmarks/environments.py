"""Virtual environments for the peers, made once per list of pinned versions and kept outside the tree."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

LISTS = Path(__file__).parent / "peers"


class EnvironmentFailed(Exception):
    """A peer could not be installed; the message says why."""


def python_of(name: str) -> str:
    """Return the interpreter of a peer's environment, making it first if need be; our own for an empty name.

    Raises:
        EnvironmentFailed: The versions in `peers/<name>.txt` cannot be installed here.
    """
    if not name:
        return sys.executable
    requirements = LISTS / f"{name}.txt"
    place = _place(requirements)
    python = place / "bin" / "python"
    done = place / "complete"
    if not done.exists():
        print(f"Installing {name} into {place}, once…", file=sys.stderr)
        _make(place, python, requirements)
        done.touch()
    return str(python)


def versions_of(name: str) -> dict[str, str]:
    """Return the pinned versions of a peer."""
    if not name:
        return {}
    lines = (LISTS / f"{name}.txt").read_text().splitlines()
    return dict(line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))


def _place(requirements: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    digest = hashlib.sha256(requirements.read_bytes() + platform.python_version().encode()).hexdigest()[:12]
    return cache / "octopus" / f"bench-{requirements.stem}-{digest}"


def _make(place: Path, python: Path, requirements: Path) -> None:
    try:
        _run(sys.executable, "-m", "venv", "--clear", str(place))
        uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
        if uv:
            _run(uv, "pip", "install", "--quiet", "--python", str(python), "--requirement", str(requirements))
        else:
            _run(str(python), "-m", "pip", "install", "--quiet", "--requirement", str(requirements))
    except subprocess.CalledProcessError as error:
        raise EnvironmentFailed(f"{requirements.stem}: {_last_line(error.stderr)}") from error


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "the installer said nothing"
