"""The verbs of `octopus`, the boundary where errors become sentences, and the exit codes.

    0    done
    1    it failed: a check found something wrong, data could not be used, a handler's process crashed
    2    usage or configuration: an unknown option, a bad setting, an app that cannot be found
    3    the broker could not be reached, or refused
    4    processing stopped for a handler; nothing was lost
    130  interrupted

Only cyclopts and rich are imported here: `octopus --help` must not wait for a Kafka client.
"""

import difflib
import os
import sys
from collections.abc import Iterable, Sequence

from cyclopts import App, CycloptsError, Group, Parameter
from cyclopts.exceptions import UnknownCommandError, UnusedCliTokensError

RUNNING = Group("Run handlers", sort_key=1)
EVENTS = Group("Publish and read events", sort_key=2)
LOOKING = Group("Look and mend", sort_key=3)
SETUP = Group("Set up", sort_key=4)

VERBS = (
    ("run", RUNNING, "Run an app's handlers."),
    ("publish", EVENTS, "Publish events: arguments, a file, or lines from standard input."),
    ("consume", EVENTS, "Show the events of topics, as they come or from a time or offset."),
    ("watch", EVENTS, "Publish what happens to files as events."),
    ("replay", EVENTS, "Read a range of a topic again: by one handler, or into another topic."),
    ("topics", LOOKING, "List, show, create, change and delete topics."),
    ("groups", LOOKING, "List consumer groups and their lag; move or delete one."),
    ("dead-letters", LOOKING, "List, show and put back the events that were given up."),
    ("pattern", LOOKING, "Check, try and explain event patterns."),
    ("doctor", LOOKING, "Say what is configured, what is reachable, what is wrong and how to mend it."),
    ("new", SETUP, "Write a project to start from."),
    ("broker", SETUP, "Start, find and stop the embedded broker."),
)

EPILOGUE = (
    "Each command has its own --help. Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 broker unreachable \
or refusing, 4 processing stopped for a handler, 130 interrupted."
)


def build_program(asked: str = "") -> App:
    """Return the command line, with every verb named and none imported.

    Args:
        asked: The verb that is wanted, if one is.
    """
    program = App(
        name="octopus",
        help="Octopus: events from instruments, jobs and file systems to Python handlers, on Kafka or on nothing at all.",
        help_epilogue=EPILOGUE,
        help_format="plaintext",
        version=_version,
        version_flags=["--version"],
        group_commands=Group("Commands", sort_key=5),
        group_parameters=Group("Options", sort_key=50),
        # An option that is off, empty or absent by default says nothing by saying so.
        default_parameter=Parameter(negative=(), show_default=lambda value: str(value) if value else None),
        suppress_keyboard_interrupt=False,
    )
    for order, (name, group, help) in enumerate(VERBS):
        # The verb that is asked for describes itself; of the others only this line is known, so none is imported.
        known = {} if name == asked else {"help": help}
        program.command(f"octopus.cli.{name.replace('-', '_')}:verb", name=name, group=group, sort_key=order, **known)
    program.command(
        "octopus.cli.completion:install_completion",
        name="--install-completion",
        help="Teach this shell to complete octopus.",
        group=SETUP,
    )
    program["--help"].group = program["--version"].group = SETUP
    return program


def run_program(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; every error of ours becomes one sentence on standard error."""
    wants_traceback = "--traceback" in arguments
    try:
        code = build_program(*arguments[:1])(
            arguments, exit_on_error=False, print_error=False, help_on_error=False, result_action="return_value"
        )
        sys.stdout.flush()
    except CycloptsError as error:
        return _refuse(error, wants_traceback)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has seen enough. What is left in the buffer must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - every error becomes a sentence
        if wants_traceback:
            from octopus.cli.screen import print_traceback

            print_traceback(error)
        return _explain(error)
    return code if isinstance(code, int) else 0


def _version() -> str:
    from octopus import __version__

    return f"octopus {__version__}"


def _refuse(error: CycloptsError, wants_traceback: bool) -> int:
    from octopus.cli.screen import print_error

    if wants_traceback:
        raise error
    chain = " ".join(("octopus", *(error.command_chain or ())))
    print_error(f"{_sentence(error)} See {chain} --help.")
    return 2


def _sentence(error: CycloptsError) -> str:
    chain = tuple(error.command_chain or ())
    match error:
        case UnknownCommandError(unused_tokens=[name, *_]):  # its own text would import every verb
            return _unknown(name, chain, error.app)
        case UnusedCliTokensError(unused_tokens=[name, *more]):
            if any(not command.startswith("-") for command in error.app or ()):
                return _unknown(name, chain, error.app)
            return f"Too many arguments: {' '.join(map(repr, (name, *more)))}."
        case _:
            text = " ".join(str(error).split())
            return text if text.endswith((".", "?", "!")) else f"{text}."


def _unknown(name: str, chain: tuple[str, ...], app: Iterable[str] | None) -> str:
    known = [command for command in app or () if not command.startswith("-")]
    close = difflib.get_close_matches(name, known, 1)
    hint = f"Did you mean {close[0]}?" if close else f"There are {', '.join(known)}."
    return f"There is no command {' '.join((*chain, name))!r}. {hint}"


def _explain(error: Exception) -> int:
    from octopus.cli.failures import exit_code
    from octopus.cli.screen import print_error

    code, sentence = exit_code(error)
    print_error(sentence)
    return code
