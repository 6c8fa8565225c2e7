"""`watch` publishes what happens to files, and refuses what cannot be watched."""

import signal
from pathlib import Path

import pytest

from tests.cli.conftest import Octopus, Start


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
