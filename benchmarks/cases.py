"""What a case is, and how cases are chosen by name."""

import dataclasses
import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.records import Workload


@dataclasses.dataclass(frozen=True)
class Case:
    """One line of a table.

    Attributes:
        suite: Which suite it belongs to.
        group: Cases of a group share broker, topic, records and baseline.
        name: What is measured.
        module: Runs it, in a fresh process; has `run(task) -> figures`.
        figure: The figure that ratios compare; see `report.FIGURES`.
        baselines: Cases of the same group that this one is compared with.
        guarantee: What is promised about delivery.
        workload: The topic it reads; or, with `fill=False`, writes.
        fill: Whether the topic must have the records before it runs.
        share: Part of the records that is measured: slow peers need not read all of them.
        options: For the module.
        copies: Of its topic; more than one needs as many brokers.
        every_core: Whether the process may use the broker's cores as well: when the broker is what is measured.
        environment: Name of a peer's environment; empty for this project's own.
        observer: Module that runs in our environment beside the broker, starts `module` by itself and measures it from outside.
    """

    suite: str
    group: str
    name: str
    module: str
    figure: str = "records_per_second"
    baselines: tuple[str, ...] = ()
    guarantee: str = ""
    workload: Workload | None = None
    fill: bool = True
    share: float = 1.0
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    environment: str = ""
    observer: str = ""
    every_core: bool = False
    copies: int = 1

    @property
    def identity(self) -> str:
        """The name to ask for: `suite:group:name`."""
        return f"{self.suite}:{self.group}:{self.name}"


def select(cases: Iterable[Case], wanted: Sequence[str]) -> list[Case]:
    """Return the cases that are meant by `suite`, `suite:group`, a full name or a glob of it, with their baselines."""
    cases = list(cases)
    chosen = [case for case in cases if not wanted or any(_is_meant(case, one) for one in wanted)]
    needed = {(case.suite, case.group, baseline) for case in chosen for baseline in case.baselines[:1]}
    return [case for case in cases if case in chosen or (case.suite, case.group, case.name) in needed]


def _is_meant(case: Case, wanted: str) -> bool:
    return f"{case.identity}:".startswith(f"{wanted}:") or fnmatch.fnmatchcase(case.identity, wanted)
