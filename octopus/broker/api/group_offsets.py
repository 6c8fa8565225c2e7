"""OffsetCommit and OffsetFetch: where a group has got to."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from octopus.broker.api.naming import TopicKey, key_reader, name_of, write_key
from octopus.broker.codes import BrokerError, Code, require
from octopus.broker.node import Node
from octopus.broker.offsets import Committed, Partition
from octopus.broker.request import Api, Request
from octopus.broker.wire import Reader, Writer

_BY_ID = 10
"""The version from which topics are named by their ids."""


class Wanted(NamedTuple):
    """An offset that a client wants committed for a partition."""

    partition: int
    offset: int
    leader_epoch: int
    metadata: str


Topics = list[tuple[TopicKey, list[Wanted]]]
Codes = dict[tuple[TopicKey, int], int]


def read_wanted(reader: Reader, *, has_epoch: bool, by_id: bool = False) -> Topics:
    """Read the offsets of a request."""

    def wanted() -> Wanted:
        partition, offset, epoch = reader.int32(), reader.int64(), reader.int32() if has_epoch else -1
        return Wanted(partition, offset, epoch, reader.nullable_string() or "")

    key = key_reader(reader, by_id)
    return reader.structs(lambda: (key(), reader.structs(wanted)))


def accept(node: Node, request: Request, topics: Topics, now: int) -> tuple[dict[Partition, Committed], Codes]:
    """Sort wanted offsets into those to store and, for every partition, the code to answer."""
    offsets: dict[Partition, Committed] = {}
    codes: Codes = {}
    for topic, wanted in topics:
        for each in wanted:
            try:
                request.check()
                place = name_of(node, topic), each.partition
                node.storage.log(*place)
                is_short = len(each.metadata.encode()) <= node.limits.max_metadata_bytes
                require(is_short, Code.OFFSET_METADATA_TOO_LARGE)
                offsets[place] = Committed(each.offset, each.metadata, now, each.leader_epoch)
                codes[topic, each.partition] = Code.NONE
            except BrokerError as error:
                codes[topic, each.partition] = request.refuse(error)
    return offsets, codes


def write_codes(answer: Writer, topics: Topics, codes: Codes) -> Writer:
    """Write one code per partition asked for."""

    def topic(entry: tuple[TopicKey, list[Wanted]]) -> None:
        key, wanted = entry
        write_key(answer, key)
        answer.structs(wanted, lambda each: answer.int32(each.partition).int16(codes[key, each.partition]))

    return answer.structs(topics, topic)


def refuse_all(request: Request, topics: Topics, error: BrokerError) -> Codes:
    """Answer every partition with the same code."""
    code = request.refuse(error)
    return {(topic, each.partition): code for topic, wanted in topics for each in wanted}


async def handle_offset_commit(node: Node, request: Request) -> Writer:
    """Store a group's offsets; answered when they are durable."""
    reader, version = request.reader, request.version
    group, generation, member = reader.string(), reader.int32(), reader.string()
    if version <= 4:
        reader.int64()  # a retention time of the client's; ours is the storage's
    instance = reader.nullable_string() if version >= 7 else None
    topics = read_wanted(reader, has_epoch=version >= 6, by_id=version >= _BY_ID)
    try:
        request.check()
        code = node.groups.may_commit(group, member, instance, generation)
        if code == Code.ILLEGAL_GENERATION and version >= 9 and not node.groups.is_known(group):
            code = Code.GROUP_ID_NOT_FOUND
        require(not code, code)
        offsets, codes = accept(node, request, topics, node.now())
        if offsets:
            _check_room(node, group)
            node.storage.offsets.commit(group, offsets)
            await node.storage.synced([node.storage.offsets])
    except BrokerError as error:
        codes = refuse_all(request, topics, error)
    answer = request.answer()
    return write_codes(answer.int32(0) if version >= 3 else answer, topics, codes)


def _check_room(node: Node, group: str) -> None:
    stored = node.storage.offsets
    has_room = bool(stored.fetch(group)) or len(stored.groups()) < node.limits.max_groups
    require(has_room, Code.POLICY_VIOLATION, "this broker keeps the offsets of too many groups")


class _Asked(NamedTuple):
    """The part of a group that a request names: certain partitions, or all."""

    group: str
    topics: list[tuple[TopicKey, list[int]]] | None


class _Place(NamedTuple):
    partition: int
    committed: Committed | None
    code: int = 0


class _Answered(NamedTuple):
    group: str
    code: int
    topics: list[tuple[TopicKey, list[_Place]]]


def handle_offset_fetch(node: Node, request: Request) -> Writer:
    """Answer with groups' offsets, -1 where they have none."""
    version = request.version
    asked = _read_asked(request)
    is_stable = version >= 7 and request.reader.boolean()
    groups = [_answered(node, request, each, is_stable) for each in asked]
    answer = request.answer()
    if version >= 3:
        answer.int32(0)

    def place(each: _Place) -> None:
        offset, metadata, _, epoch = each.committed or _NONE
        answer.int32(each.partition).int64(offset)
        if version >= 5:
            answer.int32(epoch)
        answer.string(metadata).int16(each.code)

    def group(each: _Answered) -> None:
        if version >= 8:
            answer.string(each.group)
        answer.structs(each.topics, lambda topic: write_key(answer, topic[0]).structs(topic[1], place))
        if version >= 2:
            answer.int16(each.code)

    if version >= 8:
        return answer.structs(groups, group)
    group(groups[0])
    return answer


_NONE = Committed(-1, "", -1)


def _read_asked(request: Request) -> list[_Asked]:
    reader, version = request.reader, request.version
    key = key_reader(reader, version >= _BY_ID)

    def group() -> _Asked:
        name = reader.string()
        if version >= 9:
            _member, _epoch = reader.nullable_string(), reader.int32()  # of a group protocol that is not served
        return _Asked(name, reader.nullable_structs(lambda: (key(), reader.array(reader.int32))))

    return reader.structs(group) if version >= 8 else [group()]


def _answered(node: Node, request: Request, asked: _Asked, is_stable: bool) -> _Answered:
    code = int(Code.NONE)
    stored: Mapping[Partition, Committed] = {}
    pending: set[Partition] = set()
    topics = asked.topics
    try:
        request.check()
        stored = node.storage.offsets.fetch(asked.group)
        pending = node.storage.producers.pending(asked.group) if is_stable else pending
    except BrokerError as error:
        # As Kafka answers when the whole request fails: no partitions, only the code; version 1 has no place for it but these.
        code = request.refuse(error)
        if request.version == 1:
            return _Answered(
                asked.group, code, [(key, [_Place(p, None, code) for p in ps]) for key, ps in topics or []]
            )
        return _Answered(asked.group, code, [])
    if topics is None:
        topics = [
            (node.storage.topics[name].id if request.version >= _BY_ID else name, partitions)
            for name, partitions in _by_topic(stored)
        ]

    def places(key: TopicKey, partitions: list[int]) -> list[_Place]:
        try:
            name = name_of(node, key)
        except BrokerError as error:
            return [_Place(each, None, request.refuse(error)) for each in partitions]
        return [
            _Place(each, None, Code.UNSTABLE_OFFSET_COMMIT)
            if (name, each) in pending
            else _Place(each, stored.get((name, each)))
            for each in partitions
        ]

    return _Answered(asked.group, code, [(key, places(key, partitions)) for key, partitions in topics])


def _by_topic(stored: Iterable[Partition]) -> list[tuple[str, list[int]]]:
    topics: dict[str, list[int]] = {}
    for topic, partition in stored:
        topics.setdefault(topic, []).append(partition)
    return list(topics.items())


APIS = (
    Api(8, "OffsetCommit", 2, 10, handle_offset_commit, flexible_from=8, serves_from=2),
    Api(9, "OffsetFetch", 1, 10, handle_offset_fetch, flexible_from=6, serves_from=1),
)
