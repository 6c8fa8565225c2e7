"""Outputs and their transactions."""

from tests.faults.mutations.mutation import Mutation

ONCE = "tests/worker/test_exactly_once.py"
SCHEDULES = "tests/worker/test_exactly_once_schedules.py"
PLANS = "tests/worker/test_plans.py"
ONCE_TRIALS = "tests/faults/test_exactly_once.py"

MUTATIONS = (
    Mutation(
        "an output does not wait for its record to settle",
        "octopus/pipeline/outputs.py",
        "self._kept.setdefault(first, []).append(Contribution(messages, first, last, refuse))",
        "self._waiting.append(Contribution(messages, first, last, refuse))",
        (ONCE,),
    ),
    Mutation(
        "what a run published that was cancelled is kept",
        "octopus/pipeline/outputs.py",
        "                    self._kept.pop(each.offset, None)\n",
        "                    pass\n",
        (ONCE,),
    ),
    Mutation(
        "what middleware takes back is published",
        "octopus/pipeline/outputs.py",
        "                elif not isinstance(outcome, Retry):\n                    self._release(stored.offset)",
        "                else:\n                    self._release(stored.offset)",
        (ONCE,),
    ),
    Mutation(
        "a task that outlives its attempt publishes into it",
        "octopus/pipeline/outputs.py",
        "        capture.is_over = True\n",
        "        pass\n",
        (ONCE,),
    ),
    Mutation(
        "what a transaction took is taken again",
        "octopus/pipeline/outputs.py",
        "self._waiting = [] if before is None else",
        "self._waiting = self._waiting if before is None else",
        (ONCE,),
    ),
    Mutation(
        "offsets are not part of the transaction",
        "octopus/worker/transactions.py",
        "            await self._producer.send_offsets(self._group, {self._partition: commit})\n",
        "            pass\n",
        (ONCE,),
    ),
    Mutation(
        "offsets are committed before their transaction, as trials with real processes see it",
        "octopus/worker/transactions.py",
        "            if not await transactions.commit(assignment):\n",
        "            from octopus.worker.commits import PlainCommits\n\n"
        "            await PlainCommits(self._context).commit([assignment])\n            assignment.committed = None\n"
        "            if not await transactions.commit(assignment):\n",
        (f"{ONCE_TRIALS}::test_outputs_of_killed_workers_are_visible_once",),
    ),
    Mutation(
        "outputs are published outside of the transaction, as trials with real processes see it",
        "octopus/worker/transactions.py",
        "        await self._producer.begin()\n        messages = [message for each in outputs for message in each.messages]\n"
        "        if messages:\n            await self._producer.send_many(messages)",
        "        messages = [message for each in outputs for message in each.messages]\n        await self._producer.begin()\n"
        "        if messages:\n            await self._producer.send_many(messages)\n"
        "            await self._producer.commit()\n            await self._producer.begin()",
        (f"{ONCE_TRIALS}::test_outputs_of_killed_workers_are_visible_once",),
    ),
    Mutation(
        "committed offsets are read before the former owner is fenced",
        "octopus/worker/group.py",
        "        await self._commits.begin(partitions)\n"
        "        self._rests_since = self.waits_for = None\n        try:\n"
        "            beginnings = await self._starts.find(partitions, self._clock())\n",
        "        self._rests_since = self.waits_for = None\n        try:\n"
        "            beginnings = await self._starts.find(partitions, self._clock())\n"
        "            await self._commits.begin(partitions)\n",
        (ONCE, SCHEDULES),
    ),
    Mutation(
        "a transaction of unknown outcome is followed by another",
        "octopus/worker/transactions.py",
        "            self._failure = error\n            raise",
        "            return",
        (ONCE, SCHEDULES),
    ),
    Mutation(
        "where no map fits, outputs beyond the offset are published all the same",
        "octopus/worker/plans.py",
        "if metadata or not ahead:",
        "if True:",
        (ONCE, PLANS),
    ),
    Mutation(
        "where no map fits, what was committed ahead is forgotten",
        "octopus/worker/plans.py",
        "ahead = [(max(first, offset), last) for first, last in committed_ahead if last >= offset]",
        "ahead = []",
        (PLANS,),
    ),
    Mutation(
        "where no map fits, outputs that straddle the offset are left behind it",
        "octopus/worker/plans.py",
        "if offset == committed or outbox.straddles(offset):",
        "if offset == committed:",
        (PLANS,),
    ),
    Mutation(
        "a map whose base gained a digit is forgotten",
        "octopus/worker/plans.py",
        "if ahead and not metadata:",
        "if False:",
        (PLANS,),
    ),
    Mutation(
        "an output that the broker refuses is dropped",
        "octopus/worker/transactions.py",
        "            outputs = await self._without_refused(outputs)",
        "            outputs = []",
        (ONCE,),
    ),
    Mutation(
        "the last transaction before a stop is left out",
        "octopus/worker/transactions.py",
        "return all(await _all(self._transactions[assignment.partition].commit(assignment) for assignment in due))",
        "return True",
        (ONCE,),
    ),
    Mutation(
        "handlers that deliver exactly once read what is not committed",
        "octopus/worker/worker.py",
        'options["isolation"] = "read_committed"',
        'options["isolation"] = "read_uncommitted"',
        (ONCE, f"{ONCE_TRIALS}::test_outputs_of_killed_workers_are_visible_once"),
    ),
)
