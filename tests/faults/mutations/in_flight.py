"""Outputs in flight: what waits for acknowledgements, what is sent again, what was refused."""

from tests.faults.mutations.mutation import Mutation

IN_FLIGHT = "tests/pipeline/test_in_flight.py"
REFUSED = "tests/pipeline/test_refused_outputs.py"
OUTPUTS = "tests/worker/test_outputs.py"

MUTATIONS = (
    Mutation(
        "records settle before their outputs are acknowledged",
        "octopus/runner/assignment.py",
        "if published.newest > published.publications.acknowledged or published.refused:",
        "if published.refused:",
        (IN_FLIGHT,),
    ),
    Mutation(
        "a commit passes an output that is not acknowledged, as a history of both topics sees it",
        "octopus/runner/assignment.py",
        "if published.newest > published.publications.acknowledged or published.refused:",
        "if published.refused:",
        (OUTPUTS,),
    ),
    Mutation(
        "what fails for now counts as acknowledged",
        "octopus/pipeline/in_flight.py",
        "while flying and flying[0].is_settled:",
        "while flying and flying[0].left is not None:",
        (IN_FLIGHT,),
    ),
    Mutation(
        "outputs overtake what failed before them",
        "octopus/pipeline/in_flight.py",
        "if not collected.messages or self._mender is not None or self._is_closed:",
        "if not collected.messages or self._is_closed:",
        (IN_FLIGHT,),
    ),
    Mutation(
        "what failed is sent again in another order",
        "octopus/pipeline/in_flight.py",
        "failed = [(each, at) for each in self._flying for at in each.unfinished()]",
        "failed = [(each, at) for each in reversed(self._flying) for at in each.unfinished()]",
        (IN_FLIGHT,),
    ),
    Mutation(
        "a record whose output is refused settles",
        "octopus/runner/assignment.py",
        "                settled, some = published.take_refused(finished)\n                refused += some\n",
        "                pass\n",
        (IN_FLIGHT,),
    ),
    Mutation(
        "a refused record runs beside its lane",
        "octopus/runner/schedule.py",
        "if (assignment, record.offset) not in self._without_lane:",
        "if True:",
        (IN_FLIGHT,),
    ),
    Mutation(
        "a drain does not wait for acknowledgements",
        "octopus/runner/runner.py",
        "while any(assignment.is_open and assignment.unacknowledged for assignment in assignments):",
        "while False:",
        (IN_FLIGHT,),
    ),
    Mutation(
        "outputs of an assignment that is closed are sent again",
        "octopus/pipeline/publication.py",
        "if self.origins[at].unacknowledged.is_open:",
        "if self.origins[at].unacknowledged is not None:",
        (IN_FLIGHT,),
    ),
    Mutation(
        "what a failed attempt published is its record's failure later",
        "octopus/pipeline/attempts.py",
        "        self._failed = stored\n",
        "        pass\n",
        (IN_FLIGHT,),
    ),
    Mutation(
        "handlers go on however much is on its way",
        "octopus/pipeline/in_flight.py",
        "        if size >= self._limit:\n            self.is_full = True\n",
        "        if size >= self._limit:\n            self.is_full = False\n",
        (IN_FLIGHT,),
    ),
    Mutation(
        "a run fails as often as its outputs are refused",
        "octopus/unacknowledged.py",
        "if known is not shared and all(each.handler is not refusal.handler for each in known):",
        "if known is not shared:",
        (REFUSED,),
    ),
    Mutation(
        "records of a batch that it was not given fail with it",
        "octopus/pipeline/handling.py",
        "attempt_that_runs().narrow(done)",
        "attempt_that_runs()",
        (REFUSED,),
    ),
    Mutation(
        "a refused output of a run that middleware repeats fails the next one",
        "octopus/pipeline/middleware.py",
        "attempt.fail(stored)  # it runs again",
        "pass",
        (REFUSED,),
    ),
    Mutation(
        "refusals that nobody concludes hold up a drain",
        "octopus/runner/refusals.py",
        "assignment.unacknowledged.concluding -= 1\n        self._waiting.clear()",
        "pass\n        self._waiting.clear()",
        (REFUSED,),
    ),
    Mutation(
        "acknowledgements wake no group that waits for room",
        "octopus/runner/runner.py",
        "        self._schedule.note_room()\n",
        "",
        (OUTPUTS,),
    ),
    Mutation(
        "what a handler awaits overtakes outputs that are collected",
        "octopus/pipeline/in_flight.py",
        "        self._flush()\n        while (mender",
        "        while (mender",
        (OUTPUTS,),
    ),
    Mutation(
        "what a handler awaits overtakes outputs that are sent again",
        "octopus/pipeline/in_flight.py",
        "while (mender := self._mender) is not None:",
        "while (mender := self._mender) is not None and False:",
        (IN_FLIGHT,),
    ),
    Mutation(
        "outputs are taken for lost beside one whose topic has no name",
        "octopus/transports/queueing.py",
        "if not isinstance(error, OctopusError):",
        "if not isinstance(error, TransportError):",
        (OUTPUTS,),
    ),
    Mutation(
        "what fails for now beside what is refused is sent again without a wait",
        "octopus/pipeline/in_flight.py",
        "                    if not is_passing(publication.error):\n                        publication.error = error",
        "                    publication.error = publication.error or error",
        (REFUSED,),
    ),
    Mutation(
        "who waits for what was published soon waits for ever when its partition is gone",
        "octopus/pipeline/publication.py",
        "                self.waiters[at].cancel()\n",
        "                pass\n",
        (REFUSED,),
    ),
)
