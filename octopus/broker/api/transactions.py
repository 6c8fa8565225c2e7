"""InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, EndTxn, TxnOffsetCommit: idempotent and transactional producers."""

from octopus.broker.api.group_offsets import accept, read_wanted, refuse_all, write_codes
from octopus.broker.codes import BrokerError, Code, require
from octopus.broker.node import Node
from octopus.broker.request import Api, Request
from octopus.broker.wire import Writer


async def handle_init_producer_id(node: Node, request: Request) -> Writer:
    """Give out a producer id; with a transactional id, fence the producer that had it before."""
    reader = request.reader
    transactional_id, timeout_ms = reader.nullable_string(), reader.int32()
    code, producer_id, epoch = int(Code.NONE), -1, -1
    try:
        request.check()
        if transactional_id is None:
            producer_id, epoch = await node.transactions.new_producer_id(), 0
        else:
            require(0 < len(transactional_id) <= node.limits.max_name_bytes, Code.INVALID_REQUEST)
            state = await node.transactions.initialize(transactional_id, timeout_ms)
            producer_id, epoch = state.producer_id, state.producer_epoch
    except BrokerError as error:
        code = request.refuse(error)
    return Writer().int32(0).int16(code).int64(producer_id).int16(epoch)


async def handle_add_partitions(node: Node, request: Request) -> Writer:
    """Put partitions into a transaction; all or none."""
    reader = request.reader
    transactional_id, producer_id, epoch = reader.string(), reader.int64(), reader.int16()
    topics = reader.array(lambda: (reader.string(), reader.array(reader.int32)))
    places = [(topic, partition) for topic, partitions in topics for partition in partitions]
    codes = dict.fromkeys(places, int(Code.NONE))
    try:
        request.check()
        for place in places:
            try:
                node.storage.log(*place)
            except BrokerError as error:
                codes[place] = request.refuse(error)
        if any(codes.values()):
            codes = {place: code or int(Code.OPERATION_NOT_ATTEMPTED) for place, code in codes.items()}
        else:
            await node.transactions.add_partitions(transactional_id, producer_id, epoch, places)
    except BrokerError as error:
        codes = dict.fromkeys(places, request.refuse(error))
    answer = Writer().int32(0)

    def topic(entry: tuple[str, list[int]]) -> None:
        name, partitions = entry
        answer.string(name).array(partitions, lambda each: answer.int32(each).int16(codes[name, each]))

    return answer.array(topics, topic)


async def handle_add_offsets(node: Node, request: Request) -> Writer:
    """Announce a group whose offsets the transaction will commit."""
    reader = request.reader
    transactional_id, producer_id, epoch = reader.string(), reader.int64(), reader.int16()
    group = reader.string()
    code = int(Code.NONE)
    try:
        request.check()
        node.groups.check_name(group)
        await node.transactions.add_group(transactional_id, producer_id, epoch, group)
    except BrokerError as error:
        code = request.refuse(error)
    return Writer().int32(0).int16(code)


async def handle_end(node: Node, request: Request) -> Writer:
    """Commit or abort."""
    reader = request.reader
    transactional_id, producer_id, epoch = reader.string(), reader.int64(), reader.int16()
    commit = reader.boolean()
    code = int(Code.NONE)
    try:
        request.check()
        await node.transactions.end(transactional_id, producer_id, epoch, commit)
    except BrokerError as error:
        code = request.refuse(error)
    return Writer().int32(0).int16(code)


async def handle_offset_commit(node: Node, request: Request) -> Writer:
    """Keep offsets until the transaction ends; until then no client sees them."""
    reader, version = request.reader, request.version
    transactional_id, group = reader.string(), reader.string()
    producer_id, epoch = reader.int64(), reader.int16()
    generation, member, instance = -1, "", None
    if version >= 3:
        generation, member, instance = reader.int32(), reader.string(), reader.nullable_string()
    topics = read_wanted(reader, has_epoch=version >= 2)
    try:
        request.check()
        code = node.groups.may_commit(group, member, instance, generation, in_transaction=True)
        require(not code, code)
        offsets, codes = accept(node, request, topics, node.now())
        await node.transactions.add_offsets(transactional_id, producer_id, epoch, group, offsets)
    except BrokerError as error:
        codes = refuse_all(request, topics, error)
    return write_codes(request.answer().int32(0), topics, codes)


APIS = (
    Api(22, "InitProducerId", 0, 1, handle_init_producer_id),
    Api(24, "AddPartitionsToTxn", 0, 2, handle_add_partitions),
    Api(25, "AddOffsetsToTxn", 0, 2, handle_add_offsets),
    Api(26, "EndTxn", 0, 2, handle_end),
    Api(28, "TxnOffsetCommit", 0, 4, handle_offset_commit, flexible_from=3),
)
