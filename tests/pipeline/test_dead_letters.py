"""Dead letters: what is counted, what is written, what can be taken off again."""

import pytest

from octopus.errors import ConnectionFailed, HandlerStopped
from octopus.events import Record, TopicPartition
from octopus.outcomes import DeadLetter
from octopus.pipeline.dead_letters import DeadLetters, original_headers, shed
from octopus.transports.base import Outgoing
from octopus.transports.memory import MemoryBroker, MemoryTransport

RECORD = Record("t", 2, 7, 1500, b"k", b"v", (("own", b"1"), ("own", None)))
FAILED = DeadLetter("failed")
REJECTED = DeadLetter("not mine", rejected=True)


def dead_letters(broker: MemoryBroker, **options: object) -> DeadLetters:
    return DeadLetters(MemoryTransport(broker).producer(), "handler", **options)  # type: ignore[arg-type]


def stored(broker: MemoryBroker, topic: str = "t.dead-letter") -> list[Record]:
    return [each for each in broker.log(TopicPartition(topic, 0)).records if each is not None]


async def test_the_original_is_kept_and_can_be_had_again() -> None:
    broker = MemoryBroker()
    await dead_letters(broker).publish(RECORD, FAILED, 3)
    (dead_letter,) = stored(broker)
    assert (dead_letter.key, dead_letter.value) == (b"k", b"v")
    assert original_headers(dead_letter.headers) == list(RECORD.headers)
    assert len(dead_letter.headers) == 2 + 7, "no error, no traceback"


async def test_a_reason_is_cut_and_survives_any_text() -> None:
    broker = MemoryBroker()
    await dead_letters(broker, topic="tomb").publish(RECORD, DeadLetter("\ud800" + "x" * 5000), 1)
    reason = dict(stored(broker, "tomb")[0].headers)["octopus-dead-letter-reason"]
    assert reason is not None
    assert reason.startswith(b"\\ud800xxx")
    assert len(reason) < 1100


async def test_equal_causes_have_equal_fingerprints() -> None:
    broker, found = MemoryBroker(), []
    for value in (1, 2):
        try:
            raise ValueError(value)
        except ValueError as error:
            found.append(error)
    for error in found:
        await dead_letters(broker).publish(RECORD, DeadLetter("failed", error), 1)
    first, second = (dict(dead_letter.headers)["octopus-dead-letter-traceback"] for dead_letter in stored(broker))
    assert first == second


async def test_rejected_events_do_not_count_towards_the_limit() -> None:
    broker = MemoryBroker()
    some = dead_letters(broker, limit=2)
    for dead_letter in (REJECTED, FAILED, REJECTED, FAILED, REJECTED):
        await some.publish(RECORD, dead_letter, 1)
    with pytest.raises(HandlerStopped, match="2 events died"):
        await some.publish(RECORD, FAILED, 1)
    assert len(stored(broker)) == 5


async def test_a_broker_that_is_away_is_asked_again() -> None:
    broker = MemoryBroker()
    broker.faults.fail_next("send", ConnectionFailed("away"))
    await dead_letters(broker).publish(RECORD, FAILED, 1)
    assert len(stored(broker)) == 1


# ── what does not fit ─────────────────────────────────────────────────────────────────────────────────────────────────

LARGE = Record("t", 2, 7, 1500, b"key", b"v" * 1000, (("own", b"h" * 500), ("Content-Type", b"application/json")))


@pytest.mark.parametrize(
    ("room", "kept", "lost"),
    [
        pytest.param(
            4000, {"own", "Content-Type", "reason", "error", "traceback", "timestamp"}, set(), id="everything"
        ),
        pytest.param(
            2100, {"own", "Content-Type", "reason", "topic", "offset", "shed"}, {"error", "timestamp"}, id="trace"
        ),
        pytest.param(1500, {"Content-Type", "reason", "handler", "offset", "shed"}, {"own", "error"}, id="headers"),
        pytest.param(1040, {"Content-Type"}, {"own", "reason", "topic", "shed"}, id="almost everything"),
        pytest.param(1003, set(), {"Content-Type", "reason"}, id="all headers"),
    ],
)
async def test_a_dead_letter_that_does_not_fit_sheds_headers_and_never_its_value(
    room: int, kept: set[str], lost: set[str]
) -> None:
    broker = MemoryBroker(max_record_bytes=room)
    await dead_letters(broker).publish(LARGE, DeadLetter("failed" + "!" * 900, ValueError("no")), 3)
    (dead_letter,) = stored(broker)
    assert (dead_letter.key, dead_letter.value) == (LARGE.key, LARGE.value)
    names = {name.removeprefix("octopus-dead-letter-") for name, _ in dead_letter.headers}
    assert names >= kept
    assert not names & lost


async def test_headers_that_are_too_large_alone_stay_behind() -> None:
    broker = MemoryBroker(max_record_bytes=500)
    await dead_letters(broker).publish(Record("t", 2, 7, 1500, None, b"v", (("own", b"h" * 2000),)), FAILED, 1)
    (dead_letter,) = stored(broker)
    assert dict(dead_letter.headers)["octopus-dead-letter-shed"] == b"headers"
    assert dead_letter.value == b"v"


async def test_a_value_that_is_too_large_alone_stops_processing() -> None:
    broker = MemoryBroker(max_record_bytes=1002)
    with pytest.raises(
        HandlerStopped, match=r"cannot write the dead letter of t\[2\]@7 to 't.dead-letter'.* over the limit"
    ):
        await dead_letters(broker).publish(LARGE, FAILED, 1)


def test_shedding_comes_to_an_end() -> None:
    message, sizes = Outgoing("t.dead-letter", b"v", None, [("octopus-dead-letter-reason", b"no"), ("own", b"")]), []
    while (smaller := shed(message)) is not None:
        message = smaller
        sizes.append(len(message.headers))
    assert sizes[-1] == 0
    assert len(sizes) <= 4


async def test_the_dead_letters_of_a_topic_whose_name_is_too_long_for_theirs_stop_processing() -> None:
    broker = MemoryBroker()
    with pytest.raises(HandlerStopped, match=r"has 250 characters and 249 are possible\. Name one with dead_letter="):
        await dead_letters(broker).publish(Record("t" * 238, 0, 0, 0, None, b"v"), FAILED, 1)
    assert not broker.topics
