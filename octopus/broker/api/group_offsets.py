"""OffsetCommit and OffsetFetch: where a group has got to."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from octopus.broker.codes import BrokerError, Code, require
from octopus.broker.node import Node
from octopus.broker.offsets import Committed, Partition
from octopus.broker.request import Api, Request
from octopus.broker.wire import Writer


class Wanted(NamedTuple):
    """An offset that a client wants committed for a partition."""

    partition: int
    offset: int
    leader_epoch: int
    metadata: str


Codes = dict[Partition, int]


def accept(
    node: Node, request: Request, topics: list[tuple[str, list[Wanted]]], now: int
) -> tuple[dict[Partition, Committed], Codes]:
    """Sort wanted offsets into those to store and, for every partition, the code to answer."""
    offsets: dict[Partition, Committed] = {}
    codes: Codes = {}
    for topic, wanted in topics:
        for each in wanted:
            place = (topic, each.partition)
            try:
                request.check()
                node.storage.log(*place)
                is_short = len(each.metadata.encode()) <= node.limits.max_metadata_bytes
                require(is_short, Code.OFFSET_METADATA_TOO_LARGE)
                offsets[place] = Committed(each.offset, each.metadata, now, each.leader_epoch)
                codes[place] = Code.NONE
            except BrokerError as error:
                codes[place] = request.refuse(error)
    return offsets, codes


def write_codes(answer: Writer, topics: list[tuple[str, list[Wanted]]], codes: Codes) -> Writer:
    """Write one code per partition asked for."""

    def topic(entry: tuple[str, list[Wanted]]) -> None:
        name, wanted = entry
        answer.string(name).array(wanted, lambda each: answer.int32(each.partition).int16(codes[name, each.partition]))

    return answer.array(topics, topic)


def refuse_all(request: Request, topics: list[tuple[str, list[Wanted]]], error: BrokerError) -> Codes:
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

    def wanted() -> Wanted:
        partition, offset, epoch = reader.int32(), reader.int64(), reader.int32() if version >= 6 else -1
        return Wanted(partition, offset, epoch, reader.nullable_string() or "")

    topics = reader.array(lambda: (reader.string(), reader.array(wanted)))
    try:
        request.check()
        code = node.groups.may_commit(group, member, instance, generation)
        require(not code, code)
        offsets, codes = accept(node, request, topics, node.now())
        if offsets:
            _check_room(node, group)
            node.storage.offsets.commit(group, offsets)
            await node.storage.synced([node.storage.offsets])
    except BrokerError as error:
        codes = refuse_all(request, topics, error)
    return write_codes(Writer().int32(0) if version >= 3 else Writer(), topics, codes)


def _check_room(node: Node, group: str) -> None:
    stored = node.storage.offsets
    has_room = bool(stored.fetch(group)) or len(stored.groups()) < node.limits.max_groups
    require(has_room, Code.POLICY_VIOLATION, "this broker keeps the offsets of too many groups")


def handle_offset_fetch(node: Node, request: Request) -> Writer:
    """Answer with a group's offsets, -1 where it has none."""
    reader, version = request.reader, request.version
    group = reader.string()
    asked = reader.nullable_array(lambda: (reader.string(), reader.array(reader.int32)))
    answer = Writer().int32(0) if version >= 3 else Writer()
    try:
        request.check()
        code, stored = int(Code.NONE), node.storage.offsets.fetch(group)
    except BrokerError as error:
        # As Kafka answers when the whole request fails: no partitions, only the code; version 1 has no place for it but these.
        code, stored = request.refuse(error), {}
        asked = [] if version >= 2 else asked
    topics = _by_topic(stored) if asked is None else asked

    def topic(entry: tuple[str, list[int]]) -> None:
        name, partitions = entry

        def partition(index: int) -> None:
            found = stored.get((name, index))
            answer.int32(index).int64(found.offset if found else -1)
            if version >= 5:
                answer.int32(found.leader_epoch if found else -1)
            answer.string(found.metadata if found else "").int16(code)

        answer.string(name).array(partitions, partition)

    answer.array(topics, topic)
    return answer.int16(code) if version >= 2 else answer


def _by_topic(stored: Mapping[Partition, Committed] | Iterable[Partition]) -> list[tuple[str, list[int]]]:
    topics: dict[str, list[int]] = {}
    for topic, partition in stored:
        topics.setdefault(topic, []).append(partition)
    return list(topics.items())


APIS = (
    Api(8, "OffsetCommit", 2, 7, handle_offset_commit, serves_from=2),
    Api(9, "OffsetFetch", 1, 5, handle_offset_fetch, serves_from=1),
)
