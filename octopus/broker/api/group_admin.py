"""DescribeGroups, ListGroups, DeleteGroups, OffsetDelete: looking after consumer groups from outside."""

from contextlib import suppress
from functools import partial
from typing import NamedTuple

from octopus.broker.api.metadata import NOT_ASKED
from octopus.broker.codes import BrokerError, Code, require
from octopus.broker.groups import Group, Member, State
from octopus.broker.node import Node
from octopus.broker.offsets import Partition
from octopus.broker.request import Answer, Api, Request
from octopus.broker.wire import MalformedRequest, Reader, Writer

GROUP_OPERATIONS = 0xD48


def handle_describe_groups(node: Node, request: Request) -> Answer:
    """Describe groups with their members; an unknown one is Dead, which is no error."""
    reader, version = request.reader, request.version
    names = reader.array(reader.string)
    asks_operations = version >= 3 and reader.boolean()
    answer = Writer().int32(0) if version >= 1 else Writer()

    def describe(name: str) -> None:
        try:
            request.check()
            code, group = int(Code.NONE), node.groups.groups.get(name) or Group(name, state=_rest(node, name))
        except BrokerError as error:
            code, group = request.refuse(error), Group(name, state=State.DEAD)
        answer.int16(code).string(name).string(group.state)
        answer.string(group.kind).string(group.protocol if group.state is State.STABLE else "")
        answer.array(list(group.members.values()), lambda member: _write_member(answer, version, group, member))
        if version >= 3:
            answer.int32(GROUP_OPERATIONS if asks_operations else NOT_ASKED)

    return answer.array(names, describe)


def _rest(node: Node, name: str) -> State:
    return State.EMPTY if node.storage.offsets.fetch(name) else State.DEAD


def _write_member(answer: Writer, version: int, group: Group, member: Member) -> None:
    answer.string(member.id)
    if version >= 4:
        answer.string(member.instance)
    answer.string(member.client).string(f"/{member.host}")
    answer.blob(member.metadata(group.protocol)).blob(member.assignment)


class _Listed(NamedTuple):
    name: str
    kind: str
    state: State


def handle_list_groups(node: Node, request: Request) -> Answer:
    """List groups that have members, have had them lately, or have offsets; those in the states and of the types asked for."""
    reader, version = request.reader, request.version
    states = _folded(reader.array(reader.string)) if version >= 4 else frozenset()
    types = _folded(reader.array(reader.string)) if version >= 5 else frozenset()
    code, found = int(Code.NONE), _groups(node)
    try:
        request.check()
    except BrokerError as error:
        code, found = request.refuse(error), []
    if states:
        found = [each for each in found if each.state.casefold() in states]
    if types and _TYPE not in types:
        found = []

    def write(each: _Listed) -> None:
        answer.string(each.name).string(each.kind)
        if version >= 4:
            answer.string(each.state)
        if version >= 5:
            answer.string(_TYPE)

    answer = request.answer()
    if version >= 1:
        answer.int32(0)
    return answer.int16(code).structs(found, write)


_TYPE = "classic"
"""Of the group protocol; there is no other here."""


def _folded(names: list[str]) -> frozenset[str]:
    return frozenset(name.casefold() for name in names)


def _groups(node: Node) -> list[_Listed]:
    found = {name: _Listed(name, "consumer", State.EMPTY) for name in node.storage.offsets.groups()}
    live = {name: _Listed(name, group.kind, group.state) for name, group in node.groups.groups.items() if group.kind}
    return list((found | live).values())


async def handle_delete_offsets(node: Node, request: Request) -> Writer:
    """Forget a group's offsets in partitions; not in topics that its members read."""
    reader = request.reader
    name = reader.string()
    topics = reader.array(lambda: (reader.string(), reader.array(reader.int32)))
    code, results = int(Code.NONE), dict[Partition, int]()
    try:
        request.check()
        node.groups.check_name(name)
        group = node.groups.groups.get(name)
        require(group is not None or node.storage.offsets.fetch(name), Code.GROUP_ID_NOT_FOUND)
        has_members = group is not None and bool(group.members)
        require(not has_members or group is None or group.kind == "consumer", Code.NON_EMPTY_GROUP)
        read = subscribed(group) if group is not None else frozenset()
        for topic, partitions in topics:
            for partition in partitions:
                results[topic, partition] = _check_unread(node, request, topic, partition, read)
        node.storage.offsets.forget(name, [place for place, refused in results.items() if not refused])
        await node.storage.synced([node.storage.offsets])
    except BrokerError as error:
        code, topics = request.refuse(error), []
    answer = Writer().int16(code).int32(0)

    def part(topic: str, partition: int) -> None:
        answer.int32(partition).int16(results[topic, partition])

    return answer.array(topics, lambda each: answer.string(each[0]).array(each[1], partial(part, each[0])))


def _check_unread(node: Node, request: Request, topic: str, partition: int, read: frozenset[str]) -> int:
    try:
        node.storage.log(topic, partition)
        require(topic not in read, Code.GROUP_SUBSCRIBED_TO_TOPIC)
    except BrokerError as error:
        return request.refuse(error)
    return Code.NONE


def subscribed(group: Group) -> frozenset[str]:
    """Return the topics that members of a consumer group read; metadata that is no subscription counts as none."""
    topics: set[str] = set()
    for member in group.members.values():
        for protocol in member.protocols:
            reader = Reader(protocol.metadata)
            with suppress(MalformedRequest):
                reader.int16()  # the version; all begin alike
                topics.update(reader.array(reader.string))
    return frozenset(topics)


async def handle_delete_groups(node: Node, request: Request) -> Writer:
    """Delete groups without members, with their offsets."""
    codes: list[tuple[str, int]] = []
    for name in request.reader.array(request.reader.string):
        try:
            request.check()
            _delete(node, name)
            codes.append((name, Code.NONE))
        except BrokerError as error:
            codes.append((name, request.refuse(error)))
    await node.storage.synced([node.storage.offsets])
    answer = Writer().int32(0)
    return answer.array(codes, lambda entry: answer.string(entry[0]).int16(entry[1]))


def _delete(node: Node, name: str) -> None:
    node.groups.check_name(name)
    if node.groups.is_active(name):
        raise BrokerError(Code.NON_EMPTY_GROUP)
    was_known = name in node.groups.groups
    node.groups.forget(name)
    if not (node.storage.offsets.delete(name) or was_known):
        raise BrokerError(Code.GROUP_ID_NOT_FOUND)


APIS = (
    Api(15, "DescribeGroups", 0, 4, handle_describe_groups),
    Api(16, "ListGroups", 0, 5, handle_list_groups, flexible_from=3),
    Api(42, "DeleteGroups", 0, 1, handle_delete_groups),
    Api(47, "OffsetDelete", 0, 0, handle_delete_offsets),
)
