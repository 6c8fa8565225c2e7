"""The course of a soak: publish, disturb, and settle from time to time."""

import asyncio
import contextlib
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

from octopus.errors import TransportError
from octopus.worker.exit_codes import ExitCode
from tests.faults.jobs import Job
from tests.faults.recreated import RecreatedTopic
from tests.faults.soak.outcome import Outcome, Plan, Verdict, replay, write_history
from tests.faults.soak.surroundings import PARTITIONS, Action, Surroundings, embedded, kafka
from tests.faults.trial import Trial
from tests.support.kafka_cluster import KafkaFailed

TRANSACTIONS = 0.02
"""How often a piece of the input is preceded by one in a transaction; half of these are aborted."""

RATE = 120
"""Records a second, about."""

CHECKPOINT = 60.0
"""Seconds between two moments at which everything has to be settled."""

SPARE = 600.0
"""Seconds beyond its time after which a run that does not settle is ended."""

PUBLISHED = 180.0
"""Seconds after which publishing a piece of the input has succeeded or failed: more than all its timeouts together."""

EMBEDDED = {"consumer": {"recreated_topics": "earliest"}}

KAFKA = {"consumer": {"session_timeout": 6, "rebalance_timeout": 12, "recreated_topics": "earliest"}}

ENDS = (ExitCode.OK, ExitCode.UNREACHABLE, -signal.SIGTERM, -signal.SIGKILL)
"""How a worker may end: a SIGTERM may come before it is looked for."""

ENDINGS = (AssertionError, TimeoutError, RuntimeError, TransportError, KafkaFailed)
"""How a run may end before its time: it is stuck, or its broker does not come back."""


class Soak:
    """Publishes, disturbs, and settles from time to time.

    Args:
        trial: Whose workers are disturbed.
        seed: Of the faults.
        surroundings: The broker, and its faults and those of the network.
        tell: Called with a line about what is done.

    Attributes:
        published: How many records, also those of which nothing was acknowledged.
        crashes: The last words of workers that ended as none may.
    """

    def __init__(self, trial: Trial, seed: int, surroundings: Surroundings, tell: Callable[[str], None]) -> None:
        self._trial = trial
        self._chance = random.Random(seed)
        self._tell = tell
        self._publishing = asyncio.Event()
        self._renewed = RecreatedTopic(trial, self._chance)
        self._faults: dict[str, Action] = {
            "kill worker": self._kill,
            "freeze worker": self._freeze,
            "stop worker": self._stop,
            "kill two workers": self._kill_two,
            "stop worker twice": self._stop_twice,
            "join and leave": self._join_and_leave,
            "recreate topic": self._renewed.recreate,
            "delete derived topic": self._renewed.delete_derived,
            "calm": self._calm,
            **surroundings.faults,
        }
        self._look = surroundings.look
        self._publisher: asyncio.Task[None] | None = None
        self.published = 0
        self.crashes: list[str] = []

    async def run(self, seconds: float) -> None:
        """Go on for so long, and settle.

        Raises:
            AssertionError: Something did not settle in time, or a broker died by itself.
        """
        await self._renewed.start()
        await self._trial.working("one", "two", "three")
        end = time.monotonic() + seconds
        self._publisher = asyncio.create_task(self._publish())
        try:
            while (left := end - time.monotonic()) > 0:
                self._publishing.set()
                await self._disturb_for(min(CHECKPOINT, left))
                self._publishing.clear()
                self._tell("settling")
                await self._settle()
        finally:
            self._publisher.cancel()
            await asyncio.gather(self._publisher, return_exceptions=True)

    async def _disturb_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            name = self._chance.choice([*self._faults])
            self._tell(name)
            await self._faults[name]()
            await self._calm()

    async def _settle(self) -> None:
        settling = asyncio.gather(self._trial.settled(180), self._renewed.settled(180))
        try:
            while not settling.done():
                self._keep()
                await asyncio.wait([settling], timeout=0.5)
            settling.result()
        finally:
            settling.cancel()

    def _keep(self) -> None:
        """Start workers again that ended by themselves, as a supervisor would: in an outage a start fails.

        Without a broker, or without a publisher, there would be nothing to find.
        """
        self._look()
        if self._publisher is not None and self._publisher.done():
            self._publisher.result()
        for name, worker in [*self._trial.workers.items()]:
            if not worker.is_running:
                written = worker.written().rstrip()
                if worker.exit_code not in ENDS:
                    self.crashes.append(f"{name} ended with {worker.exit_code}: … {written[-4000:]}")
                last = written.rpartition("\n")[2][-300:]
                self._trial.disturb(f"worker ended with {worker.exit_code}", f"{name}: {last}", excuses=0)
                self._trial.start(name)

    async def _publish(self) -> None:
        while True:
            await self._publishing.wait()
            try:
                async with asyncio.timeout(PUBLISHED):
                    await self._publish_piece()
            except TimeoutError:
                raise AssertionError(f"publishing has neither succeeded nor failed after {PUBLISHED:g} s") from None
            await asyncio.sleep(20 / RATE)

    async def _publish_piece(self) -> None:
        chance, trial = self._chance, self._trial
        if chance.random() < TRANSACTIONS:
            several = trial.jobs(20, takes=0.002)
            await trial.publish_in_transaction(several, commit=chance.random() < 0.5)
            self.published += len(several)
        jobs: list[Job | bytes] = []
        for _ in range(20):
            match chance.random():
                case luck if luck < 0.01:
                    jobs += trial.jobs(1, "fail")
                case luck if luck < 0.02:
                    jobs += trial.poison(1)
                case luck if luck < 0.03:
                    jobs += trial.jobs(1, "reject")
                case luck if luck < 0.06:
                    jobs += trial.jobs(1, "fail once")
                case luck if luck < 0.07:
                    jobs += trial.jobs(1, "later")
                case luck if luck < 0.1:
                    jobs += trial.jobs(1, wanted=False)
                case luck if luck < 0.102:
                    jobs += trial.jobs(1, "die after")
                    trial.disturb("worker kills itself")
                case luck if luck < 0.105:
                    jobs += trial.jobs(1, takes=3.0)
                case _:
                    jobs += trial.jobs(1, takes=chance.uniform(0, 0.01))
        await trial.publish(jobs)
        await self._renewed.publish(1)
        self.published += len(jobs)

    # ── faults of workers ─────────────────────────────────────────────────────────────────────────────────────────

    def _someone(self) -> str:
        return self._chance.choice(sorted(self._trial.workers))

    async def _kill(self) -> None:
        name = self._someone()
        self._trial.kill(name)
        await asyncio.sleep(self._chance.uniform(0, 1))
        self._trial.start(name)

    async def _kill_two(self) -> None:
        names = self._chance.sample(sorted(self._trial.workers), 2)
        for name in names:
            self._trial.kill(name)
        for name in names:
            self._trial.start(name)

    async def _freeze(self) -> None:
        worker = self._trial.workers[name := self._someone()]
        worker.freeze()
        try:
            self._trial.disturb("freeze worker", name)
            await asyncio.sleep(self._chance.uniform(0.5, 8))
        finally:
            worker.thaw()

    async def _stop(self) -> None:
        name = self._someone()
        if self._trial.workers[name].is_running:
            with contextlib.suppress(TimeoutError):
                await self._trial.stop(name, timeout=20)
        self._keep()

    async def _stop_twice(self) -> None:
        """One stop that arrives twice, as of GNU `timeout` and of process groups, is one stop."""
        worker = self._trial.workers[name := self._someone()]
        if worker.is_running:
            self._trial.disturb("stop worker twice", name, excuses=0)
            worker.terminate()
            await asyncio.sleep(self._chance.uniform(0.001, 0.05))
            worker.terminate()
            with contextlib.suppress(TimeoutError):
                code = await worker.ended(20)
                assert code != 128 + signal.SIGTERM, "a stop that arrived twice ended a worker at once"
        self._keep()

    async def _join_and_leave(self) -> None:
        """A member that stops while it joins leaves nobody behind for whom the others wait."""
        self._trial.disturb("join and leave", excuses=0)
        worker = self._trial.start("passer-by")
        del self._trial.workers["passer-by"]
        await asyncio.sleep(self._chance.uniform(0.5, 2.5))
        worker.terminate()
        try:
            await worker.ended(20)
        except TimeoutError:
            worker.kill()

    async def _calm(self) -> None:
        await asyncio.sleep(self._chance.uniform(0.5, 4))
        self._keep()


async def soak(plan: Plan, directory: Path, history: Path, tell: Callable[[str, int, int], None]) -> Verdict:
    """Run, write the history, and check it.

    Args:
        plan: What to run.
        directory: For everything else; empty.
        history: Gets all events in order of time.
        tell: Called with what is done, and the numbers of published and committed records.

    Raises:
        CancelledError: It was interrupted. Workers have ended in order then, and the history says so; the second time it
            does not wait for them.
        OSError: The history cannot be written.
    """
    began = time.monotonic()
    history.write_bytes(b"")  # if this cannot be done, half an hour later is too late to say so
    chance = random.Random(plan.seed)
    make = embedded if plan.broker == "embedded" else kafka
    async with (
        make(directory, chance, lambda: trial) as surroundings,
        Trial(
            directory,
            surroundings.address,
            seed=plan.seed,
            ordering=plan.ordering,
            delivery=plan.delivery,
            settings=KAFKA if plan.broker == "kafka" else EMBEDDED,
            durable=True,
            recreated=True,
            partitions=PARTITIONS,
        ) as trial,
    ):
        run = Soak(trial, plan.seed, surroundings, lambda what: tell(what, run.published, trial.progress()))
        outcome = Outcome(plan=plan, seconds=0.0, excused=0, outputs=trial.outputs, published=trial.published)
        try:
            async with asyncio.timeout(plan.seconds + SPARE):
                await run.run(plan.seconds)
            await trial.end()
        except asyncio.CancelledError:
            outcome.interrupted = True
            raise
        except Exception as error:
            outcome.failure = str(error) or f"not at its end after {SPARE:g} s beyond its time"
            if not isinstance(error, ENDINGS):
                outcome.failure = repr(error)
                raise
        finally:
            try:
                if not outcome.is_complete:
                    tell("ending", run.published, trial.progress())
                    with contextlib.suppress(*ENDINGS):  # it has ended for another reason already
                        await trial.end()
            finally:
                outcome.seconds, outcome.excused = time.monotonic() - began, trial.excused
                outcome.crashes = [*run.crashes, *_ended_groups(trial)]
                write_history(history, trial.events(), outcome)
    return replay(history)


def _ended_groups(trial: Trial) -> list[str]:
    """Return what workers say of groups that ended while they went on."""
    lines = [line for worker in trial.workers.values() for line in worker.written().splitlines()]
    return [line for line in lines if re.search(r" ERROR +octopus\.worker: \S+ ends: ", line)]
