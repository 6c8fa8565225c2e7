"""The settings of topics, on either broker."""

import asyncio

import pytest

from octopus.broker.codes import Code
from octopus.broker.topics import DEFAULTS, KINDS
from octopus.broker.wire import Writer
from tests.broker.requests_and_answers import CREATE_TOPICS, create_topic
from tests.broker.topics_on_either import fresh, make_topic
from tests.broker.wire_client import WireClient

TOPIC, SUBTRACT = 2, 3
DESCRIBE, INCREMENTAL = 32, 44
ON_TOPIC, BY_DEFAULT = 1, 5
TYPES = {"boolean": 1, "string": 2, "int": 3, "long": 5, "double": 6, "list": 7}
OURS = {"segment.bytes"}
"""Settings whose default is not Kafka's."""


async def described(peer: WireClient, topic: str) -> dict[str, tuple[str, int, int]]:
    """Return value, source and type of each setting."""
    body = Writer().int32(1).int8(TOPIC).string(topic).int32(-1).boolean(False).boolean(False)
    answer = await peer.ask(DESCRIBE, 3, body)

    def entry() -> tuple[str, tuple[str, int, int]]:
        key, value = answer.string(), answer.nullable_string() or ""
        answer.boolean()
        source = answer.int8()
        answer.boolean(), answer.array(lambda: (answer.string(), answer.nullable_string(), answer.int8()))
        kind = answer.int8()
        answer.nullable_string()
        return key, (value, source, kind)

    answer.int32()

    def resource() -> dict[str, tuple[str, int, int]]:
        assert answer.int16() == Code.NONE
        answer.nullable_string(), answer.int8(), answer.string()
        return dict(answer.array(entry))

    return answer.array(resource)[0]


async def test_every_setting_is_described_with_its_default_and_its_type(peer: WireClient) -> None:
    topic = fresh("described")
    await make_topic(peer, topic)
    found = await described(peer, topic)
    assert {key: found[key][2] for key in DEFAULTS} == {key: TYPES[KINDS.get(key, "long")] for key in DEFAULTS}
    left = [key for key in DEFAULTS if found[key][1] == BY_DEFAULT and key not in OURS]
    assert {key: found[key][0] for key in left} == {key: DEFAULTS[key] for key in left}


SETTINGS = {
    "compression.gzip.level": ("1", "0"),
    "compression.lz4.level": ("17", "18"),
    "compression.zstd.level": ("-5", "23"),
    "file.delete.delay.ms": ("1000", "-1"),
    "flush.messages": ("1", "0"),
    "flush.ms": ("1000", "-1"),
    "index.interval.bytes": ("100", "-1"),
    "max.compaction.lag.ms": ("1000", "0"),
    "message.timestamp.after.max.ms": ("1000", "-1"),
    "message.timestamp.before.max.ms": ("1000", "-1"),
    "min.cleanable.dirty.ratio": ("0.1", "1.5"),
    "min.compaction.lag.ms": ("1000", "-1"),
    "preallocate": ("false", "perhaps"),
    "segment.index.bytes": ("1048576", "3"),
    "segment.jitter.ms": ("0", "-1"),
    "unclean.leader.election.enable": ("false", "1"),
}


@pytest.mark.parametrize(("key", "values"), SETTINGS.items(), ids=SETTINGS)
async def test_a_setting_is_kept_and_shown_and_a_value_out_of_its_range_is_refused(
    peer: WireClient, key: str, values: tuple[str, str]
) -> None:
    right, wrong = values
    topic = fresh("set")
    await make_topic(peer, topic, config={key: right})
    value, source, _ = (await described(peer, topic))[key]
    assert (float(value) if key == "min.cleanable.dirty.ratio" else value) == (
        0.1 if key == "min.cleanable.dirty.ratio" else right
    )
    assert source == ON_TOPIC
    answer = await peer.ask(CREATE_TOPICS, 2, create_topic(fresh("wrong"), config={key: wrong}))
    answer.int32()
    assert (
        answer.array(lambda: (answer.string(), answer.int16(), answer.nullable_string()))[0][1] == Code.INVALID_CONFIG
    )


async def test_the_cleanup_policy_can_be_emptied(peer: WireClient) -> None:
    topic = fresh("kept")
    await make_topic(peer, topic)
    body = Writer().int32(1).int8(TOPIC).string(topic).int32(1)
    body.string("cleanup.policy").int8(SUBTRACT).string("delete").boolean(False)
    answer = await peer.ask(INCREMENTAL, 0, body)
    answer.int32()
    (code,) = answer.array(lambda: (answer.int16(), answer.nullable_string(), answer.int8(), answer.string())[0])
    assert code == Code.NONE
    async with asyncio.timeout(15):
        while (await described(peer, topic))["cleanup.policy"][0]:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("name", "partitions", "replicas", "code"),
    [
        (None, 1, 3, Code.TOPIC_ALREADY_EXISTS),
        (None, 0, 1, Code.TOPIC_ALREADY_EXISTS),
        ("a/b", 1, 3, Code.INVALID_TOPIC_EXCEPTION),
        ("new", 1, 3, Code.INVALID_REPLICATION_FACTOR),
        ("new", 0, 1, Code.INVALID_PARTITIONS),
    ],
)
async def test_a_topic_that_is_there_is_said_to_be_there_whatever_else_is_wrong(
    peer: WireClient, name: str | None, partitions: int, replicas: int, code: Code
) -> None:
    there = fresh("there")
    await make_topic(peer, there)
    name = there if name is None else name if "/" in name else fresh(name)
    body = Writer().int32(1).string(name).int32(partitions).int16(replicas).int32(0).int32(0).int32(5000).boolean(True)
    answer = await peer.ask(CREATE_TOPICS, 2, body)
    answer.int32()
    ((_, found, _),) = answer.array(lambda: (answer.string(), answer.int16(), answer.nullable_string()))
    assert found == code
