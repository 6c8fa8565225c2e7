"""Makes docs/reference.md: public names, the command line and every setting, as the code has them."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import octopus
import octopus.outcomes
import octopus.types
from octopus.cli.program import VERBS
from octopus.config import describe, environment_name
from octopus.errors import OctopusError

ALIASES = {"Middleware": octopus.types, "Outcome": octopus.outcomes}
"""Public names that are short for a type, and where: they have no docstrings."""

PAGE = Path(__file__).parent.parent / "docs" / "reference.md"


def reference() -> str:
    """Return the page."""
    return "\n".join(
        (
            "# Reference",
            "",
            "Made by `scripts/docs` from the code; what to use when is in the [tutorial](tutorial.md) and the guides.",
            "",
            *python_names(),
            *errors(),
            *command_line(),
            *settings(),
        )
    )


def python_names() -> list[str]:
    """Public names with their parameters, as their docstrings describe them."""
    lines = ["## Python", ""]
    for name in octopus.__all__:
        lines += described(f"octopus.{name}", getattr(octopus, name))
    for name in ("on", "every", "include"):
        lines += described(f"Router.{name}", getattr(octopus.Router, name))
    for name in ("middleware", "publish", "publish_soon", "publish_many", "synchronous_publisher"):
        lines += described(f"Octopus.{name}", getattr(octopus.Octopus, name))
    for name in ("connected", "running", "run"):
        lines += described(f"Octopus.{name}", getattr(octopus.Octopus, name))
    for name in ("send", "flush", "publish", "publish_many"):
        lines += described(f"SynchronousPublisher.{name}", getattr(octopus.SynchronousPublisher, name))
    return lines


def described(name: str, thing: object) -> list[str]:
    """One heading and the docstring, its code indented as text; of an alias the line that makes it."""
    short = name.rpartition(".")[2]
    if (module := ALIASES.get(short)) is None:
        text = inspect.getdoc(thing) or ""
    else:
        line = re.search(rf"^{short} = .+$", inspect.getsource(module), re.MULTILINE)
        assert line is not None
        text = line[0]
    return [f"### `{name}`", "", "```text", text, "```", ""]


def errors() -> list[str]:
    """The tree of errors, as octopus/errors.py draws it."""
    module = inspect.getmodule(OctopusError)
    tree = re.search(r"    OctopusError\n(?:    .*\n)+", inspect.getdoc(module) or "")
    assert tree is not None
    return ["## Errors", "", "All in `octopus.errors`.", "", "```text", inspect.cleandoc(tree[0]), "```", ""]


def command_line() -> list[str]:
    """What each verb's --help says."""
    lines = ["## Command line", ""]
    for name, _, summary in VERBS:
        lines += [f"### `octopus {name}`", "", summary, "", "```text", help_of(name), "```", ""]
    return lines


def help_of(verb: str) -> str:
    """The verb's own help, and that of its sub-verbs."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/", "COLUMNS": "110", "NO_COLOR": "1", "TERM": "dumb"}
    result = subprocess.run(
        [sys.executable, "-m", "octopus", verb, "--help"], capture_output=True, text=True, check=True, env=environment
    )
    return "\n".join(line.rstrip() for line in result.stdout.strip().splitlines())


def settings() -> list[str]:
    """Every setting in a table."""
    lines = [
        "## Settings",
        "",
        "In `octopus.toml` by section, as `--config NAME=VALUE`, or as a variable: `OCTOPUS_` and the name in capitals, two",
        f"underscores for a dot (`{environment_name('worker.drain_timeout')}`). Durations take `30`, `30s`, `5m`; sizes `64 MiB`.",
        "",
        "| name | default | type | |",
        "|---|---|---|---|",
    ]
    for setting in describe():
        default = "" if setting.default in (None, ()) else f"`{setting.default}`"
        lines.append(f"| `{setting.path}` | {default} | {setting.type} | {setting.doc} |")
    return [*lines, ""]


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}")
