"""What the package itself promises: names, lightness, typing."""

import inspect
import subprocess
import sys
from importlib import import_module
from importlib.resources import files

import pytest

import octopus


@pytest.mark.parametrize("name", octopus.__all__)
def test_every_public_name_can_be_loaded(name: str) -> None:
    value = getattr(octopus, name)
    assert value is getattr(import_module(octopus._HOMES[name]), name)
    assert not inspect.isclass(value) or value.__name__ == name
    assert name in dir(octopus)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Squid'"):
        octopus.Squid  # noqa: B018


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
