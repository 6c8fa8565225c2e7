"""A long run under faults that chance chooses: what `scripts/soak` runs."""

import asyncio
import contextlib
import random
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
from aiokafka.errors import KafkaError

from octopus.events import TopicPartition
from octopus.testing.faults import EmbeddedBroker, TcpProxy
from octopus.testing.history import Event, Note, Report, check, read_lines, write_line
from octopus.worker.transactions import transactional_id
from tests.faults.jobs import Job
from tests.faults.journal import now
from tests.faults.recreated import RecreatedTopic
from tests.faults.trial import Trial
from tests.support.kafka_cluster import KafkaCluster

HELD = 1000
"""Effects that a fault of broker or network may repeat: what all workers hold, at the settings and the rate of a soak."""

TRANSACTIONS = 0.02
"""How often a piece of the input is preceded by one in a transaction; half of these are aborted."""

RATE = 120
"""Records a second, about."""

CHECKPOINT = 60.0
"""Seconds between two moments at which everything has to be settled."""

PARTITIONS = 6

EMBEDDED = {"consumer": {"recreated_topics": "earliest"}}

KAFKA = {"consumer": {"session_timeout": 6, "rebalance_timeout": 12, "recreated_topics": "earliest"}}

Action = Callable[[], Awaitable[None]]


class Plan(msgspec.Struct, kw_only=True, frozen=True):
    """What a soak is to be.

    Attributes:
        seed: Of everything that is left to chance.
        broker: `embedded` or `kafka`.
        ordering: Of the handler.
        delivery: Of the handler, `at_least_once` or `exactly_once`.
        seconds: How long to disturb; settling comes on top.
    """

    seed: int
    broker: str = "embedded"
    ordering: str = "key"
    delivery: str = "at_least_once"
    seconds: float


class Outcome(msgspec.Struct, kw_only=True):
    """What a soak was and what came of it; kept in the history as a note, for `replay`.

    Attributes:
        plan: What it was to be.
        seconds: How long it ran.
        excused: Effects that its faults might have repeated.
        outputs: Topics of its outputs, where they are exactly once.
        published: Topics of its outputs, where they are at least once, by the topic that is read.
    """

    plan: Plan
    seconds: float
    excused: int
    outputs: tuple[str, ...] = ()
    published: dict[str, tuple[str, ...]] = {}


class Verdict(NamedTuple):
    """What a soak was and what its history says."""

    outcome: Outcome
    report: Report


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
            **broker,
        }
        self.published = 0

    async def run(self, seconds: float) -> None:
        """Go on for so long, and settle.

        Raises:
            AssertionError: Something did not settle in time.
        """
        await self._renewed.start()
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
        settling = asyncio.gather(self._trial.settled(180), self._renewed.settled(180))
        while not settling.done():
            self._keep()
            await asyncio.wait([settling], timeout=0.5)
        settling.result()

    def _keep(self) -> None:
        """Start those again that ended by themselves, as a supervisor would: in an outage a start fails."""
        for name, worker in [*self._trial.workers.items()]:
            if not worker.is_running:
                last = worker.written().rstrip().rpartition("\n")[2][-300:]
                self._trial.disturb(f"worker ended with {worker.exit_code}", f"{name}: {last}", excuses=0)
                self._trial.start(name)

    async def _publish(self) -> None:
        chance, trial = self._chance, self._trial
        while True:
            await self._publishing.wait()
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


class Networks:
    """What can happen to the connections to one broker, or to several.

    Args:
        proxies: One before each.
        chance: Chooses.
        disturb: Told what happens.
    """

    def __init__(self, proxies: Sequence[TcpProxy], chance: random.Random, disturb: Callable[[str], None]) -> None:
        self._proxies = proxies
        self._chance = chance
        self._disturb = disturb

    def faults(self) -> dict[str, Action]:
        return {"cut network": self._cut, "slow network": self._slow, "reset connections": self._reset}

    def _some(self) -> Sequence[TcpProxy]:
        return self._chance.choice([self._proxies, *([proxy] for proxy in self._proxies)])

    async def _cut(self) -> None:
        self._disturb("cut network")
        some, directions = self._some(), self._chance.choice([(), ("to_server",), ("to_client",)])
        for proxy in some:
            proxy.cut(*directions)
        await asyncio.sleep(self._chance.uniform(0.5, 6))
        self._heal()

    async def _slow(self) -> None:
        self._disturb("slow network")
        for proxy in self._some():
            proxy.delay, proxy.jitter, proxy.loss = self._chance.uniform(0, 0.15), 0.02, 0.02
        await asyncio.sleep(self._chance.uniform(2, 8))
        self._heal()

    async def _reset(self) -> None:
        self._disturb("reset connections")
        for proxy in self._some():
            proxy.reset()

    def _heal(self) -> None:
        for proxy in self._proxies:
            proxy.heal()


class Surroundings(NamedTuple):
    """A broker or a cluster with what can happen to it.

    Attributes:
        address: For clients.
        faults: By name.
    """

    address: str
    faults: dict[str, Action]


@asynccontextmanager
async def embedded(directory: Path, chance: random.Random, trial: Callable[[], Trial]) -> AsyncIterator[Surroundings]:
    """An embedded broker behind a bad network, and what can happen to both."""
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(TcpProxy("127.0.0.1:1", seed=chance.randrange(2**31)))
        broker = await stack.enter_async_context(EmbeddedBroker(directory / "broker", advertised_port=proxy.port))
        proxy.target = broker.address

        def disturb(what: str) -> None:
            trial().disturb(what, excuses=HELD)

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

        network = Networks([proxy], chance, disturb)
        yield Surroundings(proxy.address, {"kill broker": kill, "freeze broker": freeze, **network.faults()})


@asynccontextmanager
async def kafka(directory: Path, chance: random.Random, trial: Callable[[], Trial]) -> AsyncIterator[Surroundings]:
    """Three genuine brokers behind a bad network, of which one at a time is killed or frozen.

    What they lead and coordinate moves to another one then, and some seconds later, without a fault, back again.
    """
    async with AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(TcpProxy("127.0.0.1:1", seed=chance.randrange(2**31))) for _ in range(3)
        ]
        cluster = KafkaCluster(
            brokers=3,
            directory=directory / "kafka",
            advertised=[proxy.port for proxy in proxies],
            properties={"leader.imbalance.check.interval.seconds": "5"},
        )
        for proxy, target in zip(proxies, cluster.listening, strict=True):
            proxy.target = target
        stack.push_async_callback(asyncio.to_thread, cluster.stop)
        await asyncio.to_thread(cluster.start)

        def disturb(what: str) -> None:
            trial().disturb(what, excuses=HELD)

        async def kill(what: str = "kill broker", node: int | None = None) -> None:
            node = chance.choice(cluster.nodes) if node is None else node
            disturb(what)
            await asyncio.to_thread(cluster.kill, node)
            await asyncio.sleep(chance.uniform(0, 5))
            await asyncio.to_thread(cluster.restart, node)

        async def kill_coordinator() -> None:
            with contextlib.suppress(KafkaError, TimeoutError):  # then it is somebody else's turn
                async with asyncio.timeout(5):
                    node = await trial().coordinator()
                await kill("kill the group's coordinator", node)

        async def kill_transaction_coordinator() -> None:
            at = TopicPartition(trial().topic, chance.randrange(PARTITIONS))
            with contextlib.suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(5):
                    node = await trial().coordinator(transactional_id(trial().group, at))
                await kill("kill a transaction's coordinator", node)

        async def freeze() -> None:
            node = chance.choice(cluster.nodes)
            disturb("freeze broker")
            cluster.pause(node)
            await asyncio.sleep(chance.uniform(1, 10))
            cluster.resume(node)
            await asyncio.to_thread(cluster.wait_until_ready, 90)

        faults: dict[str, Action] = {
            "kill broker": kill,
            "kill the group's coordinator": kill_coordinator,
            "kill a transaction's coordinator": kill_transaction_coordinator,
            "freeze broker": freeze,
            **Networks(proxies, chance, disturb).faults(),
        }
        yield Surroundings(cluster.bootstrap, faults)


async def soak(plan: Plan, directory: Path, history: Path, tell: Callable[[str, int, int], None]) -> Verdict:
    """Run, write the history, and check it.

    Args:
        plan: What to run.
        directory: For everything else; empty.
        history: Gets all events in order of time.
        tell: Called with what is done, and the numbers of published and committed records.
    """
    began = time.monotonic()
    chance = random.Random(plan.seed)
    make = embedded if plan.broker == "embedded" else kafka
    async with (
        make(directory, chance, lambda: trial) as (address, faults),
        Trial(
            directory,
            address,
            seed=plan.seed,
            ordering=plan.ordering,
            delivery=plan.delivery,
            settings=KAFKA if plan.broker == "kafka" else EMBEDDED,
            durable=True,
            recreated=True,
            partitions=PARTITIONS,
        ) as trial,
    ):
        run = Soak(trial, plan.seed, faults, lambda what: tell(what, run.published, trial.progress()))
        try:
            await run.run(plan.seconds)
        finally:
            # also of a run that got stuck
            try:
                await trial.end()
            finally:
                outcome = Outcome(
                    plan=plan,
                    seconds=time.monotonic() - began,
                    excused=trial.excused,
                    outputs=trial.outputs,
                    published=trial.published,
                )
                write_history(history, trial.events(), outcome)
    return replay(history)


def write_history(path: Path, events: Iterable[Event], outcome: Outcome) -> None:
    """Write all events in order of time, and last what the run was."""
    with path.open("wb") as file:
        for event in sorted(events, key=lambda event: event.time):
            file.write(write_line(event))
        file.write(write_line(Note(time=now(), what="soak", who=msgspec.json.encode(outcome).decode())))


def replay(path: Path) -> Verdict:
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
    report = check(
        events,
        ordering=outcome.plan.ordering,  # type: ignore[arg-type]
        duplicates=outcome.excused,
        outputs=outcome.outputs,
        published=outcome.published,
    )
    return Verdict(outcome, report)


def describe(verdict: Verdict) -> str:
    """Return the report as Markdown."""
    outcome, report = verdict
    plan = outcome.plan
    lost = sum(anomaly.kind in ("lost-write", "unseen", "lost-output") for anomaly in report.anomalies)
    rows = {
        "broker": "genuine Apache Kafka, three nodes behind a bad network"
        if plan.broker == "kafka"
        else "embedded, behind a bad network",
        "ordering": plan.ordering,
        "delivery": plan.delivery.replace("_", " "),
        "seed": plan.seed,
        "minutes": f"{outcome.seconds / 60:.1f}",
        "records": f"{report.records:,}",
        "events in the history": f"{report.events:,}",
        "handled": f"{report.finished:,}",
        "dead letters": f"{report.dead_lettered:,}",
        "**lost**": f"**{lost:,}**",
        "**other anomalies**": f"**{len(report.anomalies) - lost:,}**",
    }
    share = 100 * report.duplicates / max(1, report.finished)
    if outcome.outputs:
        rows |= {
            "transactions committed": f"{report.transactions:,}",
            "transactions aborted, or left by who was killed": f"{report.undecided:,}",
            "outputs that readers of committed records saw": f"{report.outputs:,}",
            "outputs that only readers of uncommitted records saw": f"{report.hidden:,}",
            "**repeated outputs**": f"**{report.duplicates:,}** (excused: none)",
        }
    else:
        rows["repeated effects"] = f"{report.duplicates:,} ({share:.1f} %; excused: {outcome.excused:,})"
        rows["outputs that were read"] = f"{report.outputs:,}"
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    lines += ["", "| what happened | times |", "|---|---|"]
    lines += [f"| {what} | {times:,} |" for what, times in sorted(report.notes.items())]
    if report.anomalies:
        lines += ["", "Anomalies:", "", *(f"- {anomaly}" for anomaly in report.anomalies[:50])]
    return "\n".join(lines) + "\n"


INTRODUCTION = """# Soaks

Reports that `scripts/soak --report docs/soak.md …` wrote at the end of long runs, the latest of each kind: workers and brokers killed, frozen
and restarted, the network cut, slowed and reset, handlers that fail and input that is poison, and every record accounted for. The same
seed repeats the choices; `scripts/soak --replay FILE` checks a history again.

Under at-least-once delivery a kill leaves repeated effects; the figure excused is the bound, the figure counted is the result. Under
exactly-once delivery an effect is an output that a reader of committed records sees: none may be missing, repeated, visible before its
transaction was committed, or visible without the offsets that go with it.
"""


def write_report(path: Path, verdict: Verdict) -> None:
    """Put the report into a file of several, in the place of the last one of its kind (broker, delivery, ordering)."""
    plan = verdict.outcome.plan
    broker = "Apache Kafka, three nodes" if plan.broker == "kafka" else "Embedded broker"
    title = f"## {broker}, {plan.delivery.replace('_', ' ')}, ordering {plan.ordering}"
    command = (
        f"scripts/soak --minutes {plan.seconds / 60:g} --seed {plan.seed} --broker {plan.broker} "
        f"--ordering {plan.ordering} --delivery {plan.delivery}"
    )
    section = f"{title}\n\n`{command}`\n\n{describe(verdict)}"
    text = path.read_text(encoding="utf-8") if path.exists() else INTRODUCTION
    head, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    kept = [each.rstrip("\n") + "\n" for each in sections if not each.startswith(title + "\n")]
    path.write_text("\n".join([head.rstrip("\n") + "\n", *sorted([*kept, section], reverse=True)]), encoding="utf-8")


__all__ = ["Outcome", "Plan", "Verdict", "describe", "replay", "soak", "write_history", "write_report"]
