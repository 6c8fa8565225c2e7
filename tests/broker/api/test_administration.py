"""Topics, settings and groups from outside: what is done, and the documented code for what is refused."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka.record.util import calc_crc32c

from octopus.broker.codes import Code
from octopus.broker.faults import Faults as DiskFaults
from octopus.broker.node import NODE_ID
from octopus.broker.server import Broker
from octopus.broker.storage import Storage
from octopus.broker.wire import Reader, Writer
from tests.broker.requests_and_answers import (
    CREATE_TOPICS,
    DELETE_TOPICS,
    JOIN_GROUP,
    OFFSET_COMMIT,
    PRODUCE,
    batch,
    create_topic,
    produce,
    produced,
)
from tests.broker.wire_client import WireClient, connected

LEAVE_GROUP, DESCRIBE_GROUPS, LIST_GROUPS, DELETE_GROUPS = 13, 15, 16, 42
DELETE_RECORDS, DESCRIBE_LOG_DIRS, CREATE_PARTITIONS = 21, 35, 37
DESCRIBE_CONFIGS, ALTER_CONFIGS, INCREMENTAL_ALTER_CONFIGS = 32, 33, 44
TOPIC, BROKER = 2, 4
SET, DELETE, APPEND, SUBTRACT = range(4)

Assignments = list[tuple[int, list[int]]]
Asked = tuple[str, int, int, Assignments, dict[str, str | None]]


@pytest.fixture
def storage() -> Storage:
    return Storage.open(None, checksum=calc_crc32c)


@pytest.fixture
async def broker(storage: Storage) -> AsyncIterator[Broker]:
    async with Broker(storage) as broker:
        yield broker


# topics


def topics(*asked: Asked, validate_only: bool = False) -> Writer:
    body = Writer()

    def write(each: Asked) -> None:
        name, partitions, replication, assignments, config = each
        body.string(name).int32(partitions).int16(replication)
        body.array(assignments, lambda one: body.int32(one[0]).array(one[1], body.int32))
        body.array(list(config.items()), lambda one: body.string(one[0]).string(one[1]))

    return body.array(asked, write).int32(5000).boolean(validate_only)


async def created(client: WireClient, body: Writer) -> dict[str, tuple[int, str | None]]:
    answer = await client.ask(CREATE_TOPICS, 4, body)
    answer.int32()
    results = answer.array(lambda: (answer.string(), (answer.int16(), answer.nullable_string())))
    assert answer.remaining == 0
    return dict(results)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (("no/name", 1, 1, [], {}), Code.INVALID_TOPIC_EXCEPTION),
        (("..", 1, 1, [], {}), Code.INVALID_TOPIC_EXCEPTION),
        (("there", 1, 1, [], {}), Code.TOPIC_ALREADY_EXISTS),
        (("like_it", 1, 1, [], {}), Code.INVALID_TOPIC_EXCEPTION),
        (("t", 0, 1, [], {}), Code.INVALID_PARTITIONS),
        (("t", 1, 3, [], {}), Code.INVALID_REPLICATION_FACTOR),
        (("t", 10**6, 1, [], {}), Code.POLICY_VIOLATION),
        (("t", 1, -1, [(0, [NODE_ID])], {}), Code.INVALID_REQUEST),
        (("t", -1, 1, [(0, [NODE_ID])], {}), Code.INVALID_REQUEST),
        (("t", -1, -1, [(1, [NODE_ID])], {}), Code.INVALID_REPLICA_ASSIGNMENT),
        (("t", -1, -1, [(0, [NODE_ID, NODE_ID + 1])], {}), Code.INVALID_REPLICA_ASSIGNMENT),
        (("t", 1, 1, [], {"retention": "1"}), Code.INVALID_CONFIG),
        (("t", 1, 1, [], {"retention.ms": "soon"}), Code.INVALID_CONFIG),
        (("t", 1, 1, [], {"cleanup.policy": "shred"}), Code.INVALID_CONFIG),
        (("t", 1, 1, [], {"compression.type": "rar"}), Code.INVALID_CONFIG),
        (("t", 1, 1, [], {"message.timestamp.type": "Now"}), Code.INVALID_CONFIG),
    ],
    ids=lambda value: value.name if isinstance(value, Code) else None,
)
@pytest.mark.parametrize("validate_only", [False, True], ids=["create", "validate"])
async def test_a_topic_that_cannot_be_created_is_refused_with_a_reason(
    storage: Storage, client: WireClient, asked: Asked, code: Code, validate_only: bool
) -> None:
    await created(client, topics(("there", 1, 1, [], {}), ("like.it", 1, 1, [], {})))
    ((found, reason),) = (await created(client, topics(asked, validate_only=validate_only))).values()
    assert found == code
    assert reason
    assert set(storage.topics) == {"there", "like.it"}


async def test_counts_come_from_the_request_its_assignments_or_the_broker(
    broker: Broker, storage: Storage, client: WireClient
) -> None:
    asked = topics(
        ("counted", 3, 1, [], {"retention.ms": "1000", "segment.ms": None}),
        ("assigned", -1, -1, [(1, [NODE_ID]), (0, [NODE_ID])], {}),
        ("left to the broker".replace(" ", "-"), -1, -1, [], {}),
    )
    assert set((await created(client, asked)).values()) == {(Code.NONE, None)}
    found = {name: len(topic.partitions) for name, topic in storage.topics.items()}
    assert found == {"counted": 3, "assigned": 2, "left-to-the-broker": broker.settings.default_partitions}
    assert storage.topics["counted"].config == {"retention.ms": "1000"}, "null means the default"


async def test_checking_creates_nothing_and_a_name_given_twice_is_refused_once(
    storage: Storage, client: WireClient
) -> None:
    assert await created(client, topics(("t", 1, 1, [], {}), validate_only=True)) == {"t": (Code.NONE, None)}
    twice = await created(client, topics(("t", 1, 1, [], {}), ("t", 2, 1, [], {}), ("u", 1, 1, [], {})))
    assert {name: code for name, (code, _) in twice.items()} == {"t": Code.INVALID_REQUEST, "u": Code.NONE}
    assert set(storage.topics) == {"u"}


async def test_old_clients_get_the_shapes_of_their_versions(client: WireClient) -> None:
    body = Writer().int32(1).string("t").int32(1).int16(1).int32(0).int32(0).int32(5000)
    answer = await client.ask(CREATE_TOPICS, 0, body)
    assert answer.array(lambda: (answer.string(), answer.int16())) == [("t", Code.NONE)]
    assert answer.remaining == 0
    answer = await client.ask(DELETE_TOPICS, 0, Writer().int32(2).string("t").string("unknown").int32(5000))
    results = answer.array(lambda: (answer.string(), answer.int16()))
    assert results == [("t", Code.NONE), ("unknown", Code.UNKNOWN_TOPIC_OR_PARTITION)]
    assert answer.remaining == 0


@pytest.mark.parametrize(
    ("name", "count", "assignments", "code", "after"),
    [
        ("t", 3, None, Code.NONE, 3),
        ("t", 3, [[NODE_ID]], Code.NONE, 3),
        ("t", 2, None, Code.INVALID_PARTITIONS, 2),
        ("t", 1, None, Code.INVALID_PARTITIONS, 2),
        ("t", 3, [[NODE_ID + 1]], Code.INVALID_REPLICA_ASSIGNMENT, 2),
        ("t", 10**6, None, Code.POLICY_VIOLATION, 2),
        ("unknown", 3, None, Code.UNKNOWN_TOPIC_OR_PARTITION, 2),
    ],
    ids=["more", "assigned", "as many", "fewer", "elsewhere", "too many", "unknown"],
)
@pytest.mark.parametrize("validate_only", [False, True], ids=["grow", "validate"])
async def test_partitions_are_added_here_and_never_taken_away(
    storage: Storage,
    client: WireClient,
    name: str,
    count: int,
    assignments: list[list[int]] | None,
    code: Code,
    after: int,
    validate_only: bool,
) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t", 2))
    body = Writer().int32(1).string(name).int32(count)
    body.array(assignments, lambda replicas: body.array(replicas, body.int32)).int32(5000).boolean(validate_only)
    answer = await client.ask(CREATE_PARTITIONS, 0, body)
    answer.int32()
    [(found, answered, reason)] = answer.array(lambda: (answer.string(), answer.int16(), answer.nullable_string()))
    assert (found, answered, reason is None) == (name, code, code == Code.NONE)
    assert len(storage.topics["t"].partitions) == (2 if validate_only else after)


async def test_records_are_deleted_up_to_an_offset_that_exists(client: WireClient) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    await client.ask(PRODUCE, 3, produce("t", batch(b"a", b"b", b"c")))
    body = Writer().int32(2).string("t").int32(4)
    body.int32(0).int64(2).int32(0).int64(4).int32(0).int64(-1).int32(1).int64(0)
    answer = await client.ask(DELETE_RECORDS, 0, body.string("unknown").int32(1).int32(0).int64(0).int32(5000))
    answer.int32()
    results = answer.array(
        lambda: (answer.string(), answer.array(lambda: (answer.int32(), answer.int64(), answer.int16())))
    )
    assert results == [
        (
            "t",
            [
                (0, 2, Code.NONE),
                (0, -1, Code.OFFSET_OUT_OF_RANGE),
                (0, 3, Code.NONE),
                (1, -1, Code.UNKNOWN_TOPIC_OR_PARTITION),
            ],
        ),
        ("unknown", [(0, -1, Code.UNKNOWN_TOPIC_OR_PARTITION)]),
    ]


async def log_dirs(client: WireClient, body: Writer) -> tuple[int, dict[tuple[str, int], int]]:
    answer = await client.ask(DESCRIBE_LOG_DIRS, 1, body)
    answer.int32()
    assert answer.int32() == 1, "there is one directory"
    code, _ = answer.int16(), answer.string()

    def part() -> tuple[int, int]:
        index, size, lag, is_future = answer.int32(), answer.int64(), answer.int64(), answer.boolean()
        assert (lag, is_future) == (0, False)
        return index, size

    found = answer.array(lambda: (answer.string(), answer.array(part)))
    assert answer.remaining == 0
    return code, {(name, index): size for name, parts in found for index, size in parts}


async def test_the_size_on_disk_is_told_of_all_partitions_or_of_those_that_exist(
    broker: Broker, client: WireClient
) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t", 2))
    records = batch(b"x" * 1000)
    await client.ask(PRODUCE, 3, produce("t", records))
    assert await log_dirs(client, Writer().int32(-1)) == (Code.NONE, {("t", 0): len(records), ("t", 1): 0})
    some = Writer().int32(2).string("t").int32(2).int32(1).int32(9).string("unknown").int32(1).int32(0)
    assert await log_dirs(client, some) == (Code.NONE, {("t", 1): 0})
    broker.faults.fail(DESCRIBE_LOG_DIRS, Code.CLUSTER_AUTHORIZATION_FAILED)
    assert await log_dirs(client, Writer().int32(-1)) == (Code.CLUSTER_AUTHORIZATION_FAILED, {})


# settings


async def described(
    client: WireClient, kind: int, name: str, keys: list[str] | None = None, version: int = 3
) -> tuple[int, dict[str, tuple[str | None, int, list[int], int]]]:
    """Return the code, and for each key value, source, sources of its synonyms, and type."""
    body = Writer().int32(1).int8(kind).string(name)
    body.array(keys, body.string)
    if version >= 1:
        body.boolean(True)
    if version >= 3:
        body.boolean(False)
    answer = await client.ask(DESCRIBE_CONFIGS, version, body)
    answer.int32()

    def synonym() -> int:
        answer.string()
        answer.nullable_string()
        return answer.int8()

    def entry() -> tuple[str, tuple[str | None, int, list[int], int]]:
        key, value, is_fixed, source = answer.string(), answer.nullable_string(), answer.boolean(), answer.int8()
        assert is_fixed == (kind == BROKER)
        assert not answer.boolean(), "nothing here is a secret"
        synonyms = answer.array(synonym) if version >= 1 else []
        type_ = answer.int8() if version >= 3 else 0
        assert version < 3 or answer.nullable_string() is None
        return key, (value, source, synonyms, type_)

    assert answer.int32() == 1
    code, reason = answer.int16(), answer.nullable_string()
    assert (reason is None) == (code == Code.NONE)
    assert (answer.int8(), answer.string()) == (kind, name)
    entries = dict(answer.array(entry))
    assert answer.remaining == 0
    return code, entries


async def test_settings_are_described_with_who_set_them_and_their_type(client: WireClient) -> None:
    config: dict[str, str | None] = {"retention.ms": "1000"}
    await created(client, topics(("t", 1, 1, [], config)))
    keys = ["retention.ms", "cleanup.policy", "compression.type", "segment.bytes", "unknown"]
    assert await described(client, TOPIC, "t", keys) == (
        Code.NONE,
        {
            "retention.ms": ("1000", 1, [1], 5),
            "cleanup.policy": ("delete", 5, [5], 7),
            "compression.type": ("producer", 5, [5], 2),
            "segment.bytes": ("67108864", 5, [5], 3),
        },
    )
    assert (await described(client, TOPIC, "t", keys[:2], version=0))[1] == {
        "retention.ms": ("1000", False, [], 0),
        "cleanup.policy": ("delete", True, [], 0),
    }


async def test_the_brokers_own_settings_can_be_read(client: WireClient) -> None:
    code, entries = await described(client, BROKER, str(NODE_ID))
    assert code == Code.NONE
    assert entries["default.replication.factor"] == ("1", 5, [5], 3)
    assert entries["group.initial.rebalance.delay.ms"] == ("50", 4, [4, 5], 3)
    assert entries["auto.create.topics.enable"][3] == 1


@pytest.mark.parametrize(
    ("kind", "name", "code"),
    [
        (TOPIC, "unknown", Code.UNKNOWN_TOPIC_OR_PARTITION),
        (BROKER, "7", Code.INVALID_REQUEST),
        (8, "0", Code.INVALID_REQUEST),
    ],
    ids=["topic", "another broker", "loggers"],
)
async def test_settings_of_what_is_not_there_are_refused(client: WireClient, kind: int, name: str, code: Code) -> None:
    assert await described(client, kind, name) == (code, {})


def one_alteration(answer: Reader) -> tuple[int, bool]:
    answer.int32()
    assert answer.int32() == 1
    code, reason = answer.int16(), answer.nullable_string()
    answer.int8(), answer.string()
    assert answer.remaining == 0
    return code, reason is not None


async def replaced(
    client: WireClient, name: str, config: dict[str, str | None], *, kind: int = TOPIC, validate_only: bool = False
) -> tuple[int, bool]:
    body = Writer().int32(1).int8(kind).string(name)
    body.array(list(config.items()), lambda one: body.string(one[0]).string(one[1])).boolean(validate_only)
    return one_alteration(await client.ask(ALTER_CONFIGS, 0, body))


async def changed(client: WireClient, *changes: tuple[str, int, str | None], name: str = "t") -> tuple[int, bool]:
    body = Writer().int32(1).int8(TOPIC).string(name)
    body.array(changes, lambda one: body.string(one[0]).int8(one[1]).string(one[2])).boolean(False)
    return one_alteration(await client.ask(INCREMENTAL_ALTER_CONFIGS, 0, body))


async def test_replacing_settings_returns_those_not_named_to_their_default(
    storage: Storage, client: WireClient
) -> None:
    await created(client, topics(("t", 1, 1, [], {"retention.ms": "1000"})))
    assert await replaced(client, "t", {"segment.ms": "5"}, validate_only=True) == (Code.NONE, False)
    assert storage.topics["t"].config == {"retention.ms": "1000"}, "that was only a check"
    assert await replaced(client, "t", {"segment.ms": "5", "segment.bytes": None}) == (Code.NONE, False)
    assert storage.topics["t"].config == {"segment.ms": "5"}


@pytest.mark.parametrize(
    ("kind", "name", "config", "code"),
    [
        (TOPIC, "unknown", {}, Code.UNKNOWN_TOPIC_OR_PARTITION),
        (TOPIC, "t", {"retention": "1"}, Code.INVALID_CONFIG),
        (TOPIC, "t", {"segment.bytes": "13"}, Code.INVALID_CONFIG),
        (BROKER, str(NODE_ID), {"num.partitions": "3"}, Code.INVALID_REQUEST),
    ],
    ids=["unknown topic", "unknown key", "too small", "broker"],
)
async def test_settings_that_cannot_be_are_refused_and_nothing_changes(
    storage: Storage, client: WireClient, kind: int, name: str, config: dict[str, str | None], code: Code
) -> None:
    await created(client, topics(("t", 1, 1, [], {"retention.ms": "1000"})))
    assert await replaced(client, name, config, kind=kind) == (code, True)
    assert storage.topics["t"].config == {"retention.ms": "1000"}


@pytest.mark.parametrize(
    ("changes", "after"),
    [
        ([("retention.ms", SET, "7")], {"retention.ms": "7"}),
        ([("retention.ms", DELETE, None)], {}),
        ([("retention.ms", SET, None)], {}),
        ([("cleanup.policy", APPEND, "compact")], {"retention.ms": "1000", "cleanup.policy": "delete,compact"}),
        (
            [("cleanup.policy", APPEND, "compact"), ("cleanup.policy", SUBTRACT, "delete")],
            {"retention.ms": "1000", "cleanup.policy": "compact"},
        ),
    ],
    ids=["set", "delete", "null is delete", "append to the default", "append and subtract"],
)
async def test_single_settings_change_and_the_others_stay(
    storage: Storage, client: WireClient, changes: list[tuple[str, int, str | None]], after: dict[str, str]
) -> None:
    await created(client, topics(("t", 1, 1, [], {"retention.ms": "1000"})))
    assert await changed(client, *changes) == (Code.NONE, False)
    assert storage.topics["t"].config == after


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("retention.ms", APPEND, "7"), Code.INVALID_CONFIG),
        (("cleanup.policy", SUBTRACT, None), Code.INVALID_CONFIG),
        (("retention.ms", 4, "7"), Code.INVALID_REQUEST),
    ],
    ids=["append to a number", "subtract nothing", "unknown operation"],
)
async def test_a_change_that_makes_no_sense_is_refused_with_all_that_came_with_it(
    storage: Storage, client: WireClient, change: tuple[str, int, str | None], code: Code
) -> None:
    await created(client, topics(("t", 1, 1, [], {})))
    assert await changed(client, ("segment.ms", SET, "5"), change) == (code, True)
    assert storage.topics["t"].config == {}


# groups


def commit(group: str, topic: str = "t") -> Writer:
    body = Writer().string(group).int32(-1).string("").int64(-1)
    return body.int32(1).string(topic).int32(1).int32(0).int64(5).string("")


async def group_of_one(client: WireClient, group: str) -> str:
    """Join alone and return the member's id; the leader's assignment is not sent yet."""
    body = Writer().string(group).int32(10_000).int32(10_000).string("").string("consumer")
    answer = await client.ask(JOIN_GROUP, 1, body.int32(1).string("range").blob(b"topics"))
    assert answer.int16() == Code.NONE
    answer.int32(), answer.string(), answer.string()
    return answer.string()


async def groups_described(client: WireClient, *names: str) -> dict[str, tuple[int, str, list[tuple[str, str]], int]]:
    """Return for each group its code, state, members' (id, client), and the operations allowed."""
    body = Writer()
    answer = await client.ask(DESCRIBE_GROUPS, 4, body.array(names, body.string).boolean(True))
    answer.int32()

    def member() -> tuple[str, str]:
        identity, instance, name, host = answer.string(), answer.nullable_string(), answer.string(), answer.string()
        assert instance is None
        assert host == "/127.0.0.1"
        answer.blob(), answer.blob()
        return identity, name

    def group() -> tuple[str, tuple[int, str, list[tuple[str, str]], int]]:
        code, name, state = answer.int16(), answer.string(), answer.string()
        answer.string(), answer.string()
        return name, (code, state, answer.array(member), answer.int32())

    found = dict(answer.array(group))
    assert answer.remaining == 0
    return found


async def deleted(client: WireClient, *names: str) -> dict[str, int]:
    body = Writer()
    answer = await client.ask(DELETE_GROUPS, 1, body.array(names, body.string))
    answer.int32()
    return dict(answer.array(lambda: (answer.string(), answer.int16())))


async def test_groups_are_described_by_what_is_known_of_them(broker: Broker, client: WireClient) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    await client.ask(OFFSET_COMMIT, 2, commit("past"))
    member = await group_of_one(client, "present")
    found = await groups_described(client, "past", "present", "unknown")
    assert {name: state for name, (_, state, _, _) in found.items()} == {
        "past": "Empty",
        "present": "CompletingRebalance",
        "unknown": "Dead",
    }
    assert found["present"][2] == [(member, "wire-client")]
    assert {code for code, *_ in found.values()} == {Code.NONE}
    assert all(operations > 0 for *_, operations in found.values())
    broker.faults.fail(DESCRIBE_GROUPS, Code.GROUP_AUTHORIZATION_FAILED)
    code, state, members, _ = (await groups_described(client, "present"))["present"]
    assert (code, state, members) == (Code.GROUP_AUTHORIZATION_FAILED, "Dead", [])


async def test_groups_are_listed_whether_they_have_members_or_only_offsets(broker: Broker, client: WireClient) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    await client.ask(OFFSET_COMMIT, 2, commit("past"))
    await group_of_one(client, "present")

    async def listed(version: int) -> tuple[int, dict[str, str]]:
        answer = await client.ask(LIST_GROUPS, version)
        if version:
            answer.int32()
        code = answer.int16()
        return code, dict(answer.array(lambda: (answer.string(), answer.string())))

    for version in (0, 2):
        assert await listed(version) == (Code.NONE, {"past": "consumer", "present": "consumer"})
    broker.faults.fail(LIST_GROUPS, Code.COORDINATOR_LOAD_IN_PROGRESS)
    assert await listed(0) == (Code.COORDINATOR_LOAD_IN_PROGRESS, {})


async def test_only_groups_without_members_are_deleted_and_their_offsets_go_with_them(
    storage: Storage, client: WireClient
) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    for group in ("past", "present"):
        await client.ask(OFFSET_COMMIT, 2, commit(group))
    await group_of_one(client, "present")
    assert await deleted(client, "past", "present", "unknown", "") == {
        "past": Code.NONE,
        "present": Code.NON_EMPTY_GROUP,
        "unknown": Code.GROUP_ID_NOT_FOUND,
        "": Code.INVALID_GROUP_ID,
    }
    assert storage.offsets.groups() == ["present"]


async def test_a_deleted_topic_takes_its_offsets_along(storage: Storage, client: WireClient) -> None:
    await client.ask(CREATE_TOPICS, 2, create_topic("t"))
    await client.ask(OFFSET_COMMIT, 2, commit("g"))
    await client.ask(DELETE_TOPICS, 1, Writer().int32(1).string("t").int32(5000))
    assert storage.offsets.groups() == []
    assert produced(await client.ask(PRODUCE, 3, produce("t", batch(b"x"))))[0][0] in {
        Code.UNKNOWN_TOPIC_OR_PARTITION,
        Code.NONE,
    }


async def test_members_leave_together_and_each_is_answered_for_itself(broker: Broker, client: WireClient) -> None:
    member = await group_of_one(client, "present")

    async def left(*members: str) -> tuple[int, dict[str, int]]:
        body = Writer().string("present")
        answer = await client.ask(LEAVE_GROUP, 3, body.array(members, lambda each: body.string(each).string(None)))
        answer.int32()
        code = answer.int16()
        return code, dict(answer.array(lambda: ((answer.string(), answer.nullable_string())[0], answer.int16())))

    broker.faults.fail(LEAVE_GROUP, Code.NOT_COORDINATOR)
    assert await left(member) == (Code.NOT_COORDINATOR, {})
    assert await left(member, "stranger") == (Code.NONE, {member: Code.NONE, "stranger": Code.UNKNOWN_MEMBER_ID})
    assert (await groups_described(client, "present"))["present"][2] == []


# a disk that fails


async def test_what_the_disk_refuses_did_not_happen_and_works_later(tmp_path: Path) -> None:
    disk = DiskFaults()
    storage = Storage.open(tmp_path / "data", faults=disk)
    async with Broker(storage) as broker, connected(broker.address) as client:
        await created(client, topics(("t", 1, 1, [], {"segment.ms": "5"})))
        more = Writer().int32(1).string("t").int32(2).int32(-1).int32(5000).boolean(False)
        for error, code in ((5, Code.KAFKA_STORAGE_ERROR), (0, Code.NONE)):
            disk.write_error = error
            assert (await created(client, topics(("u", 1, 1, [], {}))))["u"][0] == code
            assert (await replaced(client, "t", {"segment.ms": "6"}))[0] == code
            answer = await client.ask(CREATE_PARTITIONS, 0, more)
            assert (answer.int32(), answer.int32(), answer.string(), answer.int16()) == (0, 1, "t", code)
            found = {name: (len(topic.partitions), topic.config) for name, topic in storage.topics.items()}
            unchanged = {"t": (1, {"segment.ms": "5"})}
            assert found == (unchanged if error else {"t": (2, {"segment.ms": "6"}), "u": (1, {})})
        disk.write_error = 5
        delete = Writer().int32(1).string("u").int32(5000)
        answer = await client.ask(DELETE_TOPICS, 0, delete)
        assert (answer.int32(), answer.string(), answer.int16()) == (1, "u", Code.KAFKA_STORAGE_ERROR)
        assert set(storage.topics) == {"t", "u"}
        disk.write_error = 0
        answer = await client.ask(DELETE_TOPICS, 0, delete)
        assert (answer.int32(), answer.string(), answer.int16()) == (1, "u", Code.NONE)
