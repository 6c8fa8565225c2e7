"""DescribeConfigs, AlterConfigs, IncrementalAlterConfigs: topic settings, and the broker's to read."""

from typing import NamedTuple

from octopus.broker.api.described_settings import (
    BROKER_SOURCE,
    DEFAULT_SOURCE,
    TOPIC_SOURCE,
    Setting,
    Synonym,
    broker_settings,
    topic_settings,
)
from octopus.broker.codes import BrokerError, Code, require
from octopus.broker.node import NODE_ID, Node
from octopus.broker.request import Answer, Api, Request
from octopus.broker.steps import Steps
from octopus.broker.topics import KINDS, ConfigValue, check_name
from octopus.broker.wire import Writer

TOPIC, BROKER = 2, 4
_SET, _DELETE, _APPEND, _SUBTRACT = range(4)
SOURCES = {"topic": TOPIC_SOURCE, "broker": BROKER_SOURCE, "default": DEFAULT_SOURCE}
_KINDS = {"boolean": 1, "string": 2, "int": 3, "long": 5, "double": 6, "list": 7}
_LISTS = frozenset(key for key, kind in KINDS.items() if kind == "list")


class _Description(NamedTuple):
    kind: int
    name: str
    code: int
    message: str | None
    settings: list[Setting]


def handle_describe_configs(node: Node, request: Request) -> Answer:
    """Describe the effective settings of topics and of the broker, and their sources."""
    reader, version = request.reader, request.version
    asked = reader.structs(lambda: (reader.int8(), reader.string(), reader.nullable_array(reader.string)))
    asks_synonyms = version >= 1 and reader.boolean()
    asks_documentation = version >= 3 and reader.boolean()
    answer = request.answer().int32(0)

    def synonym(each: Synonym) -> None:
        answer.string(each.name).string(each.value).int8(each.source)

    def setting(each: Setting) -> None:
        answer.string(each.key).string(each.value).boolean(each.is_fixed)
        if version == 0:
            answer.boolean(each.source == DEFAULT_SOURCE)
        else:
            answer.int8(each.source)
        answer.boolean(False)
        if version >= 1:
            answer.structs(each.synonyms if asks_synonyms else [], synonym)
        if version >= 3:
            answer.int8(_KINDS[each.kind]).string(each.documentation if asks_documentation else None)

    def resource(each: _Description) -> None:
        answer.int16(each.code).string(each.message).int8(each.kind).string(each.name)
        answer.structs(each.settings, setting)

    return answer.structs([_describe(node, request, *each) for each in asked], resource)


def _describe(node: Node, request: Request, kind: int, name: str, keys: list[str] | None) -> _Description:
    try:
        request.check()
        settings = _settings(node, kind, name)
    except BrokerError as error:
        return _Description(kind, name, request.refuse(error), str(error), [])
    return _Description(kind, name, Code.NONE, None, [each for each in settings if keys is None or each.key in keys])


def _settings(node: Node, kind: int, name: str) -> list[Setting]:
    if kind == TOPIC:
        check_name(name)
        return topic_settings(node.storage.topic(name).config, node.storage.settings.topic_defaults)
    is_here = kind == BROKER and name in ("", str(NODE_ID))
    require(is_here, Code.INVALID_REQUEST, f"nothing of type {kind} named {name!r} has settings here")
    return broker_settings(node) if name else []  # without a name: those set for all brokers while they run


async def handle_alter_configs(node: Node, request: Request) -> Writer:
    """Replace a topic's settings: a setting that is not named returns to its default."""
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
    Api(32, "DescribeConfigs", 0, 4, handle_describe_configs, flexible_from=4),
    Api(33, "AlterConfigs", 0, 1, handle_alter_configs),
    Api(44, "IncrementalAlterConfigs", 0, 0, handle_incremental_alter_configs),
)
