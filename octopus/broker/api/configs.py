"""DescribeConfigs, AlterConfigs, IncrementalAlterConfigs: topic settings, and the broker's to read."""

from typing import NamedTuple

from octopus.broker.codes import BrokerError, Code, require
from octopus.broker.node import NODE_ID, Node
from octopus.broker.request import Answer, Api, Request
from octopus.broker.steps import Steps
from octopus.broker.topics import KINDS, ConfigValue
from octopus.broker.wire import Writer

TOPIC, BROKER = 2, 4
_SET, _DELETE, _APPEND, _SUBTRACT = range(4)
SOURCES = {"topic": 1, "broker": 4, "default": 5}
_KINDS = {"boolean": 1, "string": 2, "int": 3, "long": 5, "double": 6, "list": 7}
_LISTS = frozenset(key for key, kind in KINDS.items() if kind == "list")


class _Description(NamedTuple):
    kind: int
    name: str
    code: int
    message: str | None
    entries: list[tuple[str, ConfigValue]]


def handle_describe_configs(node: Node, request: Request) -> Answer:
    """Describe what applies to topics and to the broker, and who set it."""
    reader, version = request.reader, request.version
    asked = reader.array(lambda: (reader.int8(), reader.string(), reader.nullable_array(reader.string)))
    asks_synonyms = version >= 1 and reader.boolean()
    answer = Writer().int32(0)

    def entry(kind: int, key: str, value: ConfigValue) -> None:
        source = SOURCES[value.source]
        answer.string(key).string(value.value).boolean(kind == BROKER)
        if version == 0:
            answer.boolean(value.source == "default")
        else:
            answer.int8(source)
        answer.boolean(False)
        if version >= 1:
            synonyms = [source] if asks_synonyms else []
            answer.array(synonyms, lambda each: answer.string(key).string(value.value).int8(each))
        if version >= 3:
            answer.int8(_type_of(kind, key, value.value)).string(None)

    def resource(each: _Description) -> None:
        answer.int16(each.code).string(each.message).int8(each.kind).string(each.name)
        answer.array(each.entries, lambda pair: entry(each.kind, *pair))

    return answer.array([_describe(node, request, *each) for each in asked], resource)


def _describe(node: Node, request: Request, kind: int, name: str, keys: list[str] | None) -> _Description:
    try:
        request.check()
        if kind == TOPIC:
            values = node.storage.config_of(name)
        else:
            is_this = kind == BROKER and name in ("", str(NODE_ID))
            require(is_this, Code.INVALID_REQUEST, f"nothing of type {kind} named {name!r} has settings here")
            values = _broker_config(node)
    except BrokerError as error:
        return _Description(kind, name, request.refuse(error), str(error), [])
    chosen = [(key, value) for key, value in values.items() if keys is None or key in keys]
    return _Description(kind, name, Code.NONE, None, chosen)


def _broker_config(node: Node) -> dict[str, ConfigValue]:
    settings, limits = node.settings, node.limits
    values = {
        "auto.create.topics.enable": str(settings.auto_create).lower(),
        "broker.id": str(NODE_ID),
        "default.replication.factor": "1",
        "group.initial.rebalance.delay.ms": str(settings.join_window_ms),
        "group.max.session.timeout.ms": str(limits.max_session_timeout_ms),
        "group.min.session.timeout.ms": str(limits.min_session_timeout_ms),
        "max.connections": str(limits.max_connections),
        "num.partitions": str(settings.default_partitions),
        "offset.metadata.max.bytes": str(limits.max_metadata_bytes),
        "socket.request.max.bytes": str(limits.max_request_bytes),
        "transaction.max.timeout.ms": str(limits.max_transaction_timeout_ms),
    }
    return {key: ConfigValue(value, "broker") for key, value in values.items()}


def _type_of(kind: int, key: str, value: str) -> int:
    if kind == TOPIC:
        return _KINDS[KINDS.get(key, "long")]
    if value in ("true", "false"):
        return _KINDS["boolean"]
    if value.lstrip("-").isdigit():
        return _KINDS["int"]
    return _KINDS["string"]


async def handle_alter_configs(node: Node, request: Request) -> Writer:
    """Replace a topic's settings: what is not named returns to its default."""
    reader = request.reader
    asked = reader.array(
        lambda: (
            reader.int8(),
            reader.string(),
            reader.array(lambda: (reader.string(), _SET, reader.nullable_string())),
        )
    )
    return await _alter(node, request, [(kind, name, changes, True) for kind, name, changes in asked], reader.boolean())


async def handle_incremental_alter_configs(node: Node, request: Request) -> Writer:
    """Change single settings of a topic: set, delete, or append to and subtract from a list."""
    reader = request.reader
    asked = reader.array(
        lambda: (
            reader.int8(),
            reader.string(),
            reader.array(lambda: (reader.string(), reader.int8(), reader.nullable_string())),
        )
    )
    return await _alter(
        node, request, [(kind, name, changes, False) for kind, name, changes in asked], reader.boolean()
    )


_Change = tuple[str, int, str | None]


async def _alter(
    node: Node, request: Request, asked: list[tuple[int, str, list[_Change], bool]], validate_only: bool
) -> Writer:
    results: list[tuple[int, str | None, int, str]] = []
    for kind, name, changes, replaces in asked:
        try:
            request.check()
            require(kind == TOPIC, Code.INVALID_REQUEST, "only the settings of topics can be changed while running")
            await node.storage.made(_altering(node, name, changes, replaces, validate_only))
            results.append((Code.NONE, None, kind, name))
        except BrokerError as error:
            results.append((request.refuse(error), str(error), kind, name))
    answer = Writer().int32(0)
    return answer.array(results, lambda each: answer.int16(each[0]).string(each[1]).int8(each[2]).string(each[3]))


def _altering(node: Node, name: str, changes: list[_Change], replaces: bool, validate_only: bool) -> Steps[None]:
    effective = node.storage.config_of(name)
    config = {} if replaces else dict(node.storage.topic(name).config)
    for change in changes:
        _apply(config, effective, *change)
    yield from node.storage.topic_store.altering(name, config, validate_only=validate_only)


def _apply(
    config: dict[str, str], effective: dict[str, ConfigValue], key: str, operation: int, value: str | None
) -> None:
    if operation in (_APPEND, _SUBTRACT):
        if key not in _LISTS or value is None:
            raise BrokerError(Code.INVALID_CONFIG, f"{key!r} is not a list")
        items = [each for each in config.get(key, effective[key].value).split(",") if each]
        named = value.split(",")
        kept = [each for each in items if each not in named]
        config[key] = ",".join([*kept, *named] if operation == _APPEND else kept)
    elif operation == _SET and value is not None:
        config[key] = value
    elif operation in (_SET, _DELETE):
        config.pop(key, None)  # null, too, means the default
    else:
        raise BrokerError(Code.INVALID_REQUEST, f"there is no operation {operation}")


APIS = (
    Api(32, "DescribeConfigs", 0, 3, handle_describe_configs),
    Api(33, "AlterConfigs", 0, 1, handle_alter_configs),
    Api(44, "IncrementalAlterConfigs", 0, 0, handle_incremental_alter_configs),
)
