"""Try planted bugs."""

import shutil
import sys
import tempfile
from pathlib import Path

from tests.faults.mutations import MUTATIONS
from tests.faults.mutations.mutation import try_out

ROOT = Path(__file__).resolve().parents[3]


def main(words: list[str]) -> int:
    """Try all bugs, or those whose names contain a word; return 1 when one was not caught."""
    chosen = [mutation for mutation in MUTATIONS if not words or any(word in mutation.name for word in words)]
    missed = 0
    with tempfile.TemporaryDirectory(prefix="octopus-mutations-") as directory:
        copy = Path(directory)
        for part in ("octopus", "tests", "scripts"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        for mutation in chosen:
            verdict = try_out(mutation, copy)
            missed += not verdict.is_caught
            print(f"{'caught' if verdict.is_caught else 'MISSED'}  {mutation.name}: {verdict.text}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
