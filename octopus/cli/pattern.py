"""`octopus pattern`: check, try and explain event patterns."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated

from cyclopts import App, Parameter

from octopus.cli.options import DEFAULTS, Options
from octopus.cli.patterns import read_argument
from octopus.cli.screen import document, say
from octopus.errors import ConfigurationError, DecodeError
from octopus.patterns import Pattern
from octopus.text import visible
from octopus.worker.exit_codes import ExitCode

verb = App(name="pattern", help="Check, try and explain event patterns.", help_epilogue="")

Events = Annotated[tuple[str, ...], Parameter(name="EVENT", consume_multiple=True)]


@verb.command
def check(pattern: str, /, *, options: Options = DEFAULTS) -> int:
    """Say whether a pattern compiles, and which services understand it.

    Args:
        pattern: JSON, or @FILE.
    """
    compiled = Pattern.compile(read_argument(pattern))
    remarks = [str(remark) for remark in compiled.lint()]
    if options.json:
        document(
            {
                "pattern": compiled.source,
                "portable": compiled.portable,
                "remarks": remarks,
                "pushdown": compiled.pushdown(),
                "fields": sorted(compiled.fields),
            }
        )
        return ExitCode.OK
    say("The pattern is right.", "green")
    for remark in remarks:
        say(f"! {remark}", "yellow")
    if compiled.portable:
        say("Every AWS service that evaluates event patterns understands all of it.")
    pushdown = compiled.pushdown()
    say(f"As the filter of a Lambda trigger: {pushdown or 'none, the trigger gets everything and Octopus filters'}")
    return ExitCode.OK


@verb.command(name="test")
def try_events(pattern: str, events: Events = (), /, *, options: Options = DEFAULTS) -> int:
    """Try a pattern on events; the exit code is 0 when all match, 1 otherwise.

    Args:
        pattern: JSON, or @FILE.
        events: JSON or @FILE; without any, lines of standard input.
    """
    compiled = Pattern.compile(read_argument(pattern))
    results = [(text, compiled.matches(data)) for text, data in _read(events)]
    if options.json:
        document([{"event": text, "matches": matches} for text, matches in results])
    else:
        for text, matches in results:
            say(f"{'match   ' if matches else 'no match'}  {visible(text)}", "green" if matches else "yellow")
    return ExitCode.OK if all(matches for _, matches in results) else ExitCode.FAILED


@verb.command
def explain(pattern: str, events: Events = (), /, *, options: Options = DEFAULTS) -> int:
    """Say for each field why an event matches a pattern, or why not.

    Args:
        pattern: JSON, or @FILE.
        events: JSON or @FILE; without any, lines of standard input.
    """
    compiled = Pattern.compile(read_argument(pattern))
    explanations = [(text, compiled.explain(data)) for text, data in _read(events)]
    if options.json:
        document([{"event": text, "matches": why.matches, "lines": why.lines} for text, why in explanations])
    else:
        for text, why in explanations:
            if len(explanations) > 1:
                say(visible(text), "dim")
            head, *lines = str(why).split("\n")
            say(head, "green" if why.matches else "yellow")
            for line in lines:
                say(visible(line))
    return ExitCode.OK if all(why.matches for _, why in explanations) else ExitCode.FAILED


def _read(events: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield each event as text for people, and as checked bytes."""
    given = [(text, read_argument(text).encode()) for text in events] or _lines()
    for number, (text, data) in enumerate(given, 1):
        try:
            Pattern.compile('{"octopus": [{"exists": true}]}').matches(data)
        except DecodeError as error:
            raise ConfigurationError(f"Event {number}: {error}: {visible(text[:80])}") from error
        yield text, data


def _lines() -> list[tuple[str, bytes]]:
    if sys.stdin.isatty():
        raise ConfigurationError("Which event? Give one as an argument, or lines on standard input.")
    lines = [line for line in sys.stdin.buffer.read().split(b"\n") if line.strip()]
    return [(os.fsdecode(line), line) for line in lines]
