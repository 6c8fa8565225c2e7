"""The command line in a process of its own that says at its end what it needed: `python -m tests.worker.devouring ARGUMENTS`."""

import re
import sys
from pathlib import Path

from octopus.cli.program import run_program


def most_memory() -> int:
    """Return the largest resident size of this process, in bytes; not that of whoever started it."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    code = run_program(sys.argv[1:])
    print(f"\nmost memory: {most_memory()}", file=sys.stderr)
    sys.exit(code)
