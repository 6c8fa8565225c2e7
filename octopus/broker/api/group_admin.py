"""DescribeGroups, ListGroups, DeleteGroups: looking after consumer groups from outside."""

from octopus.broker.api.metadata import NOT_ASKED
from octopus.broker.codes import BrokerError, Code
from octopus.broker.groups import Group, Member, State
from octopus.broker.node import Node
from octopus.broker.request import Answer, Api, Request
from octopus.broker.wire import Writer

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


def handle_list_groups(node: Node, request: Request) -> Answer:
    """List groups that have members, have had them lately, or have offsets."""
    code = int(Code.NONE)
    kinds = dict.fromkeys(node.storage.offsets.groups(), "consumer")
    kinds.update({name: group.kind for name, group in node.groups.groups.items() if group.kind})
    try:
        request.check()
    except BrokerError as error:
        code, kinds = request.refuse(error), {}
    answer = Writer().int32(0) if request.version >= 1 else Writer()
    return answer.int16(code).array(list(kinds.items()), lambda entry: answer.string(entry[0]).string(entry[1]))


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
    Api(16, "ListGroups", 0, 2, handle_list_groups),
    Api(42, "DeleteGroups", 0, 1, handle_delete_groups),
)
