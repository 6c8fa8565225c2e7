"""Planted bugs, each caught by quick tests: `python -m tests.faults.mutations [WORD…]`.

Each is put into a copy of the package, never into the working tree, and the named tests run there. A bug that no test
notices, or a place that is no longer in the code, is reported, and the exit code is 1.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
RUNNER = "tests/test_runner.py"
DELIVERY = "tests/worker/test_delivery.py"
REBALANCE = "tests/worker/test_rebalance.py"
RETRY_TOPICS = "tests/worker/test_retry_topics.py"
TRIALS = "tests/faults/test_crashes.py"
KILLS = f"{TRIALS}::test_workers_killed_at_random_points_lose_nothing"
TIMEOUT = 120.0


class Mutation(NamedTuple):
    """A bug.

    Attributes:
        name: What it does wrong.
        file: Below the package's root.
        good: Text that is there exactly once.
        bad: What it becomes.
        tests: Arguments for pytest; all of these files or tests together must fail.
    """

    name: str
    file: str
    good: str
    bad: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "a buffer is used again while somebody looks into it",
        "octopus/transports/kafka/frames.py",
        "except BufferError:\n        return False",
        "except BufferError:\n        return True",
        ("tests/transports/test_frames.py",),
    ),
    Mutation(
        "what has been read keeps its frame until a garbage collection",
        "octopus/transports/kafka/reader.py",
        "fetched._records_iterator = None",
        "pass",
        ("tests/transports/test_fetched.py",),
    ),
    Mutation(
        "a large frame loses what came with the one before it",
        "octopus/transports/kafka/frames.py",
        "self._filled = filled - start\n                self._large",
        "self._filled = 0\n                self._large",
        ("tests/transports/test_frames.py",),
    ),
    Mutation(
        "the ledger commits past an open record",
        "octopus/offsets.py",
        "return self._open[0] if self._open else self._position",
        "return max(self._settled) + 1 if self._settled else self._open[0] if self._open else self._position",
        ("tests/test_offsets.py", RUNNER),
    ),
    Mutation(
        "the ledger takes the position for what is settled",
        "octopus/offsets.py",
        "return self._open[0] if self._open else self._position",
        "return self._position",
        ("tests/test_offsets.py", DELIVERY),
    ),
    Mutation(
        "the offset map says that an open record is settled",
        "octopus/offsets.py",
        "if offset in self._settled:\n                first,",
        "if True:\n                first,",
        ("tests/test_offsets.py", DELIVERY),
    ),
    Mutation(
        "a map of another base is believed",
        "octopus/offsets.py",
        "if prefix == MAP_PREFIX and written == str(base):",
        "if prefix == MAP_PREFIX:",
        ("tests/test_offsets.py",),
    ),
    Mutation(
        "a partition's next record starts before its predecessor is settled",
        "octopus/ordering.py",
        "        if self._busy or not self._queue:\n            return None\n        self._busy = True",
        "        if not self._queue:\n            return None\n        self._busy = True",
        ("tests/test_ordering.py", RUNNER),
    ),
    Mutation(
        "a key is released while its successor takes it over",
        "octopus/ordering.py",
        "                self._ready.append(successors.popleft())\n                self._behind[key] = successors or None",
        "                self._ready.append(successors.popleft())\n                self._queue.extend(successors)",
        ("tests/test_ordering.py", RUNNER),
    ),
    Mutation(
        "a retry lets its lane go while it waits",
        "octopus/runner/runner.py",
        "        self._delays.add(retry.after, ",
        "        self._release(generation, record)\n        self._delays.add(retry.after, ",
        (RUNNER,),
    ),
    Mutation(
        "a retry counts as done",
        "octopus/runner/runner.py",
        "            case Retry():\n                self._delay(generation, record, attempt, outcome)\n                return",
        "            case Retry():\n                self._settle(generation, record, outcome)",
        (RUNNER, DELIVERY),
    ),
    Mutation(
        "what is committed is the position",
        "octopus/worker/group.py",
        "committable = generation.ledger.committable\n",
        "committable = generation.ledger.position\n",
        (DELIVERY,),
    ),
    Mutation(
        "what is committed is the position, as trials with real processes see it",
        "octopus/worker/group.py",
        "committable = generation.ledger.committable\n",
        "committable = generation.ledger.position\n",
        (KILLS,),
    ),
    Mutation(
        "a partition's records overtake each other, as trials with real processes see it",
        "octopus/ordering.py",
        "        if self._busy or not self._queue:\n            return None\n        self._busy = True",
        "        if not self._queue:\n            return None\n        self._busy = True",
        (f"{KILLS}[embedded-partition]",),
    ),
    Mutation(
        "dead letters are not waited for, as trials with real processes see it",
        "octopus/middleware/errors.py",
        "        if isinstance(outcome, DeadLetter):\n            await bury(record, outcome, attempt)",
        "        if isinstance(outcome, DeadLetter):\n            pass",
        (f"{KILLS}[embedded-partition]",),
    ),
    Mutation(
        "a commit that failed counts as done",
        "octopus/worker/group.py",
        '                logger.warning("%s: commit failed, will be repeated: %s", self.pipeline.group, error)',
        "                for generation in due:\n                    generation.note_committed(offsets[generation.partition].offset)",
        (DELIVERY,),
    ),
    Mutation(
        "a revoked partition is given away without waiting for what runs",
        "octopus/worker/group.py",
        "await self._runner.drain(leaving, self._settings.revoke_budget)",
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
        "octopus/worker/group.py",
        "await self._runner.drain(self._generations.values(), self._settings.drain_timeout)",
        "await self._runner.drain(self._generations.values(), 0.0)",
        (DELIVERY,),
    ),
    Mutation(
        "a lost partition is committed",
        "octopus/worker/group.py",
        '        logger.warning("%s lost %s", self.pipeline.group, ", ".join(map(str, sorted(partitions))))',
        "        await self.revoked(partitions)",
        (REBALANCE,),
    ),
    Mutation(
        "the start is not anchored",
        "octopus/worker/group.py",
        "await self._consumer.commit(anchors)",
        "pass",
        (DELIVERY,),
    ),
    Mutation(
        "a late result of a closed generation settles",
        "octopus/runner/generation.py",
        "        self._ledger = ClosedLedger(self.ledger)\n",
        "",
        (RUNNER, REBALANCE),
    ),
    Mutation(
        "a deferred retry is settled before it is acknowledged",
        "octopus/middleware/retry_topics.py",
        "                await self._producer.send(message)\n",
        "                asyncio.ensure_future(self._producer.send(message))\n",
        (RETRY_TOPICS,),
    ),
    Mutation(
        "a deferred retry forgets its attempts",
        "octopus/middleware/retry_topics.py",
        "math.ceil(due * 1000), attempt + retry.counted)",
        "math.ceil(due * 1000), 1)",
        (RETRY_TOPICS,),
    ),
    Mutation(
        "a deferred retry runs when it is read",
        "octopus/waiting.py",
        "        if left <= 0:\n",
        "        if True:\n",
        (RETRY_TOPICS, "tests/test_waiting.py"),
    ),
    Mutation(
        "those that wait never make room",
        "octopus/waiting.py",
        "        return self._is_emptying and ",
        "        return False and ",
        (RETRY_TOPICS, "tests/test_waiting.py"),
    ),
    Mutation(
        "a partition that comes back does not wait for its earlier handlers",
        "octopus/runner/runner.py",
        "[lanes.done for lanes in self._leaving(partition)]",
        "[]",
        (RUNNER, REBALANCE),
    ),
    Mutation(
        "what an earlier owner settled runs again",
        "octopus/runner/runner.py",
        "records = [record for record in records if record.offset not in known]",
        "pass",
        (RUNNER, f"{TRIALS}::test_after_a_kill_only_what_was_unfinished_comes_again"),
    ),
    Mutation(
        "a dead letter is settled before it is acknowledged",
        "octopus/middleware/errors.py",
        "        if isinstance(outcome, DeadLetter):\n            await bury(record, outcome, attempt)",
        "        if isinstance(outcome, DeadLetter):\n            asyncio.ensure_future(bury(record, outcome, attempt))",
        (DELIVERY,),
    ),
    Mutation(
        "a dead letter that cannot be written is dropped",
        "octopus/middleware/dead_letters.py",
        "                if not error.retryable:\n                    raise HandlerStopped(",
        "                if not error.retryable:\n                    return\n                    raise HandlerStopped(",
        (DELIVERY,),
    ),
    Mutation(
        "what a handler returns is not waited for",
        "octopus/handling.py",
        "            await self._send(messages)",
        "            import asyncio\n\n            asyncio.ensure_future(self._send(messages))",
        (DELIVERY,),
    ),
)


def caught(mutation: Mutation, copy: Path) -> str | None:
    """Return why a bug went unnoticed, or None when it was caught."""
    file = copy / mutation.file
    text = file.read_text()
    if text.count(mutation.good) != 1:
        return f"its place is {text.count(mutation.good)} times in {mutation.file}: bring it up to date"
    file.write_text(text.replace(mutation.good, mutation.bad))
    try:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "--no-header",
            "-p",
            "no:cacheprovider",
            "--timeout=30",
            *mutation.tests,
        ]
        environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return None  # a test that never ends has noticed, too
    finally:
        file.write_text(text)
    match done.returncode:
        case 1:
            return None
        case 0:
            return f"no test of {', '.join(mutation.tests)} noticed"
        case code:
            return f"pytest ended with {code}: {done.stdout[-500:]}{done.stderr[-500:]}"


def main(words: list[str]) -> int:
    """Try all bugs, or those whose names contain a word; return 1 when one was not caught."""
    chosen = [mutation for mutation in MUTATIONS if not words or any(word in mutation.name for word in words)]
    missed = 0
    with tempfile.TemporaryDirectory(prefix="octopus-mutations-") as directory:
        copy = Path(directory)
        for part in ("octopus", "tests", "scripts"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        for mutation in chosen:
            why = caught(mutation, copy)
            missed += why is not None
            print(f"{'caught' if why is None else 'MISSED'}  {mutation.name}{f': {why}' if why else ''}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
