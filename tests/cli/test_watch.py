"""`watch`: what happens to files is told once, in order, whatever else goes wrong."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from octopus.cli.file_events import FileEvent, FileWatcher
from octopus.cli.watch import Relay
from octopus.errors import ConnectionFailed, NotAuthorized
from octopus.transports.base import Outgoing
from tests.cli.conftest import Octopus, Start


class Following:
    """Collects what a watcher says until something has been said."""

    def __init__(self, watcher: FileWatcher) -> None:
        self.seen: list[tuple[str, str]] = []
        self.events: list[FileEvent] = []
        self._watcher = watcher
        self._more = asyncio.Condition()

    async def __aenter__(self) -> "Following":
        self._task = asyncio.create_task(self._follow())
        await asyncio.sleep(0.1)  # watching begins in a thread of its own; what comes earlier is found by comparing
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        async for events in self._watcher.events():
            async with self._more:
                self.events += events
                self.seen += [(event.event, event.name) for event in events]
                self._more.notify_all()

    async def until(self, *wanted: tuple[str, str]) -> None:
        """Wait until all of these were said."""
        async with asyncio.timeout(10), self._more:
            await self._more.wait_for(lambda: all(each in self.seen for each in wanted))


async def test_created_modified_and_deleted_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("1")
    async with Following(FileWatcher([tmp_path])) as following:
        (tmp_path / "new").write_text("1")
        (tmp_path / "old").write_text("22")
        await following.until(("created", "new"), ("modified", "old"))
        (tmp_path / "old").unlink()
        await following.until(("deleted", "old"))
    assert sorted(following.seen) == [("created", "new"), ("deleted", "old"), ("modified", "old")]
    event = following.events[0]
    assert event.directory == str(tmp_path)
    assert event.path == os.path.join(tmp_path, event.name)
    gone = following.events[-1]
    assert (gone.size, gone.modified) == (None, None)


async def test_a_directory_that_is_moved_in_brings_its_files_and_takes_them_away_again(tmp_path: Path) -> None:
    watched, elsewhere = tmp_path / "watched", tmp_path / "elsewhere"
    watched.mkdir()
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "a").write_text("1")
    (elsewhere / "deep" / "b").write_text("1")
    async with Following(FileWatcher([watched])) as following:
        (elsewhere).rename(watched / "in")
        await following.until(("created", "a"), ("created", "b"))
        (watched / "in").rename(tmp_path / "out")
        await following.until(("deleted", "a"), ("deleted", "b"))
    assert len(following.seen) == 4


async def test_replacing_a_file_by_renaming_another_over_it_modifies_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("1")
    (tmp_path / "part.tmp").write_text("22")
    async with Following(FileWatcher([tmp_path], patterns=["file"])) as following:
        (tmp_path / "part.tmp").rename(tmp_path / "file")
        await following.until(("modified", "file"))
    assert following.seen == [("modified", "file")]


async def test_existing_files_count_as_created_when_wanted_and_names_are_chosen(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in ("a.tif", "b.txt", "below/c.tif"):
        (tmp_path / name).write_text("1")
    async with Following(FileWatcher([tmp_path], existing=True, patterns=["*.tif"])) as following:
        await following.until(("created", "a.tif"), ("created", "c.tif"))
    assert len(following.seen) == 2
    async with Following(FileWatcher([tmp_path], existing=True, recursive=False)) as following:
        await following.until(("created", "a.tif"), ("created", "b.txt"))
    assert len(following.seen) == 2


async def test_what_the_broker_writes_about_an_event_is_no_event(tmp_path: Path) -> None:
    (tmp_path / "broker" / "topics").mkdir(parents=True)
    async with Following(FileWatcher([tmp_path], exclude=[tmp_path / "broker"])) as following:
        (tmp_path / "broker" / "topics" / "0.log").write_text("1")
        (tmp_path / "broker.txt").write_text("1")
        await following.until(("created", "broker.txt"))
    assert following.seen == [("created", "broker.txt")]


async def test_a_name_that_is_not_utf8_is_told_with_escapes(tmp_path: Path) -> None:
    async with Following(FileWatcher([tmp_path])) as following:
        try:
            Path(os.fsdecode(os.fsencode(tmp_path) + b"/x\xff")).write_text("1")
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")
        await following.until(("created", r"x\xff"))


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
    monkeypatch.setattr("octopus.cli.watch.RETRY_WAIT", (0.01, 0.02))
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


@pytest.mark.process
def test_file_events_reach_the_topic_with_their_path_as_key(
    start: Start, octopus: Octopus, topic: str, tmp_path: Path
) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    running = start("watch", str(inbox), "--to", topic, "--json")
    running.wait_for("Watching; events go to")
    (inbox / "a.txt").write_text("hello")
    running.wait_for('"event":"created"')
    (inbox / "a.txt").unlink()
    running.wait_for('"event":"deleted"')
    assert running.end(signal.SIGINT).code == 130
    events = octopus("consume", topic, "--from", "earliest", "--to", "latest", "--json").lines
    assert [event["value"]["event"] for event in events if event["value"]["event"] != "modified"] == [
        "created",
        "deleted",
    ]
    assert {event["key"] for event in events} == {str(inbox / "a.txt")}
    assert events[0]["value"].keys() == {"event", "path", "name", "directory", "size", "modified", "host", "time"}


@pytest.mark.process
def test_it_can_end_after_some_events(start: Start, octopus: Octopus, topic: str, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for number in range(3):
        (inbox / f"{number}").write_text("x")
    result = start("watch", str(inbox), "--to", topic, "--existing", "--count", "3", "--key", "name").end()
    assert result.code == 0
    events = octopus("consume", topic, "--from", "earliest", "--to", "latest", "--json").lines
    assert sorted(event["key"] for event in events) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nowhere", "--to", "t"), "'nowhere' does not exist."),
        (("file", "--to", "t"), "'file' is a file, not a directory."),
        ((".", "--to", "t", "--key", "size"), "size"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_watched_is_refused(
    octopus: Octopus, nowhere: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    (nowhere / "file").touch()
    result = octopus("watch", *arguments)
    assert result.code == 2
    assert sentence in result.err
