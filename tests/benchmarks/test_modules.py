"""The benchmarks' own modules fit the project's: nothing else looks at them until somebody measures."""

import importlib
import pkgutil

import pytest

import benchmarks

OWN = [
    module.name
    for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")
    if not module.name.startswith("benchmarks.peers.") and not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", OWN)
def test_a_module_can_be_imported(name: str) -> None:
    importlib.import_module(name)
