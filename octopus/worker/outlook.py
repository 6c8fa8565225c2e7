"""Whether the broker answers, and for which partitions: asked while a worker runs, and said once when it changes.

What clients last heard says nothing about now. An engine that reaches no broker fetches nothing and raises nothing, and the
lag stays what it was: 0, most likely. So a task asks, on a connection of its own, for the ends of everything that is
read here: one small request for the whole process.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from octopus.errors import OctopusError, TransportError
from octopus.events import TopicPartition
from octopus.logs import get_logger
from octopus.text import first_few
from octopus.transports.base import Admin, Transport
from octopus.worker.admin_connection import AdminConnection

logger = get_logger("octopus.worker")

ASK_EVERY = 2.0
"""Seconds between two questions."""

ANSWER_TIME = 3.0
"""Seconds an answer may take; a change of leaders is shorter, as a rule."""


class Outlook:
    """What is known of the broker now. Time comes as an argument.

    Attributes:
        trouble: Why it does not answer, or None.
        silent: Partitions of which nothing is heard although it answers, with the reason.
        ends: Ends of partitions as it last said them.
    """

    def __init__(self) -> None:
        self.trouble: str | None = None
        self.silent: Mapping[TopicPartition, str] = {}
        self.ends: Mapping[TopicPartition, int] = {}
        self._since = 0.0
        self._silent_since: dict[TopicPartition, float] = {}

    def note_outage(self, trouble: str, now: float) -> bool:
        """Take it that the broker did not answer a question; return whether that is news."""
        is_new = self.trouble is None
        if is_new:
            self._since = now
        self.trouble = trouble
        return is_new

    def note_answer(self, found: "Answer", now: float) -> "Change":
        """Take in an answer; return what is different now."""
        was_away = now - self._since if self.trouble is not None else None
        begun = {partition: why for partition, why in found.silent.items() if partition not in self.silent}
        ended = [each for each in self.silent if each not in found.silent]
        longest = max((now - self._silent_since.pop(each) for each in ended), default=0.0)
        self._silent_since |= dict.fromkeys(begun, now)
        self.trouble, self.silent, self.ends = None, found.silent, found.ends
        return Change(was_away, begun, ended, longest)

    def out_for(self, now: float) -> float:
        """Return for how many seconds the broker has been away."""
        return 0.0 if self.trouble is None else now - self._since

    def lag(self, partition: TopicPartition, heard_end: int | None, committable: int) -> int | None:
        """Return how many records of a partition are left to do, None when that cannot be known.

        Args:
            partition: Which.
            heard_end: Its end as its consumer last heard it; older or newer than what is known here.
            committable: Up to where it is done.
        """
        ends = [end for end in (heard_end, self.ends.get(partition)) if end is not None]
        if self.trouble is not None or partition in self.silent or not ends:
            return None
        return max(0, max(ends) - committable)


class Answer(NamedTuple):
    """What a broker that answers says of partitions."""

    ends: Mapping[TopicPartition, int]
    silent: Mapping[TopicPartition, str]


class Change(NamedTuple):
    """What an answer changed.

    Attributes:
        was_away: Seconds for which the broker was, None when it was not.
        begun: Partitions of which nothing is heard any more, with the reason.
        ended: Partitions that are heard of again, or are not ours any more.
        longest: Seconds for which the longest of them was not.
    """

    was_away: float | None
    begun: Mapping[TopicPartition, str]
    ended: Collection[TopicPartition]
    longest: float


class BrokerWatch:
    """Keeps an outlook by asking the broker, and says in the log when an outage begins and when it ends.

    Args:
        transport: Where.
        partitions: Returns what is read here.

    Attributes:
        outlook: What is known.
    """

    def __init__(self, transport: Transport, partitions: Callable[[], set[TopicPartition]]) -> None:
        self.outlook = Outlook()
        self._transport = transport
        self._partitions = partitions
        self._connection = AdminConnection(transport, ANSWER_TIME)
        self._back = asyncio.Event()
        self._asking = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def away(self) -> float:
        """Seconds for which the broker has not answered."""
        return 0.0 if self._loop is None else self.outlook.out_for(self._loop.time())

    async def run(self) -> None:
        """Ask until cancelled."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                await self.ask()
                await asyncio.sleep(ASK_EVERY)
        finally:
            await self._connection.close()

    async def ask(self) -> None:
        """Ask once, and say what is different."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with self._asking:
                answer = await self._answer(self._partitions())
        except (OctopusError, TimeoutError) as error:
            self._back.clear()
            trouble = _reason(error)
            if self.outlook.note_outage(trouble, began):
                logger.warning(
                    "%s does not answer: %s. Handlers finish what they have, nothing is lost, and reading goes on when it "
                    "is back.",
                    self._transport.address,
                    trouble.rstrip("."),
                )
        else:
            self._back.set()
            self._say(self.outlook.note_answer(answer, loop.time()))

    async def pause(self, seconds: float) -> None:
        """Sleep for so long, or until an outage ends."""
        if self.outlook.trouble is None:
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._back.wait()

    async def _answer(self, partitions: set[TopicPartition]) -> Answer:
        """Return what the broker says.

        Raises:
            OctopusError: It cannot be reached, or refuses.
            TimeoutError: It does not answer in time.
        """
        doubtful = self.outlook.silent.keys() & partitions
        async with self._connection.asking() as admin:
            if not partitions - doubtful:
                await admin.topics()
        ends: dict[TopicPartition, int] = {}
        silent: dict[TopicPartition, str] = {}
        try:
            async with self._connection.asking() as admin:
                ends |= await admin.offsets(partitions - doubtful, "latest") if partitions - doubtful else {}
        except (TransportError, TimeoutError):
            # Is it all of it, or some partitions?
            async with self._connection.asking() as admin:
                await admin.topics()
            doubtful = partitions
        for partition, found in zip(
            doubtful, await asyncio.gather(*[_end_of(admin, each) for each in doubtful]), strict=True
        ):
            if isinstance(found, int):
                ends[partition] = found
            else:
                silent[partition] = found
        return Answer(ends, silent)

    def _say(self, change: Change) -> None:
        address = self._transport.address
        if change.was_away is not None:
            logger.warning("%s answers again, after %.1f s", address, change.was_away)
        if change.begun:
            reasons = "; ".join(sorted({reason.rstrip(".") for reason in change.begun.values()}))
            logger.warning(
                "%s says nothing of %s: %s. The other partitions go on.",
                address,
                first_few(sorted(change.begun)),
                reasons,
            )
        if change.ended:
            logger.warning(
                "%s says again, after %.1f s, where %s end", address, change.longest, first_few(sorted(change.ended))
            )


async def _end_of(admin: Admin, partition: TopicPartition) -> int | str:
    """Return a partition's end, or why it is not known."""
    try:
        async with asyncio.timeout(ANSWER_TIME):
            return (await admin.offsets([partition], "latest"))[partition]
    except (OctopusError, TimeoutError) as error:
        return _reason(error)


def _reason(error: OctopusError | TimeoutError) -> str:
    return str(error) or f"nothing came for {ANSWER_TIME:g} s"
