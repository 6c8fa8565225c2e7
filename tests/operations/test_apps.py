"""Finding the app: what is tried, and what is said when it is not there."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from octopus.errors import ConfigurationError
from octopus.operations.apps import find_app

ONE = "from octopus import Octopus\napp = Octopus('one')\n"
TWO = ONE + "other = Octopus('two')\n"
Write = Callable[..., Path]


ROOT = Path(__file__).parents[2]
OURS = tuple(map(str, (ROOT / "octopus", ROOT / "tests", ROOT / "benchmarks", sys.prefix, sys.base_prefix)))


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """Forget modules and paths that a test imports, and modules that tests before it left behind under the same names."""
    path = [*sys.path]
    forget_apps()
    yield
    sys.path[:] = path
    forget_apps()


def forget_apps() -> None:
    for name, module in [*sys.modules.items()]:
        file = getattr(module, "__file__", None)
        if file is not None and not str(file).startswith(OURS):
            del sys.modules[name]


@pytest.mark.parametrize(
    "target", [None, "app", "app:app", "app.py", "app.py:app", "./app.py:app"], ids=lambda target: str(target)
)
def test_the_only_app_is_found(write_app: Write, target: str | None) -> None:
    write_app(ONE)
    assert find_app(target).name == "one"


def test_the_same_app_under_two_names_is_one(write_app: Write) -> None:
    write_app(ONE + "application = app\n")
    assert find_app("app").name == "one"


def test_a_dotted_name_reaches_inside(write_app: Write) -> None:
    write_app("from octopus import Octopus\nclass parts:\n    inner = Octopus('inside')\n")
    assert find_app("app:parts.inner").name == "inside"


def test_a_file_in_a_package_is_imported_as_part_of_it(nowhere: Path) -> None:
    package = nowhere / "beam" / "line"
    package.mkdir(parents=True)
    for directory in (package.parent, package):
        (directory / "__init__.py").touch()
    (package / "name.py").write_text("NAME = 'relative'\n")
    (package / "handlers.py").write_text("from octopus import Octopus\nfrom .name import NAME\napp = Octopus(NAME)\n")
    assert find_app(str(package / "handlers.py")).name == "relative"
    assert find_app("beam.line.handlers").name == "relative"


def test_a_file_may_be_called_like_a_module_of_the_standard_library(write_app: Write) -> None:
    write_app(ONE, "queue.py")
    assert find_app("queue.py").name == "one"


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (None, "No app is named and there is no app.py or main.py here."),
        ("missing.py", "There is no file 'missing.py'."),
        ("tow.py", "There is no file 'tow.py'. Did you mean two.py?"),
        ("missing", "There is no module 'missing' in"),
        ("tow:app", "Did you mean two?"),
        ("two", "two has several apps; say which: two:app or two:other."),
        ("two:ap", "two has no 'ap'. Did you mean app?"),
        ("two.py:Octopus", "'Octopus' in two.py is a type, not an Octopus app. It has app, other."),
        ("empty.py", "empty.py has no app: it needs one, such as app = Octopus('name')."),
        ("empty:app", "empty has no 'app'. It has no app"),
        ("broken.py", "broken.py is not Python: "),
        ("failing.py", "failing.py:2: ZeroDivisionError: "),
        ("importing", "importing cannot be imported at "),
        ("importing", "no_such_module"),
        (":app", "':app' names no module"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_wrong_is_said_with_what_to_do(write_app: Write, target: str | None, sentence: str) -> None:
    write_app(TWO, "two.py")
    write_app("", "empty.py")
    write_app("def broken(:\n", "broken.py")
    write_app("def fail():\n    1 / 0\nfail()\n", "failing.py")
    write_app("import no_such_module\n", "importing.py")
    with pytest.raises(ConfigurationError) as caught:
        find_app(target)
    assert sentence in str(caught.value)
