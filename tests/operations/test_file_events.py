"""What happens to files is told once, in order, whatever else goes wrong."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from octopus.operations import file_events
from octopus.operations.file_events import FileEvent, FileWatcher


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


def deleted_and_made_again(top: Path) -> None:
    shutil.rmtree(top)
    top.mkdir()


def renamed_away_and_another_made(top: Path) -> None:
    top.rename(top.with_name("away"))
    top.mkdir()


def its_parent_renamed_and_made_again(top: Path) -> None:
    top.parent.rename(top.parent.with_name("away"))
    top.mkdir(parents=True)


def its_parent_deleted_and_made_again(top: Path) -> None:
    shutil.rmtree(top.parent)
    top.mkdir(parents=True)


def replaced_by_a_link(top: Path) -> None:
    other = top.with_name("other")
    other.mkdir()
    shutil.rmtree(top)
    top.symlink_to(other)


def mounted_over(top: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(top)], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Path]:
    """A directory to watch, in one of its own; what is mounted there is not any more in the end."""
    top = tmp_path / "parent" / "top"
    top.mkdir(parents=True)
    yield top
    subprocess.run(["umount", str(top)], capture_output=True, check=False)


@pytest.mark.parametrize(
    "happens",
    [
        deleted_and_made_again,
        renamed_away_and_another_made,
        its_parent_renamed_and_made_again,
        its_parent_deleted_and_made_again,
        replaced_by_a_link,
        mounted_over,
    ],
)
async def test_whatever_is_done_to_the_watched_directory_what_is_there_then_is_told(
    top: Path, happens: Callable[[Path], None]
) -> None:
    (top / "before").write_text("1")
    async with Following(FileWatcher([top])) as following:
        await asyncio.to_thread(happens, top)
        (top / "after").write_text("1")
        await following.until(("deleted", "before"), ("created", "after"))
        (top / "after").write_text("22")
        await following.until(("modified", "after"))
        (top / "sub").mkdir()
        (top / "sub" / "later").write_text("1")
        await following.until(("created", "later"))


async def test_a_directory_that_is_away_for_a_while_takes_its_files_with_it_and_brings_them_back(top: Path) -> None:
    (top / "file").write_text("1")
    async with Following(FileWatcher([top])) as following:
        top.rename(top.with_name("away"))
        await following.until(("deleted", "file"))
        (top.with_name("away") / "more").write_text("1")
        top.with_name("away").rename(top)
        await following.until(("created", "file"), ("created", "more"))
        (top / "file").write_text("22")
        await following.until(("modified", "file"))


async def test_a_link_that_is_set_to_another_directory_is_followed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("1")
    (tmp_path / "current").symlink_to(tmp_path / "one")
    async with Following(FileWatcher([tmp_path / "current"])) as following:
        (tmp_path / "next").symlink_to(tmp_path / "two")
        (tmp_path / "next").rename(tmp_path / "current")
        await following.until(("deleted", "one"), ("created", "two"))
        (tmp_path / "two" / "more").write_text("1")
        await following.until(("created", "more"))


async def test_a_directory_that_is_made_later_is_watched_from_then_on(tmp_path: Path) -> None:
    there, later = tmp_path / "there", tmp_path / "later"
    there.mkdir()
    async with Following(FileWatcher([there, later])) as following:
        later.mkdir()
        (later / "one").write_text("1")
        await following.until(("created", "one"))
        (later / "one").rename(there / "one")
        await following.until(("deleted", "one"), ("created", "one"))
    assert [(event.event, Path(event.directory).name) for event in following.events] in (
        [("created", "later"), ("deleted", "later"), ("created", "there")],
        [("created", "later"), ("created", "there"), ("deleted", "later")],
    )


@pytest.mark.parametrize("kind", ["a hard link", "a symbolic link"])
async def test_a_file_that_is_written_through_another_name_is_modified(tmp_path: Path, kind: str) -> None:
    (tmp_path / "top").mkdir()
    outside, inside = tmp_path / "outside", tmp_path / "top" / "inside"
    outside.write_text("1")
    if kind == "a hard link":
        inside.hardlink_to(outside)
    else:
        inside.symlink_to(outside)
    async with Following(FileWatcher([tmp_path / "top"])) as following:
        outside.write_text("22")
        await following.until(("modified", "inside"))


async def test_notices_that_are_lost_are_made_up_for_by_comparing(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def deaf(*_directories: Path, **_options: object) -> AsyncIterator[set[object]]:
        await asyncio.get_running_loop().create_future()
        yield set()

    monkeypatch.setattr(file_events.watchfiles, "awatch", deaf)
    monkeypatch.setattr(file_events, "COMPARE_WAIT", 1.0)
    (top / "old").write_text("1")
    async with Following(FileWatcher([top])) as following:
        (top / "old").unlink()
        (top / "new").write_text("1")
        await following.until(("deleted", "old"), ("created", "new"))


def test_of_what_may_not_be_looked_at_nothing_is_said(top: Path) -> None:
    (top / "sub").mkdir()
    (top / "sub" / "file").write_text("1")
    watcher = FileWatcher([top], existing=True)
    assert [event.event for event in watcher._compare([top], is_everything=True)] == ["created"]
    shutil.rmtree(top / "sub")
    (top / "sub").symlink_to(
        top / "sub"
    )  # a link to itself: asked for what is there, the system says only that it cannot tell
    assert watcher._compare([top], is_everything=True) == []
    (top / "sub").unlink()
    assert [event.event for event in watcher._compare([top], is_everything=True)] == ["deleted"]


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
