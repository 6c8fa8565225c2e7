"""The log of `octopus run`: the app's own set-up survives it, and events forge nothing in it."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from octopus.worker.signals import SAME_STOP
from tests.cli.conftest import Octopus, Start

pytestmark = pytest.mark.process
Write = Callable[..., Path]

FAILING = """
import logging, logging.config, sys
from contextlib import asynccontextmanager
from octopus import Octopus
{set_up}
app = Octopus({name!r}{options})

@app.on({name!r}, retry=1)
async def handle(value: dict) -> None:
    logging.getLogger("mine").info("an info line of the app")
    raise ValueError(value["text"])
"""

DICT_CONFIG = """
SET_UP = {"version": 1, "formatters": {"f": {"format": "MINE %(message)s"}},
          "handlers": {"c": {"class": "logging.StreamHandler", "formatter": "f"}},
          "root": {"handlers": ["c"], "level": "INFO"}}
"""
TO_A_FILE = 'logging.basicConfig(filename="app.log", level="INFO", format="FILE %(message)s")'
LATER = f"""{DICT_CONFIG}
@asynccontextmanager
async def lifespan(app):
    logging.config.dictConfig(SET_UP)
    yield
"""


@pytest.mark.parametrize(
    ("set_up", "options", "app_line", "our_line"),
    [
        pytest.param(
            "", "", r"^\S+Z INFO +mine: an info line", r"^\S+Z ERROR +octopus.handlers: handle gives", id="none"
        ),
        pytest.param(
            f"{DICT_CONFIG}\nlogging.config.dictConfig(SET_UP)",
            "",
            "^MINE an info line",
            "^MINE handle gives",
            id="its own",
        ),
        pytest.param(
            LATER, ", lifespan=lifespan", "^MINE an info line", "^MINE handle gives", id="its own, when it starts"
        ),
        pytest.param(
            TO_A_FILE, "", "^FILE an info line", r"^\S+Z ERROR +octopus.handlers: handle gives", id="to a file only"
        ),
        pytest.param(
            'logging.getLogger("mine").setLevel("ERROR")',
            "",
            "",
            r"^\S+Z ERROR +octopus.handlers: handle gives",
            id="a level",
        ),
    ],
)
def test_the_apps_own_set_up_survives_and_so_do_our_warnings(
    octopus: Octopus,
    start: Start,
    topic: str,
    write_app: Write,
    set_up: str,
    options: str,
    app_line: str,
    our_line: str,
) -> None:
    write_app(FAILING.format(set_up=set_up, name=topic, options=options))
    octopus("publish", topic, '{"text": "no"}')
    result = start("run", "--drain").end()
    log = result.err + (Path("app.log").read_text() if Path("app.log").exists() else "")
    assert (re.findall(app_line, log, re.MULTILINE) != []) is (app_line != "") or app_line == ""
    assert ("an info line" in log) is (app_line != "")
    assert len(re.findall(our_line, result.err, re.MULTILINE)) == 1


FORGED = "no detector\n2026-01-01T00:00:00.000Z INFO    octopus.worker: all is well \x1b]0;owned\x07\x1b[2J\u202e\x9b31m [bold]"
RAW = ("\x1b]0;", "\x1b[2J", "\x07", "\u202e", "\x9b", "owned\x07")


def test_event_data_forge_no_line_and_reach_the_log_escaped(
    octopus: Octopus, start: Start, topic: str, write_app: Write
) -> None:
    write_app(FAILING.format(set_up="", name=topic, options=""))
    octopus("publish", topic, json.dumps({"text": FORGED}))
    err = start("run", "--drain").end().err
    margin = [line for line in err.splitlines() if not line.startswith("    ")]
    assert "handle gives up on" in err
    assert all(re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z (INFO|ERROR) ", line) for line in margin), err
    assert not any("all is well" in line and "handle gives up" not in line for line in margin)
    assert not any(raw in err for raw in RAW)


def test_event_data_reach_no_terminal_raw_not_in_the_live_table_either(
    octopus: Octopus, start: Start, topic: str, write_app: Write
) -> None:
    stopping = (
        FAILING.replace("retry=1", "retry=1, dead_letter=False")
        + f"\n@app.on({topic!r})\nasync def other(value: dict) -> None: pass\n"
    )
    write_app(stopping.format(set_up="", name=topic, options=""))
    octopus("publish", topic, json.dumps({"text": FORGED}))
    terminal, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
    running = start("run", stdout=side, stderr=side)
    os.close(side)
    shown = b""
    while not re.search(
        rb"stopped: .*no detector.*events/s", shown, re.DOTALL
    ):  # in the log above, and in the picture below
        shown += os.read(terminal, 65536)
        assert time.monotonic() < running.deadline, shown.decode(errors="replace")
    running.process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # the end of a terminal is an error of its reader
        while more := os.read(terminal, 65536):
            shown += more
    os.close(terminal)
    running.end()
    text = shown.decode()
    assert "\\x1b]0;owned\\x07" in text
    assert not any(raw in text for raw in RAW)


CALM = "async def handle(value: dict) -> None: pass"
SLOW = "async def handle(value: dict) -> None: print('begun', flush=True); await asyncio.sleep(3600)"
FAILS = "async def handle(value: dict) -> None: raise ValueError('no')"
EXITS = "async def handle(value: dict) -> None: raise SystemExit(7)"


@pytest.mark.parametrize(
    ("handler", "arguments", "stops", "fields"),
    [
        pytest.param(
            CALM, ("--drain",), 0, {"exit_code": 0, "reason": "caught up", "done": 1, "left": 0}, id="caught up"
        ),
        pytest.param(
            SLOW,
            ("--config=worker.drain_timeout=0.1s",),
            1,
            {"exit_code": 0, "reason": "stopped", "done": 0, "left": 1},
            id="stopped",
        ),
        pytest.param(
            SLOW, (), 2, {"exit_code": 143, "reason": "stopped again", "level": "warning"}, id="stopped again"
        ),
        pytest.param(
            FAILS,
            (),
            0,
            {"exit_code": 4, "reason": "processing stopped", "stopped": ["GROUP"]},
            id="processing stopped",
        ),
        pytest.param(EXITS, (), 0, {"exit_code": 7, "reason": "failed"}, id="a handler that exits"),
        pytest.param(CALM, ("--brokers=127.0.0.1:1",), 0, {"exit_code": 3, "reason": "unreachable"}, id="unreachable"),
        pytest.param(CALM, ("--drain", "--workers=2"), 0, {"exit_code": 0, "reason": "caught up"}, id="several"),
        pytest.param(
            SLOW,
            ("--drain", "--workers=2", "--config=worker.drain_timeout=0.1s"),
            1,
            {"exit_code": 0, "reason": "stopped"},
            id="several, stopped before",
        ),
        pytest.param(
            f"{CALM}\n@app.on('bad name')\nasync def other(value: dict) -> None: pass",
            (),
            0,
            {"exit_code": 2, "reason": "configuration"},
            id="configuration",
        ),
    ],
)
def test_the_last_line_of_a_run_has_fields_for_machines(
    octopus: Octopus,
    start: Start,
    topic: str,
    write_app: Write,
    broker: str,
    handler: str,
    arguments: tuple[str, ...],
    stops: int,
    fields: dict[str, object],
) -> None:
    on = f"import asyncio\nfrom octopus import Octopus\napp = Octopus({topic!r})\n@app.on({topic!r}, retry=1, dead_letter=False)\n"
    write_app(f"{on}{handler}\n")
    octopus("publish", topic, '{"n": 1}')
    address = None if any(each.startswith("--brokers") for each in arguments) else broker
    running = start("run", "--json", *arguments, brokers=address)
    if stops:
        running.wait_for("begun")
        running.process.send_signal(signal.SIGTERM)
    if stops == 2:
        running.wait_for("stopping")
        time.sleep(SAME_STOP)  # until then it is the first one
        running.process.send_signal(signal.SIGTERM)
    result = running.end()
    lines = [json.loads(line) for line in result.err.splitlines()]
    last = next(line for line in reversed(lines) if "exit_code" in line)
    assert last["exit_code"] == result.code
    wanted = {name: [f"{topic}.handle"] if value == ["GROUP"] else value for name, value in fields.items()}
    assert {name: last[name] for name in fields} == wanted
    assert last.keys() >= {"time", "level", "logger", "message"}


WRONG = ("--config", "worker.drain_timeout=soon")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(("--json", *WRONG), 2, id="--json"),
        pytest.param(("--config", "log.format=json", *WRONG), 2, id="--config"),
        pytest.param(("--config=log.format=json", "--config", "nonsense"), 2, id="beside a --config that is none"),
        pytest.param(("--config", "log.format=json", "--workers", "0"), 2, id="a count that is none"),
        pytest.param(("--config", "log.format=json", "--brokers", "127.0.0.1:1"), 3, id="unreachable"),
    ],
)
def test_a_run_that_is_refused_says_so_in_the_log_that_was_asked_for(
    octopus: Octopus, write_app: Write, arguments: tuple[str, ...], code: int
) -> None:
    write_app("from octopus import Octopus\napp = Octopus('a')\n@app.on('t')\nasync def h(value: dict) -> None: pass\n")
    result = octopus("run", *arguments, brokers=None)
    last = json.loads(result.err.splitlines()[-1])
    assert all(json.loads(line) for line in result.err.splitlines())
    assert (last["level"], last["exit_code"], result.code) == ("error", code, code)


@pytest.mark.parametrize("place", ["file", "environment", "code", "beside a file that is none"])
def test_a_run_that_is_refused_says_so_in_json_wherever_that_is_set(
    octopus: Octopus, write_app: Write, nowhere: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    code = ", settings={'log': {'format': 'json'}}" if place == "code" else ""
    write_app(
        f"from octopus import Octopus\napp = Octopus('a'{code})\n@app.on('t')\nasync def h(value: dict) -> None: pass\n"
    )
    if place == "file":
        (nowhere / "octopus.toml").write_text("log.format = 'json'\n")
    if place.startswith("beside"):
        (nowhere / "octopus.toml").write_text("nonsense")
    if place not in ("file", "code"):
        monkeypatch.setenv("OCTOPUS_LOG__FORMAT", "json")
    result = octopus("run", *WRONG, brokers=None)
    assert json.loads(result.err)["exit_code"] == result.code == 2


@pytest.mark.parametrize("flag", ["--json", "--raw"])
def test_what_is_printed_for_programs_is_harmless_on_a_terminal_and_exact(
    octopus: Octopus, start: Start, topic: str, flag: str
) -> None:
    octopus("publish", topic, json.dumps({"text": FORGED}, ensure_ascii=False), "--raw")
    options = ("consume", topic, "--from", "earliest", "--to", "latest", flag)
    terminal, side = pty.openpty()
    running = start(*options, stdout=side, stderr=side)
    os.close(side)
    shown = b""
    with contextlib.suppress(OSError):
        while more := os.read(terminal, 65536):
            shown += more
    os.close(terminal)
    assert running.end().code == 0
    assert not any(raw in shown.decode() for raw in RAW)
    piped = octopus(*options).out
    value = json.loads(piped)["value"] if flag == "--json" else json.loads(piped)
    assert value == {"text": FORGED}
