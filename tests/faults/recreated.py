"""A topic beside the one of a trial, which is deleted and made again while workers read it, as are those that it needs."""

import asyncio
import contextlib
import random
import time
from itertools import count

import msgspec

from octopus.errors import TransportError
from octopus.testing.history import Finished, Offered
from octopus.transports.base import Outgoing
from tests.faults.jobs import RENEWED, Job, recreated_of, topic_of_life
from tests.faults.journal import now
from tests.faults.trial import Trial

PARTITIONS = 3


class RecreatedTopic:
    """Publishes to the topic of the moment, and knows what its handlers owe.

    Of a topic that is deleted nobody owes anything any more; of the one that is there now, everything acknowledged: no
    position of the former one may hide a record of this one.

    Args:
        trial: Whose workers read it (`WorkerPlan.recreated`).
        chance: Chooses.
    """

    def __init__(self, trial: Trial, chance: random.Random) -> None:
        self._trial = trial
        self._chance = chance
        self._topic = recreated_of(trial.topic)
        self._acknowledged: set[str] = set()
        self._handled: set[str] = set()
        self._numbers = count()
        self._life = 0
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Make the topic for the first time."""
        await self._create()

    async def publish(self, amount: int) -> None:
        """Publish; what is not acknowledged may or may not be there."""
        async with self._changing:
            jobs = [self._job() for _ in range(amount)]
            messages = [Outgoing(self._topic, msgspec.json.encode(job), job.id[-1:].encode()) for job in jobs]
            # The history does not wait for them: `settled` does.
            topic = topic_of_life(jobs[0].id, self._topic)
            self._trial.note(*(Offered(time=now(), id=job.id, topic=topic, wanted=False) for job in jobs))
            with contextlib.suppress(TransportError):
                await self._trial.producer.send_many(messages)
                self._acknowledged.update(job.id for job in jobs)

    def _job(self) -> Job:
        does = "fail" if self._chance.random() < 0.1 else "later" if self._chance.random() < 0.1 else "work"
        return Job(f"life-{self._life}-{next(self._numbers)}", does)  # type: ignore[arg-type]

    async def recreate(self) -> None:
        """Delete the topic and make it again, at once or after a while, and publish to it."""
        async with self._changing:
            self._trial.disturb("topic made again", excuses=0)
            self._acknowledged.clear()
            self._life += 1
            await self._delete(self._topic)
            await asyncio.sleep(self._chance.choice([0, 0, 0.5, 3]))
            await self._create()
        await self.publish(self._chance.choice([1, 20, 200]))

    async def delete_derived(self) -> None:
        """Delete a topic of dead letters, of retries or of outputs, which the workers need next."""
        name = self._chance.choice(
            [f"{self._topic}.dead-letter", f"{self._trial.app}.renew.retry", f"{self._topic}.out"]
        )
        self._trial.disturb("derived topic deleted", excuses=0)
        await self._delete(name)
        await self.publish(20)

    async def settled(self, timeout: float) -> None:
        """Wait until every record of the topic of now has been handled.

        Raises:
            AssertionError: Some have not.
        """
        deadline = time.monotonic() + timeout
        while owed := self._owed():
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{self._topic}: {len(owed)} not handled, {min(owed)} among them\n{self._trial.story()}"
                )
            await asyncio.sleep(0.5)

    def _owed(self) -> set[str]:
        news = self._trial.news()
        self._handled |= {event.id for event in news if isinstance(event, Finished) and event.run == RENEWED}
        return self._acknowledged - self._handled

    async def _delete(self, topic: str) -> None:
        with contextlib.suppress(TransportError):  # not there, or nobody to ask: another time
            await self._trial.admin.delete_topic(topic)

    async def _create(self) -> None:
        while True:
            with contextlib.suppress(TransportError):
                await self._trial.admin.create_topic(self._topic, partitions=PARTITIONS)
                return
            await asyncio.sleep(0.2)
