"""What happens to files is published in order, however long the broker is away."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from octopus.config import Settings
from octopus.errors import ConnectionFailed, NotAuthorized
from octopus.operations.file_events import FileEvent, FileWatcher
from octopus.operations.file_relay import Relay, publish_file_events
from octopus.operations.moments import read_moment
from octopus.operations.partitions import partitions_of
from octopus.operations.reading import Reader
from octopus.transports.base import Admin, Outgoing, Transport


class Disk(FileWatcher):
    """A watcher that says what it is told to say."""

    def __init__(self, *batches: Sequence[str]) -> None:
        super().__init__([])
        self._batches = batches

    async def events(self) -> AsyncIterator[list[FileEvent]]:
        """Yield the batches, then nothing for ever."""
        for paths in self._batches:
            yield [FileEvent("created", path, path, "/", 1, 1.0, "host", 1.0) for path in paths]
        await asyncio.Event().wait()


async def test_events_wait_in_order_while_the_broker_is_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("octopus.operations.file_relay.RETRY_WAIT", (0.01, 0.02))
    attempts: list[list[bytes | None]] = []

    async def publish(messages: list[Outgoing]) -> None:
        attempts.append([message.key for message in messages])
        if len(attempts) < 4:
            raise ConnectionFailed("nobody answers")

    async with asyncio.timeout(10):
        await Relay("t", publish, most=3).run(Disk(["a", "b"], ["c"]))
    assert attempts[0] == attempts[3]
    assert [key for keys in attempts[3:] for key in keys] == [b"a", b"b", b"c"]
    assert "file events wait to be published: nobody answers" in caplog.text


async def test_a_broker_that_refuses_ends_the_watch() -> None:
    async def publish(messages: list[Outgoing]) -> None:
        raise NotAuthorized("not yours")

    async with asyncio.timeout(10):
        with pytest.raises(NotAuthorized, match="not yours"):
            await Relay("t", publish).run(Disk(["a"]))


async def test_files_are_published_until_enough_are_and_each_is_told(
    transport: Transport, admin: Admin, settings: Settings, fresh: str, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text("1")
    told: list[str] = []
    async with asyncio.timeout(10):
        await publish_file_events(
            transport,
            settings,
            FileWatcher([tmp_path], existing=True),
            fresh,
            key="name",
            most=2,
            begun=lambda: told.append("begun"),
            published=lambda event: told.append(event.name),
        )
    places = await partitions_of(admin, [fresh], address="here")
    bounds = read_moment("earliest", 0.0, "--from"), read_moment("latest", 0.0, "--to")
    async with Reader(transport, settings, places, *bounds) as reader:
        keys = [record.key for _, records in [each async for each in reader] for record in records]
    assert told[0] == "begun"
    assert keys == [name.encode() for name in told[1:]]
    assert len(keys) == 2
