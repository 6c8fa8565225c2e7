"""Connections, frames, members of groups, brokers that are looked for."""

from tests.faults.mutations.mutation import Mutation

LEAVING = "tests/transports/test_leaving.py"
EMBEDDED = ("-k", "not kafka")

MUTATIONS = (
    Mutation(
        "a batch is unpacked whether there is room or not",
        "octopus/transports/kafka/reader.py",
        "if room is not None and size > room:",
        "if False:",
        ("tests/transports/test_fetched.py",),
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
        "request, group=LEAVING))",
        "request, group=1))",  # ConnectionGroup.COORDINATION
        (LEAVING,),
        EMBEDDED,
    ),
    Mutation(
        "a namesake takes its place back for ever",
        "octopus/transports/kafka/membership.py",
        "name_member(request, self._id_before)",
        'name_member(request, "")',
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
        "a broker that was stopped is started again by whoever misses it",
        "octopus/transports/whereabouts.py",
        "if owner.was_stopped:",
        "if False:",
        (
            "tests/transports/test_whereabouts.py::test_a_broker_that_was_stopped_is_waited_for_until_somebody_begins_anew",
        ),
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
        "octopus/transports/kafka/engine.py",
        "return iter(())",
        "return super()._unpack_records()",
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
        "what was on its way goes behind what was queued behind it, under a new producer id",
        "octopus/transports/kafka/renewal.py",
        "sorted(self._kept, key=_PLACE), []",
        "self._kept, []",
        ("tests/transports/test_requests_in_flight.py",),
    ),
    Mutation(
        "a partition stays closed behind a failure that everybody has heard of",
        "octopus/transports/kafka/closed.py",
        "if behind and self.error_of(place) is None:",
        "if self.error_of(place) is None:",
        ("tests/transports/test_queueing.py",),
    ),
    Mutation(
        "what came while a topic could not be asked for goes before what came earlier",
        "octopus/transports/topic_queue.py",
        "            self._give_up(held, error)\n            self._fail_behind(held, error)",
        "            self._give_up(held, error)",
        ("tests/transports/test_topic_queue.py",),
    ),
    Mutation(
        "what is held up behind a failure goes before what has failed",
        "octopus/transports/topic_queue.py",
        "self._give_up(behind, error)",
        "pass",
        ("tests/transports/test_topic_queue.py",),
    ),
    Mutation(
        "what is refused for its topic behind a failure goes before what has failed",
        "octopus/transports/topic_queue.py",
        "call.number in self._behind else None",
        "call.number < 0 else None",
        ("tests/transports/test_topic_queue.py",),
    ),
    Mutation(
        "who queues before the word of a failure has come overtakes what has failed",
        "octopus/transports/topic_queue.py",
        "if self._unheard.error is not None:",
        "if False:",
        ("tests/transports/test_topic_queue.py",),
    ),
    Mutation(
        "a part that has failed is overtaken while other topics are waited for",
        "octopus/transports/topic_queue.py",
        "call.word = word or future",
        "call.word = future",
        ("tests/transports/test_topic_queue.py",),
    ),
    Mutation(
        "sequence numbers go on below zero",
        "octopus/transports/kafka/producer_engine.py",
        "+ records) % NUMBERS",
        "+ records)",
        ("tests/transports/test_requests_in_flight.py",),
    ),
)
