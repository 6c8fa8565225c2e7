"""Topics that are made, vanish, and are made again."""

from tests.faults.mutations.mutation import Mutation

RECREATED = "tests/worker/test_recreated_topics.py"

MUTATIONS = (
    Mutation(
        "a dead-letter topic is made with the broker's limit",
        "octopus/transports/topic_creation.py",
        "config = {SIZE_LIMIT: str(max(limits) + HEADROOM)} if limits else None",
        "config = None",
        ("tests/transports/test_topic_creation.py",),
    ),
    Mutation(
        "after a topic vanished everything is sent again",
        "octopus/transports/queueing.py",
        "published = error.published or [None] * len(self.whole)",
        "published = [None] * len(self.whole)",
        ("tests/transports/test_vanished_topics.py",),
    ),
    Mutation(
        "what is published while its topic is made again overtakes what waits for it",
        "octopus/transports/topic_queue.py",
        "if isinstance(error, TopicNotFound):",
        "if False:",
        ("tests/transports/test_queueing.py::test_nothing_overtakes_what_waits_for_its_topic",),
    ),
    Mutation(
        "what is queued behind a sequence number that was refused is sent before it",
        "octopus/transports/kafka/renewal.py",
        "engine.take_back_queued(Renewing())",
        "pass",
        (
            "tests/transports/test_requests_in_flight.py::test_what_is_queued_behind_a_refused_sequence_number_waits_for_it",
        ),
    ),
    Mutation(
        "what is queued behind a batch that was not acknowledged is stored",
        "octopus/transports/kafka/producer.py",
        "self._closed.close(place, error, self._unfinished())",
        "pass",
        (
            "tests/transports/test_queueing.py::test_who_sends_again_what_has_failed_is_not_overtaken_by_what_was_queued_behind_it",
        ),
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
        "return number <= MENDS and await self._mend(error, not_stored(messages, error), number)",
        "return False",
        ("tests/worker/test_derived_topics.py",),
    ),
    Mutation(
        "a commit does not say of which topic it is",
        "octopus/runner/commit_metadata.py",
        'return metadata if topic_id is None else f"{TOPIC_PREFIX}{topic_id} {metadata}".rstrip()',
        "return metadata",
        (RECREATED,),
    ),
    Mutation(
        "a commit is made without a look at the topic",
        "octopus/worker/commits.py",
        "                    due = await context.topics.same(due)\n",
        "",
        (RECREATED,),
    ),
    Mutation(
        "a transaction is made without a look at the topic",
        "octopus/worker/transactions.py",
        "same = await self._context.topics.same(due)",
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
        "if not (assignment.is_outdated or await",
        "if not (await",
        (RECREATED,),
    ),
    Mutation(
        "the outputs of a transaction whose topic went are dropped",
        "octopus/worker/transactions.py",
        "                self.outbox.put_back(written)\n",
        "",
        (RECREATED,),
    ),
    Mutation(
        "retries that wait in memory go with the session",
        "octopus/worker/group.py",
        "            await self._rescue.before_drain(leaving, self._settings.revoke_budget / 2)\n",
        "",
        ("tests/worker/test_retry_topics.py",),
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
        "            marked = await self._starts.mark(old, self._patience)\n",
        "            marked = old\n",
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
)
