"""Planted bugs in every machine that decides what is delivered, each caught by quick tests.

    python -m tests.faults.mutations [WORD…]

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
CANCELLATION = "tests/test_cancellation.py"
ENDINGS = "tests/worker/test_endings.py"
DELIVERY = "tests/worker/test_delivery.py"
REBALANCE = "tests/worker/test_rebalance.py"
RECREATED = "tests/worker/test_recreated_topics.py"
RETRY_TOPICS = "tests/worker/test_retry_topics.py"
TRIALS = "tests/faults/test_crashes.py"
ONCE = "tests/worker/test_exactly_once.py"
SCHEDULES = "tests/worker/test_exactly_once_schedules.py"
PLANS = "tests/worker/test_plans.py"
ONCE_TRIALS = "tests/faults/test_exactly_once.py"
KILLS = f"{TRIALS}::test_workers_killed_at_random_points_lose_nothing"
LEAVING = "tests/transports/test_leaving.py"
PLACES = "tests/worker/test_places.py"
EMBEDDED = ("-k", "not kafka")
TIMEOUT = 180.0


class Mutation(NamedTuple):
    """A bug.

    Attributes:
        name: What it does wrong.
        file: Below the package's root.
        good: Text that is there exactly once.
        bad: What it becomes.
        tests: Files or tests, of which one must fail at least.
        options: Of pytest, for these tests.
    """

    name: str
    file: str
    good: str
    bad: str
    tests: tuple[str, ...]
    options: tuple[str, ...] = ()


MUTATIONS = (
    Mutation(
        "what the filter drops is counted when its stretch ends",
        "octopus/runner/generation.py",
        "return self._skipped + sum([stretch.skipped for stretch in self.stretches])",
        "return self._skipped",
        ("tests/worker/test_status.py",),
    ),
    Mutation(
        "a new consumer of a group counts from nothing",
        "octopus/worker/worker.py",
        "worker.earlier = before.counts",
        "pass",
        ("tests/worker/test_status.py",),
    ),
    Mutation(
        "a batch is unpacked whether there is room or not",
        "octopus/transports/kafka/reader.py",
        "if room is not None and size > room:",
        "if False:",
        ("tests/transports/test_fetched.py",),
    ),
    Mutation(
        "large records vanish in the average of small ones",
        "octopus/worker/group.py",
        "generation.large.update(large)",
        "pass",
        ("tests/worker/test_flow.py",),
    ),
    Mutation(
        "an event publishes with the trace of the one before it",
        "octopus/handling.py",
        "if headers or around:",
        "if headers:",
        ("tests/test_tracing.py",),
    ),
    Mutation(
        "a codec whose help is away counts attempts",
        "octopus/retries.py",
        "error, counted=False)\n            case DecodeError",
        "error)\n            case DecodeError",
        ("tests/worker/test_status.py",),
    ),
    Mutation(
        "a dead letter that does not fit sheds its value",
        "octopus/middleware/dead_letters.py",
        "return msgspec.structs.replace(message, headers=smaller)",
        "return msgspec.structs.replace(message, headers=smaller, value=b'')",
        ("tests/middleware/test_dead_letters.py",),
    ),
    Mutation(
        "a dead-letter topic is made with the broker's limit",
        "octopus/transports/ensure.py",
        "config = {SIZE_LIMIT: str(max(limits) + HEADROOM)} if limits else None",
        "config = None",
        ("tests/transports/test_ensure.py",),
    ),
    Mutation(
        "after a topic vanished everything is sent again",
        "octopus/transports/ensure.py",
        "published = [*(error.published or [None] * len(messages))]",
        "published: list[Published | None] = [None] * len(messages)",
        ("tests/transports/test_vanished_topics.py",),
    ),
    Mutation(
        "a sequence number is used again although nobody knows whether it was used",
        "octopus/transports/kafka/producer.py",
        'elif getattr(error, "retriable", False):',
        "elif False:",
        ("tests/transports/test_vanished_topics.py",),
    ),
    Mutation(
        "a leader that nobody knows is asked for without end",
        "octopus/transports/kafka/missing.py",
        "is_leader_unknown = False",
        "pass",
        ("tests/transports/test_vanished_topics.py",),
    ),
    Mutation(
        "a topic that vanished is not looked for",
        "octopus/worker/transactions.py",
        "if mends <= MENDS and await self._mend(error, not_stored(messages, error)):",
        "if False:",
        ("tests/worker/test_derived_topics.py",),
    ),
    Mutation(
        "a member that stops while it joins stays in its group",
        "octopus/transports/kafka/membership.py",
        "while member or self._instance is not None:",
        "while member and coordinator.coordinator_id is None:",
        (LEAVING,),
        EMBEDDED,
    ),
    Mutation(
        "a member leaves over the connection on which its join waits",
        "octopus/transports/kafka/membership.py",
        "self._client._conns.pop(place, None)) is not None:",
        "self._client._conns.get(place)) is None:",
        (LEAVING,),
        EMBEDDED,
    ),
    Mutation(
        "a namesake takes its place back for ever",
        "octopus/transports/kafka/membership.py",
        "request._member_id = self._id_before",
        'request._member_id = ""',
        (LEAVING,),
        EMBEDDED,
    ),
    Mutation(
        "a leader that comes back watches for no partitions",
        "octopus/transports/kafka/membership.py",
        'if state == "Stable":',
        'if state == "Empty":',
        (LEAVING,),
        EMBEDDED,
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
        "octopus/worker/family.py",
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
        "a broker that was stopped is started again by whoever misses it",
        "octopus/transports/whereabouts.py",
        "if owner.was_stopped:",
        "if False:",
        (
            "tests/transports/test_whereabouts.py::test_a_broker_that_was_stopped_is_waited_for_until_somebody_begins_anew",
        ),
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
        "octopus/cli/file_events.py",
        "return any(identity_of(path) != identity for path, identity in self._watched.items())",
        "return False",
        ("tests/cli/test_watch.py",),
    ),
    Mutation(
        "what may not be looked at counts as deleted",
        "octopus/cli/file_states.py",
        "if error.errno not in GONE:",
        "if False:",
        ("tests/cli/test_watch.py",),
    ),
    Mutation(
        "an address in a dead owner's lock file is believed",
        "octopus/transports/whereabouts.py",
        "address = owner.address if owner.lives else None",
        "address = owner.address",
        ("tests/transports/test_whereabouts.py::test_whoever_has_the_port_of_a_dead_broker_is_not_taken_for_it",),
    ),
    Mutation(
        "a buffer is used again while somebody looks into it",
        "octopus/transports/kafka/frames.py",
        "<= max(size * WASTE, GRAIN) and _is_free(buffer):",
        "<= max(size * WASTE, GRAIN):",
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
        "a handler that returns although its time is up is done",
        "octopus/middleware/timeouts.py",
        "        if watch.expired:\n            raise self._error()\n        return result",
        "        return result",
        ("tests/middleware/test_deadlines.py", CANCELLATION),
    ),
    Mutation(
        "what is returned after the time is up is published",
        "octopus/middleware/timeouts.py",
        "if self._late and asyncio.current_task() in self._late:",
        "if not self:",
        (CANCELLATION,),
    ),
    Mutation(
        "a handler that cancels its own task runs again for ever",
        "octopus/middleware/errors.py",
        "if is_wanted():\n            raise error",
        "if True:\n            raise error",
        (CANCELLATION,),
    ),
    Mutation(
        "a request to cancel outlives the record that made it",
        "octopus/runner/runner.py",
        "                lane.generation = None\n                await cancellation.take_back(task)",
        "                pass",
        (CANCELLATION,),
    ),
    Mutation(
        "a handler that catches the end of the drain is done",
        "octopus/runner/runner.py",
        "or lane.is_told) and lane.is_to_end():",
        "or lane.is_told) and False:",
        (RUNNER,),
    ),
    Mutation(
        "a stop that comes twice at once ends at once",
        "octopus/worker/signals.py",
        "return now - first < SAME_STOP",
        "return False",
        ("tests/worker/test_signals.py",),
    ),
    Mutation(
        "an unreadable partition is waited for",
        "octopus/worker/group.py",
        "readable = generations.keys() - self._flow.unreadable.keys()",
        "readable = generations.keys()",
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
        "a line that stops while it drains is nobody's failure",
        "octopus/worker/worker.py",
        "for each in (worker.stopped, worker.unsaved) if each is not None]",
        "for each in (worker.unsaved,) if each is not None]",
        (ENDINGS,),
    ),
    Mutation(
        "partitions that go while it drains cut handlers short",
        "octopus/worker/group.py",
        "budget = max(self._settings.revoke_budget, (self._drained_by or 0.0) - self._loop.time())",
        "budget = self._settings.revoke_budget",
        (ENDINGS,),
    ),
    Mutation(
        "nothing is committed during a drain",
        "octopus/worker/endings.py",
        "    try:\n        if not await runner.drain(",
        "    try:\n        committer.cancel()\n        if not await runner.drain(",
        (ENDINGS,),
    ),
    Mutation(
        "the ledger commits past an open record",
        "octopus/offsets.py",
        "return self._first if self._runs else self._position",
        "return self._first + 1 if self._runs else self._position",
        ("tests/test_offsets.py", RUNNER),
    ),
    Mutation(
        "the ledger takes the position for what is settled",
        "octopus/offsets.py",
        "return self._first if self._runs else self._position",
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
        "        if self._busy:\n            return ()\n        taken",
        "        taken",
        ("tests/test_ordering.py", RUNNER),
    ),
    Mutation(
        "a key is released while its successor takes it over",
        "octopus/ordering.py",
        "                    self._ready.append(successors.popleft())\n                    behind[key] = successors or None",
        "                    self._ready.append(successors.popleft())\n                    self._queue.put(successors)",
        ("tests/test_ordering.py", RUNNER),
    ),
    Mutation(
        "all keys are let go of while some are waited for",
        "octopus/ordering.py",
        " and not any(behind.values())",
        "",
        ("tests/test_ordering.py", RUNNER),
    ),
    Mutation(
        "records whose keys became free in another order run in that order, and others count as settled",
        "octopus/ordering.py",
        "        taken.sort(key=offset_of)",
        "        pass",
        ("tests/test_ordering.py", "tests/test_runner_schedules.py"),
    ),
    Mutation(
        "what is behind a record that cannot be read runs",
        "octopus/ordering.py",
        "            self._ended = True\n            self._runs.clear()",
        "            self._runs.popleft()",
        ("tests/test_unread.py", "tests/worker/test_flow.py"),
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
        "octopus/runner/runner.py",
        "is_late = now - self._awaited_since > YIELD_AFTER",
        "is_late = elapsed > YIELD_AFTER",
        (RUNNER,),
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
        "each.partition: Commit(each.ledger.committable,",
        "each.partition: Commit(each.ledger.position,",
        (DELIVERY,),
    ),
    Mutation(
        "what is committed is the position, as trials with real processes see it",
        "octopus/worker/group.py",
        "each.partition: Commit(each.ledger.committable,",
        "each.partition: Commit(each.ledger.position,",
        (KILLS,),
    ),
    Mutation(
        "a partition's records overtake each other, as trials with real processes see it",
        "octopus/ordering.py",
        "        if self._busy:\n            return ()\n        taken",
        "        taken",
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
        "                return self._commits.fail(error, self.outlook, self._loop.time())",
        "                for generation in due:\n                    generation.note_committed(offsets[generation.partition].offset)",
        (DELIVERY,),
    ),
    Mutation(
        "a revoked partition is given away without waiting for what runs",
        "octopus/worker/group.py",
        "await self._runner.drain(leaving, budget)",
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
        "await runner.drain(generations, timeout)",
        "await runner.drain(generations, 0.0)",
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
        "generation.lanes.put([record for record in read if record.offset not in known])",
        "generation.lanes.put([record for record in read])",
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
        "                await self._send(messages)\n            except TransportError as error:\n",
        "                asyncio.ensure_future(self._send(messages))\n            except TransportError as error:\n",
        (DELIVERY,),
    ),
    # ── the offset map ──
    Mutation(
        "a map that was damaged is believed",
        "octopus/offsets.py",
        "    if f\"{binascii.crc32(f'{written} {text}'.encode()):08x}\" != checksum:\n        return []\n",
        "",
        ("tests/test_offsets.py",),
    ),
    Mutation(
        "a map that does not fit is cut off",
        "octopus/offsets.py",
        'return encoded if len(encoded) <= limit else ""',
        "return encoded[:limit]",
        ("tests/test_offsets.py",),
    ),
    Mutation(
        "a map is one offset off",
        "octopus/offsets.py",
        "        at = last + 1\n    text",
        "        at = last\n    text",
        ("tests/test_offsets.py", RUNNER),
    ),
    Mutation(
        "the part of a map that was not received yet is dropped",
        "octopus/offsets.py",
        "return ranges + [(max(first, position), last) for first, last in self._ahead if last >= position]",
        "return ranges",
        ("tests/test_offsets.py", PLANS),
    ),
    Mutation(
        "of a range of the map that was received in part, the rest is dropped",
        "octopus/offsets.py",
        "for first, last in self._ahead if last >= position]",
        "for first, last in self._ahead if first >= position]",
        ("tests/test_offsets.py", PLANS),
    ),
    Mutation(
        "what an earlier owner settled counts as work of this one",
        "octopus/offsets.py",
        "        self.settled_count -= len(known)\n",
        "",
        ("tests/test_offsets.py",),
    ),
    Mutation(
        "a map skips a record that an earlier owner left open",
        "octopus/offsets.py",
        "while ahead and ahead[0][1] < offset:",
        "while False:",
        ("tests/test_offsets.py",),
    ),
    # ── what is committed when ──
    Mutation(
        "the map of a commit is missing",
        "octopus/offsets.py",
        "ahead = encode_map(ledger.committable, ledger.settled_ahead(), map_limit(topic_id))",
        "ahead = encode_map(ledger.committable, [])",
        (DELIVERY,),
    ),
    Mutation(
        "what settles while a commit is under way counts as committed",
        "octopus/worker/group.py",
        "generation.note_committed(offsets[generation.partition].offset, count)",
        "generation.note_committed(generation.ledger.committable, generation.ledger.ahead)",
        (DELIVERY,),
    ),
    Mutation(
        "a commit without an answer is waited for, for ever",
        "octopus/worker/group.py",
        "async with asyncio.timeout(self._settings.commit_timeout):\n                    due = await self._topics.same(due)",
        "async with asyncio.timeout(None):\n                    due = await self._topics.same(due)",
        (DELIVERY,),
    ),
    Mutation(
        "a stop does not commit",
        "octopus/worker/group.py",
        "commit = partial(self._commit, generations)",
        "commit = partial(self._commit, ())",
        (DELIVERY,),
    ),
    # ── anchors ──
    Mutation(
        "a partition that appears later begins at its end",
        "octopus/worker/anchors.py",
        "        if birth is not None and partition.partition < birth.partitions:\n"
        "            place = resolve_start(start, birth.time)\n"
        '            if place == "latest" and partition.topic in births:\n                place = birth.time\n',
        "        place = resolve_start(start, otherwise[partition.topic].time)\n",
        (DELIVERY,),
    ),
    Mutation(
        "each member means its own moment by latest",
        "octopus/worker/anchors.py",
        '            if place == "latest" and partition.topic in births:\n                place = birth.time\n',
        "",
        (DELIVERY, "tests/worker/test_group.py"),
    ),
    # ── topics that are made again ──
    Mutation(
        "a commit does not say of which topic it is",
        "octopus/offsets.py",
        'return metadata if topic_id is None else f"{TOPIC_PREFIX}{topic_id} {metadata}".rstrip()',
        "return metadata",
        (RECREATED,),
    ),
    Mutation(
        "a commit is made without a look at the topic",
        "octopus/worker/group.py",
        "                    due = await self._topics.same(due)\n",
        "",
        (RECREATED,),
    ),
    Mutation(
        "a transaction is made without a look at the topic",
        "octopus/worker/transactions.py",
        "same = await self._topics.same(due)",
        "same = due",
        (RECREATED,),
    ),
    Mutation(
        "a commit of another topic is believed",
        "octopus/worker/known_topics.py",
        "return expected is not None and found is not None and expected != found",
        "return False",
        (RECREATED,),
    ),
    Mutation(
        "a process forgets which topics it has read",
        "octopus/worker/known_topics.py",
        "            self._ids[topic] = topic_id\n",
        "            pass\n",
        (RECREATED,),
    ),
    Mutation(
        "the offsets of an old topic are part of a transaction",
        "octopus/worker/transactions.py",
        "if not generation.is_outdated:  # else",
        "if True:  # else",
        (RECREATED,),
    ),
    Mutation(
        "a topic is begun anew before what was read of the old one is finished",
        "octopus/worker/group.py",
        "if self._is_idle(each) or at <= latest",
        "if True",
        (RECREATED,),
    ),
    Mutation(
        "nobody is left word that a topic was made again",
        "octopus/worker/topic_watch.py",
        "            await self._starts.mark({each.partition: each.topic_id for each in unmarked}, self._patience)\n",
        "            pass\n",
        (RECREATED,),
    ),
    Mutation(
        "topics are looked at only when something is committed",
        "octopus/worker/topic_watch.py",
        "if self._doubtful or self._loop.time() - self._looked_at >= LOOK_WAIT:",
        "if self._doubtful:",
        (RECREATED,),
    ),
    Mutation(
        "an answer about the old topic is taken for one about the new one",
        "octopus/transports/kafka/fetch_by_id.py",
        "if current.get(TopicPartition(topic, each[0])) == topic_id]",
        "if current]",
        ("tests/transports/test_fetch_by_id.py",),
    ),
    Mutation(
        "one broker that lags behind is believed",
        "octopus/transports/kafka/topic_ids.py",
        "            found = await self._ask_all(topics, timeout)\n",
        "            pass\n",
        ("tests/transports/test_topic_ids.py",),
    ),
    # ── drain ──
    Mutation(
        "a drain lets more begin",
        "octopus/runner/runner.py",
        "        self._forget(generations)\n        running =",
        "        running =",
        (RUNNER,),
    ),
    # ── outputs and their transactions ──
    Mutation(
        "an output does not wait for its record to settle",
        "octopus/outputs.py",
        "self._kept.setdefault(first, []).append(Contribution(messages, first, last, refuse))",
        "self._waiting.append(Contribution(messages, first, last, refuse))",
        (ONCE,),
    ),
    Mutation(
        "what a run published that was cancelled is kept",
        "octopus/outputs.py",
        "                    self._kept.pop(each.offset, None)\n",
        "                    pass\n",
        (ONCE,),
    ),
    Mutation(
        "what middleware takes back is published",
        "octopus/outputs.py",
        "            elif not isinstance(outcome, Retry):\n                self._release(stored.offset)",
        "            else:\n                self._release(stored.offset)",
        (ONCE,),
    ),
    Mutation(
        "a task that outlives its attempt publishes into it",
        "octopus/outputs.py",
        "        attempt.is_over = True\n",
        "        pass\n",
        (ONCE,),
    ),
    Mutation(
        "what a transaction took is taken again",
        "octopus/outputs.py",
        "self._waiting = [] if before is None else",
        "self._waiting = self._waiting if before is None else",
        (ONCE,),
    ),
    Mutation(
        "offsets are not part of the transaction",
        "octopus/worker/transactions.py",
        "                await self._producer.send_offsets(self._group, {self._partition: commit})\n",
        "",
        (ONCE,),
    ),
    Mutation(
        "offsets are committed before their transaction, as trials with real processes see it",
        "octopus/worker/transactions.py",
        "            await transactions.commit(generation)\n",
        "            await GroupWorker._commit(self, [generation])\n            generation.committed = None\n"
        "            await transactions.commit(generation)\n",
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
        "octopus/worker/transactions.py",
        "        try:\n"
        "            async with asyncio.timeout(START_TIMEOUT):\n"
        "                await _all(each.start() for each in opened.values())\n"
        "        except TimeoutError as error:\n"
        "            raise ConnectionFailed(\n"
        '                f"the transactional producers of {self.pipeline.group} did not start within {START_TIMEOUT:g} s"\n'
        "            ) from error\n"
        "        await super()._begin(partitions)\n",
        "        await super()._begin(partitions)\n        await _all(each.start() for each in opened.values())\n",
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
        "                outputs = await self._without_refused(outputs)",
        "                outputs = []",
        (ONCE,),
    ),
    Mutation(
        "the last transaction before a stop is left out",
        "octopus/worker/transactions.py",
        "                await _all(self._transactions[generation.partition].commit(generation) for generation in due)\n",
        "                pass\n",
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
            "--timeout=60",
            "-m",
            "not slow",
            *mutation.options,
            *mutation.tests,
        ]
        environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return None  # a worker that waits for ever has noticed, too: by itself each of these takes seconds
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
