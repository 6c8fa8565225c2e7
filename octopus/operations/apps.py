"""Finds the app that a command names: `module:app`, `path/to/file.py:app`, or just the module or file."""

import difflib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from octopus.app import Octopus
from octopus.errors import ConfigurationError, OctopusError

USUAL = ("app.py", "main.py")
"""Where an app is looked for when none is named."""


def find_app(target: str | None = None) -> Octopus:
    """Import an app.

    Args:
        target: Module or file, then `:` and the app's name where the module has several; None looks for app.py or
            main.py in the current directory.

    Raises:
        ConfigurationError: There is no such module, file or app, or importing it fails; the sentence says what to do.
    """
    source, name = _split(target) if target else (_usual(), "")
    module = _load_file(Path(source)) if _is_file(source) else _load_module(source)
    return _named(module, name, source) if name else _only(module, source)


def source_directory(target: str | None) -> Path:
    """Return the directory to watch for changes of an app's code."""
    source = _split(target)[0] if target else _usual()
    return Path(source).resolve().parent if _is_file(source) else Path.cwd()


def _split(target: str) -> tuple[str, str]:
    source, separator, name = target.rpartition(":")
    if separator and not source:
        raise ConfigurationError(f"{target!r} names no module: write module:app or path/to/file.py:app.")
    return (source, name) if separator else (target, "")


def _usual() -> str:
    found = next((name for name in USUAL if Path(name).is_file()), None)
    if found is None:
        raise ConfigurationError(
            f"No app is named and there is no {' or '.join(USUAL)} here. Name one: octopus run module:app or "
            "octopus run path/to/file.py. To start from something that runs: octopus new NAME."
        )
    return found


def _is_file(source: str) -> bool:
    return source.endswith(".py") or "/" in source


def _load_file(path: Path) -> ModuleType:
    if (path / "__init__.py").is_file():
        path = path / "__init__.py"
    if path.is_dir():
        files = [str(each) for each in sorted(path.glob("*.py"))]
        shown = f" Name a file in it: {' or '.join(files[:3])}." if files else " There is no Python file in it."
        raise ConfigurationError(f"{str(path)!r} is a directory, and no package: it has no __init__.py.{shown}")
    if not path.is_file():
        siblings = [str(other) for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise ConfigurationError(f"There is no file {str(path)!r}.{_hint(str(path), siblings)}")
    root, names = path.resolve().parent, [path.stem]
    if path.stem == "__init__":  # the package itself
        root, names = root.parent, [root.name]
    while (root / "__init__.py").is_file():
        names.insert(0, root.name)
        root = root.parent
    name = ".".join(names)
    _prefer(root)
    found = sys.modules.get(name)
    if (
        len(names) > 1
        or path.stem == "__init__"
        or (found is not None and getattr(found, "__file__", None) == str(path.resolve()))
    ):
        return _imported(name, str(path))
    # By its path, not by its name: a file may be called like a module of the standard library.
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if name not in sys.modules:
        sys.modules[name] = module
    with _import_errors(str(path)):
        spec.loader.exec_module(module)
    return module


def _load_module(name: str) -> ModuleType:
    _prefer(Path.cwd())
    try:
        spec = importlib.util.find_spec(name)
    except (ModuleNotFoundError, ValueError):
        spec = None
    except Exception as error:  # the parent package was imported, and fails
        raise _failed(name, error) from error
    if spec is None:
        here = [path.stem for path in Path.cwd().glob("*.py")]
        raise ConfigurationError(f"There is no module {name!r} in {str(Path.cwd())!r}.{_hint(name, here)}")
    return _imported(name, name)


def _imported(name: str, source: str) -> ModuleType:
    with _import_errors(source):
        return importlib.import_module(name)


class _import_errors:  # noqa: N801 - reads as what it is: a context
    """Turns any error at the import of a user's module into one sentence with the place in the user's code."""

    def __init__(self, source: str) -> None:
        self._source = source

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            raise _failed(self._source, error) from error


def _failed(source: str, error: Exception) -> ConfigurationError:
    text = str(error) if isinstance(error, OctopusError) else f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        return ConfigurationError(f"{source} is not Python: {error.msg} ({error.filename}, line {error.lineno}).")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and not _is_ours(frame.filename)
    ]
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return ConfigurationError(f"{source} cannot be imported{where}: {text.rstrip('.')}. --traceback shows more.")


def _is_ours(filename: str) -> bool:
    return Path(filename).is_relative_to(Path(__file__).parents[1])


def _named(module: ModuleType, name: str, source: str) -> Octopus:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if isinstance(found, Octopus):
        return found
    apps = _apps(module)
    if found is None:
        raise ConfigurationError(f"{source} has no {name!r}.{_hint(name, apps) or _listed(apps)}")
    raise ConfigurationError(
        f"{name!r} in {source} is {_article(type(found).__name__)}, not an Octopus app.{_listed(apps)}"
    )


def _only(module: ModuleType, source: str) -> Octopus:
    apps = _apps(module)
    if len(set(map(id, apps.values()))) == 1:
        return next(iter(apps.values()))
    if not apps:
        raise ConfigurationError(f"{source} has no app: it needs one, such as app = Octopus('name').")
    raise ConfigurationError(
        f"{source} has several apps; say which: {' or '.join(f'{source}:{name}' for name in apps)}."
    )


def _apps(module: ModuleType) -> dict[str, Octopus]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Octopus)}


def _prefer(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f" Did you mean {close[0]}?" if close else ""


def _listed(apps: Iterable[str]) -> str:
    names = ", ".join(apps)
    return f" It has {names}." if names else " It has no app: it needs one, such as app = Octopus('name')."


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
