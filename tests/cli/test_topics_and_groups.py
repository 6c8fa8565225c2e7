"""`topics`, `groups`, `replay`: looking and moving."""

import asyncio
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient

from octopus.events import TopicPartition
from octopus.transports.base import Commit
from octopus.transports.kafka import KafkaTransport
from octopus.transports.opening import administering, open_transport
from tests.cli.conftest import Octopus
from tests.support.peers import Peer


def test_topics_are_created_listed_shown_and_deleted(octopus: Octopus, topic: str) -> None:
    created = octopus("topics", "create", topic, "--partitions", "3", "-s", "retention.ms=100000")
    assert (created.code, created.out) == (0, f"Created {topic} with 3 partitions.\n")
    assert octopus("topics", "create", topic, "--json").json == {"name": topic, "created": False}
    octopus("publish", topic, "1", "2", "--partition", "1")
    (listed,) = [entry for entry in octopus("topics", "--json").json if entry["name"] == topic]
    assert listed == {"name": topic, "partitions": 3, "replication": 1, "internal": False, "events": 2}
    assert octopus("topics").out.splitlines()[0].split() == ["TOPIC", "PARTITIONS", "COPIES", "EVENTS"]
    shown = octopus("topics", "show", topic, "--json").json
    assert shown["partitions"][1] == {"partition": 1, "first": 0, "end": 2}
    assert shown["config"]["retention.ms"] == "100000"
    assert octopus("topics", "delete", topic, "--yes").out == f"Deleted {topic} with 2 events.\n"
    assert topic not in octopus("topics").out


def test_a_topic_that_is_made_again_is_shown_with_another_id(octopus: Octopus, topic: str) -> None:
    ids = []
    for _ in range(2):
        octopus("topics", "create", topic)
        ids.append(octopus("topics", "show", topic, "--json").json["id"])
        assert f"{topic} has the topic id {ids[-1]}." in octopus("topics", "show", topic).err
        octopus("topics", "delete", topic, "--yes")
    assert all(ids)
    assert ids[0] != ids[1]


def test_a_topic_gets_more_partitions_and_other_settings_and_keeps_the_rest(octopus: Octopus, topic: str) -> None:
    octopus("topics", "create", topic, "--partitions", "2", "-s", "retention.ms=100000", "-s", "segment.ms=70000")
    result = octopus("topics", "alter", topic, "--partitions", "3", "-s", "retention.ms=200000", "--yes")
    assert result.out == f"Changed {topic}: partitions is 3, was 2; retention.ms is 200000, was 100000.\n"
    assert "New events of a key may go to another partition" in result.err
    shown = octopus("topics", "describe", topic, "--json").json
    assert len(shown["partitions"]) == 3
    assert (shown["config"]["retention.ms"], shown["config"]["segment.ms"]) == ("200000", "70000")
    again = octopus("topics", "alter", topic, "--partitions", "3", "-s", "retention.ms=200000")
    assert (again.code, again.err) == (0, f"{topic} is so already; nothing is changed.\n")
    assert octopus("topics", "alter", topic, "-s", "retention.ms=5000", "--json").json == {
        "name": topic,
        "changed": {"retention.ms": {"from": "200000", "to": "5000"}},
    }


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ((), 2, "What is to change? --partitions N or --setting NAME=VALUE."),
        (
            ("--partitions", "1"),
            2,
            "has 2, and none can be taken away. Create another topic and copy what is in this one:",
        ),
        (("--partitions", "3"), 2, "3 partitions instead of 2, for good? Nobody can answer here; say --yes"),
        (("-s", "retention.ms"), 2, "--setting 'retention.ms' is not NAME=VALUE."),
        (("-s", "retention.mz=1"), 3, "retention.mz"),
        (("-s", "retention.ms=soon"), 3, "retention.ms"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_change_that_cannot_be_is_refused_and_nothing_is_changed(
    octopus: Octopus, topic: str, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    octopus("topics", "create", topic, "--partitions", "2")
    before = octopus("topics", "show", topic, "--json").json
    result = octopus("topics", "alter", topic, *arguments)
    assert result.code == code
    assert sentence in result.err
    assert octopus("topics", "show", topic, "--json").json == before


def test_a_topic_that_is_there_and_is_another_is_said_to_be(octopus: Octopus, topic: str) -> None:
    octopus("topics", "create", topic, "--partitions", "2", "-s", "retention.ms=100000")
    same = octopus("topics", "create", topic, "--partitions", "2", "-s", "retention.ms=100000", "--replication", "1")
    assert (same.code, same.err) == (0, f"{topic} was there already; nothing is changed.\n")
    asked = ("topics", "create", topic, "--partitions", "3", "-s", "retention.ms=5000")
    other = octopus(*asked)
    assert other.code == 1
    assert other.err == (
        f"error: {topic} was there already, and is another: partitions is 2, not 3; retention.ms is 100000, not 5000. Nothing "
        f"is changed. Change it: octopus topics alter {topic} --partitions 3 -s retention.ms=5000\n"
    )
    assert octopus(*asked, "--json").json == {
        "name": topic,
        "created": False,
        "different": {
            "partitions": {"is": 2, "asked": 3},
            "retention.ms": {"is": "100000", "asked": "5000"},
        },
    }
    assert octopus("topics", "create", topic, "--partitions", "1").err.endswith("Nothing is changed.\n")


def test_deleting_needs_somebody_to_say_yes(octopus: Octopus, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    octopus("topics", "create", topic)
    result = octopus("topics", "delete", topic)
    assert result.code == 2
    assert f"Delete {topic} with 0 events? Nobody can answer here; say --yes" in result.err
    assert topic in octopus("topics").out


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("topics", "show", "nowhere-at-all"), 3, "There is no topic 'nowhere-at-all' on 127.0.0.1:"),
        (("topics", "create", "bad name"), 2, "'bad name' is not a topic name: 1 to 249 letters, digits,"),
        (("topics", "create", "x", "-s", "novalue"), 2, "--setting 'novalue' is not NAME=VALUE."),
        (("groups", "describe", "nobody"), 3, "There is no group 'nobody' on 127.0.0.1:"),
        (("groups", "reset", "nobody", "--to", "earliest"), 3, "There is no group 'nobody'"),
        (("groups", "reset", "nobody", "--to", "whenever"), 2, "--to 'whenever' is no place in a topic"),
        (("groups", "delete", "nobody"), 3, "There is no group 'nobody'"),
        (("replay", "t", "--from", "-1h"), 2, "Who reads again? --group for one handler's group, or --into"),
        (("replay", "t", "--from", "-1h", "--group", "g", "--to", "now"), 2, "--to and --filter go with --into"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_not_there_is_said(octopus: Octopus, arguments: tuple[str, ...], code: int, sentence: str) -> None:
    result = octopus(*arguments)
    assert result.code == code
    assert sentence in result.err


def test_a_group_that_waits_for_its_members_is_described_with_who_they_are(
    octopus: Octopus, broker: str, topic: str
) -> None:
    async def wait_for_one_that_is_gone() -> str:
        client: Any = AIOKafkaClient(bootstrap_servers=broker)
        await client.bootstrap()
        gone, waiting = (Peer(client, f"{topic}.handle", topic) for _ in range(2))
        await gone.join()
        await gone.sync()
        joining = asyncio.create_task(waiting.join())
        async with administering(open_transport(broker)) as admin:
            while (await admin.group(gone.group)).state != "PreparingRebalance":
                await asyncio.sleep(0.01)
        joining.cancel()  # the broker keeps it
        await client.close()
        return gone.id

    gone = asyncio.run(wait_for_one_that_is_gone())
    result = octopus("groups", "describe", f"{topic}.handle")
    assert "PreparingRebalance" in result.out
    assert "Nobody reads until all of these have joined again" in result.err
    assert gone in result.err.replace("\n", "")


@pytest.fixture
def group(octopus: Octopus, topic: str) -> str:
    """A group that has read two of five events of the topic."""
    octopus("topics", "create", topic, "--partitions", "1")
    octopus("publish", topic, *"01234")
    name = f"app.{topic}"
    octopus("consume", topic, "--group", name, "--to", "2", "--quiet")
    return name


def test_a_group_that_stands_in_an_earlier_topic_of_that_name_is_not_read_on(
    octopus: Octopus, topic: str, group: str, broker: str
) -> None:
    async def pretend() -> None:
        admin = KafkaTransport.at(broker, {}).admin()
        await admin.start()
        try:
            place = TopicPartition(topic, 0)
            (topic_id,) = (await admin.topic_ids([topic])).values()
            assert (await admin.group_offsets(group))[place] == Commit(2, f"octopus-topic-1:{topic_id}")
            await admin.set_group_offsets(group, {place: Commit(2, "octopus-topic-1:another")})
        finally:
            await admin.stop()

    asyncio.run(pretend())
    refused = octopus("consume", topic, "--group", group, "--to", "latest", "--quiet")
    assert refused.code == 3
    assert f"Topic {topic!r} was deleted and made again: its id was another" in refused.err
    octopus("groups", "reset", group, "--to", "earliest", "--yes")
    assert octopus("consume", topic, "--group", group, "--to", "latest", "--json").out.count("\n") == 5


def test_the_lag_of_a_group_is_shown(octopus: Octopus, topic: str, group: str) -> None:
    (listed,) = [entry for entry in octopus("groups", "--json").json if entry["name"] == group]
    assert listed == {"name": group, "state": "Empty", "members": 0, "lag": 3}
    described = octopus("groups", "describe", group, "--json").json
    assert described["partitions"] == [
        {
            "topic": topic,
            "partition": 0,
            "committed": 2,
            "lag": 3,
            "stands": "in the log",
            "member": None,
            "host": None,
        }
    ]
    assert f"{group}: Empty, 0 members, lag 3" in octopus("groups", "describe", group).out


def test_a_dry_run_shows_what_would_move_and_moves_nothing(octopus: Octopus, topic: str, group: str) -> None:
    result = octopus("groups", "reset", group, "--to", "earliest", "--dry-run")
    assert result.out.splitlines()[1].split() == [topic, "0", "2", "0", "2"]
    assert "Nothing was changed" in result.err
    assert octopus("groups", "describe", group, "--json").json["partitions"][0]["committed"] == 2


@pytest.mark.parametrize(("to", "committed"), [("earliest", 0), ("latest", 5), ("4", 4), ("-2", 3), ("-1h", 0)])
def test_a_group_is_moved(octopus: Octopus, topic: str, group: str, to: str, committed: int) -> None:
    result = octopus("groups", "reset", group, "--to", to, "--yes", "--json")
    assert result.json == {
        "group": group,
        "dry_run": False,
        "partitions": [{"topic": topic, "partition": 0, "from": 2, "to": committed}],
    }
    assert octopus("groups", "describe", group, "--json").json["partitions"][0]["committed"] == committed


@pytest.mark.parametrize(
    ("to", "hint"),
    [
        ("6", "A time is written 2026-01-31T12:00; for the end, latest."),
        ("20200101", "If that time is meant, write 2020-01-01; for the end, latest."),
        ("1577836800", "If that time is meant, write 2020-01-01T00:00:00Z;"),
        ("1577836800000", "If that time is meant, write 2020-01-01T00:00:00Z;"),
        ("20209999", "A time is written 2026-01-31T12:00;"),
    ],
)
@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)], ids=["", "dry"])
def test_an_offset_that_is_yet_to_come_is_refused_with_what_may_be_meant(
    octopus: Octopus, topic: str, group: str, to: str, hint: str, dry_run: tuple[str, ...]
) -> None:
    result = octopus("groups", "reset", group, "--to", to, "--yes", *dry_run)
    assert result.code == 2
    assert f"--to {to} is an offset, and {topic}[0] ends at 5. {hint}" in result.err
    assert octopus("groups", "show", group, "--json").json["partitions"][0]["committed"] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("consume", "TOPIC", "--to", "latest"),
        ("replay", "TOPIC", "--into", "OTHER"),
        ("replay", "TOPIC", "--group", "GROUP"),
    ],
    ids=["consume", "copy", "group"],
)
def test_nothing_is_read_from_an_offset_that_is_yet_to_come(
    octopus: Octopus, topic: str, group: str, arguments: tuple[str, ...]
) -> None:
    given = [{"TOPIC": topic, "GROUP": group, "OTHER": f"{topic}-other"}.get(each, each) for each in arguments]
    result = octopus(*given, "--from", "20200101")
    assert result.code == 2
    assert (
        f"--from 20200101 is an offset, and {topic}[0] ends at 5. If that time is meant, write 2020-01-01;"
        in result.err
    )


def test_moving_needs_somebody_to_say_yes(octopus: Octopus, group: str) -> None:
    result = octopus("groups", "reset", group, "--to", "earliest")
    assert result.code == 2
    assert octopus("groups", "describe", group, "--json").json["partitions"][0]["committed"] == 2


def test_a_group_is_forgotten(octopus: Octopus, group: str) -> None:
    assert octopus("groups", "delete", group, "--yes").out == f"Forgot {group}.\n"
    assert group not in octopus("groups").out


def test_replay_moves_one_group_back(octopus: Octopus, topic: str, group: str) -> None:
    assert octopus("replay", topic, "--from", "1", "--group", group, "--yes").code == 0
    assert octopus("groups", "describe", group, "--json").json["partitions"][0]["committed"] == 1


def test_replay_copies_a_range_with_keys_and_headers(octopus: Octopus, topic: str) -> None:
    octopus("publish", topic, '{"n": 1}', '{"n": 2}', '{"n": 3}', "no json", "--partition", "0", "-k", "k", "-H", "a=b")
    into = f"{topic}-again"
    dry = octopus("replay", topic, "--from", "0", "--into", into, "--dry-run", "--json").json
    assert dry == {"topic": topic, "into": into, "dry_run": True, "events": 4, "range": 4}
    done = octopus("replay", topic, "--from", "1", "--into", into, "--filter", '{"n": [2, 3]}', "--yes")
    assert (done.code, done.out) == (0, f"Published 2 events of {topic} into {into}.\n")
    events = octopus("consume", into, "--from", "earliest", "--to", "latest", "--json").lines
    assert [(e["value"], e["key"], e["headers"]) for e in events] == [
        ({"n": 2}, "k", [["a", "b"]]),
        ({"n": 3}, "k", [["a", "b"]]),
    ]


def test_replay_into_the_same_topic_ends(octopus: Octopus, topic: str) -> None:
    octopus("publish", topic, "1", "2", "--partition", "0")
    assert octopus("replay", topic, "--from", "earliest", "--into", topic, "--yes").code == 0
    result = octopus("consume", topic, "--from", "earliest", "--to", "latest", "--raw")
    assert sorted(result.out.split()) == ["1", "1", "2", "2"]
