"""CreateTopics, DeleteTopics, CreatePartitions, DeleteRecords, DescribeLogDirs: looking after topics."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from octopus.broker.api.configs import SOURCES
from octopus.broker.codes import BrokerError, Code, require
from octopus.broker.node import NODE_ID, Node
from octopus.broker.request import Answer, Api, Request
from octopus.broker.topics import ConfigValue
from octopus.broker.wire import NO_ID, Writer

Refusal = tuple[int, str | None]
_DONE: Refusal = (Code.NONE, None)


class _Created(NamedTuple):
    """The result of creating a topic."""

    refusal: Refusal
    id: UUID = NO_ID
    partitions: int = -1
    config: Mapping[str, ConfigValue] = {}


class _NewTopic(NamedTuple):
    name: str
    partitions: int
    replication: int
    assignments: list[tuple[int, list[int]]]
    config: dict[str, str]


async def handle_create_topics(node: Node, request: Request) -> Writer:
    """Create topics, or only check whether they could be."""
    reader, version = request.reader, request.version

    def topic() -> _NewTopic:
        name, partitions, replication = reader.string(), reader.int32(), reader.int16()
        assignments = reader.structs(lambda: (reader.int32(), reader.array(reader.int32)))
        config = reader.structs(lambda: (reader.string(), reader.nullable_string()))
        return _NewTopic(
            name, partitions, replication, assignments, {key: value for key, value in config if value is not None}
        )

    topics = reader.structs(topic)
    _timeout, validate_only = reader.int32(), version >= 1 and reader.boolean()
    occurrences = Counter(each.name for each in topics)
    results: dict[str, _Created] = {}
    for each in topics:
        try:
            request.check()
            require(
                occurrences[each.name] == 1, Code.INVALID_REQUEST, f"{each.name[:60]!r} is named twice in this request"
            )
            results[each.name] = await _create(node, each, validate_only)
        except BrokerError as error:
            results[each.name] = _Created((request.refuse(error), str(error)))
    answer = request.answer()
    if version >= 2:
        answer.int32(0)

    def setting(entry: tuple[str, ConfigValue]) -> None:
        key, (value, source) = entry
        answer.string(key).string(value).boolean(False).int8(SOURCES[source]).boolean(False)

    def write(entry: tuple[str, _Created]) -> None:
        name, created = entry
        answer.string(name)
        if version >= 7:
            answer.uuid(created.id)
        answer.int16(created.refusal[0])
        if version >= 1:
            answer.string(created.refusal[1])
        if version >= 5:
            answer.int32(created.partitions).int16(1 if created.partitions > 0 else -1)
            answer.structs(list(created.config.items()), setting)

    return answer.structs(list(results.items()), write)


async def _create(node: Node, topic: _NewTopic, validate_only: bool) -> _Created:
    node.storage.topic_store.check_free(topic.name)  # first: its creator must learn that it is there
    partitions = node.settings.default_partitions if topic.partitions == -1 else topic.partitions
    if topic.assignments:
        if topic.partitions != -1 or topic.replication != -1:
            raise BrokerError(Code.INVALID_REQUEST, "counts and assignments exclude each other")
        if [each for each, _ in sorted(topic.assignments)] != list(range(len(topic.assignments))):
            raise BrokerError(Code.INVALID_REPLICA_ASSIGNMENT, "partitions are numbered from 0 without gaps")
        if any(replicas != [NODE_ID] for _, replicas in topic.assignments):
            raise BrokerError(Code.INVALID_REPLICA_ASSIGNMENT, f"the only broker here is {NODE_ID}")
        partitions = len(topic.assignments)
    elif topic.replication not in (-1, 1):
        raise BrokerError(Code.INVALID_REPLICATION_FACTOR, f"{topic.replication} replicas on a single broker")
    if validate_only:
        node.storage.topic_store.check_create(topic.name, partitions, topic.config)
        topic_id = NO_ID
    else:
        steps = node.storage.topic_store.creating(topic.name, partitions, topic.config)
        topic_id = (await node.storage.made(steps)).id
    return _Created(_DONE, topic_id, partitions, node.storage.config_with(topic.config))


async def handle_delete_topics(node: Node, request: Request) -> Writer:
    """Delete topics with their records and committed offsets; waiting fetches end with 3."""
    reader, version = request.reader, request.version
    if version >= 6:
        wanted = reader.structs(lambda: (reader.nullable_string(), reader.uuid()))
    else:
        wanted = [(name, NO_ID) for name in reader.array(reader.string)]
    results = [await _delete(node, request, *each) for each in wanted]
    answer = request.answer()
    if version >= 1:
        answer.int32(0)

    def write(each: _Deleted) -> None:
        answer.string(each.name)
        if version >= 6:
            answer.uuid(each.id)
        answer.int16(each.refusal[0])
        if version >= 5:
            answer.string(each.refusal[1])

    return answer.structs(results, write)


class _Deleted(NamedTuple):
    name: str | None
    id: UUID
    refusal: Refusal


async def _delete(node: Node, request: Request, name: str | None, topic_id: UUID) -> _Deleted:
    try:
        request.check()
        require((name is None) != (topic_id == NO_ID), Code.INVALID_REQUEST, "name a topic, or give its id")
        known = node.storage.topic(node.storage.name_of(topic_id) if name is None else name)
        await node.storage.made(node.storage.deleting(known.name))
    except BrokerError as error:
        return _Deleted(name, topic_id, (request.refuse(error), str(error)))
    return _Deleted(known.name, known.id, _DONE)


async def handle_create_partitions(node: Node, request: Request) -> Writer:
    """Give topics more partitions; fewer is impossible."""
    reader = request.reader
    topics = reader.array(
        lambda: (reader.string(), reader.int32(), reader.nullable_array(lambda: reader.array(reader.int32)))
    )
    _timeout, validate_only = reader.int32(), reader.boolean()
    results: list[tuple[str, Refusal]] = []
    for name, count, assignments in topics:
        try:
            request.check()
            is_here = assignments is None or all(replicas == [NODE_ID] for replicas in assignments)
            require(is_here, Code.INVALID_REPLICA_ASSIGNMENT, f"the only broker here is {NODE_ID}")
            steps = node.storage.topic_store.growing(name, count, validate_only=validate_only)
            await node.storage.made(steps)
            results.append((name, _DONE))
        except BrokerError as error:
            results.append((name, (request.refuse(error), str(error))))
    answer = Writer().int32(0)
    return answer.array(results, lambda entry: answer.string(entry[0]).int16(entry[1][0]).string(entry[1][1]))


def handle_delete_records(node: Node, request: Request) -> Answer:
    """Move log starts forward and answer where they are now."""
    reader = request.reader
    topics = reader.array(lambda: (reader.string(), reader.array(lambda: (reader.int32(), reader.int64()))))
    answer = Writer().int32(0)

    def topic(entry: tuple[str, list[tuple[int, int]]]) -> None:
        name, parts = entry

        def part(wanted: tuple[int, int]) -> None:
            partition, offset = wanted
            code, low = int(Code.NONE), -1
            try:
                request.check()
                low = node.storage.log(name, partition).delete_before(offset)
            except BrokerError as error:
                code = request.refuse(error)
            answer.int32(partition).int64(low).int16(code)

        answer.string(name).array(parts, part)

    return answer.array(topics, topic)


def handle_describe_log_dirs(node: Node, request: Request) -> Answer:
    """Answer with the size of each partition in the one data directory."""
    reader = request.reader
    asked = reader.nullable_array(lambda: (reader.string(), reader.array(reader.int32)))
    if asked is None:
        asked = [(name, list(range(len(topic.partitions)))) for name, topic in node.storage.topics.items()]
    code = int(Code.NONE)
    try:
        request.check()
    except BrokerError as error:
        code, asked = request.refuse(error), []
    sizes = [(name, _sizes(node, name, partitions)) for name, partitions in asked if name in node.storage.topics]
    answer = Writer().int32(0)

    def part(entry: tuple[int, int]) -> None:
        answer.int32(entry[0]).int64(entry[1]).int64(0).boolean(False)

    answer.int32(1).int16(code).string("data")
    return answer.array(sizes, lambda topic: answer.string(topic[0]).array(topic[1], part))


def _sizes(node: Node, name: str, partitions: list[int]) -> list[tuple[int, int]]:
    logs = node.storage.topics[name].partitions
    known = [(index, logs.opened.get(index)) for index in partitions if 0 <= index < len(logs)]
    return [(index, 0 if log is None else log.size_bytes) for index, log in known]


APIS = (
    Api(19, "CreateTopics", 0, 7, handle_create_topics, flexible_from=5),
    Api(20, "DeleteTopics", 0, 6, handle_delete_topics, flexible_from=4),
    Api(21, "DeleteRecords", 0, 1, handle_delete_records),
    Api(35, "DescribeLogDirs", 0, 1, handle_describe_log_dirs),
    Api(37, "CreatePartitions", 0, 1, handle_create_partitions),
)
