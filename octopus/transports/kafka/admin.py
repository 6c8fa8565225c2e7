"""Topics and groups, with aiokafka's requests.

Its own admin client is not used: it replaces a topic's settings instead of changing them, mistakes errors, and cannot store
or delete a group's offsets.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import aiokafka.errors as kafka
from aiokafka.protocol.admin import (
    AlterConfigsRequest,
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeleteGroupsRequest,
    DeleteTopicsRequest,
    DescribeConfigsRequest,
    DescribeGroupsRequest,
    ListGroupsRequest,
)
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.metadata import MetadataRequest

from octopus.errors import TransportError
from octopus.events import TopicPartition
from octopus.transports.base import Commit, GroupInfo, GroupMember, Start, TopicInfo
from octopus.transports.kafka.client_name import ClientName
from octopus.transports.kafka.clients import Client
from octopus.transports.kafka.engine import CoordinationType
from octopus.transports.kafka.errors import FOREIGN, mapped
from octopus.transports.kafka.membership import NOT_THERE, LeaveGroup, assigned
from octopus.transports.kafka.metadata import offsets_of, partitions_of
from octopus.transports.kafka.settings import KafkaSettings
from octopus.transports.kafka.stable import UNSTABLE, StableOffsetFetch, entries, text
from octopus.transports.kafka.topic_ids import TopicIds

_TOPIC = 2  # the resource type of topic settings
_SET_ON_TOPIC = 1  # the source of a setting that was made for this topic
_ALREADY_THERE, _NOT_CONTROLLER, _BAD_REPLICATION, _GROUP_UNKNOWN = 36, 41, 38, 69


class KafkaAdmin:
    """Looks at and changes topics and groups.

    Args:
        settings: Where the cluster is.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._client: Any = None

    async def start(self) -> None:
        """Connect."""
        options = self._settings.client_options()
        with mapped("connecting", self._settings.brokers, options["client_id"]):
            client = Client(**options)
            try:
                await client.bootstrap()
            except BaseException:
                await client.close()
                raise
            self._client = client
            self._topic_ids = TopicIds(client)

    async def stop(self) -> None:
        """Close."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(*FOREIGN):
                await client.close()

    # topics

    async def topics(self) -> list[TopicInfo]:
        """Return all topics this principal may see."""
        with self._mapped("listing topics"):
            reply = await self._anywhere(MetadataRequest(None))
        return sorted(
            (
                TopicInfo(name, len(partitions), max((len(p[3]) for p in partitions), default=0), internal)
                for code, name, internal, partitions in reply.topics
                if not code
            ),
            key=lambda topic: topic.name,
        )

    async def topic_ids(self, topics: Collection[str]) -> dict[str, str | None]:
        """Return the ids of those topics that are there; None where brokers have none."""
        with self._mapped(f"asking for the ids of {', '.join(sorted(topics))}"):
            return await self._topic_ids.ask(topics, self._settings.metadata_timeout)

    async def create_topic(
        self, name: str, *, partitions: int = 1, replication: int = -1, config: Mapping[str, str] | None = None
    ) -> bool:
        """Create a topic and wait until it is known; False when it was there already."""
        wanted: tuple[Any, ...] = (name, partitions, replication, [], list((config or {}).items()))
        with self._mapped(f"creating topic {name!r}"):
            code, reason = await self._create(wanted)
            if code == _BAD_REPLICATION and replication == -1:
                # brokers before 2.4 have no default for this request
                brokers = len(self._client.cluster.brokers())
                code, reason = await self._create((name, partitions, min(3, brokers), *wanted[3:]))
            _raise(code, reason, unless=_ALREADY_THERE)
            await self._listed(lambda topics: name in topics)  # also where an earlier topic of this name is still known
            await partitions_of(self._client, name, self._settings.metadata_timeout)
        return code != _ALREADY_THERE

    async def _create(self, wanted: tuple[Any, ...]) -> tuple[int, str]:
        request = CreateTopicsRequest([wanted], self._timeout_ms, False)
        reply = await self._controller(request, lambda reply: [entry[1] for entry in reply.topic_errors])
        _, code, *reason = reply.topic_errors[0]
        return code, reason[0] or "" if reason else ""

    async def delete_topic(self, name: str) -> None:
        """Delete a topic and its records. Raises `TopicNotFound`."""
        with self._mapped(f"deleting topic {name!r}"):
            request = DeleteTopicsRequest([name], self._timeout_ms)
            reply = await self._controller(request, lambda reply: [entry[1] for entry in reply.topic_error_codes])
            _raise(reply.topic_error_codes[0][1], f"topic {name!r}")
            await self._listed(lambda topics: name not in topics)

    async def topic_config(self, name: str) -> dict[str, str]:
        """Return a topic's settings, defaults included; secrets are left out."""
        with self._mapped(f"reading the settings of topic {name!r}"):
            entries = await self._config_entries(name)
        return {key: value for key, value, *_ in entries if value is not None}

    async def alter_topic(
        self, name: str, *, config: Mapping[str, str] | None = None, partitions: int | None = None
    ) -> None:
        """Change settings, keeping the others, or raise the number of partitions."""
        with self._mapped(f"changing topic {name!r}"):
            if config:
                entries = await self._config_entries(name)
                # the request replaces everything that was ever set for the topic
                kept = {key: value for key, value, _, source, *_ in entries if source == _SET_ON_TOPIC}
                changed = [(_TOPIC, name, list({**kept, **config}.items()))]
                reply = await self._anywhere(AlterConfigsRequest(changed))
                _raise(reply.resources[0][0], reply.resources[0][1])
            if partitions is not None:
                placement: Any = None  # the cluster's choice
                more = CreatePartitionsRequest([(name, (partitions, placement))], self._timeout_ms, False)
                reply = await self._controller(more, lambda reply: [entry[1] for entry in reply.topic_errors])
                _raise(reply.topic_errors[0][1], reply.topic_errors[0][2])
                await self._listed(lambda topics: topics.get(name, 0) >= partitions)

    async def _listed(self, condition: Callable[[dict[str, int]], bool]) -> None:
        """Wait until brokers list what was just changed: the controller answers before they have heard of it."""
        deadline = time.monotonic() + self._settings.metadata_timeout
        while time.monotonic() < deadline:
            reply = await self._anywhere(MetadataRequest(None))
            if condition({name: len(partitions) for code, name, _, partitions in reply.topics if not code}):
                return
            await asyncio.sleep(0.02)

    async def _config_entries(self, name: str) -> list[tuple[Any, ...]]:
        reply = await self._anywhere(DescribeConfigsRequest([(_TOPIC, name, None)], False))
        code, reason, _, _, entries = reply.resources[0]
        _raise(code, reason)
        return list(entries)

    async def offsets(self, partitions: Collection[TopicPartition], start: Start) -> dict[TopicPartition, int]:
        """Resolve a start to offsets."""
        with self._mapped("looking up offsets"):
            return await offsets_of(
                self._client, partitions, start, self._settings.metadata_timeout, committed_only=False
            )

    # groups

    async def groups(self) -> list[GroupInfo]:
        """Return all groups with state and members."""
        with self._mapped("listing groups"):
            await self._client.force_metadata_update()
            names: set[str] = set()
            for broker in self._client.cluster.brokers():
                ask = partial(self._client.send, broker.nodeId, ListGroupsRequest())
                reply = await self._until_there(ask, lambda reply: [reply.error_code], again=NOT_THERE)
                _raise(reply.error_code, "listing groups")
                names.update(name for name, kind, *_ in reply.groups if kind in ("", "consumer"))
            return [await self._describe(name) for name in sorted(names)]

    async def group(self, name: str) -> GroupInfo:
        """Return one group with state and members."""
        with self._mapped(f"looking at group {name!r}"):
            return await self._describe(name)

    async def _describe(self, name: str) -> GroupInfo:
        # one group a request: aiokafka reads the answer of version 3 as if it were version 2, one field short
        reply = await self._coordinator(name, DescribeGroupsRequest([name]), lambda reply: [reply.groups[0][0]])
        code, _, state, _, _, members, *_ = reply.groups[0]
        _raise(code, f"group {name!r}", unless=_GROUP_UNKNOWN)
        return GroupInfo(
            name,
            state,
            tuple(
                GroupMember(member_id, client_id, host.lstrip("/"), assigned(assignment))
                for member_id, client_id, host, _, assignment, *_ in members
            ),
        )

    async def group_offsets(self, group: str) -> dict[TopicPartition, Commit]:
        """Return everything a group has committed."""
        with self._mapped(f"reading the offsets of group {group!r}"):
            reply = await self._coordinator(group, OffsetFetchRequest(group, None), lambda reply: [reply.error_code])
            _raise(reply.error_code, f"group {group!r}")
            found: dict[TopicPartition, Commit] = {}
            for topic, partitions in reply.topics:
                for number, offset, metadata, code in partitions:
                    _raise(code, f"{topic}[{number}]")
                    if offset >= 0:
                        found[TopicPartition(topic, number)] = Commit(offset, text(metadata))
        return found

    async def committed(
        self, group: str, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, Commit | None]:
        """Return what a group has committed for these partitions, when no transaction is about to change it."""
        topics: dict[str, list[int]] = {}
        for topic, number in partitions:
            topics.setdefault(topic, []).append(number)
        found: dict[TopicPartition, Commit | None] = {}
        with self._mapped(f"reading the committed offsets of group {group!r}"):
            request = StableOffsetFetch(group, list(topics.items()))
            reply = await self._coordinator(
                group, request, lambda reply: [reply.error_code, *(code for *_, code in entries(reply))]
            )
            _raise(reply.error_code, f"group {group!r}")
            for partition, offset, metadata, code in entries(reply):
                _raise(code, str(partition))
                found[partition] = Commit(offset, metadata) if offset >= 0 else None
            if unanswered := set(partitions) - found.keys():
                raise kafka.KafkaError(f"the broker did not answer for {', '.join(map(str, sorted(unanswered)))}")
        return found

    async def set_group_offsets(self, group: str, offsets: Mapping[TopicPartition, Commit]) -> None:
        """Overwrite a group's offsets. Raises `TransportError` while the group has members."""
        topics: dict[str, list[tuple[int, int, str]]] = {}
        for (topic, number), commit in offsets.items():
            topics.setdefault(topic, []).append((number, commit.offset, commit.metadata))
        with self._mapped(f"setting the offsets of group {group!r}"):
            await self._refuse_members(group)
            request = OffsetCommitRequest(group, -1, "", -1, list(topics.items()))
            reply = await self._coordinator(group, request, lambda reply: _codes(reply.topics))
            for code in _codes(reply.topics):
                _raise(code, f"group {group!r}")

    async def delete_group(self, group: str) -> None:
        """Forget a group without members; one that does not exist is fine."""
        with self._mapped(f"deleting group {group!r}"):
            await self._refuse_members(group)
            request = DeleteGroupsRequest([group])
            reply = await self._coordinator(group, request, lambda reply: [entry[1] for entry in reply.results])
            _raise(reply.results[0][1], f"group {group!r}", unless=_GROUP_UNKNOWN)

    async def remove_members(self, group: str, members: Sequence[tuple[str, str | None]]) -> None:
        """Take members out of a group, each named by its id, its instance, or both. Those who are gone already are fine."""
        with self._mapped(f"removing members of group {group!r}"):
            await self._coordinator(group, LeaveGroup(group, members), lambda reply: [reply.error_code])

    async def _refuse_members(self, group: str) -> None:
        if members := (await self._describe(group)).members:
            raise TransportError(f"Group {group!r} has members: {len(members)}. Stop them first.")

    # requests

    async def _anywhere(self, request: Any) -> Any:
        return await self._client.send(self._client.get_random_node(), request)

    async def _controller(self, request: Any, codes: Any) -> Any:
        """Send to the controller, which may have moved."""

        async def send() -> Any:
            controller = self._client.cluster.controller
            if controller is None:
                await self._client.force_metadata_update()
                controller = self._client.cluster.controller
            node = controller.nodeId if controller is not None else self._client.get_random_node()
            return await self._client.send(node, request)

        return await self._until_there(send, codes, again=(_NOT_CONTROLLER,))

    async def _coordinator(self, group: str, request: Any, codes: Any) -> Any:
        """Send to a group's coordinator, which may move or still be loading."""

        async def send() -> Any:
            node = await self._client.coordinator_lookup(CoordinationType.GROUP, group)
            return await self._client.send(node, request)

        return await self._until_there(send, codes, again=(*NOT_THERE, UNSTABLE))

    async def _until_there(self, send: Any, codes: Any, again: Collection[int]) -> Any:
        async with asyncio.timeout(self._settings.request_timeout):
            while True:
                try:
                    reply = await send()
                    if not any(code in again for code in codes(reply)):
                        return reply
                except kafka.KafkaError as error:
                    if not error.retriable:
                        raise
                await asyncio.sleep(self._client.retry_backoff)
                await self._client.force_metadata_update()

    @property
    def _timeout_ms(self) -> int:
        return int(self._settings.request_timeout * 1000)

    def _mapped(self, doing: str) -> contextlib.AbstractContextManager[None]:
        if self._client is None:
            raise TransportError("The admin client is not running.")
        return mapped(doing, self._settings.brokers, ClientName.of(self._client))


def _raise(code: int, reason: str | None, *, unless: int = 0) -> None:
    if code and code != unless:
        raise kafka.for_code(code)(reason or "")


def _codes(topics: Iterable[Any]) -> list[int]:
    return [code for _, partitions in topics for *_, code in partitions]
