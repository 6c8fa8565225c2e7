"""How much to take from librdkafka at once."""

from confluent_kafka import Consumer, Message

from octopus.transports.base import MAX_BYTES

PULL = 1000
"""Messages taken from librdkafka at once, at most."""

AHEAD = 2000
"""Messages at hand for waiting readers; beyond that many, no more are taken from librdkafka."""

FIRST_PULL = 16
"""The same as `PULL` before it is known how large messages are: librdkafka says so only of those it hands over."""


class Pace:
    """Takes fewer messages at once the larger they are: taking one copies it."""

    def __init__(self) -> None:
        self._most = FIRST_PULL

    def pull(self, client: Consumer) -> list[Message]:
        """Take the messages at hand, without waiting."""
        messages = client.consume(self._most, 0)
        if messages:
            fitting = MAX_BYTES * len(messages) // (sum(map(len, messages)) or 1)
            self._most = max(1, min(PULL, 2 * self._most, fitting))
        return messages

    @staticmethod
    def has_room(count: int, size: int) -> bool:
        """Tell whether more may be taken.

        Args:
            count: Messages that lie ready.
            size: Bytes of their values.
        """
        return count < AHEAD and size < MAX_BYTES
