"""Dead letters put back where they were: all that wait, or a choice."""

from collections import Counter
from dataclasses import dataclass

import msgspec

from octopus.config import Settings
from octopus.events import StoredRecord, TopicPartition
from octopus.operations.dead_letters import REPLAY_GROUP, DeadLetter, Waiting, read_dead_letters
from octopus.operations.progress import Advance, unseen
from octopus.operations.records import is_match
from octopus.patterns import Pattern
from octopus.pipeline.dead_letters import original_headers
from octopus.transports.base import Commit, Outgoing, Transport
from octopus.transports.opening import administering, producing


@dataclass(frozen=True)
class Choice:
    """Which dead letters are meant; false when all are.

    Attributes:
        places: Only those at these partitions and offsets; empty for all.
        handler: Only those that this handler gave up; None for all.
        pattern: Only those whose value matches; None for all.
    """

    places: frozenset[tuple[TopicPartition, int]] = frozenset()
    handler: str | None = None
    pattern: Pattern | None = None

    def __bool__(self) -> bool:
        return bool(self.places or self.handler or self.pattern)

    def includes(self, dead_letter: DeadLetter) -> bool:
        """Tell whether this one is meant."""
        if self.places and (dead_letter.place, dead_letter.record.offset) not in self.places:
            return False
        if self.handler is not None and dead_letter.cause.get("handler") != self.handler:
            return False
        return is_match(self.pattern, dead_letter.record.value)


ALL = Choice()
"""Every dead letter that waits."""


class PutBack(msgspec.Struct, frozen=True):
    """What was put back.

    Attributes:
        topic: Whose dead letters, as it was named.
        dry_run: Whether it only would have been.
        put_back: How many, by the topic where they are again.
        without_origin: How many were passed over, since nothing says where they were.
    """

    topic: str
    dry_run: bool
    put_back: dict[str, int]
    without_origin: int


async def put_back(
    transport: Transport,
    settings: Settings,
    topic: str,
    span: Waiting,
    *,
    choice: Choice = ALL,
    to: str | None = None,
    dry_run: bool = False,
    advance: Advance = unseen,
) -> PutBack:
    """Put dead letters back where they were, with the key, value and headers of the original.

    What was put back is remembered, so the next time goes on behind it; unless there was a choice, which leaves some.

    Args:
        transport: Where.
        settings: How to consume and produce, and whether missing topics are made.
        topic: Whose dead letters, for the result.
        span: Where they wait: see `find_waiting`.
        choice: Which of them.
        to: The topic to put them into; None for that where each was.
        dry_run: Only say what would be put back.
        advance: Told how many more dead letters were looked at.

    Raises:
        OperationFailed: A partition cannot be read on.
        TransportError: The broker does not answer, or refuses; what was not acknowledged is put back next time.
    """
    back: Counter[str] = Counter()
    homeless = 0
    async with administering(transport) as admin, producing(transport, settings) as producer:
        async for place, dead_letters in read_dead_letters(transport, settings, span):
            advance(len(dead_letters))
            messages = []
            for dead_letter in filter(choice.includes, dead_letters):
                target = to or dead_letter.cause.get("topic")
                if target is None:
                    homeless += 1
                else:
                    messages.append(_restored(dead_letter.record, target))
            back.update(message.topic for message in messages)
            if dry_run:
                continue
            if messages:
                await producer.send_many(messages)
            if not choice:
                # Only behind what was acknowledged: a replay that is cut short puts the rest back next time.
                await admin.set_group_offsets(REPLAY_GROUP, {place: Commit(dead_letters[-1].record.offset + 1)})
    return PutBack(topic, dry_run, dict(back), homeless)


def _restored(record: StoredRecord, topic: str) -> Outgoing:
    return Outgoing(topic, record.value, record.key, original_headers(record.headers))
