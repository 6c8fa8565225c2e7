"""A worker as a process and as one of several: places, stops, what it says of itself, what it watches."""

from tests.faults.mutations.mutation import Mutation

PLACES = "tests/worker/test_places.py"
EMBEDDED = ("-k", "not kafka")

MUTATIONS = (
    Mutation(
        "a new consumer of a group counts from nothing",
        "octopus/worker/worker.py",
        "worker.continue_from(before.counts)",
        "pass",
        ("tests/worker/test_status.py",),
    ),
    Mutation(
        "large records vanish in the average of small ones",
        "octopus/worker/group.py",
        "assignment.large.update(large)",
        "pass",
        ("tests/worker/test_intake.py",),
    ),
    Mutation(
        "the replacement of a killed worker is a newcomer",
        "octopus/worker/worker.py",
        "self.settings.worker, self._place)",
        "self.settings.worker)",
        (PLACES,),
        EMBEDDED,
    ),
    Mutation(
        "who was killed in the end keeps its place",
        "octopus/worker/supervisor.py",
        "self._killed.add(number)",
        "pass",
        (PLACES,),
        EMBEDDED,
    ),
    Mutation(
        "nobody says for whom a group waits",
        "octopus/worker/absence.py",
        "if info.state not in REBALANCING:",
        "if info.state in REBALANCING:",
        ("tests/worker/test_absence.py",),
        EMBEDDED,
    ),
    Mutation(
        "a fork uses its parent's connection",
        "octopus/home.py",
        "return _get_running_loop() is self.loop and os.getpid() == self.process",
        "return True",
        ("tests/test_home.py",),
    ),
    Mutation(
        "a lag is told from what was heard before the broker went away",
        "octopus/worker/outlook.py",
        "if self.trouble is not None or partition in self.silent or not ends:",
        "if not ends:",
        ("tests/worker/test_outlook.py",),
    ),
    Mutation(
        "a traceback is logged as the exception wrote it",
        "octopus/logs.py",
        "            record.exc_text = traceback_of(record)  # formatters take it from here",
        "            pass",
        ("tests/test_logs.py",),
    ),
    Mutation(
        "a program that sets up logging silences ours",
        "octopus/logs.py",
        "    logger.__class__ = _Logger",
        "    pass",
        ("tests/test_logs.py",),
    ),
    Mutation(
        "a watch follows a directory that is not there any more",
        "octopus/operations/file_events.py",
        "return any(identity_of(path) != identity for path, identity in self._watched.items())",
        "return False",
        ("tests/operations/test_file_events.py",),
    ),
    Mutation(
        "what may not be looked at counts as deleted",
        "octopus/operations/file_states.py",
        "if error.errno not in GONE:",
        "if False:",
        ("tests/operations/test_file_events.py",),
    ),
    Mutation(
        "a stop that comes twice at once ends at once",
        "octopus/worker/signals.py",
        "return now - first < SAME_STOP",
        "return False",
        ("tests/worker/test_signals.py",),
    ),
)
