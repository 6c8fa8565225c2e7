"""`dead-letters`: what was given up is shown with its cause, and put back as it was."""

import asyncio

import pytest

from octopus import Event, Octopus, Reject, config
from octopus.worker import Worker
from tests.cli.conftest import Octopus as Call


@pytest.fixture
def dead_lettered(broker: str, topic: str, octopus: Call) -> str:
    """A topic with three dead letters: two of `picky`, one of `fussy`."""
    app = Octopus(f"app-{topic}")

    @app.on(topic)
    async def picky(value: dict[str, int]) -> None:
        if value["n"] > 1:
            raise Reject("is too large")

    @app.on(topic, filter={"n": [1]})
    async def fussy(event: Event[dict[str, int]]) -> None:
        raise Reject("is one")

    async def run() -> None:
        settings = config.load({"brokers": broker, "topics": {"partitions": 1}})
        async with Worker(app, settings) as worker:
            for n in (1, 2, 3):
                await app.publish(topic, {"n": n}, key=f"k{n}", headers={"from": "here"})
            await worker.caught_up()

    asyncio.run(run())
    return topic


def test_they_are_counted_per_topic(octopus: Call, dead_lettered: str) -> None:
    (entry,) = [e for e in octopus("dead-letters", "--json").json if e["topic"] == f"{dead_lettered}.dead-letter"]
    assert entry == {"topic": f"{dead_lettered}.dead-letter", "waiting": 3, "stored": 3}
    assert f"{dead_lettered}.dead-letter        3       3" in octopus("dead-letters", "list").out


@pytest.mark.parametrize("suffix", ["", ".dead-letter"])
def test_they_are_listed_with_their_causes(octopus: Call, dead_lettered: str, suffix: str) -> None:
    dead_letters = octopus("dead-letters", "list", dead_lettered + suffix, "--json").lines
    assert sorted((e["cause"]["handler"], e["cause"]["reason"], e["key"]) for e in dead_letters) == [
        ("fussy", "is one", "k1"),
        ("picky", "is too large", "k2"),
        ("picky", "is too large", "k3"),
    ]
    assert all(e["headers"] == [["from", "here"]] for e in dead_letters)
    assert octopus("dead-letters", "list", dead_lettered).out.count("is too large") == 2


def test_one_is_shown_with_everything(octopus: Call, dead_lettered: str) -> None:
    place = next(
        f"{e['topic']}[{e['partition']}]@{e['offset']}"
        for e in octopus("dead-letters", "list", dead_lettered, "--json").lines
        if e["key"] == "k3"
    )
    shown = octopus("dead-letters", "show", place).out
    assert f"was          {dead_lettered}[0]@2\nreason       is too large\n" in shown
    assert 'header from  here\n{\n  "n": 3\n}\n' in shown
    assert octopus("dead-letters", "show", place, "--json").json["value"] == {"n": 3}


def test_they_are_put_back_once_as_they_were(octopus: Call, dead_lettered: str) -> None:
    dry = octopus("dead-letters", "replay", dead_lettered, "--dry-run")
    assert dry.out == f"Would put 3 events back into {dead_lettered}.\n"
    assert octopus("dead-letters", "replay", dead_lettered, "--yes").out == f"Put 3 events back into {dead_lettered}.\n"
    events = octopus("consume", dead_lettered, "--from", "3", "--to", "latest", "--json").lines
    assert sorted((e["key"], e["value"]["n"], tuple(map(tuple, e["headers"]))) for e in events) == [
        ("k1", 1, (("from", "here"),)),
        ("k2", 2, (("from", "here"),)),
        ("k3", 3, (("from", "here"),)),
    ]
    again = octopus("dead-letters", "replay", dead_lettered, "--yes", "--json").json
    assert again == {"topic": dead_lettered, "dry_run": False, "put_back": {}, "without_origin": 0}
    assert octopus("dead-letters", "list", dead_lettered).out == f"No dead letters of {dead_lettered} wait.\n"
    assert len(octopus("dead-letters", "list", dead_lettered, "--all", "--json").lines) == 3


@pytest.mark.parametrize(
    ("choice", "keys"),
    [
        (("--handler", "fussy"), ["k1"]),
        (("--filter", '{"n": [2]}'), ["k2"]),
        (("--handler", "picky", "--filter", '{"n": [1]}'), []),
    ],
    ids=" ".join,
)
def test_a_choice_is_put_back_and_the_others_go_on_waiting(
    octopus: Call, dead_lettered: str, choice: tuple[str, ...], keys: list[str]
) -> None:
    into = f"{dead_lettered}-mended"
    octopus("topics", "create", into)
    assert octopus("dead-letters", "replay", dead_lettered, *choice, "--to", into, "--yes").code == 0
    events = octopus("consume", into, "--from", "earliest", "--to", "latest", "--json").lines
    assert [e["key"] for e in events] == keys
    assert octopus("dead-letters", "replay", dead_lettered, "--dry-run", "--json").json["put_back"] == {
        dead_lettered: 3
    }


def test_records_that_do_not_say_where_they_were_are_passed_over(octopus: Call, topic: str) -> None:
    octopus("publish", f"{topic}.dead-letter", "foreign", "--partition", "0")
    result = octopus("dead-letters", "replay", topic, "--yes")
    assert "Passed over, since nothing says where they were: 1." in result.err
    put = octopus("dead-letters", "replay", topic, "--yes", "--again", "--to", topic)
    assert put.out == f"Put 1 event back into {topic}.\n"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("list", "nowhere-at-all"), 3, "There is no topic 'nowhere-at-all'"),
        (("show", "files"), 2, "'files' is no place of an event: write topic[partition]@offset"),
        (("show", "nowhere.dead-letter[0]@1"), 3, "There is no topic 'nowhere.dead-letter'"),
        (("replay", "a", "--at", "b[0]@1"), 2, "--at names b[0], which is not of 'a'."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_are_said(octopus: Call, arguments: tuple[str, ...], code: int, sentence: str) -> None:
    result = octopus("dead-letters", *arguments)
    assert result.code == code
    assert sentence in result.err
