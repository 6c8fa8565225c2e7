"""The verbs together: help, mistakes, exit codes, speed of starting."""

import subprocess
import sys

import pytest

from octopus.cli.program import VERBS
from tests.cli.conftest import Octopus

NESTED = {
    "topics": ("list", "show", "describe", "create", "alter", "delete"),
    "groups": ("list", "describe", "show", "reset", "delete"),
    "dead-letters": ("list", "show", "describe", "replay"),
    "pattern": ("check", "test", "explain"),
    "broker": ("start", "status", "stop"),
}


def test_help_names_every_verb_and_the_exit_codes(octopus: Octopus) -> None:
    result = octopus("--help", brokers=None)
    assert result.code == 0
    assert all(verb in result.out for verb, _, _ in VERBS)
    assert "Exit codes" in result.out


@pytest.mark.parametrize(
    "command",
    [(verb,) for verb, _, _ in VERBS] + [(verb, nested) for verb, all in NESTED.items() for nested in all],
    ids=" ".join,
)
def test_every_command_has_help(octopus: Octopus, command: tuple[str, ...]) -> None:
    result = octopus(*command, "--help", brokers=None)
    assert result.code == 0
    assert f"Usage: octopus {' '.join(command)}" in result.out
    assert result.err == ""


def test_a_verb_explains_itself_at_length_only_when_it_is_asked(octopus: Octopus) -> None:
    assert "The first Ctrl-C" in octopus("run", "--help", brokers=None).out
    assert "The first Ctrl-C" not in octopus("--help", brokers=None).out


def test_version_says_which(octopus: Octopus) -> None:
    assert octopus("--version", brokers=None).out.startswith("octopus 0.")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("rnu",), "There is no command 'rnu'. Did you mean run? See octopus --help."),
        (("topics", "crate"), "There is no command 'topics crate'. Did you mean create? See octopus topics --help."),
        (("pattern", "xyz"), "There is no command 'pattern xyz'. There are check, test, explain. See"),
        (("run", "--wrkers", "3"), "See octopus run --help."),
        (("run", "--workers", "many"), "--workers"),
        (("run", "app.py", "more"), "Too many arguments: 'more'."),
        (("publish",), "TOPIC"),
        (("watch", "."), "--to"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_in_the_command_line_is_one_sentence_and_exit_code_2(
    octopus: Octopus, arguments: tuple[str, ...], sentence: str
) -> None:
    result = octopus(*arguments, brokers=None)
    assert result.code == 2
    assert sentence in result.err
    assert "Traceback" not in result.err
    assert result.err.startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--config", "wroker.x=1"), "There is no setting wroker. Did you mean worker?"),
        (("--config", "worker.drain_timeout"), "--config 'worker.drain_timeout' says no value"),
        (("--config", "worker.drain_timeout=soon"), "worker.drain_timeout is 'soon'; expected seconds"),
        (("--brokers", "user:secret@host:1"), "An address in brokers holds a credential"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_setting_that_cannot_be_is_exit_code_2(octopus: Octopus, arguments: tuple[str, ...], sentence: str) -> None:
    result = octopus("topics", *arguments, brokers=None)
    assert result.code == 2
    assert sentence in result.err
    assert "secret" not in result.err


def test_a_broker_that_is_not_there_is_exit_code_3(octopus: Octopus) -> None:
    result = octopus("topics", brokers="127.0.0.1:1")
    assert result.code == 3
    assert "127.0.0.1:1" in result.err
    assert result.err.count("\n") == 1


def test_a_traceback_comes_only_when_it_is_asked_for(octopus: Octopus) -> None:
    result = octopus("topics", "--config", "x=1", "--traceback", brokers=None)
    assert result.code == 2
    assert "Traceback (most recent call last):" in result.err
    assert result.err.splitlines()[-1].startswith("error: There is no setting x")
    assert "Traceback" not in octopus("topics", "--config", "x=1", brokers=None).err


def test_help_imports_neither_a_kafka_client_nor_another_verb() -> None:
    code = (
        "import sys; from octopus.cli.program import run_program; run_program(['--help']);"
        "print([name for name in sys.modules if name.startswith(('aiokafka', 'watchfiles', 'octopus.cli.'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['octopus.cli.program']"


@pytest.mark.process
def test_python_dash_m_runs_it_too() -> None:
    done = subprocess.run([sys.executable, "-m", "octopus", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("octopus 0.")
