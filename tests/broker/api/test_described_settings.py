"""Settings are described as Apache Kafka describes them: types, sources, synonyms and what they mean."""

from typing import NamedTuple

import pytest

from octopus.broker.codes import Code
from octopus.broker.topics import DEFAULTS
from octopus.broker.wire import Writer
from tests.broker.topics_on_either import fresh, make_topic
from tests.broker.wire_client import Start, WireClient, connected

DESCRIBE, TOPIC, BROKER = 32, 2, 4
OF_TOPIC, DYNAMIC, STATIC, DEFAULT = 1, 3, 4, 5
OURS = {"segment.bytes", "log.segment.bytes"}
"""Whose defaults are not Kafka's."""


class Described(NamedTuple):
    value: str | None
    source: int
    synonyms: tuple[tuple[str, str | None, int], ...]
    kind: int
    documentation: str | None

    @property
    def by_default(self) -> tuple[tuple[str, str | None, int], ...]:
        return tuple(each for each in self.synonyms if each[2] == DEFAULT)


async def described(
    peer: WireClient,
    kind: int,
    name: str,
    *,
    version: int = 4,
    keys: tuple[str, ...] | None = None,
    synonyms: bool = True,
    documentation: bool = True,
) -> tuple[int, dict[str, Described]]:
    body = Writer(version >= 4)
    body.structs([name], lambda each: body.int8(kind).string(each).array(keys, body.string)).boolean(synonyms)
    if version >= 3:
        body.boolean(documentation)
    answer = await peer.ask(DESCRIBE, version, body)
    if version >= 4:
        answer.become_flexible()
    answer.int32()

    def entry() -> tuple[str, Described]:
        key, value, _is_fixed, source = answer.string(), answer.nullable_string(), answer.boolean(), answer.int8()
        is_secret = answer.boolean()
        assert value is None or not is_secret
        found = answer.structs(lambda: (answer.string(), answer.nullable_string(), answer.int8()))
        kind, text = (answer.int8(), answer.nullable_string()) if version >= 3 else (0, None)
        return key, Described(value, source, tuple(found), kind, text)

    def resource() -> tuple[int, dict[str, Described]]:
        code = answer.int16()
        answer.nullable_string()
        assert (answer.int8(), answer.string()) == (kind, name)
        return code, dict(answer.structs(entry))

    (found,) = answer.structs(resource)
    if version >= 4:
        answer.tags()
    assert answer.remaining == 0
    return found


@pytest.mark.parametrize("version", [1, 2, 3, 4])
async def test_what_a_topic_sets_comes_before_what_the_broker_says(peer: WireClient, version: int) -> None:
    topic = fresh("described")
    await make_topic(
        peer, topic, config={"retention.ms": "1000", "cleanup.policy": "compact", "max.message.bytes": "99"}
    )
    code, found = await described(peer, TOPIC, topic, version=version)
    assert code == Code.NONE
    assert {key: found[key][1:3] for key in ("retention.ms", "cleanup.policy", "max.message.bytes", "segment.ms")} == {
        "retention.ms": (OF_TOPIC, (("retention.ms", "1000", OF_TOPIC),)),
        "cleanup.policy": (
            OF_TOPIC,
            (("cleanup.policy", "compact", OF_TOPIC), ("log.cleanup.policy", "delete", DEFAULT)),
        ),
        "max.message.bytes": (
            OF_TOPIC,
            (("max.message.bytes", "99", OF_TOPIC), ("message.max.bytes", "1048588", DEFAULT)),
        ),
        "segment.ms": (DEFAULT, ()),
    }
    assert {key for key in DEFAULTS if found[key].documentation} == (set(DEFAULTS) if version >= 3 else set())


async def test_synonyms_and_documentation_are_told_to_who_asks(peer: WireClient) -> None:
    topic = fresh("described")
    await make_topic(peer, topic)
    _, found = await described(peer, TOPIC, topic, synonyms=False, documentation=False)
    assert {(each.synonyms, each.documentation) for each in found.values()} == {((), None)}
    _, found = await described(peer, TOPIC, topic, keys=("retention.ms", "unknown"))
    assert list(found) == ["retention.ms"]


@pytest.mark.parametrize(
    ("kind", "name", "code"),
    [
        (TOPIC, "unknown-topic", Code.UNKNOWN_TOPIC_OR_PARTITION),
        (TOPIC, "", Code.INVALID_TOPIC_EXCEPTION),
        (TOPIC, "a/b", Code.INVALID_TOPIC_EXCEPTION),
        (BROKER, "7", Code.INVALID_REQUEST),
        (BROKER, "x", Code.INVALID_REQUEST),
    ],
)
async def test_settings_of_what_is_not_there_are_not_described(
    peer: WireClient, kind: int, name: str, code: Code
) -> None:
    assert await described(peer, kind, name) == (code, {})


async def test_what_is_set_for_all_topics_stands_behind_what_a_topic_sets(start: Start) -> None:
    broker = await start(topic_defaults={"segment.ms": "5", "compression.type": "gzip"})
    async with connected(broker.address) as peer:
        await make_topic(peer, "t", config={"compression.type": "lz4"})
        _, found = await described(peer, TOPIC, "t")
    assert found["segment.ms"][:3] == ("5", STATIC, (("log.roll.ms", "5", STATIC),))
    assert found["compression.type"][:3] == (
        "lz4",
        OF_TOPIC,
        (
            ("compression.type", "lz4", OF_TOPIC),
            ("compression.type", "gzip", STATIC),
            ("compression.type", "producer", DEFAULT),
        ),
    )


@pytest.mark.kafka
async def test_every_setting_of_a_topic_has_the_type_the_default_and_the_synonyms_of_apache_kafka(
    start: Start, kafka_cluster: str
) -> None:
    ours, theirs = await _both(start, kafka_cluster, TOPIC)
    assert set(ours) == {key for key in theirs if not key.startswith(_NOT_HERE)}
    for key, each in ours.items():
        assert each.kind == theirs[key].kind, key
        if key not in OURS:
            assert each.by_default == theirs[key].by_default, key
            assert theirs[key].source in (DYNAMIC, STATIC) or each.value == theirs[key].value, key


@pytest.mark.kafka
async def test_every_setting_of_the_broker_has_the_type_and_the_default_of_apache_kafka(
    start: Start, kafka_cluster: str
) -> None:
    ours, theirs = await _both(start, kafka_cluster, BROKER)
    for key, each in ours.items():
        assert each.kind == theirs[key].kind, key
        if key not in OURS:
            assert each.by_default == theirs[key].by_default, key
        assert each.source == (STATIC if each.synonyms[0][2] == STATIC else DEFAULT), key
        assert each.documentation


_NOT_HERE = ("remote.", "local.", "errors.deadletterqueue.", "leader.replication.", "follower.replication.")
"""Tiered storage, share groups, throttled replicas."""


async def _both(start: Start, kafka: str, kind: int) -> tuple[dict[str, Described], dict[str, Described]]:
    found = []
    for address in ((await start()).address, kafka):
        async with connected(address) as peer:
            topic = fresh("described")
            await make_topic(peer, topic)
            code, settings = await described(peer, kind, topic if kind == TOPIC else "1")
            assert code == Code.NONE
            found.append(settings)
    return found[0], found[1]


async def test_without_a_name_only_what_was_set_while_brokers_run_is_described(client: WireClient) -> None:
    assert await described(client, BROKER, "") == (Code.NONE, {})
