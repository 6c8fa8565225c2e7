"""Lanes, the ledger and the offset map, the runner: what runs when, and what counts as finished."""

from tests.faults.mutations.mutation import Mutation

COMMIT_SAFETY, ORDER, RETRIES, ASSIGNMENTS, ENDINGS = (
    f"tests/runner/test_{subject}.py"
    for subject in ("commit_safety", "order_and_concurrency", "retries", "assignments", "endings")
)
CANCELLATION = "tests/test_cancellation.py"
COMMITS, DELIVERY = "tests/worker/test_commits.py", "tests/worker/test_delivery.py"
REBALANCE = "tests/worker/test_rebalance.py"
TRIALS = "tests/faults/test_crashes.py"
PLANS = "tests/worker/test_plans.py"
KILLS = f"{TRIALS}::test_workers_killed_at_random_points_lose_nothing"

MUTATIONS = (
    Mutation(
        "what the filter drops is counted when its claim ends",
        "octopus/runner/assignment.py",
        "return self._skipped + sum([claim.skipped for claim in self.claims])",
        "return self._skipped",
        ("tests/worker/test_status.py",),
    ),
    Mutation(
        "records that do not decode are kept until a garbage collection",
        "octopus/pipeline/columns.py",
        "            del failed, others  # see `octopus.types`\n",
        "            pass\n",
        ("tests/pipeline/test_road.py",),
    ),
    Mutation(
        "a handler that returns although its time is up is done",
        "octopus/pipeline/deadlines.py",
        "            if watch.expired:\n                raise self._error()\n            return result",
        "            return result",
        ("tests/pipeline/test_deadlines.py", CANCELLATION),
    ),
    Mutation(
        "what is returned after the time is up is published",
        "octopus/pipeline/deadlines.py",
        "if self._late and asyncio.current_task() in self._late:",
        "if not self:",
        (CANCELLATION,),
    ),
    Mutation(
        "a handler that cancels its own task runs again for ever",
        "octopus/pipeline/boundary.py",
        "if is_wanted():\n            raise error",
        "if True:\n            raise error",
        (CANCELLATION,),
    ),
    Mutation(
        "a request to cancel outlives the record that made it",
        "octopus/runner/runner.py",
        "                slot.assignment = None\n                await cancellation.take_back(task)",
        "                pass",
        (CANCELLATION,),
    ),
    Mutation(
        "a handler that catches the end of the drain is done",
        "octopus/runner/runner.py",
        "or slot.is_told) and slot.is_to_end():",
        "or slot.is_told) and False:",
        (ENDINGS,),
    ),
    Mutation(
        "the ledger commits past an open record",
        "octopus/runner/ledger.py",
        "return self._first if self._runs else self._position",
        "return self._first + 1 if self._runs else self._position",
        ("tests/runner/test_ledger.py", COMMIT_SAFETY),
    ),
    Mutation(
        "the ledger takes the position for what is settled",
        "octopus/runner/ledger.py",
        "return self._first if self._runs else self._position",
        "return self._position",
        ("tests/runner/test_ledger.py", COMMITS),
    ),
    Mutation(
        "the offset map says that an open record is settled",
        "octopus/runner/ledger.py",
        "if offset in self._settled:\n                first,",
        "if True:\n                first,",
        ("tests/runner/test_ledger.py", COMMITS),
    ),
    Mutation(
        "a map of another base is believed",
        "octopus/runner/commit_metadata.py",
        "if prefix == MAP_PREFIX and written == str(base):",
        "if prefix == MAP_PREFIX:",
        ("tests/runner/test_commit_metadata.py",),
    ),
    Mutation(
        "a partition's next record starts before its predecessor is settled",
        "octopus/runner/lanes.py",
        "        if self._busy:\n            return ()\n        taken",
        "        taken",
        ("tests/runner/test_lanes.py", ORDER),
    ),
    Mutation(
        "a key is released while its successor takes it over",
        "octopus/runner/lanes.py",
        "                    self._ready.append(successors.popleft())\n                    behind[key] = successors or None",
        "                    self._ready.append(successors.popleft())\n                    self._queue.put(successors)",
        ("tests/runner/test_lanes.py", RETRIES),
    ),
    Mutation(
        "all keys are let go of while some are waited for",
        "octopus/runner/lanes.py",
        " and not any(behind.values())",
        "",
        ("tests/runner/test_lanes.py", ORDER),
    ),
    Mutation(
        "records whose keys became free in another order run in that order, and others count as settled",
        "octopus/runner/lanes.py",
        "        taken.sort(key=offset_of)",
        "        pass",
        ("tests/runner/test_lanes.py", "tests/runner/test_schedules.py"),
    ),
    Mutation(
        "what is behind a record that cannot be read runs",
        "octopus/runner/lanes.py",
        "            self._ended = True\n            self._runs.clear()",
        "            self._runs.popleft()",
        ("tests/test_unread.py", "tests/worker/test_intake.py"),
    ),
    Mutation(
        "a batch is taken to have the records that its header tells of",
        "octopus/unread.py",
        "if not records or (",
        "if False and (",
        ("tests/test_unread.py",),
    ),
    Mutation(
        "handlers that never suspend keep the loop from heartbeats and commits",
        "octopus/runner/pacing.py",
        "is_late = now - self.awaited_since > YIELD_AFTER",
        "is_late = elapsed > YIELD_AFTER",
        (ORDER,),
    ),
    Mutation(
        "a retry lets its lane go while it waits",
        "octopus/runner/runner.py",
        "        self._schedule.delay(retry.after, ",
        "        self._release(assignment, (record,))\n        self._schedule.delay(retry.after, ",
        (RETRIES,),
    ),
    Mutation(
        "a retry counts as done",
        "octopus/runner/runner.py",
        "            case Retry():\n                self._delay(assignment, record, attempt, outcome)\n                return",
        "            case Retry():\n                assignment.ledger.settle(record.offset)",
        (RETRIES, DELIVERY),
    ),
    Mutation(
        "a partition's records overtake each other, as trials with real processes see it",
        "octopus/runner/lanes.py",
        "        if self._busy:\n            return ()\n        taken",
        "        taken",
        (f"{KILLS}[embedded-partition]",),
    ),
    Mutation(
        "a late result of a closed assignment settles",
        "octopus/runner/assignment.py",
        "        self._ledger = ClosedLedger(self.ledger)\n",
        "",
        (ASSIGNMENTS, REBALANCE),
    ),
    Mutation(
        "a partition that comes back does not wait for its earlier handlers",
        "octopus/runner/runner.py",
        "[lanes.done for lanes in self._leaving(partition)]",
        "[]",
        (ASSIGNMENTS, REBALANCE),
    ),
    Mutation(
        "what an earlier owner settled runs again",
        "octopus/runner/runner.py",
        "assignment.lanes.put([record for record in read if record.offset not in known])",
        "assignment.lanes.put([record for record in read])",
        (COMMIT_SAFETY, f"{TRIALS}::test_after_a_kill_only_what_was_unfinished_comes_again"),
    ),
    Mutation(
        "a map that was damaged is believed",
        "octopus/runner/commit_metadata.py",
        "    if f\"{binascii.crc32(f'{written} {text}'.encode()):08x}\" != checksum:\n        return []\n",
        "",
        ("tests/runner/test_commit_metadata.py",),
    ),
    Mutation(
        "a map that does not fit is cut off",
        "octopus/runner/commit_metadata.py",
        'return encoded if len(encoded) <= limit else ""',
        "return encoded[:limit]",
        ("tests/runner/test_commit_metadata.py",),
    ),
    Mutation(
        "a map is one offset off",
        "octopus/runner/commit_metadata.py",
        "        at = last + 1\n    text",
        "        at = last\n    text",
        ("tests/runner/test_commit_metadata.py", COMMIT_SAFETY),
    ),
    Mutation(
        "the part of a map that was not received yet is dropped",
        "octopus/runner/ledger.py",
        "return ranges + [(max(first, position), last) for first, last in self._ahead if last >= position]",
        "return ranges",
        ("tests/runner/test_ledger.py", PLANS),
    ),
    Mutation(
        "of a range of the map that was received in part, the rest is dropped",
        "octopus/runner/ledger.py",
        "for first, last in self._ahead if last >= position]",
        "for first, last in self._ahead if first >= position]",
        ("tests/runner/test_ledger.py", PLANS),
    ),
    Mutation(
        "what an earlier owner settled counts as work of this one",
        "octopus/runner/ledger.py",
        "        self.settled_count -= len(known)\n",
        "",
        ("tests/runner/test_ledger.py",),
    ),
    Mutation(
        "a map skips a record that an earlier owner left open",
        "octopus/runner/ledger.py",
        "while ahead and ahead[0][1] < offset:",
        "while False:",
        ("tests/runner/test_ledger.py",),
    ),
    Mutation(
        "a drain lets more begin",
        "octopus/runner/runner.py",
        "        self._forget(assignments)\n        running =",
        "        running =",
        (ASSIGNMENTS,),
    ),
)
