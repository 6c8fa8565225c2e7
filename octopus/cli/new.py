"""`octopus new`: a small project that runs, with tests that pass."""

import re
from importlib.resources import files
from pathlib import Path

from cyclopts import App

from octopus.cli.options import DEFAULTS, Options
from octopus.cli.screen import document, note, say
from octopus.errors import ConfigurationError

verb = App(name="new", help_epilogue="")

FILES = {
    "app.py": "app.py.txt",
    "tests/test_app.py": "test_app.py.txt",
    "octopus.toml": "octopus.toml.txt",
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    ".gitignore": "gitignore.txt",
}
"""What is written, and the template it is made from."""


@verb.default
def new(directory: Path, /, *, options: Options = DEFAULTS) -> None:
    """Write a project to start from: an app, its tests, its settings.

    Args:
        directory: Where to write it; the last part names the project.
    """
    name = directory.absolute().name
    if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9._-]*", name):
        raise ConfigurationError(f"{name!r} cannot name a project: a letter, then letters, digits, '.', '_' or '-'.")
    if directory.exists() and not directory.is_dir():
        raise ConfigurationError(f"{str(directory)!r} is a file.")
    if taken := [path for path in FILES if (directory / path).exists()]:
        raise ConfigurationError(f"{str(directory)!r} has {', '.join(taken)} already; nothing is overwritten.")
    templates = files("octopus.cli") / "project"
    for path, template in FILES.items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text((templates / template).read_text(encoding="utf-8").replace("{name}", name), encoding="utf-8")
    if options.json:
        document({"directory": str(directory), "files": list(FILES)})
        return
    say(f"Wrote {directory} with {', '.join(path for path in FILES if path[0] != '.')}.", "green")
    note(f"Go on with:\n    cd {directory}\n    octopus run --reload\nand in another terminal:", "")
    note('    octopus publish readings \'{"sensor": "t1", "kelvin": 312.5}\'', "")
