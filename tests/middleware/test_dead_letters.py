"""Dead letters: what is counted, what is written, what can be taken off again."""

import pytest

from octopus.errors import ConnectionFailed, HandlerStopped
from octopus.events import Record, TopicPartition
from octopus.middleware.dead_letters import DeadLetters, original_headers
from octopus.outcomes import DeadLetter
from octopus.transports.memory import MemoryBroker, MemoryTransport

RECORD = Record("t", 2, 7, 1500, b"k", b"v", (("own", b"1"), ("own", None)))
FAILED = DeadLetter("failed")
REJECTED = DeadLetter("not mine", rejected=True)


def letters(broker: MemoryBroker, **options: object) -> DeadLetters:
    return DeadLetters(MemoryTransport(broker).producer(), "handler", **options)  # type: ignore[arg-type]


def stored(broker: MemoryBroker, topic: str = "t.dead-letter") -> list[Record]:
    return [each for each in broker.log(TopicPartition(topic, 0)).records if each is not None]


async def test_the_original_is_kept_and_can_be_had_again() -> None:
    broker = MemoryBroker()
    await letters(broker).bury(RECORD, FAILED, 3)
    (letter,) = stored(broker)
    assert (letter.key, letter.value) == (b"k", b"v")
    assert original_headers(letter.headers) == list(RECORD.headers)
    assert len(letter.headers) == 2 + 7, "no error, no traceback"


async def test_a_reason_is_cut_and_survives_any_text() -> None:
    broker = MemoryBroker()
    await letters(broker, topic="tomb").bury(RECORD, DeadLetter("\ud800" + "x" * 5000), 1)
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
        await letters(broker).bury(RECORD, DeadLetter("failed", error), 1)
    first, second = (dict(letter.headers)["octopus-dead-letter-traceback"] for letter in stored(broker))
    assert first == second


async def test_rejected_events_do_not_count_towards_the_limit() -> None:
    broker = MemoryBroker()
    some = letters(broker, limit=2)
    for letter in (REJECTED, FAILED, REJECTED, FAILED, REJECTED):
        await some.bury(RECORD, letter, 1)
    with pytest.raises(HandlerStopped, match="2 events died"):
        await some.bury(RECORD, FAILED, 1)
    assert len(stored(broker)) == 5


async def test_a_broker_that_is_away_is_asked_again() -> None:
    broker = MemoryBroker()
    broker.faults.fail_next("send", ConnectionFailed("away"))
    await letters(broker).bury(RECORD, FAILED, 1)
    assert len(stored(broker)) == 1
