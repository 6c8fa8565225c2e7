"""What becomes of an event: published, tried again, set aside."""

from tests.faults.mutations.mutation import Mutation

DELIVERY = "tests/worker/test_delivery.py"
RETRY_TOPICS = "tests/worker/test_retry_topics.py"
TRIALS = "tests/faults/test_crashes.py"
KILLS = f"{TRIALS}::test_workers_killed_at_random_points_lose_nothing"

MUTATIONS = (
    Mutation(
        "an event publishes with the trace of the one before it",
        "octopus/pipeline/handling.py",
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
        "octopus/pipeline/dead_letters.py",
        "return msgspec.structs.replace(message, headers=smaller)",
        "return msgspec.structs.replace(message, headers=smaller, value=b'')",
        ("tests/pipeline/test_dead_letters.py",),
    ),
    Mutation(
        "dead letters are not waited for, as trials with real processes see it",
        "octopus/pipeline/boundary.py",
        "        if isinstance(outcome, DeadLetter):\n            await publish_dead_letter(record, outcome, attempt)",
        "        if isinstance(outcome, DeadLetter):\n            pass",
        (f"{KILLS}[embedded-partition]",),
    ),
    Mutation(
        "a deferred retry is settled before it is acknowledged",
        "octopus/retrying/topics.py",
        "            await self._patience.until_sent(partial(self._producer.send, message))\n",
        "            import asyncio\n\n            asyncio.ensure_future(self._producer.send(message))\n",
        (RETRY_TOPICS,),
    ),
    Mutation(
        "a deferred retry forgets its attempts",
        "octopus/retrying/topics.py",
        "math.ceil(due * 1000), attempt + retry.counted)",
        "math.ceil(due * 1000), 1)",
        (RETRY_TOPICS,),
    ),
    Mutation(
        "a deferred retry runs when it is read",
        "octopus/retrying/waiting.py",
        "        if left <= 0:\n",
        "        if True:\n",
        (RETRY_TOPICS, "tests/retrying/test_waiting.py"),
    ),
    Mutation(
        "those that wait never make room",
        "octopus/retrying/waiting.py",
        "        return self._is_emptying and ",
        "        return False and ",
        (RETRY_TOPICS, "tests/retrying/test_waiting.py"),
    ),
    Mutation(
        "a dead letter is settled before it is acknowledged",
        "octopus/pipeline/boundary.py",
        "        if isinstance(outcome, DeadLetter):\n            await publish_dead_letter(record, outcome, attempt)",
        "        if isinstance(outcome, DeadLetter):\n            asyncio.ensure_future(publish_dead_letter(record, outcome, attempt))",
        (DELIVERY,),
    ),
    Mutation(
        "a dead letter that cannot be written is dropped",
        "octopus/pipeline/dead_letters.py",
        "                if smaller is None:\n                    raise HandlerStopped(",
        "                if smaller is None:\n                    return\n                    raise HandlerStopped(",
        (DELIVERY,),
    ),
    Mutation(
        "what a handler returns is not waited for",
        "octopus/pipeline/results.py",
        "        if messages := self.messages(result, key):\n            try:\n                await self._send(messages)\n",
        "        if messages := self.messages(result, key):\n            try:\n                asyncio.ensure_future(self._send(messages))\n",
        ("tests/worker/test_exactly_once.py",),
    ),
)
