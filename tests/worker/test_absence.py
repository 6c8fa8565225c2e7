"""Where a group waits for somebody who is gone, the log, the live table and `octopus groups` say for whom and how long."""

import asyncio
import io
import logging
import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient
from rich.console import Console

from octopus import Octopus, config
from octopus.cli.live import draw
from octopus.config import ConsumerSettings
from octopus.testing import VirtualTime
from octopus.transports.base import GroupInfo, GroupMember
from octopus.transports.opening import open_transport
from octopus.worker import Worker
from octopus.worker.absence import AbsenceWatch, sentence
from octopus.worker.health import Health
from tests.staged import until
from tests.support.peers import Peer

GHOST = GroupMember("app-ghost-1", "app", "10.0.0.7")


@dataclass
class Group:
    """A group of this process, as far as it matters here."""

    rests_since: float | None = None
    waits_for: str | None = None


@dataclass
class Broker:
    """A transport and its admin client: says in which state the group is."""

    state: str
    asked: int = 0
    members: tuple[GroupMember, ...] = field(default=(GHOST,))

    def admin(self) -> Any:
        return self

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def group(self, name: str) -> GroupInfo:
        self.asked += 1
        return GroupInfo(name, self.state, self.members)


@pytest.mark.parametrize("state", ["PreparingRebalance", "CompletingRebalance"])
async def test_a_group_that_waits_is_explained_once_for_each_rest(
    state: str, virtual_time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    broker, group = Broker(state), Group()
    watching = asyncio.create_task(AbsenceWatch(broker, lambda: {"app.store": group}, ConsumerSettings()).run())  # type: ignore[arg-type]
    for _ in range(2):
        group.rests_since = asyncio.get_running_loop().time()
        await asyncio.sleep(4.4)
        assert group.waits_for is None, "a rebalance in which everybody hears of it with a heartbeat is over by now"
        await asyncio.sleep(20)
        assert group.waits_for == "app-ghost-1 at 10.0.0.7"
        group.rests_since = group.waits_for = None
        await asyncio.sleep(5)
    watching.cancel()
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 2
    assert said[0] == said[1] == sentence(GroupInfo("app.store", state, (GHOST,)), 45.0, 60.0)


async def test_a_spare_member_waits_for_nobody_and_the_broker_is_asked_once(
    virtual_time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    broker, group = Broker("Stable"), Group(rests_since=asyncio.get_running_loop().time())
    watching = asyncio.create_task(AbsenceWatch(broker, lambda: {"app.store": group}, ConsumerSettings()).run())  # type: ignore[arg-type]
    await asyncio.sleep(600)
    watching.cancel()
    assert (broker.asked, group.waits_for, caplog.records) == (1, None, [])


def test_the_sentence_says_who_how_long_and_nothing_that_a_terminal_would_obey() -> None:
    forged = GroupMember("evil\n2026 INFO all is well\x1b[2J", "evil", "10.0.0.8")
    said = sentence(GroupInfo("app.store", "PreparingRebalance", (GHOST, forged)), 45.0, 60.0)
    assert said.startswith("app.store waits")
    assert "app-ghost-1 at 10.0.0.7" in said
    assert "45 s" in said
    assert "60 s" in said
    assert said.isprintable()


def test_of_many_members_the_first_few_are_named() -> None:
    members = tuple(GroupMember(f"app-{number:02}", "app", "10.0.0.7") for number in range(30))
    assert "app-07 at 10.0.0.7 and 22 more" in sentence(GroupInfo("g", "PreparingRebalance", members), 45.0, 60.0)


@pytest.mark.parametrize("address", ["embedded://", pytest.param("kafka", marks=pytest.mark.kafka)])
async def test_a_worker_that_waits_for_a_member_that_is_gone_names_it_until_it_is_given_up(
    address: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = f"absence-{uuid.uuid4().hex[:8]}"
    transport = open_transport(request.getfixturevalue("kafka_cluster") if address == "kafka" else address)
    await transport.open()
    admin = transport.admin()
    await admin.start()
    await admin.create_topic(fresh, partitions=2)
    client: Any = AIOKafkaClient(bootstrap_servers=transport.address)
    await client.bootstrap()
    ghost = Peer(client, f"{fresh}.handle", fresh)
    await ghost.join()
    await ghost.sync()  # and is never heard of again
    app = Octopus(fresh, brokers=transport.address)

    @app.on(fresh)
    async def handle(value: str) -> None: ...

    async with Worker(app, config.load(app.settings)) as worker:
        await until(lambda: any(group.waits_for for group in worker.status().groups), 30)
        (group,) = worker.status().groups
        assert ghost.id in (group.waits_for or "")
        console = Console(width=200, record=True, file=io.StringIO())
        console.print(draw(worker.status(), {}, {}, 200))
        assert ghost.id in console.export_text()
        assert any(ghost.id in trouble for trouble in await Health(worker, 300.0).why_not_ready())
        said = [record.getMessage() for record in caplog.records if "waits until" in record.getMessage()]
        assert [ghost.id in sentence for sentence in said] == [True]
        await admin.remove_members(ghost.group, [(ghost.id, None)])
        await until(lambda: worker.status().groups[0].partitions)
        assert worker.status().groups[0].waits_for is None
    await client.close()
    await admin.stop()
    await transport.close()
