"""The fresh process of a run: `python -m benchmarks.child CORES MODULE TASK`. Standard library only."""

import importlib
import logging
import os
import sys

from benchmarks.task import Task, answer


def main(cores: str, module: str, task: str) -> None:
    """Pin this process, then let the module do the task and print what it measured."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    logging.basicConfig(level=logging.ERROR)
    answer(importlib.import_module(module).run(Task.from_json(task)))
    # Clients that take long to leave their group would only delay the next run.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
