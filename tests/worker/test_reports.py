"""What a supervised worker tells its supervisor: whole lines, and never waiting."""

import errno
import os
from collections.abc import Iterator

import pytest

from octopus.worker.parent import PARENT_VARIABLE
from octopus.worker.reports import REPORTS_VARIABLE, LineSender, Wiring, is_looked_at, read_report


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    source, target = os.pipe()
    os.set_blocking(source, False)
    os.set_blocking(target, False)
    yield source, target
    os.close(source)
    os.close(target)


def room(pipe: tuple[int, int]) -> int:
    """Fill a pipe and return how much it takes."""
    taken = 0
    while True:
        try:
            taken += os.write(pipe[1], b"x" * 4096)
        except BlockingIOError:
            return taken


def read(source: int) -> bytes:
    found = b""
    while True:
        try:
            found += os.read(source, 65536)
        except BlockingIOError:
            return found


def test_a_report_for_which_there_is_no_room_is_dropped_and_the_next_ones_come(pipe: tuple[int, int]) -> None:
    source, target = pipe
    sender = LineSender(target)
    room(pipe)
    assert not sender.send(b"dropped")
    read(source)
    assert sender.send(b"first")
    assert sender.send(b"second")
    assert read(source) == b"first\nsecond\n"


def test_a_report_that_fits_in_part_is_completed_before_another_begins(pipe: tuple[int, int]) -> None:
    source, target = pipe
    sender = LineSender(target)
    longer = b"y" * (room(pipe) + 10_000)
    read(source)
    assert sender.send(longer)
    assert not sender.send(b"dropped"), "the rest of the one before takes the room"
    found = read(source)
    assert sender.send(b"next")
    assert found + read(source) == longer + b"\nnext\n"


@pytest.mark.parametrize("line", [b"", b"{", b'{"pid": "one"}', b"\xff\xfe", b"[1]"])
def test_what_is_no_report_is_none(line: bytes) -> None:
    assert read_report(line) is None


@pytest.mark.parametrize(
    ("environment", "is_meant"),
    [
        ({REPORTS_VARIABLE: "3,4,5,6,7", PARENT_VARIABLE: str(os.getppid())}, True),
        ({REPORTS_VARIABLE: "3,4,5,6,7", PARENT_VARIABLE: str(os.getpid())}, False),
        ({PARENT_VARIABLE: str(os.getppid())}, False),
        ({}, False),
    ],
    ids=["for us", "for the worker that started us", "nobody looks", "nobody supervises"],
)
def test_pipes_are_only_for_the_process_they_were_given_to(environment: dict[str, str], is_meant: bool) -> None:
    assert is_looked_at(environment) is is_meant


def test_pipes_are_made_all_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    pipe = os.pipe

    def scarce() -> tuple[int, int]:
        if len(made) == 4:
            raise OSError(errno.EMFILE, "Too many open files")
        made.extend(pair := pipe())
        return pair

    monkeypatch.setattr(os, "pipe", scarce)
    with pytest.raises(OSError, match="Too many open files"):
        Wiring.made()
    for descriptor in made:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
