"""A group's commits, its beginnings and its end, partitions that come and go."""

from tests.faults.mutations.mutation import Mutation

ENDINGS = "tests/worker/test_endings.py"
COMMITS, DELIVERY, STARTS = (f"tests/worker/test_{subject}.py" for subject in ("commits", "delivery", "starts"))
REBALANCE = "tests/worker/test_rebalance.py"
TRIALS = "tests/faults/test_crashes.py"
KILLS = f"{TRIALS}::test_workers_killed_at_random_points_lose_nothing"

MUTATIONS = (
    Mutation(
        "an unreadable partition is waited for",
        "octopus/worker/progress.py",
        "readable = assignments.keys() - self._intake.unreadable.keys()",
        "readable = assignments.keys()",
        (ENDINGS,),
    ),
    Mutation(
        "what cannot be read is called caught up",
        "octopus/worker/worker.py",
        "if unreadable := unreadable_of(self.status()):",
        "if unreadable := []:",
        (ENDINGS,),
    ),
    Mutation(
        "a last commit that fails is nobody's failure",
        "octopus/worker/worker.py",
        "for each in (worker.stopped, worker.unsaved) if each is not None]",
        "for each in (worker.stopped,) if each is not None]",
        (ENDINGS,),
    ),
    Mutation(
        "a group that stops while it drains is nobody's failure",
        "octopus/worker/worker.py",
        "for each in (worker.stopped, worker.unsaved) if each is not None]",
        "for each in (worker.unsaved,) if each is not None]",
        (ENDINGS,),
    ),
    Mutation(
        "partitions that go while it drains cut handlers short",
        "octopus/worker/group.py",
        "until = max(self._loop.time() + self._settings.revoke_budget, self._drained_by or 0.0)",
        "until = self._loop.time() + self._settings.revoke_budget",
        (ENDINGS,),
    ),
    Mutation(
        "retries that wait in memory go with their topic at a stop",
        "octopus/worker/endings.py",
        "await rescue.before_drain(assignments, timeout)",
        "pass",
        ("tests/worker/test_retry_topics.py",),
    ),
    Mutation(
        "nothing is committed during a drain",
        "octopus/worker/endings.py",
        "    try:\n        await rescue.before_drain(",
        "    try:\n        committer.cancel()\n        await rescue.before_drain(",
        (ENDINGS,),
    ),
    Mutation(
        "what is committed is the position",
        "octopus/worker/commits.py",
        "each.partition: Commit(each.ledger.committable,",
        "each.partition: Commit(each.ledger.position,",
        (COMMITS,),
    ),
    Mutation(
        "what is committed is the position, as trials with real processes see it",
        "octopus/worker/commits.py",
        "each.partition: Commit(each.ledger.committable,",
        "each.partition: Commit(each.ledger.position,",
        (KILLS,),
    ),
    Mutation(
        "a commit that failed counts as done",
        "octopus/worker/commits.py",
        "                return context.health.fail(error, context.outlook, self._loop.time())",
        "                for assignment in due:\n                    assignment.note_committed(offsets[assignment.partition].offset)",
        (COMMITS,),
    ),
    Mutation(
        "a revoked partition is given away without waiting for what runs",
        "octopus/worker/group.py",
        "await self._runner.drain(leaving, max(0.0, until - self._loop.time()))",
        "await self._runner.drain(leaving, 0.0)",
        (REBALANCE,),
    ),
    Mutation(
        "a revoked partition is given away without a commit",
        "octopus/worker/group.py",
        "        await self._commit(leaving)\n",
        "",
        (REBALANCE,),
    ),
    Mutation(
        "a stop does not wait for what runs",
        "octopus/worker/endings.py",
        "await runner.drain(assignments, max(0.0, until - asyncio.get_running_loop().time()))",
        "await runner.drain(assignments, 0.0)",
        (DELIVERY,),
    ),
    Mutation(
        "a lost partition is committed",
        "octopus/worker/group.py",
        '        logger.log(level, "%s lost %s", self.pipeline.group, ", ".join(map(str, sorted(partitions))))',
        "        await self.revoked(partitions)",
        (REBALANCE,),
    ),
    Mutation(
        "the start is not anchored",
        "octopus/worker/starts.py",
        "await self._consumer.commit(anchors)",
        "pass",
        (STARTS,),
    ),
    Mutation(
        "the map of a commit is missing",
        "octopus/runner/commit_metadata.py",
        "ahead = encode_map(ledger.committable, ledger.settled_ahead(), map_limit(topic_id))",
        "ahead = encode_map(ledger.committable, [])",
        (COMMITS,),
    ),
    Mutation(
        "what settles while a commit is under way counts as committed",
        "octopus/worker/commits.py",
        "assignment.note_committed(offsets[assignment.partition].offset, count)",
        "assignment.note_committed(assignment.ledger.committable, assignment.ledger.ahead)",
        (COMMITS,),
    ),
    Mutation(
        "a commit without an answer is waited for, for ever",
        "octopus/worker/commits.py",
        "async with asyncio.timeout(context.settings.commit_timeout):\n                    due = await context.topics.same(due)",
        "async with asyncio.timeout(None):\n                    due = await context.topics.same(due)",
        (COMMITS,),
    ),
    Mutation(
        "a stop does not commit",
        "octopus/worker/group.py",
        "partial(self._commit, mine)",
        "partial(self._commit, ())",
        (COMMITS, DELIVERY),
    ),
    Mutation(
        "a partition that appears later begins at its end",
        "octopus/worker/anchors.py",
        "        if anchor is not None and partition.partition < anchor.partitions:\n"
        "            place = resolve_start(start, anchor.time)\n"
        '            if place == "latest" and partition.topic in anchors:\n                place = anchor.time\n',
        "        place = resolve_start(start, otherwise[partition.topic].time)\n",
        (STARTS,),
    ),
    Mutation(
        "each member means its own moment by latest",
        "octopus/worker/anchors.py",
        '            if place == "latest" and partition.topic in anchors:\n                place = anchor.time\n',
        "",
        (STARTS, "tests/worker/test_group.py"),
    ),
)
