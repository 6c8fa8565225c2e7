"""Frames come out as they went in however the bytes arrive, and nobody writes into a frame that somebody still reads."""

import asyncio
import errno
import gc
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from octopus.transports.kafka import frames as module
from octopus.transports.kafka.frames import CLEARED, QUIET, SMALL, SPARE, WASTE, Buffers, Frames


class Listening:
    """An owner that writes down what it hears.

    Attributes:
        on_frame: Called with every frame.
    """

    def __init__(self) -> None:
        self.frames: list[bytes | memoryview] = []
        self.ends: list[BaseException | None] = []
        self.on_frame: Callable[[bytes | memoryview], None] = lambda frame: None

    def frame_received(self, frame: bytes | memoryview) -> None:
        self.frames.append(frame)
        self.on_frame(frame)

    def frames_ended(self, error: BaseException | None) -> None:
        self.ends.append(error)


class Streams(asyncio.Protocol):
    """A stream protocol that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


def framed(*contents: bytes) -> bytes:
    return b"".join(struct.pack(">i", len(content)) + content for content in contents)


def feed(frames: Frames, data: bytes, pieces: Sequence[int]) -> None:
    """Do as a socket does: fill the buffer that is offered with at most so many bytes at a time, in turn."""
    at, turn = 0, 0
    while at < len(data):
        buffer = frames.get_buffer(-1)
        assert len(buffer) > 0, "a socket without room reports an error"
        count = min(pieces[turn % len(pieces)], len(buffer), len(data) - at)
        buffer[:count] = data[at : at + count]
        del buffer
        frames.buffer_updated(count)
        at, turn = at + count, turn + 1


def content(number: int, size: int) -> bytes:
    return bytes([(number * 7 + 1) % 256]) * size


def tiny(small: int = 16, grain: int = 32) -> ExitStack:
    """Make every limit small enough to meet them all."""
    stack = ExitStack()
    stack.enter_context(mock.patch.object(module, "SMALL", small))
    stack.enter_context(mock.patch.object(module, "GRAIN", grain))
    return stack


@given(
    sizes=st.lists(st.integers(0, 40), max_size=30),
    pieces=st.lists(st.integers(1, 50), min_size=1, max_size=10),
)
def test_frames_are_the_same_for_every_chunking(sizes: list[int], pieces: list[int]) -> None:
    with tiny():
        owner = Listening()
        frames = Frames(owner, Streams())
        sent = [content(number, size) for number, size in enumerate(sizes)]
        feed(frames, framed(*sent), pieces)
        assert [bytes(frame) for frame in owner.frames] == sent
        assert owner.ends == []


@given(
    sizes=st.lists(
        st.one_of(
            st.integers(0, 300), st.integers(SMALL - 9, SMALL + 9), st.sampled_from([SMALL * 2, SMALL * 5 + 1, 0])
        ),
        max_size=8,
    ),
    pieces=st.lists(st.integers(1, 3 * SMALL), min_size=1, max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_frames_of_real_sizes_are_the_same_for_every_chunking(sizes: list[int], pieces: list[int]) -> None:
    owner = Listening()
    frames = Frames(owner, Streams())
    sent = [content(number, size) for number, size in enumerate(sizes)]
    feed(frames, framed(*sent), [max(pieces), *pieces])
    assert [bytes(frame) for frame in owner.frames] == sent


@pytest.mark.parametrize("size", range(40))
def test_a_frame_may_be_split_at_every_byte_and_what_follows_is_not_disturbed(size: int) -> None:
    sent = [b"before", content(3, size), b"after", content(4, size)]
    data = framed(*sent)
    for first in range(1, len(data)):
        with tiny():
            owner = Listening()
            feed(Frames(owner, Streams()), data, [first, len(data)])
        assert [bytes(frame) for frame in owner.frames] == sent


def test_small_frames_are_copies_and_large_ones_are_where_the_socket_put_them() -> None:
    owner = Listening()
    feed(Frames(owner, Streams()), framed(bytes(SMALL - 4), bytes(SMALL - 3)), [SMALL])
    assert [type(frame) for frame in owner.frames] == [bytes, memoryview]


# endings


@pytest.mark.parametrize("size", [-1, -(2**31)])
def test_a_negative_size_ends_it_after_the_frames_before(size: int) -> None:
    owner = Listening()
    frames = Frames(owner, Streams())
    feed(frames, framed(b"good") + struct.pack(">i", size) + framed(b"never"), [1000])
    feed(frames, framed(b"never"), [3])
    assert owner.frames == [b"good"]
    assert [type(error) for error in owner.ends] == [ValueError]


def test_a_frame_that_cannot_be_handled_ends_it_once_and_nothing_follows() -> None:
    owner = Listening()
    frames = Frames(owner, Streams())

    def refuse(frame: bytes | memoryview) -> None:
        if frame == b"bad":
            raise KeyError("bad")

    owner.on_frame = refuse
    feed(frames, framed(b"good", b"bad", b"never"), [1000])
    feed(frames, framed(b"never"), [1000])
    frames.eof_received()
    frames.connection_lost(None)
    assert owner.frames == [b"good", b"bad"]
    assert [type(error) for error in owner.ends] == [KeyError]


def test_a_large_frame_that_cannot_be_handled_ends_it_too() -> None:
    owner = Listening()
    frames = Frames(owner, Streams())
    owner.on_frame = mock.Mock(side_effect=KeyError)
    feed(frames, framed(bytes(SMALL), b"never"), [SMALL])
    assert len(owner.frames) == len(owner.ends) == 1


@pytest.mark.parametrize("size", [10, SMALL * 2])
def test_an_end_in_the_middle_of_a_frame_is_told_at_once_and_the_socket_may_close(size: int) -> None:
    owner, streams = Listening(), Streams()
    frames = Frames(owner, streams)
    feed(frames, framed(bytes(size))[:-1], [SMALL])
    assert frames.eof_received() is False
    assert owner.ends == [None]
    frames.connection_lost(None)
    assert (owner.ends, streams.told) == ([None], ["lost"])


def test_a_lost_connection_is_told_with_its_reason_to_both() -> None:
    owner, streams = Listening(), Streams()
    error = ConnectionResetError()
    Frames(owner, streams).connection_lost(error)
    assert (owner.ends, streams.told) == ([error], ["lost"])


@pytest.mark.parametrize("size", [5, SMALL])
def test_a_stop_from_inside_a_frame_is_the_end_even_if_closing_reads_once_more(size: int) -> None:
    owner = Listening()
    frames = Frames(owner, Streams())

    def close(frame: bytes | memoryview) -> None:
        # as TLS does when it is closed: it reads what has been decrypted
        frames.stop()
        feed(frames, framed(b"late", bytes(SMALL)), [1000])

    owner.on_frame = close
    feed(frames, framed(bytes(size), b"never"), [SMALL])
    feed(frames, bytes(3 * SMALL), [SMALL])
    frames.connection_lost(None)
    assert (len(owner.frames), owner.ends) == (1, [])


def test_frames_for_an_owner_who_is_gone_are_dropped() -> None:
    frames = Frames(Listening(), Streams())
    gc.collect()
    feed(frames, framed(b"frame", bytes(SMALL)) + b"\xff" * 4, [SMALL])
    frames.connection_lost(None)


def test_writers_are_paused_and_resumed_through_the_streams() -> None:
    streams = Streams()
    frames = Frames(Listening(), streams)
    frames.pause_writing()
    frames.resume_writing()
    assert streams.told == ["pause", "resume"]


# buffers

SIZES = pytest.mark.parametrize(
    "size", [SMALL, CLEARED, CLEARED + 1], ids=["cleared", "the largest that is", "of the kernel"]
)


def memory() -> int:
    """Bytes of memory that this process occupies."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_an_absurd_size_costs_no_memory_before_that_much_has_come() -> None:
    frames = Frames(Listening(), Streams())
    before = memory()
    feed(frames, struct.pack(">i", 2**31 - 1) + bytes(100_000), [SMALL])
    assert memory() - before < 50_000_000


def test_a_size_for_which_there_is_no_memory_is_no_trouble_of_the_network() -> None:
    owner = Listening()
    with mock.patch.object(module.mmap, "mmap", side_effect=OSError(errno.ENOMEM, "no")):
        feed(Frames(owner, Streams()), struct.pack(">i", 2**31 - 1) + bytes(10), [SMALL])
    assert [type(error) for error in owner.ends] == [MemoryError]


@SIZES
def test_a_buffer_that_nobody_reads_is_used_again(size: int) -> None:
    buffers = Buffers()
    first = buffers.take(size)
    first[:6] = first[-6:] = b"traces"
    del first
    again = buffers.take(size)
    assert bytes(again[:6]) == bytes(again[-6:]) == b"traces", "the same memory, not cleared in between"


def test_a_buffer_is_taken_for_itself_and_not_for_another_with_the_same_in_it() -> None:
    buffers = Buffers()
    held = [buffers.take(SMALL) for _ in range(SPARE)]
    del held[1]
    again = buffers.take(SMALL)
    again[:4] = b"mine"
    assert [bytes(view[:4]) for view in held] == [bytes(4)] * (SPARE - 1)
    assert len({id(buffer) for buffer in buffers._all}) == SPARE


@SIZES
def test_buffers_that_die_in_a_cycle_with_views_of_them_die_in_silence(size: int) -> None:
    program = """
import gc, sys
from octopus.transports.kafka.frames import Buffers

class Cycle: pass

seen = []
sys.unraisablehook = seen.append
size = int(sys.argv[1])
for number in range(50):
    cycle = Cycle()
    cycle.itself, cycle.buffers = cycle, Buffers()
    cycle.views = [cycle.buffers.take(size) for _ in range(1 + number % 4)]
    cycle.parts = [memoryview(view)[number:][3:9] for view in cycle.views]
    cycle.of_itself = [cycle.views, cycle.parts]
    cycle.of_itself.append(cycle.of_itself)
    kept = cycle.parts[0] if number % 2 else None
    del cycle
    gc.collect()
    assert kept is None or bytes(kept) == bytes(6)
sys.exit(str(seen) if seen else 0)
"""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", program, str(size)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def batch(size: int = 1000) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 2**20)
    builder.append(0, 1, b"key", bytes(size), [("header", b"value")])
    return bytes(builder.build())


HOLDERS: dict[str, Callable[[memoryview], object]] = {
    "all of it": lambda view: view,
    "a part": lambda view: view[3:5],
    "a part of a part": lambda view: view[3:500][2:4],
    "a view of the view": lambda view: memoryview(view),
    "a batch": lambda view: DefaultRecordBatch(view[: len(batch())]),
    "an iterator": lambda view: iter(DefaultRecordBatch(view[: len(batch())])),
}


@SIZES
@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_a_buffer_is_not_used_again_while_anybody_holds(hold: Callable[[memoryview], object], size: int) -> None:
    buffers = Buffers()
    first = buffers.take(size)
    first[: len(batch())] = batch()
    held = hold(first)
    before = bytes(held) if isinstance(held, memoryview) else None
    del first
    for _ in range(SPARE + 2):
        buffers.take(size)[:] = b"\xff" * size
    if isinstance(held, memoryview):
        assert bytes(held) == before
    else:
        (record,) = held  # type: ignore[attr-defined]
        assert (record.key, record.value) == (b"key", bytes(1000))


@SIZES
def test_a_record_keeps_its_value_when_the_buffer_is_used_again(size: int) -> None:
    buffers = Buffers()
    first = buffers.take(size)
    first[: len(batch())] = batch()
    (record,) = DefaultRecordBatch(first[: len(batch())])
    del first
    second = buffers.take(size)
    assert bytes(second[: len(batch())]) == batch(), "the same memory"
    second[:] = b"\xff" * size
    assert (record.key, record.value, record.headers) == (b"key", bytes(1000), [("header", b"value")])


@given(
    steps=st.lists(
        st.tuples(st.integers(1, 200), st.sampled_from(["all", "part", "none"]), st.integers(0, 5)), max_size=60
    )
)
def test_what_is_held_never_changes_whatever_comes_and_goes(steps: list[tuple[int, str, int]]) -> None:
    with tiny():
        owner = Listening()
        frames = Frames(owner, Streams())
        held: list[tuple[memoryview, bytes]] = []
        for number, (size, keep, forget) in enumerate(steps):
            sent = content(number, size)
            feed(frames, framed(sent), [17])
            (frame,) = owner.frames
            assert bytes(frame) == sent
            if keep != "none":
                view = memoryview(frame)[size // 3 :] if keep == "part" else memoryview(frame)
                held.append((view, bytes(view)))
                del view
            owner.frames.clear()
            del frame
            if forget < len(held):
                held.pop(forget)
            assert all(bytes(view) == was for view, was in held)
            assert len(frames._buffers._all) <= SPARE


def test_few_large_buffers_are_kept_and_none_after_many_small_frames_in_a_row() -> None:
    owner = Listening()
    frames = Frames(owner, Streams())
    for _ in range(10):
        feed(frames, framed(bytes(SMALL)), [SMALL])
    assert len(frames._buffers._all) == SPARE, "all ten are held by the list"
    owner.frames.clear()
    feed(frames, framed(*[b"small"] * (QUIET - 1)), [SMALL])
    assert len(frames._buffers._all) == SPARE
    feed(frames, framed(b"small"), [SMALL])
    assert frames._buffers._all == []


def test_a_frame_does_not_keep_a_buffer_that_is_much_too_large_for_it() -> None:
    buffers = Buffers()
    buffers.take(100 * SMALL)[:4] = b"much"
    small = buffers.take(100 * SMALL // WASTE - 1)
    assert bytes(small[:4]) == bytes(4)
    assert bytes(buffers.take(100 * SMALL // WASTE + 1)[:4]) == b"much"
