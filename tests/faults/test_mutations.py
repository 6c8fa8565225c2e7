"""The planted bugs still have their places in the code; that tests notice them takes minutes and is a command of its own."""

from pathlib import Path

import pytest

from tests.faults.mutations import MUTATIONS
from tests.faults.mutations.mutation import Mutation

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_planted_bug_has_its_place(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text(encoding="utf-8").count(mutation.good) == 1
    for test in mutation.tests:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}" in (ROOT / file).read_text(encoding="utf-8")


def test_every_machine_has_planted_bugs() -> None:
    machines = {
        "octopus/runner/ledger.py",
        "octopus/runner/commit_metadata.py",  # the offset map
        "octopus/runner/lanes.py",
        "octopus/runner/runner.py",  # retries and drains
        "octopus/runner/assignment.py",
        "octopus/worker/group.py",  # partitions that come and go
        "octopus/worker/commits.py",
        "octopus/worker/endings.py",
        "octopus/worker/anchors.py",
        "octopus/worker/transactions.py",
        "octopus/pipeline/outputs.py",
        "octopus/pipeline/boundary.py",
        "octopus/pipeline/dead_letters.py",
    }
    assert machines <= {mutation.file for mutation in MUTATIONS}
