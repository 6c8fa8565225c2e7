"""librdkafka: consumer groups."""

import subprocess
import time
from collections.abc import Callable

from confluent_kafka import Consumer, ConsumerGroupState, ConsumerGroupTopicPartitions, TopicPartition

from tests.broker.clients.checking import SESSION_TIMEOUT, Target, check, companion, eventually, fresh
from tests.broker.clients.librdkafka import admin, consumer, create, drain, read, send


@check(races=True, quick_on_kafka=True)
def group_commit_restart(target: Target) -> None:
    topic, group = create(target, "committed"), fresh("group")
    send(target, topic, [b"%d" % n for n in range(300)])
    first = consumer(target, group)
    first.subscribe([topic])
    assert [int(record.value()) for record in read(first, 300)] == list(range(300))
    first.commit(asynchronous=False)
    first.close()
    send(target, topic, [b"%d" % n for n in range(300, 330)])
    second = consumer(target, group)
    second.subscribe([topic])
    assert [int(record.value()) for record in read(second, 30)] == list(range(300, 330))
    assert drain(second, quiet=0.5) == []
    second.commit(offsets=[TopicPartition(topic, 0, 42, metadata="hello")], asynchronous=False)
    (committed,) = second.committed([TopicPartition(topic, 0)], timeout=10)
    second.close()
    assert (committed.offset, committed.metadata) == (42, "hello")


def _rebalanced(target: Target, strategy: str) -> None:
    topic, group = create(target, "shared", partitions=4), fresh("group")
    first = _subscribed(target, topic, group, partition_assignment_strategy=strategy)
    _poll_until([first], lambda: _owned(first) == {0, 1, 2, 3}, 20, "the first member has not got all")
    second = _subscribed(target, topic, group, partition_assignment_strategy=strategy)
    _poll_until(
        [first, second],
        lambda: len(_owned(first)) == len(_owned(second)) == 2 and not _owned(first) & _owned(second),
        20,
        "the partitions are not split 2/2",
    )
    second.close()
    _poll_until([first], lambda: _owned(first) == {0, 1, 2, 3}, 20, "the first member has not got all back")
    first.close()


@check(limit=60, races=True, quick_on_kafka=True)
def rebalance_range(target: Target) -> None:
    _rebalanced(target, "range")


@check(limit=60, races=True)
def rebalance_roundrobin(target: Target) -> None:
    _rebalanced(target, "roundrobin")


@check(limit=60, races=True, quick_on_kafka=True)
def rebalance_cooperative_sticky(target: Target) -> None:
    _rebalanced(target, "cooperative-sticky")


@check(limit=60)
def rebalance_KIP848(target: Target) -> None:
    """The new group protocol: Apache Kafka has it; the embedded broker does not advertise it, and nothing is assigned."""
    topic, group = create(target, "new-protocol", partitions=4), fresh("group")
    settings = {"bootstrap.servers": target.bootstrap, "group.id": group, "group.protocol": "consumer", "log_level": 0}
    member = Consumer(settings | {"auto.offset.reset": "earliest"})
    member.subscribe([topic])
    if target.kind == "kafka":
        _poll_until([member], lambda: _owned(member) == {0, 1, 2, 3}, 20, "nothing was assigned")
    else:
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            member.poll(0.2)
            assert _owned(member) == set()
    member.close()


@check(limit=70, races=True, quick_on_kafka=True)
def kill_member_session_timeout(target: Target) -> None:
    topic, group = create(target, "orphaned", partitions=4), fresh("group")
    survivor = _subscribed(target, topic, group)
    _poll_until([survivor], lambda: len(_owned(survivor)) == 4, 20, "the survivor has not got all")
    victim = subprocess.Popen(companion("librdkafka", "member", target, topic, group))
    try:
        _poll_until([survivor], lambda: len(_owned(survivor)) == 2, 20, "the victim has not got its half")
        _poll_until([survivor], lambda: False, 1, None)  # let its heartbeats settle in
    finally:
        victim.kill()
        victim.wait()
    killed = time.monotonic()
    _poll_until([survivor], lambda: len(_owned(survivor)) == 4, 30, "the survivor has not taken over")
    took = time.monotonic() - killed
    survivor.close()
    assert took > SESSION_TIMEOUT - 2, f"taken over before the session can have expired ({took:.1f} s)"
    assert took < SESSION_TIMEOUT + 5, f"takeover took {took:.1f} s"


def member(target: Target, topic: str, group: str) -> None:
    """Be a member of a group until killed."""
    client = _subscribed(target, topic, group)
    while True:
        client.poll(0.2)


@check(limit=60, races=True)
def static_membership(target: Target) -> None:
    topic, group = create(target, "static", partitions=4), fresh("group")
    other = _subscribed(target, topic, group, group_instance_id="other")
    _poll_until([other], lambda: len(_owned(other)) == 4, 20, "the first member has not got all")
    mine = _subscribed(target, topic, group, group_instance_id="mine")
    _poll_until(
        [other, mine], lambda: len(_owned(other)) == len(_owned(mine)) == 2, 20, "the partitions are not split 2/2"
    )
    before, others = _owned(mine), _owned(other)
    mine.close()
    restarted = time.monotonic()
    mine = _subscribed(target, topic, group, group_instance_id="mine")
    _poll_until([other, mine], lambda: _owned(mine) == before, 20, "the restarted member has not got its own back")
    took = time.monotonic() - restarted
    assert _owned(other) == others, "the other member was disturbed"
    mine.close()
    other.close()
    assert took < 3, f"the restarted member waited {took:.1f} s"


@check(limit=60, races=True, quick_on_kafka=True)
def groups_list_describe_delete(target: Target) -> None:
    client = admin(target)
    topic, group = create(target, "described"), fresh("group")
    send(target, topic, [b"%d" % n for n in range(5)])
    member = _subscribed(target, topic, group)
    read(member, 5)
    member.commit(asynchronous=False)

    def listed() -> bool:
        return group in {one.group_id for one in client.list_consumer_groups().result(10).valid}

    assert listed()
    description = client.describe_consumer_groups([group])[group].result(10)
    assert len(description.members) == 1
    assert description.state == ConsumerGroupState.STABLE
    (owned,) = description.members[0].assignment.topic_partitions
    assert (owned.topic, owned.partition) == (topic, 0)
    future = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group]
    assert [partition.offset for partition in future.result(10).topic_partitions] == [5]
    member.close()
    client.delete_consumer_groups([group])[group].result(10)
    eventually(lambda: not listed(), 10, "the deleted group is still listed")


def _subscribed(target: Target, topic: str, group: str, **settings: object) -> Consumer:
    client = consumer(target, group, **settings)
    client.subscribe([topic])
    return client


def _owned(client: Consumer) -> set[int]:
    return {partition.partition for partition in client.assignment()}


def _poll_until(clients: list[Consumer], done: Callable[[], object], timeout: float, otherwise: str | None) -> None:
    """Poll all members in turn (polling is what lets them take part) until it is done."""
    deadline = time.monotonic() + timeout
    while not done():
        if time.monotonic() >= deadline:
            assert otherwise is None, f"{otherwise} after {timeout} s: {[_owned(client) for client in clients]}"
            return
        for client in clients:
            client.poll(0.05)
