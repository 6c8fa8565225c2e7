"""A long run under faults that chance chooses: what `scripts/soak` runs."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from octopus.testing.faults import EmbeddedBroker, TcpProxy
from octopus.testing.history import Event, Note, Report, check, read_lines, write_line
from tests.faults.jobs import Job
from tests.faults.journal import now
from tests.faults.trial import Trial
from tests.support.kafka_cluster import KafkaCluster

HELD = 1000
"""Effects that a fault of broker or network may repeat: what all workers hold, at the settings and the rate of a soak."""

RATE = 120
"""Records a second, about."""

CHECKPOINT = 60.0
"""Seconds between two moments at which everything has to be settled."""

KAFKA = {"consumer": {"session_timeout": 6, "rebalance_timeout": 12}}

Action = Callable[[], Awaitable[None]]


class Outcome(msgspec.Struct, kw_only=True):
    """What a soak was and what came of it; kept in the history as a note, for `replay`.

    Attributes:
        seed: Of everything that is left to chance.
        broker: `embedded` or `kafka`.
        ordering: Of the handler.
        seconds: How long it ran.
        excused: Effects that its faults might have repeated.
    """

    seed: int
    broker: str
    ordering: str
    seconds: float
    excused: int


class Soak:
    """Publishes, disturbs, and settles from time to time.

    Args:
        trial: Whose workers are disturbed.
        seed: Of the faults.
        broker: Faults of the broker and of the network, by name.
        tell: Called with a line about what is done.
    """

    def __init__(self, trial: Trial, seed: int, broker: dict[str, Action], tell: Callable[[str], None]) -> None:
        self._trial = trial
        self._chance = random.Random(seed)
        self._tell = tell
        self._publishing = asyncio.Event()
        self._faults: dict[str, Action] = {
            "kill worker": self._kill,
            "freeze worker": self._freeze,
            "stop worker": self._stop,
            "kill two workers": self._kill_two,
            "calm": self._calm,
            **broker,
        }
        self.published = 0

    async def run(self, seconds: float) -> None:
        """Go on for so long, and settle.

        Raises:
            AssertionError: Something did not settle in time.
        """
        await self._trial.working("one", "two", "three")
        end = time.monotonic() + seconds
        publisher = asyncio.create_task(self._publish())
        try:
            while (left := end - time.monotonic()) > 0:
                self._publishing.set()
                await self._disturb_for(min(CHECKPOINT, left))
                self._publishing.clear()
                self._tell("settling")
                await self._settle()
        finally:
            publisher.cancel()
            await asyncio.gather(publisher, return_exceptions=True)

    async def _disturb_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            name = self._chance.choice([*self._faults])
            self._tell(name)
            await self._faults[name]()
            await self._calm()

    async def _settle(self) -> None:
        settling = asyncio.ensure_future(self._trial.settled(180))
        while not settling.done():
            self._keep()
            await asyncio.wait([settling], timeout=0.5)
        settling.result()

    def _keep(self) -> None:
        """Start those again that ended by themselves, as a supervisor would: in an outage a start fails."""
        for name, worker in [*self._trial.workers.items()]:
            if not worker.is_running:
                self._trial.disturb(f"worker ended with {worker.exit_code}", name, excuses=0)
                self._trial.start(name)

    async def _publish(self) -> None:
        chance, trial = self._chance, self._trial
        while True:
            await self._publishing.wait()
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
            self.published += len(jobs)
            await asyncio.sleep(20 / RATE)

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
        self._trial.disturb("freeze worker", name)
        await asyncio.sleep(self._chance.uniform(0.5, 8))
        worker.thaw()

    async def _stop(self) -> None:
        name = self._someone()
        if self._trial.workers[name].is_running:
            with contextlib.suppress(TimeoutError):
                await self._trial.stop(name, timeout=20)
        self._keep()

    async def _calm(self) -> None:
        await asyncio.sleep(self._chance.uniform(0.5, 4))
        self._keep()


@asynccontextmanager
async def embedded(
    directory: Path, chance: random.Random, disturb: Callable[[str], None]
) -> AsyncIterator[tuple[str, dict[str, Action]]]:
    """An embedded broker behind a bad network, and what can happen to both."""
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(TcpProxy("127.0.0.1:1", seed=chance.randrange(2**31)))
        broker = await stack.enter_async_context(EmbeddedBroker(directory / "broker", advertised_port=proxy.port))
        proxy.target = broker.address

        async def kill() -> None:
            disturb("kill broker")
            broker.kill()
            await asyncio.sleep(chance.choice([0, 0, 1, 5]))
            await broker.start()

        async def freeze() -> None:
            disturb("freeze broker")
            broker.process.freeze()
            await asyncio.sleep(chance.uniform(0.5, 6))
            broker.process.thaw()

        async def cut() -> None:
            disturb("cut network")
            proxy.cut(*chance.choice([(), ("to_server",), ("to_client",)]))
            await asyncio.sleep(chance.uniform(0.5, 6))
            proxy.heal()

        async def slow() -> None:
            disturb("slow network")
            proxy.delay, proxy.jitter, proxy.loss = chance.uniform(0, 0.15), 0.02, 0.02
            await asyncio.sleep(chance.uniform(2, 8))
            proxy.heal()

        async def reset() -> None:
            disturb("reset connections")
            proxy.reset()

        faults = {"kill broker": kill, "freeze broker": freeze, "cut network": cut, "slow network": slow}
        yield proxy.address, {**faults, "reset connections": reset}


@asynccontextmanager
async def kafka(
    directory: Path, chance: random.Random, disturb: Callable[[str], None]
) -> AsyncIterator[tuple[str, dict[str, Action]]]:
    """Three genuine brokers, of which one at a time is killed or frozen."""
    cluster = KafkaCluster(brokers=3, directory=directory / "kafka")
    await asyncio.to_thread(cluster.start)
    try:

        async def kill() -> None:
            node = chance.choice(cluster.nodes)
            disturb("kill broker")
            await asyncio.to_thread(cluster.kill, node)
            await asyncio.sleep(chance.uniform(0, 5))
            await asyncio.to_thread(cluster.restart, node)

        async def freeze() -> None:
            node = chance.choice(cluster.nodes)
            disturb("freeze broker")
            cluster.pause(node)
            await asyncio.sleep(chance.uniform(1, 10))
            cluster.resume(node)
            await asyncio.to_thread(cluster.wait_until_ready, 90)

        yield cluster.bootstrap, {"kill broker": kill, "freeze broker": freeze}
    finally:
        await asyncio.to_thread(cluster.stop)


async def soak(
    directory: Path,
    *,
    seconds: float,
    seed: int,
    broker: str,
    ordering: str,
    history: Path,
    tell: Callable[[str, int, int], None],
) -> tuple[Outcome, Report]:
    """Run, write the history, and check it.

    Args:
        directory: For everything else; empty.
        seconds: How long to disturb; settling comes on top.
        seed: Of everything that is left to chance.
        broker: `embedded` or `kafka`.
        ordering: Of the handler.
        history: Gets all events in order of time.
        tell: Called with what is done, and the numbers of published and committed records.
    """
    began = time.monotonic()
    chance = random.Random(seed)
    trial: Trial | None = None

    def disturb(what: str) -> None:
        if trial is not None:
            trial.disturb(what, excuses=HELD)

    make = embedded if broker == "embedded" else kafka
    async with make(directory, chance, disturb) as (address, faults):
        settings = KAFKA if broker == "kafka" else None
        async with Trial(
            directory, address, seed=seed, ordering=ordering, settings=settings, durable=True, partitions=6
        ) as trial:
            run = Soak(trial, seed, faults, lambda what: tell(what, run.published, trial.progress()))
            try:
                await run.run(seconds)
            finally:
                # also of a run that got stuck
                await trial.end()
                outcome = Outcome(
                    seed=seed,
                    broker=broker,
                    ordering=ordering,
                    seconds=time.monotonic() - began,
                    excused=trial.excused,
                )
                write_history(history, trial.events(), outcome)
    return replay(history)


def write_history(path: Path, events: Iterable[Event], outcome: Outcome) -> None:
    """Write all events in order of time, and last what the run was."""
    with path.open("wb") as file:
        for event in sorted(events, key=lambda event: event.time):
            file.write(write_line(event))
        file.write(write_line(Note(time=now(), what="soak", who=msgspec.json.encode(outcome).decode())))


def replay(path: Path) -> tuple[Outcome, Report]:
    """Check the history of a soak.

    Raises:
        ValueError: It is none.
    """
    with path.open("rb") as lines:
        events = [*read_lines(lines)]
    last = events.pop() if events else None
    if not isinstance(last, Note) or last.what != "soak":
        raise ValueError(f"{path} is not the history of a soak: its last line does not say so.")
    outcome = msgspec.json.decode(last.who, type=Outcome)
    return outcome, check(events, ordering=outcome.ordering, duplicates=outcome.excused)  # type: ignore[arg-type]


def describe(outcome: Outcome, report: Report) -> str:
    """Return the report as Markdown."""
    losses = sum(anomaly.kind in ("lost-write", "unseen") for anomaly in report.anomalies)
    rows = {
        "broker": "genuine Apache Kafka, three nodes"
        if outcome.broker == "kafka"
        else "embedded, behind a bad network",
        "ordering": outcome.ordering,
        "seed": outcome.seed,
        "minutes": f"{outcome.seconds / 60:.1f}",
        "records": f"{report.records:,}",
        "events in the history": f"{report.events:,}",
        "handled": f"{report.finished:,}",
        "dead letters": f"{report.buried:,}",
        "**lost**": f"**{losses:,}**",
        "**other anomalies**": f"**{len(report.anomalies) - losses:,}**",
        "repeated effects": f"{report.duplicates:,} ({100 * report.duplicates / max(1, report.finished):.1f} %; excused: {outcome.excused:,})",
    }
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    lines += ["", "| what happened | times |", "|---|---|"]
    lines += [f"| {what} | {times:,} |" for what, times in sorted(report.notes.items())]
    if report.anomalies:
        lines += ["", "Anomalies:", "", *(f"- {anomaly}" for anomaly in report.anomalies[:50])]
    return "\n".join(lines) + "\n"


__all__ = ["Outcome", "describe", "replay", "soak"]
