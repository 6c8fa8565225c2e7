"""Supervised workers in their groups: a replacement takes its predecessor's place, and nobody waits for who is gone."""

import asyncio
import os
import re
import signal
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from octopus import Octopus
from octopus.config import ConsumerSettings, Settings
from octopus.testing.faults import ChildProcess
from octopus.transports.base import Admin, GroupMember, Outgoing, Producer
from octopus.transports.opening import open_transport
from octopus.worker.parent import PARENT_VARIABLE
from octopus.worker.places import PLACE_VARIABLE, Places, client_id, place_of

PATIENCE = 30.0  # seconds; a session takes 45
PARTITIONS = 6

APP = """
import os, time
from octopus import Octopus
app = Octopus("NAME")
@app.on("NAME", retry=1, dead_letter=False)
async def note(value: str) -> None:
    if value == "block":
        time.sleep(3600)
    if value == "poison":
        raise ValueError(value)
    with open("log", "a") as log:
        print(value, os.environ["OCTOPUS_WORKER"], os.getpid(), file=log)
"""


class Supervised:
    """`octopus run --workers` on a topic of its own."""

    def __init__(self, directory: Path, address: str, admin: Admin, producer: Producer) -> None:
        self.name = f"places-{uuid.uuid4().hex[:8]}"
        self.group = f"{self.name}.note"
        self.directory = directory
        self.address = address
        self.admin = admin
        self.producer = producer
        (directory / "app.py").write_text(APP.replace("NAME", self.name))

    def run(self, workers: int, *options: str) -> ChildProcess:
        command = f"import os, sys; os.chdir({str(self.directory)!r}); sys.argv[0] = 'octopus'; from octopus.__main__ import main"
        arguments = ["run", "app.py:app", f"--workers={workers}", f"--brokers={self.address}", *options]
        self.process = ChildProcess(
            [sys.executable, "-c", f"{command}; main()", *arguments], log=self.directory / "output"
        )
        return self.process.start()

    async def publish(self, value: str, *partitions: int) -> None:
        chosen = partitions or range(PARTITIONS)
        payloads = [value if partitions else f"{value}-{number}" for number in chosen]
        await self.producer.send_many(
            [
                Outgoing(self.name, payload.encode(), partition=number)
                for number, payload in zip(chosen, payloads, strict=True)
            ]
        )

    def handled(self, value: str) -> dict[int, tuple[str, int]]:
        """Return which worker, by number and process, handled the event of this name in each partition."""
        log = self.directory / "log"
        lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        return {
            int(name.rpartition("-")[2]): (number, int(pid)) for name, number, pid in lines if name.startswith(value)
        }

    async def until_handled(self, value: str) -> dict[int, tuple[str, int]]:
        await self.publish(value)
        await self.until(lambda: len(self.handled(value)) == PARTITIONS)
        return self.handled(value)

    async def members(self) -> tuple[GroupMember, ...]:
        return next((each.members for each in await self.admin.groups() if each.name == self.group), ())

    async def until_shared(self, workers: int) -> None:
        """Wait until every worker has its share."""
        deadline = time.monotonic() + PATIENCE
        while True:
            shares = [len(member.partitions) for member in await self.members()]
            if len(shares) == workers and min(shares) == PARTITIONS // workers:
                return
            assert time.monotonic() < deadline, self.process.written()
            await asyncio.sleep(0.05)

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, self.process.written()
            await asyncio.sleep(0.05)

    def assignments(self, number: str) -> int:
        return sum(
            line.startswith(f"[{number}]") and ".note reads " in line for line in self.process.written().splitlines()
        )


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
async def supervised(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Supervised]:
    address = "embedded://" if request.param == "embedded" else request.getfixturevalue("kafka_cluster")
    transport = open_transport(address)
    await transport.open()
    admin, producer = transport.admin(), transport.producer()
    await admin.start()
    await producer.start()
    made = Supervised(tmp_path, transport.address, admin, producer)
    await admin.create_topic(made.name, partitions=PARTITIONS)
    yield made
    await made.process.ended(0.1) if not made.process.is_running else made.process.terminate()
    await made.until(lambda: not made.process.is_running)
    await producer.stop()
    await admin.stop()
    await transport.close()


@pytest.mark.process
@pytest.mark.parametrize("engine", ["aiokafka", "librdkafka"])
async def test_the_replacement_of_a_killed_worker_has_its_partitions_and_the_others_keep_theirs(
    engine: str, supervised: Supervised
) -> None:
    supervised.run(3, f"--config=consumer.engine={engine}")
    await supervised.until_shared(3)
    before = await supervised.until_handled("before")
    victim, pid = before[0]
    others = {number for number, _ in before.values()} - {victim}
    assignments = {number: supervised.assignments(number) for number in others}
    os.kill(pid, signal.SIGKILL)
    after = await supervised.until_handled("after")
    assert {place: number for place, (number, _) in after.items()} == {
        place: number for place, (number, _) in before.items()
    }
    assert after[0][1] != pid
    assert {number: supervised.assignments(number) for number in others} == assignments, "they noticed nothing"
    supervised.process.terminate()
    assert await supervised.process.ended(PATIENCE) == 0
    assert await supervised.members() == (), "all have left"


@pytest.mark.process
@pytest.mark.parametrize("engine", ["aiokafka", "librdkafka"])
async def test_the_members_of_a_group_tell_which_worker_they_are(engine: str, supervised: Supervised) -> None:
    supervised.run(2, f"--config=consumer.engine={engine}")
    await supervised.until_shared(2)
    names = {member.client_id for member in await supervised.members()}
    assert names == {f"{supervised.name}-1", f"{supervised.name}-2"}


@pytest.mark.process
async def test_of_workers_that_had_to_be_killed_in_the_end_no_member_is_left(supervised: Supervised) -> None:
    supervised.run(2)
    await supervised.until_shared(2)
    await supervised.publish("block", 0)
    await supervised.until(lambda: "block" in supervised.process.written())  # the watchdog names it

    def again() -> bool:
        supervised.process.terminate()  # the second one ends them at once, unless it comes with the first
        return not supervised.process.is_running

    await supervised.until(again)
    assert await supervised.members() == ()


@pytest.mark.process
async def test_a_worker_that_ends_on_purpose_leaves_its_lasting_place_to_the_others(supervised: Supervised) -> None:
    supervised.run(2, "--config=consumer.group_instance_id=lasting")
    await supervised.until_shared(2)
    assert sorted(each.member_id.rpartition("lasting-")[2][:1] for each in await supervised.members()) == ["1", "2"]
    await supervised.publish("poison", 0)  # ends the one that has the partition, then the one that gets it
    assert await supervised.process.ended(PATIENCE) == 4


@pytest.mark.process
async def test_lasting_places_are_kept_when_everybody_is_stopped(supervised: Supervised) -> None:
    supervised.run(2, "--config=consumer.group_instance_id=lasting")
    await supervised.until_shared(2)
    before = await supervised.until_handled("before")
    supervised.process.terminate()
    await supervised.process.ended(PATIENCE)
    assert len(await supervised.members()) == 2
    supervised.run(2, "--config=consumer.group_instance_id=lasting")
    after = await supervised.until_handled("after")
    assert {place: number for place, (number, _) in after.items()} == {
        place: number for place, (number, _) in before.items()
    }


FAMILY = """
import sys
sys.path.insert(0, {root!r})
from octopus.worker import Supervisor

class Places:
    def name(self, number): return f"place-{{number}}"
    def left(self, number): print("left", number, flush=True)
    def end(self, killed): print("killed", *sorted(killed), flush=True)

sys.exit(Supervisor([sys.executable, "-c", {child!r}], 3, grace=5, places=Places()).run())
"""

CHILD = """
import os, sys, time
print("began", os.environ["OCTOPUS_WORKER"], os.environ["OCTOPUS_PLACE"], flush=True)
match os.environ["OCTOPUS_WORKER"]:
    case "1": sys.exit(4)
    case "2": sys.exit(1)
    case "3": time.sleep(60)
"""


@pytest.mark.process
async def test_a_replacement_has_the_number_of_its_predecessor_and_the_end_knows_whose_places_are_left(
    tmp_path: Path,
) -> None:
    text = FAMILY.format(root=str(Path(__file__).resolve().parents[2]), child=CHILD)
    with ChildProcess([sys.executable, "-c", text], log=tmp_path / "log") as parent:

        async def written(line: str, times: int) -> None:
            deadline = time.monotonic() + PATIENCE
            while parent.written().count(line) < times:
                assert time.monotonic() < deadline, parent.written()
                await asyncio.sleep(0.02)

        await written("left 1\n", 1)
        await written("began 3 place-3\n", 1)
        await written("began 2 place-2\n", 2)  # it crashed, and so did its replacement
        parent.terminate()
        await parent.ended(PATIENCE)
        lines = parent.written().splitlines()
    assert [line for line in lines if line.startswith("began 1")] == ["began 1 place-1"], "it meant to end"
    assert "left 1" in lines
    assert lines[-1] == "killed 2 3"


def test_two_supervisors_never_have_a_place_in_common() -> None:
    app = Octopus("app")
    first, second = Places(app, Settings()), Places(app, Settings())
    assert {first.name(number) for number in (1, 2)}.isdisjoint({second.name(number) for number in (1, 2)})


def test_a_name_of_the_users_gets_the_workers_number() -> None:
    settings = Settings(consumer=ConsumerSettings(group_instance_id="beamline-7"))
    assert Places(Octopus("app"), settings).name(2) == "beamline-7-2"


def test_the_name_of_a_place_has_only_characters_that_brokers_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "übung eins/" + "x" * 300)
    assert re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", Places(Octopus("x" * 200), Settings()).name(1))


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({PLACE_VARIABLE: "a-1", PARENT_VARIABLE: str(os.getppid())}, "a-1"),
        ({PLACE_VARIABLE: "a-1", PARENT_VARIABLE: str(os.getpid())}, None),
        ({PLACE_VARIABLE: "a-1"}, None),
        ({}, None),
    ],
    ids=["for us", "for the worker that started us", "for nobody", "none"],
)
def test_a_place_is_only_for_the_process_it_was_given_to(environment: dict[str, str], place: str | None) -> None:
    assert place_of(environment) == place


@pytest.mark.parametrize(
    ("place", "name"),
    [(None, "app"), ("app-host-1a2b3c4d-2", "app-2"), ("beamline-7-12", "app-12")],
    ids=["nobody supervises it", "supervised", "a lasting place"],
)
def test_brokers_call_a_worker_by_its_app_and_its_number(place: str | None, name: str) -> None:
    assert client_id("app", place) == name
