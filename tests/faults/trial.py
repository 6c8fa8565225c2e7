"""A trial: publish records, disturb whoever handles them, and look whether the promises held."""

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
from aiokafka.client import CoordinationType

from octopus import config
from octopus.errors import TransportError
from octopus.events import TopicPartition
from octopus.runner.commit_metadata import decode_map, without_topic_id
from octopus.testing.faults import ChildProcess, python_module
from octopus.testing.history import Committing, DeadLettered, Ended, Event, Note, Offered, Report, Stored, check
from octopus.transports.base import Admin, Outgoing, Producer, TransactionalProducer
from octopus.transports.kafka import KafkaSettings, KafkaTransport
from tests.faults.jobs import Deed, Job, WorkerPlan, outputs_of
from tests.faults.journal import Histories, Journal, now
from tests.faults.readers import OutputReader, read_partitions
from tests.faults.recording import id_of

QUICK: dict[str, Any] = {
    "consumer": {"session_timeout": 2, "rebalance_timeout": 8, "metadata_max_age": 2},
    "producer": {"request_timeout": 2, "delivery_timeout": 5},
    "worker": {
        "commit_interval": 0.1,
        "commit_every": 50,
        "commit_timeout": 2,
        "revoke_budget": 1,
        "drain_timeout": 5,
        "stall_timeout": 10,
    },
}
"""Settings of a worker with which faults are noticed in seconds; Kafka itself insists on six for a session."""

OUTPUT_PARTITIONS = 2

SAMPLES = 0.03
"""Seconds between two looks at what is committed."""

STALE = 10.0
"""Seconds for which a cluster may answer that less is committed than before. Kafka reads offsets without asking its other
brokers: one that thaws answers from what it knew until it learns that another one coordinates, and one that takes over
answers from what it knows to be replicated."""

FAULT_EXCUSES = 200
"""Effects that one crash may repeat: those since the last commit landed, `commit_every` and what settles while a commit
is under way, and what runs."""


class Trial:
    """One topic, one group, some workers, and everything that is known about them.

    Args:
        directory: For histories and logs; empty.
        brokers: `host:port`.
        seed: Of everything that is left to chance.
        ordering: Of the handler.
        partitions: Of the topic.
        replication: Of the topic.
        delivery: Of the handler. Where it is `exactly_once`, effects are the outputs that readers of committed records see,
            and no fault excuses a repeated one.
        settings: Of the workers, over `QUICK`.
        publishes: Whether the handler returns something that is published, at least once.
        **plan: Further fields of `WorkerPlan`, for all workers.
    """

    def __init__(
        self,
        directory: Path,
        brokers: str,
        *,
        seed: int = 0,
        ordering: str = "partition",
        partitions: int = 4,
        replication: int = -1,
        delivery: str = "at_least_once",
        publishes: bool = True,
        settings: dict[str, Any] | None = None,
        **plan: Any,
    ) -> None:
        self.directory = directory
        self.chance = random.Random(seed)
        self.ordering = ordering
        token = secrets.token_hex(3)  # Kafka is shared by many tests
        self.topic = f"jobs-{token}"
        self.app = f"trial-{token}"
        self.group = f"{self.app}.handle"
        self.workers: dict[str, ChildProcess] = {}
        self.committed: dict[TopicPartition, int] = {}
        self.excused = 0
        self.ends: dict[TopicPartition, int] = {}
        self._partitions = partitions
        self._replication = replication
        self.settings = config.merge(QUICK, settings or {})
        self.outputs = outputs_of(self.topic) if delivery == "exactly_once" else ()
        self.published = {self.topic: outputs_of(self.topic)[:1]} if publishes and not self.outputs else {}
        self._plan = {**plan, "delivery": delivery, "publishes": publishes}
        self._brokers = brokers
        self._transport = KafkaTransport(
            KafkaSettings(brokers=brokers, client_id="trial", request_timeout=3.0, metadata_max_age=5.0)
        )
        self._producer = self._transport.producer(delivery_timeout=20.0)
        self._admin = self._transport.admin()
        self._journal = Journal(directory / "trial.history")
        self._histories = Histories(directory)
        self._sampling: asyncio.Task[None] | None = None
        self._behind: dict[TopicPartition, float] = {}
        self._readers: list[OutputReader] = []
        self._transacting: TransactionalProducer | None = None
        self._transactions = 0
        self._jobs = 0

    async def __aenter__(self) -> Self:
        await self._admin.start()
        await self._producer.start()
        await self._admin.create_topic(self.topic, partitions=self._partitions, replication=self._replication)
        if self.outputs or self.published:
            await self._follow_outputs()
        self._sampling = asyncio.create_task(self._sample())
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.thaw()
            worker.kill()
        if self._sampling is not None:
            self._sampling.cancel()
            await asyncio.gather(self._sampling, return_exceptions=True)
        for reader in self._readers:
            await reader.stop()
        for client in (self._producer, self._admin, self._transacting):
            if client is None:
                continue
            with contextlib.suppress(TransportError, TimeoutError):
                async with asyncio.timeout(5):
                    await client.stop()
        self._journal.close()

    async def _follow_outputs(self) -> None:
        topics = self.published.get(self.topic, ()) or (*self.outputs, self.topic + ".dead-letter")
        for topic in topics:
            await self._admin.create_topic(topic, partitions=OUTPUT_PARTITIONS, replication=self._replication)
        partitions = [TopicPartition(topic, number) for topic in topics for number in range(OUTPUT_PARTITIONS)]
        for uncommitted in (False, True):
            reader = OutputReader(self._brokers, partitions, self._journal, uncommitted=uncommitted)
            self._readers.append(reader)
            reader.start()

    @property
    def producer(self) -> Producer:
        """Publishes for the trial."""
        return self._producer

    @property
    def admin(self) -> Admin:
        """Looks after topics and groups for the trial."""
        return self._admin

    def note(self, *events: Event) -> None:
        """Write down what happened."""
        self._journal.write(*events)

    # ── workers ───────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, name: str, **different: Any) -> ChildProcess:
        """Start a worker; one of this name that has ended is followed by another."""
        plan = WorkerPlan(
            name=name,
            app=self.app,
            brokers=self._brokers,
            topic=self.topic,
            directory=str(self.directory),
            **{"ordering": self.ordering, "settings": self.settings, **self._plan, **different},
        )
        worker = self.workers[name] = ChildProcess(
            python_module("tests.faults.worker", msgspec.json.encode(plan).decode()),
            log=self.directory / f"{name}.log",
            own_session=True,
        )
        return worker.start()

    async def working(self, *names: str) -> None:
        """Start workers and wait until each has partitions."""
        before = {name: self.count(Note, name, what="assigned") for name in names}
        for name in names:
            self.start(name)
        for name, times in before.items():
            await self.happened(Note, name, what="assigned", times=times + 1, timeout=40)

    def disturb(self, what: str, who: str = "", excuses: int = FAULT_EXCUSES) -> None:
        """Write a fault down, with the number of repeated effects it excuses; of outputs, none."""
        self.excused += 0 if self.outputs else excuses
        self._journal.write(Note(time=now(), what=what, who=who))

    def kill(self, name: str) -> None:
        """Kill a worker."""
        self.disturb("kill worker", name)
        self.workers[name].kill()

    async def stop(self, name: str, timeout: float = 15.0) -> int:
        """Stop a worker as an operator would (SIGTERM) and return its exit code."""
        self.disturb("stop worker", name, excuses=0)
        self.workers[name].terminate()
        return await self.workers[name].ended(timeout)

    # ── records ───────────────────────────────────────────────────────────────────────────────────────────────────

    def jobs(self, count: int, does: Deed = "work", *, takes: float = 0.0, wanted: bool = True) -> list[Job]:
        """Make jobs with new ids."""
        first, self._jobs = self._jobs, self._jobs + count
        return [Job(str(number), does, takes, wanted) for number in range(first, self._jobs)]

    async def publish(
        self, jobs: Iterable[Job | bytes], *, keys: int = 23, partition: int | None = None, pause: float = 0.0
    ) -> None:
        """Publish in pieces of twenty; what is not acknowledged may or may not be there.

        Args:
            jobs: Or bytes that contain an id and cannot be decoded.
            keys: Number of keys, which the records get in turn.
            partition: A fixed one.
            pause: Seconds between two pieces.
        """
        jobs = [*jobs]
        for start in range(0, len(jobs), 20):
            messages, events = [], []
            for number, job in enumerate(jobs[start : start + 20], start):
                value = job if isinstance(job, bytes) else msgspec.json.encode(job)
                key = f"k{number % keys}"
                messages.append(Outgoing(self.topic, value, key.encode(), (), partition))
                wanted = isinstance(job, bytes) or job.wanted
                events.append(Offered(time=now(), id=id_of(value), topic=self.topic, key=key, wanted=wanted))
            self._journal.write(*events)
            try:
                published = await self._producer.send_many(messages)
            except TransportError:
                published = []
            acknowledged = now()
            for event, place in zip(events, published, strict=False):
                at = TopicPartition(place.topic, place.partition)
                self.ends[at] = max(self.ends.get(at, 0), place.offset + 1)
                self._journal.write(Stored(time=acknowledged, id=event.id, at=at, offset=place.offset))
            if pause:
                await asyncio.sleep(pause)

    async def publish_in_transaction(self, jobs: Sequence[Job], *, commit: bool, keys: int = 23) -> None:
        """Publish jobs all or none; those of an abort, and perhaps those of a failure, no handler may see."""
        self._transactions += 1
        transaction = f"{self.topic}/{self._transactions}"
        messages, events = [], []
        for number, job in enumerate(jobs):
            key = f"k{number % keys}"
            messages.append(Outgoing(self.topic, msgspec.json.encode(job), key.encode()))
            events.append(
                Offered(time=now(), id=job.id, topic=self.topic, key=key, wanted=job.wanted, transaction=transaction)
            )
        self._journal.write(*events)
        try:
            if self._transacting is None:
                self._transacting = self._transport.transactional_producer(self.topic, delivery_timeout=20.0)
                await self._transacting.start()
            await self._transacting.begin()
            published = await self._transacting.send_many(messages)
            acknowledged = now()
            for event, place in zip(events, published, strict=True):
                at = TopicPartition(place.topic, place.partition)
                self._journal.write(Stored(time=acknowledged, id=event.id, at=at, offset=place.offset))
            self._journal.write(Ended(time=now(), transaction=transaction, committed=commit))
            await (self._transacting.commit() if commit else self._transacting.abort())
            if commit:
                self._journal.write(Ended(time=now(), transaction=transaction, committed=True, acknowledged=True))
        except TransportError:  # nothing is known about it; the next producer ends it
            producer, self._transacting = self._transacting, None
            if producer is not None:
                with contextlib.suppress(TransportError, TimeoutError):
                    async with asyncio.timeout(5):
                        await producer.stop()

    async def add_partitions(self, partitions: int) -> None:
        """Make the topic wider; records can be published there at once."""
        await self._admin.alter_topic(self.topic, partitions=partitions)
        self._partitions = partitions
        await self._producer.stop()
        self._producer = self._transport.producer(delivery_timeout=20.0)
        await self._producer.start()

    def poison(self, count: int) -> list[bytes]:
        """Make values that cannot be decoded."""
        return [b'{"id": "%s", "does": ' % job.id.encode() for job in self.jobs(count)]

    @property
    def session_timeout(self) -> float:
        """Seconds after which a silent worker has left the group."""
        return float(self.settings["consumer"]["session_timeout"])

    # ── waiting ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def until(self, condition: Callable[[], object], timeout: float = 30.0, what: str = "") -> None:
        """Wait until something is so; a worker that ended by itself meanwhile is named.

        Raises:
            AssertionError: It is not so after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"after {timeout:g} s not yet: {what or 'the condition'}\n{self.story()}")
            await asyncio.sleep(0.02)

    async def settled(self, timeout: float = 30.0) -> None:
        """Wait until everything that was acknowledged is committed."""
        deadline = time.monotonic() + timeout
        partitions = [TopicPartition(self.topic, number) for number in range(self._partitions)]
        while True:
            # what was not acknowledged may be there all the same
            with contextlib.suppress(TransportError):
                found = await self._admin.offsets(partitions, "latest")
                self.ends.update({partition: end for partition, end in found.items() if end})
                break
            assert time.monotonic() < deadline, "the broker does not say how long its logs are"
            await asyncio.sleep(0.1)
        await self.until(
            lambda: all(self.committed.get(partition, 0) >= end for partition, end in self.ends.items()),
            deadline - time.monotonic(),
            "everything is committed",
        )

    def progress(self) -> int:
        """How many records are committed."""
        return sum(self.committed.values())

    async def progressed(self, records: int, timeout: float = 30.0) -> None:
        """Wait until so many more records are committed, or all there are."""
        wanted = min(self.progress() + records, sum(self.ends.values()))
        await self.until(lambda: self.progress() >= wanted, timeout, f"{records} more records are committed")

    async def known_as_settled(self, records: int, timeout: float = 30.0) -> None:
        """Wait until commits say of so many records that they are settled, before or beyond the committed offset."""
        deadline = time.monotonic() + timeout
        while True:
            found = await self._admin.group_offsets(self.group)
            ahead = [decode_map(commit.offset, without_topic_id(commit.metadata)) for commit in found.values()]
            known = sum(max(0, commit.offset) for commit in found.values())
            known += sum(last - first + 1 for ranges in ahead for first, last in ranges)
            if known >= records:
                return
            assert time.monotonic() < deadline, f"{known} of {records} are known as settled\n{self.story()}"
            await asyncio.sleep(0.02)

    def count(self, kind: type[Event], name: str = "", **fields: object) -> int:
        """Count the events of a kind, of one worker or of all: `count(Note, "one", what="lost")`."""
        return sum(
            isinstance(event, kind) and all(getattr(event, field) == value for field, value in fields.items())
            for event in self._histories.events(name)
        )

    def events(self, name: str = "") -> list[Event]:
        """Return what has happened so far, in one worker or in all."""
        return [*self._histories.events(name)]

    def news(self) -> list[Event]:
        """Return what has happened since the last call."""
        return [*self._histories.news()]

    async def happened(
        self, kind: type[Event], name: str = "", *, times: int = 1, timeout: float = 20.0, **fields: object
    ) -> None:
        """Wait until there are so many events of a kind."""
        what = f"{times} × {kind.__name__} {fields} of {name or 'all'}"
        await self.until(lambda: self.count(kind, name, **fields) >= times, timeout, what)

    async def until_group_is(self, state: str, timeout: float = 20.0) -> None:
        """Wait until the broker says so about the group: `Empty`, `Stable`, …"""
        deadline = time.monotonic() + timeout
        while not any(group.name == self.group and group.state == state for group in await self._admin.groups()):
            assert time.monotonic() < deadline, f"the group is not {state} after {timeout:g} s\n{self.story()}"
            await asyncio.sleep(0.1)

    # ── the verdict ───────────────────────────────────────────────────────────────────────────────────────────────

    async def verdict(self, *, duplicates: int | None = None, timeout: float = 30.0, complete: bool = True) -> Report:
        """Wait until all is settled, stop the workers, and check the history.

        Args:
            duplicates: Effects that may be repeated; what the disturbances excuse when None.
            timeout: Seconds for the rest of the work.
            complete: Whether to wait for the rest, and count what is not finished as lost.

        Raises:
            AssertionError: Something was not kept.
        """
        if complete:
            await self.settled(timeout)
        await self.end()
        report = check(
            self._histories.events(),
            ordering=self.ordering,  # type: ignore[arg-type]
            duplicates=self.excused if duplicates is None else duplicates,
            complete=complete,
            outputs=self.outputs,
            published=self.published,
        )
        found = "\n".join(map(str, report.anomalies[:20]))
        assert not report.anomalies, f"{len(report.anomalies)} anomalies\n{found}\n{self.story()}"
        return report

    async def end(self) -> None:
        """Stop the workers, and write down who is in the dead-letter topic."""
        for name, worker in self.workers.items():
            if worker.is_running:
                await self.stop(name)
        with contextlib.suppress(TransportError, TimeoutError):
            self._note_committed(await self._look(), confirmed_after=0.0)
        if self._readers:
            await self._read_up()
        if not self.outputs:
            await self._exhume()

    async def coordinator(self, transactional_id: str = "") -> int:
        """Return the node that coordinates the group, or the transactions of an id."""
        kind = CoordinationType.TRANSACTION if transactional_id else CoordinationType.GROUP
        return int(await self._admin._client.coordinator_lookup(kind, transactional_id or self.group))

    def story(self) -> str:
        """Return the last words of everybody, for the report of a failure."""
        behind = {str(at): (self.committed.get(at, 0), end) for at, end in sorted(self.ends.items())}
        lines = [f"committed and end: {behind}"]
        for name, worker in self.workers.items():
            lines.append(f"── {name}: exit code {worker.exit_code}\n{worker.written()[-2500:]}")
        return "\n".join(lines)

    async def _sample(self) -> None:
        while True:
            with contextlib.suppress(TransportError, TimeoutError):
                self._note_committed(await self._look(), confirmed_after=STALE if "," in self._brokers else 0.0)
            await asyncio.sleep(SAMPLES)

    async def _look(self) -> dict[TopicPartition, int]:
        async with asyncio.timeout(5):
            found = await self._admin.group_offsets(self.group)
        return {at: commit.offset for at, commit in found.items() if commit.offset >= 0}

    def _note_committed(self, seen: dict[TopicPartition, int], confirmed_after: float) -> None:
        """Write down what is committed; what is lower than before, when it has been so for some seconds."""
        for at, offset in seen.items():
            if offset >= self.committed.get(at, 0):
                self._behind.pop(at, None)
            elif time.monotonic() - self._behind.setdefault(at, time.monotonic()) < confirmed_after:
                seen = {**seen, at: self.committed[at]}
        if seen != self.committed:
            # what is read now was committed before now
            self._journal.write(Committing(time=now(), group=self.group, offsets=tuple(seen.items())))
            self.committed.update(seen)

    async def _read_up(self, timeout: float = 60.0) -> None:
        """Wait until the readers of outputs are at the end; a transaction that is left open holds one of them up."""
        ends = await self._admin.offsets([*self._readers[0].positions], "latest")
        await self.until(
            lambda: all(reader.positions[at] >= end for reader in self._readers for at, end in ends.items()),
            timeout,
            "all outputs can be read",
        )

    async def _exhume(self) -> None:
        """Write down what is in the dead-letter topic. A record's own time is when its worker produced it."""
        step = now() - time.time() - 0.05  # the two clocks drift apart by less over a trial
        name = self.topic + ".dead-letter"
        kept = [
            TopicPartition(name, number)
            for topic in await self._admin.topics()
            if topic.name == name
            for number in range(topic.partitions)
        ]
        if not kept:
            return
        async for record in read_partitions(self._brokers, kept):
            origin = {name.removeprefix("octopus-dead-letter-"): value.decode() for name, value in record.headers}
            at = TopicPartition(origin["topic"], int(origin["partition"]))
            self._journal.write(
                DeadLettered(
                    time=record.timestamp / 1000 + step,
                    at=at,
                    offset=int(origin["offset"]),
                    id=id_of(record.value),
                )
            )
