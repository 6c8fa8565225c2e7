"""`run`: handlers as a process, with signals, exit codes, several processes and reloading."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest

from octopus.worker.signals import SAME_STOP
from tests.cli.conftest import Octopus, Start

pytestmark = pytest.mark.process
Write = Callable[..., Path]


def app_of(name: str, topic: str, body: str = "print('got', value, flush=True)", options: str = "") -> str:
    return f"""
import asyncio, os, time
from octopus import Octopus, RetryPolicy
app = Octopus({name!r})

@app.on({topic!r}{options})
async def handle(value: dict) -> None:
    {body}

@app.on({topic!r})
async def other(value: dict) -> None:
    pass
"""


def test_drain_handles_what_is_there_and_exits_with_0(
    start: Start, octopus: Octopus, topic: str, write_app: Write
) -> None:
    write_app(app_of(topic, topic))
    octopus("publish", topic, '{"n": 1}', '{"n": 2}')
    result = start("run", "--drain").end()
    assert result.code == 0
    assert sorted(result.out.splitlines()) == ["got {'n': 1}", "got {'n': 2}"]
    assert f"octopus.worker: {topic} runs handle, other on 127.0.0.1:" in result.err
    assert "caught up: 4 done, 0 skipped in" in result.err
    assert "\x1b" not in result.err


def test_only_the_named_handler_runs(start: Start, octopus: Octopus, topic: str, write_app: Write) -> None:
    write_app(app_of(topic, topic), "beam.py")
    octopus("publish", topic, '{"n": 1}')
    result = start("run", "beam:app", "--drain", "--only", "other").end()
    assert (result.code, result.out) == (0, "")
    assert "caught up: 1 done" in result.err


def test_the_first_signal_drains_and_commits(start: Start, octopus: Octopus, topic: str, write_app: Write) -> None:
    body = "print('begun', flush=True); await asyncio.sleep(0.5); print('ended', flush=True)"
    write_app(app_of(topic, topic, body))
    octopus("publish", topic, '{"n": 1}')
    running = start("run")
    running.wait_for("begun")
    result = running.end(signal.SIGTERM)
    assert (result.code, result.out) == (0, "begun\nended\n")
    assert "stopping: letting handlers finish for up to 30 s" in result.err
    groups = {group["name"]: group["lag"] for group in octopus("groups", "--json").json}
    assert groups[f"{topic}.handle"] == 0


def test_the_second_signal_ends_at_once_and_commits_nothing_unfinished(
    start: Start, octopus: Octopus, topic: str, write_app: Write
) -> None:
    write_app(app_of(topic, topic, "print('begun', flush=True); await asyncio.sleep(60)"))
    octopus("publish", topic, '{"n": 1}')
    running = start("run")
    running.wait_for("begun")
    running.process.send_signal(signal.SIGINT)
    running.wait_for("stopping")
    time.sleep(SAME_STOP)  # until then it is the first one
    assert running.end(signal.SIGINT).code == 130
    groups = {group["name"]: group["lag"] for group in octopus("groups", "--json").json}
    assert groups[f"{topic}.handle"] == 1


def test_a_stop_that_comes_twice_at_once_is_one(start: Start, octopus: Octopus, topic: str, write_app: Write) -> None:
    write_app(app_of(topic, topic, "print('begun', flush=True); await asyncio.sleep(0.3); print('done', flush=True)"))
    octopus("publish", topic, '{"n": 1}')
    running = start("run", "--only", "handle")
    running.wait_for("begun")
    running.process.send_signal(signal.SIGTERM)
    result = running.end(signal.SIGINT)
    assert result.code == 0
    assert "done" in result.out
    assert result.err.splitlines()[-1].endswith("s"), result.err
    assert "ended: 1 done" in result.err


def test_a_handler_that_swallows_every_cancellation_does_not_keep_a_stopped_process_alive(
    start: Start, octopus: Octopus, topic: str, write_app: Write
) -> None:
    body = """
    print('begun', flush=True)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
"""
    write_app(app_of(topic, topic, body))
    octopus("publish", topic, '{"n": 1}')
    running = start("run", "--only", "handle", "--config", "worker.drain_timeout=0.2s")
    running.wait_for("begun")
    result = running.end(signal.SIGTERM)
    assert result.code == 0
    assert "some handlers do not end although they were cancelled" in result.err
    assert "ended: 0 done, 0 skipped, 1 left" in result.err
    assert "ended without octopus slot 0, which does not end" in result.err


def test_a_thread_of_a_handler_that_does_not_end_does_not_keep_a_stopped_process_alive(
    start: Start, octopus: Octopus, topic: str, write_app: Write
) -> None:
    write_app(app_of(topic, topic, "print('begun', flush=True); await asyncio.to_thread(time.sleep, 3600)"))
    octopus("publish", topic, '{"n": 1}')
    running = start("run", "--config", "worker.drain_timeout=0.2s")
    running.wait_for("begun")
    result = running.end(signal.SIGTERM)
    assert result.code == 0
    assert "a function in thread" in result.err


def test_a_group_that_stops_is_exit_code_4(start: Start, octopus: Octopus, topic: str, write_app: Write) -> None:
    body = "raise ValueError('no')"
    write_app(app_of(topic, topic, body, ", dead_letter=False, retry=RetryPolicy(attempts=1)"))
    octopus("publish", topic, '{"n": 1}')
    result = start("run", "--only", "handle").end()
    assert result.code == 4
    assert "has no dead-letter topic" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("run",), 2, "No app is named and there is no app.py or main.py here."),
        (("run", "missing.py"), 2, "There is no file 'missing.py'."),
        (("run", "empty.py"), 2, "idle has no handlers and no timers: there is nothing to run."),
        (("run", "full.py", "--only", "hande"), 2, "full has no handler 'hande'. Did you mean handle?"),
        (("run", "full.py", "--workers", "0"), 2, "--workers 0 runs nothing: at least 1."),
        (("run", "full.py", "--watch", "nowhere"), 2, "--watch 'nowhere' is not DIR=TOPIC."),
        (("run", "full.py", "--watch", "nowhere=t"), 2, "there is no directory 'nowhere'."),
        (("run", "full.py", "--brokers", "127.0.0.1:1"), 3, "127.0.0.1:1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_run_says_why(
    octopus: Octopus, nowhere: Path, write_app: Write, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    write_app("from octopus import Octopus\napp = Octopus('idle')\n", "empty.py")
    write_app(app_of("full", "full-topic"), "full.py")
    result = octopus(*arguments, brokers=None)
    assert result.code == code
    assert sentence in result.err
    assert "Traceback" not in result.err
    assert not (nowhere / "state").exists(), "an embedded broker was started for nothing"


def test_log_records_can_be_json(start: Start, octopus: Octopus, topic: str, write_app: Write) -> None:
    write_app(app_of(topic, topic, "raise ValueError('no')", ", retry=1"))
    octopus("publish", topic, '{"n": 1}')
    result = start("run", "--drain", "--json").end()
    entries = [json.loads(line) for line in result.err.splitlines()]
    assert all(entry.keys() >= {"time", "level", "logger", "message"} for entry in entries)
    assert any("ValueError: no" in entry.get("exception", "") for entry in entries)


def test_several_processes_share_the_work_and_stop_together(
    start: Start, octopus: Octopus, topic: str, write_app: Write
) -> None:
    write_app(app_of(topic, topic, "print('by', os.environ['OCTOPUS_WORKER'], flush=True)"))
    octopus("topics", "create", topic, "--partitions", "2")
    running = start("run", "--workers", "2", "--only", "handle")
    running.wait_for("[1] ", "[2] ")
    while not {"by 1", "by 2"} <= {*running.out.splitlines()}:
        octopus("publish", topic, "{}", "--partition", "0")
        octopus("publish", topic, "{}", "--partition", "1")
        assert time.monotonic() < running.deadline, running.out + running.err
    result = running.end(signal.SIGTERM)
    assert result.code == 0
    assert result.err.count("ended: ") == 2


def test_one_port_answers_for_all_processes(start: Start, octopus: Octopus, topic: str, write_app: Write) -> None:
    write_app(app_of(topic, topic))
    octopus("topics", "create", topic, "--partitions", "2")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = start("run", "--workers", "2", "--config", f"worker.health_port={port}")
    running.wait_for(
        f"health of all workers: http://127.0.0.1:{port}/ready", f":{port + 1}/ready", f":{port + 2}/ready"
    )
    while True:
        with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/ready", timeout=8) as answer:
            assert answer.read() == b"ok\n"
            break
        assert time.monotonic() < running.deadline, running.out + running.err
    with urlopen(f"http://127.0.0.1:{port}/status", timeout=8) as answer:
        assert [each["worker"] for each in json.load(answer)["workers"]] == [1, 2]
    assert running.end(signal.SIGTERM).code == 0


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("name", ["calendar", "random", "octopus"])
def test_an_app_may_be_called_like_a_module_of_the_standard_library_with_several_processes_too(
    start: Start, octopus: Octopus, topic: str, write_app: Write, name: str, workers: str
) -> None:
    write_app(app_of(topic, topic), f"{name}.py")
    octopus("publish", topic, '{"n": 1}')
    script = str(Path(sys.executable).with_name("octopus"))
    result = start("run", f"{name}.py:app", "--drain", "--workers", workers, program=[script]).end()
    assert (result.code, result.out.count("got {'n': 1}")) == (0, 1), result.err


def test_an_embedded_broker_starts_beside_files_that_are_called_like_modules_of_the_standard_library(
    start: Start, nowhere: Path
) -> None:
    for name in ("calendar", "random", "octopus"):
        (nowhere / f"{name}.py").write_text("raise SystemExit('this is not the standard library')\n")
    script = str(Path(sys.executable).with_name("octopus"))
    assert start("topics", brokers=None, program=[script]).end().code == 0


def test_a_change_of_the_code_starts_it_again(start: Start, topic: str, write_app: Write) -> None:
    write_app(app_of(topic, topic) + "print('first', flush=True)\n")
    running = start("run", "--reload")
    running.wait_for("first", "watching", "reads")
    write_app("not python")
    running.wait_for("app.py changed; starting again", "starting again at the next change")
    write_app(app_of(topic, topic) + "print('second', flush=True)\n")
    running.wait_for("second")
    assert running.end(signal.SIGTERM).code == 0


def test_a_directory_is_watched_beside_the_handlers(start: Start, topic: str, write_app: Write, tmp_path: Path) -> None:
    write_app(app_of(topic, topic, "print(value['event'], value['name'], flush=True)"))
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    running = start("run", "--watch", f"{inbox}={topic}")
    running.wait_for("watching", "reads")
    (inbox / "run-7.h5").write_text("data")
    running.wait_for("created run-7.h5")
    assert running.end(signal.SIGINT).code == 0


def test_the_first_example_shows_something_by_itself(start: Start) -> None:
    example = Path(__file__).parents[2] / "examples" / "file_events.py"
    running = start("run", f"{example}:app")
    running.wait_for("octopus watch . --to files", "created   /example/run-7.h5", "transfer  /example/run-7.h5")
    assert running.end(signal.SIGINT).code == 0


def test_on_a_terminal_there_is_a_live_status(octopus: Octopus, start: Start, topic: str, write_app: Write) -> None:
    write_app(app_of("live", topic))
    octopus("publish", topic, '{"n": 1}')
    terminal, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    running = start("run", stdout=side, stderr=side)
    os.close(side)
    shown = ""
    while not ("events/s" in shown and "got {'n': 1}" in shown):
        shown += os.read(terminal, 4096).decode()
        assert time.monotonic() < running.deadline, shown
    running.process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # the end of a terminal is an error of its reader
        while more := os.read(terminal, 4096):
            shown += more.decode()
    os.close(terminal)
    assert running.end().code == 0
    assert "stopping: letting handlers finish" in shown
    assert re.search(r"done, 0 skipped(, (1|unknown how many) left)? in", shown)
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is shown again"


def test_processes_whose_parent_is_killed_end_by_themselves_although_they_are_busy(
    start: Start, octopus: Octopus, topic: str, write_app: Write
) -> None:
    write_app(app_of(topic, topic, "print('child', os.getpid(), flush=True); time.sleep(3)"))  # which blocks the loop
    octopus("topics", "create", topic, "--partitions", "2")
    running = start("run", "--workers", "2", "--only", "handle")
    running.wait_for("[1] ", "[2] ")
    while "child" not in running.out:
        octopus("publish", topic, "{}")
        assert time.monotonic() < running.deadline, running.err
    children = {int(line.split()[1]) for line in running.out.splitlines() if line.startswith("child ")}
    running.process.kill()
    running.process.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        time.sleep(0.05)
        assert time.monotonic() < running.deadline, running.err
    assert "the process that started this one has ended; ending, too" in running.err
