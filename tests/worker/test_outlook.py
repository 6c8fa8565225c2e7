"""Whether the broker answers is asked all the time, said once, and never guessed from what was heard before."""

import asyncio
import logging
from collections.abc import Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from octopus import Octopus, config
from octopus.errors import ConnectionFailed, OctopusError, TransportError
from octopus.events import TopicPartition
from octopus.testing import VirtualTime
from octopus.testing.faults import EmbeddedBroker
from octopus.worker import Worker
from octopus.worker.health import Health
from octopus.worker.outlook import Answer, BrokerWatch, Outlook
from tests.staged import until

A, B = TopicPartition("a", 0), TopicPartition("b", 1)
AWAY = ConnectionFailed("nobody is there.")


# ── what is known ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answered", "heard", "lag"),
    [
        pytest.param(None, None, None, id="nobody has said yet where the partition ends"),
        pytest.param(None, 7, 2, id="only its consumer has heard"),
        pytest.param({A: 9}, None, 4, id="its consumer has heard nothing yet"),
        pytest.param({A: 9}, 5, 4, id="its consumer has not heard the latest"),
        pytest.param({A: 6}, 8, 3, id="its consumer knows better"),
        pytest.param({A: 3}, 5, 0, id="more is done than was there"),
        pytest.param("away", 5, None, id="the broker is away, whatever its consumer heard before"),
        pytest.param("silent", 5, None, id="the broker says nothing of the partition"),
    ],
)
def test_a_lag_is_known_only_while_the_broker_says_where_the_partition_ends(
    answered: Any, heard: int | None, lag: int | None
) -> None:
    outlook = Outlook()
    match answered:
        case dict():
            outlook.note_answer(Answer(answered, {}), 1.0)
        case "away":
            outlook.note_answer(Answer({A: 5}, {}), 1.0)
            outlook.note_outage("gone", 2.0)
        case "silent":
            outlook.note_answer(Answer({}, {A: "no leader"}), 1.0)
    assert outlook.lag(A, heard, 5) == lag


def test_an_outage_and_a_silence_are_news_once_and_end_with_their_length() -> None:
    outlook = Outlook()
    assert outlook.note_outage("gone", 10.0)
    assert not outlook.note_outage("gone, still", 12.0)
    assert outlook.out_for(13.0) == 3.0
    change = outlook.note_answer(Answer({A: 1}, {B: "no leader"}), 15.0)
    assert (change.was_away, change.begun, change.ended) == (5.0, {B: "no leader"}, [])
    assert outlook.out_for(16.0) == 0.0
    change = outlook.note_answer(Answer({A: 1}, {B: "no leader"}), 17.0)
    assert (change.was_away, change.begun, change.ended) == (None, {}, [])
    change = outlook.note_answer(Answer({A: 1, B: 1}, {}), 25.0)
    assert (change.was_away, change.begun, change.ended, change.longest) == (None, {}, [B], 10.0)


# ── asking ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Scripted:
    """A transport and its admin client, which answer as they are told.

    Attributes:
        away: What every question is answered with, if anything.
        silent: Partitions without a leader.
        hangs: Whether questions are not answered at all.
    """

    name = address = "kafka-1:9092"

    def __init__(self) -> None:
        self.away: OctopusError | None = None
        self.silent: set[TopicPartition] = set()
        self.hangs = False
        self.connections = 0

    def admin(self) -> Any:
        return self

    async def start(self) -> None:
        await self._answer()
        self.connections += 1

    async def stop(self) -> None:
        self.connections -= 1

    async def topics(self) -> list[Any]:
        await self._answer()
        return []

    async def offsets(self, partitions: Collection[TopicPartition], start: str) -> dict[TopicPartition, int]:
        await self._answer()
        if missing := self.silent & {*partitions}:
            raise TransportError(f"no leader for {', '.join(map(str, missing))}", retryable=True)
        return dict.fromkeys(partitions, 7)

    async def _answer(self) -> None:
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if self.away is not None:
            raise self.away


@asynccontextmanager
async def looking(broker: Scripted) -> Any:
    watch = BrokerWatch(broker, lambda: {A, B})  # type: ignore[arg-type]
    running = asyncio.create_task(watch.run())
    await asyncio.sleep(1)
    yield watch
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert broker.connections == 0


@pytest.mark.parametrize("how", ["refuses", "hangs"])
async def test_an_outage_is_one_warning_when_it_begins_and_one_line_when_it_ends(
    how: str, virtual_time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    broker = Scripted()
    async with looking(broker) as watch:
        assert (watch.outlook.trouble, watch.outlook.ends) == (None, {A: 7, B: 7})
        broker.away, broker.hangs = (AWAY, False) if how == "refuses" else (None, True)
        await asyncio.sleep(60)
        assert watch.outlook.trouble == ("nobody is there." if how == "refuses" else "nothing came for 3 s")
        assert watch.outlook.lag(A, 7, 7) is None
        assert watch.away == pytest.approx(60, abs=5)
        pausing = asyncio.create_task(watch.pause(1000))
        broker.away, broker.hangs = None, False
        await asyncio.sleep(10)
        assert pausing.done(), "who waits for the end of the outage need not wait longer"
        assert watch.outlook.lag(A, 7, 7) == 0
    warning, line = [(record.levelname, record.message) for record in caplog.records]
    assert warning[0] == "WARNING"
    assert warning[1].startswith("kafka-1:9092 does not answer: ")
    assert line[0] == "WARNING", "a program that sets up no logging sees it, too"
    assert line[1].startswith("kafka-1:9092 answers again, after 6")


async def test_partitions_without_a_leader_have_no_lag_and_are_said_once(
    virtual_time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    broker = Scripted()
    async with looking(broker) as watch:
        broker.silent = {B}
        await asyncio.sleep(30)
        assert watch.outlook.trouble is None
        assert [watch.outlook.lag(each, 7, 7) for each in (A, B)] == [0, None]
        broker.silent = set()
        await asyncio.sleep(10)
        assert [watch.outlook.lag(each, 7, 7) for each in (A, B)] == [0, 0]
    begun, ended = caplog.messages
    assert begun == "kafka-1:9092 says nothing of b[1]: no leader for b[1]. The other partitions go on."
    assert ended.startswith("kafka-1:9092 says again, after ")


# ── a worker ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.process
@pytest.mark.parametrize("engine", ["aiokafka", "librdkafka"])
@pytest.mark.parametrize("how", ["dies", "freezes"])
async def test_a_worker_whose_broker_is_away_says_so_once_is_not_ready_and_knows_no_lag(
    tmp_path: Path, how: str, engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "octopus.worker")
    app, seen = Octopus("app"), []

    @app.on("t")
    async def handle(value: int) -> None:
        seen.append(value)

    async with EmbeddedBroker(tmp_path / "data") as broker:
        settings = config.load(
            {"brokers": [broker.address], "consumer": {"engine": engine}, "worker": {"commit_interval": 0.1}}
        )
        async with Worker(app, settings) as worker:
            health = Health(worker, 60.0)
            await app.publish("t", 1)
            await until(lambda: seen == [1] and worker.status().groups[0].lag == 0, 30)
            if how == "dies":
                broker.kill()
            else:
                broker.process.freeze()
            await until(lambda: worker.status().outage, 30)
            (group,) = worker.status().groups
            assert group.lag is None
            trouble, *_ = await health.why_not_ready()
            assert trouble.startswith(f"{broker.address} has not answered for ")
            if how == "dies":
                await broker.restart()
            else:
                broker.process.thaw()
            await until(lambda: worker.status().outage is None and worker.status().groups[0].lag == 0, 60)
            await app.publish("t", 2)
            await until(lambda: seen[-1] == 2, 60)  # the first may come again: its commit may have been too late
    ours = [record for record in caplog.records if record.name.startswith("octopus.")]
    begun, ended = [record.message for record in ours if record.levelno >= logging.WARNING]
    assert begun.startswith(f"{broker.address} does not answer: ")
    assert ended.startswith(f"{broker.address} answers again, after ")
