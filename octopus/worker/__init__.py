"""The worker: fetch → submit → commit, rebalance, drain."""

from octopus.worker.exit_codes import ExitCode
from octopus.worker.launch import read_sources, run
from octopus.worker.process import run_process
from octopus.worker.status import GroupStatus, WorkerStatus
from octopus.worker.supervisor import Supervisor
from octopus.worker.worker import Worker

__all__ = [
    "ExitCode",
    "GroupStatus",
    "Supervisor",
    "Worker",
    "WorkerStatus",
    "read_sources",
    "run",
    "run_process",
]
