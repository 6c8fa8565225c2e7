"""Planted bugs in every machine that decides what is delivered, each caught by quick tests.

    python -m tests.faults.mutations [WORD…]

Each is put into a copy of the package, never into the working tree, and the named tests run there. A bug that no test
notices, or a place that is no longer in the code, is reported, and the exit code is 1. A test that notices is named: let it
be one that fails for this bug and not for another reason.
"""

from tests.faults.mutations import commits, in_flight, once, outcomes, running, topics, transports, workers

MUTATIONS = (
    *running.MUTATIONS,
    *in_flight.MUTATIONS,
    *outcomes.MUTATIONS,
    *commits.MUTATIONS,
    *once.MUTATIONS,
    *topics.MUTATIONS,
    *transports.MUTATIONS,
    *workers.MUTATIONS,
)
