"""FindCoordinator, JoinGroup, SyncGroup, Heartbeat, LeaveGroup: being a member of a consumer group."""

from octopus.broker.codes import BrokerError, Code, require
from octopus.broker.groups import Join, Joined, Peer, Protocol, Synced
from octopus.broker.node import NODE_ID, Node
from octopus.broker.request import Answer, Api, Request
from octopus.broker.wire import Writer

_GROUP, _TRANSACTION = 0, 1


def handle_find_coordinator(node: Node, request: Request) -> Answer:
    """Answer with the one broker there is."""
    reader, version = request.reader, request.version
    key = reader.string()
    kind = reader.int8() if version >= 1 else _GROUP
    code, message = int(Code.NONE), None
    try:
        request.check()
        if kind == _GROUP:
            node.groups.check_name(key)
        else:
            require(kind == _TRANSACTION, Code.INVALID_REQUEST, f"there are no coordinators of type {kind}")
    except BrokerError as error:
        code, message = request.refuse(error), error.message
    answer = _throttled(version >= 1).int16(code)
    if version >= 1:
        answer.string(message)
    if code:
        return answer.int32(-1).string("").int32(-1)
    return answer.int32(NODE_ID).string(request.session.host).int32(request.session.port)


async def handle_join_group(node: Node, request: Request) -> Writer:
    """Join, or join again; answered when the rebalance has all its members."""
    reader, version = request.reader, request.version
    group = reader.string()
    session_timeout = reader.int32()
    rebalance_timeout = reader.int32() if version >= 1 else session_timeout
    member = reader.string()
    instance = reader.nullable_string() if version >= 5 else None
    kind = reader.string()
    protocols = tuple(reader.array(lambda: Protocol(reader.string(), reader.blob())))
    ask = Join(
        member,
        instance,
        node.groups.new_member_id(instance or request.client_id),
        request.client_id,
        request.session.peer,
        session_timeout,
        rebalance_timeout,
        kind,
        protocols,
        asks_back=version >= 4,
    )
    try:
        request.check()
        joined = await node.groups.join(group, ask)
    except BrokerError as error:
        return _joined(version, Joined(Code.NONE, member), request.refuse(error))
    if joined.code:
        request.refuse(BrokerError(joined.code))
    return _joined(version, joined, joined.code)


def _joined(version: int, joined: Joined, code: int) -> Writer:
    answer = _throttled(version >= 2).int16(code).int32(joined.generation)
    answer.string(joined.protocol).string(joined.leader).string(joined.member)

    def peer(each: Peer) -> None:
        answer.string(each.member)
        if version >= 5:
            answer.string(each.instance)
        answer.blob(each.metadata)

    return answer.array(joined.peers, peer)


async def handle_sync_group(node: Node, request: Request) -> Writer:
    """Bring (the leader) or fetch (every member) the assignments of this generation."""
    reader, version = request.reader, request.version
    group, generation, member = reader.string(), reader.int32(), reader.string()
    instance = reader.nullable_string() if version >= 3 else None
    assignments = reader.array(lambda: (reader.string(), reader.blob()))
    try:
        request.check()
        synced = await node.groups.sync(group, member, instance, generation, assignments)
        require(not synced.code, synced.code)
        code = int(Code.NONE)
    except BrokerError as error:
        synced, code = Synced(Code.NONE), request.refuse(error)
    return _throttled(version >= 1).int16(code).blob(synced.assignment)


def handle_heartbeat(node: Node, request: Request) -> Answer:
    """Keep a member's session alive."""
    reader, version = request.reader, request.version
    group, generation, member = reader.string(), reader.int32(), reader.string()
    instance = reader.nullable_string() if version >= 3 else None
    try:
        request.check()
        code = node.groups.heartbeat(group, member, instance, generation)
        require(not code, code)
    except BrokerError as error:
        return _throttled(version >= 1).int16(request.refuse(error))
    return _throttled(version >= 1).int16(code)


def handle_leave_group(node: Node, request: Request) -> Answer:
    """Remove members that say goodbye; since version 3 several at once, each with its own answer."""
    reader, version = request.reader, request.version
    group = reader.string()
    if version < 3:
        code = _leave(node, request, group, reader.string(), None)
        return _throttled(version >= 1).int16(code)
    leaving = reader.array(lambda: (reader.string(), reader.nullable_string()))
    answer = _throttled(True)
    try:
        request.check()
    except BrokerError as error:
        return answer.int16(request.refuse(error)).int32(0)
    left = [(member, instance, _leave(node, request, group, member, instance)) for member, instance in leaving]
    answer.int16(Code.NONE)
    return answer.array(left, lambda each: answer.string(each[0]).string(each[1]).int16(each[2]))


def _leave(node: Node, request: Request, group: str, member: str, instance: str | None) -> int:
    try:
        request.check()
        code = node.groups.leave(group, member, instance)
        require(not code, code)
    except BrokerError as error:
        return request.refuse(error)
    return Code.NONE


def _throttled(has_throttle: bool) -> Writer:
    return Writer().int32(0) if has_throttle else Writer()


APIS = (
    Api(10, "FindCoordinator", 0, 2, handle_find_coordinator),
    Api(11, "JoinGroup", 0, 5, handle_join_group, waits_only=True),
    Api(12, "Heartbeat", 0, 3, handle_heartbeat),
    Api(13, "LeaveGroup", 0, 3, handle_leave_group),
    Api(14, "SyncGroup", 0, 3, handle_sync_group, waits_only=True),
)
