"""`octopus doctor`: what is configured, what is reachable, what is wrong and how to mend it."""

import os
from collections.abc import Sequence
from pathlib import Path

from cyclopts import App
from rich.text import Text

from octopus.cli.options import DEFAULTS, Options
from octopus.cli.reaching import CLIENT, run_async
from octopus.cli.screen import document, output, say
from octopus.operations.apps import USUAL
from octopus.operations.checkups import Finding, Origin, State, examine
from octopus.operations.spelling import spell_count
from octopus.text import visible
from octopus.worker.exit_codes import ExitCode

verb = App(name="doctor", help_epilogue="")

STYLES = {State.GOOD: ("✓", "green"), State.DOUBTFUL: ("!", "yellow"), State.WRONG: ("✗", "red")}
"""How each state is shown: a sign and a style."""


@verb.default
def doctor(app: str | None = None, /, *, options: Options = DEFAULTS) -> int:
    """Say what is configured, what is reachable, what is wrong and how to mend it.

    Changes nothing and starts nothing. The exit code is 0 when nothing is wrong,
    1 otherwise.

    Args:
        app: module:app or path/to/file.py:app; app.py or main.py when there is one here.
    """
    target = app or next((name for name in USUAL if Path(name).is_file()), None)
    file = _settings_file()
    origin = Origin(_spell_origin(file, options), file, options.sources_outside)
    checkup = run_async(options, examine(target, origin, client_id=CLIENT))
    if options.json:
        document(checkup)
    else:
        _print(checkup.checks)
        wrong, doubtful = checkup.count(State.WRONG), checkup.count(State.DOUBTFUL)
        if wrong:
            say(f"\n{spell_count(wrong, 'thing')} to mend.", "red")
        elif doubtful:
            say(f"\nNothing is wrong; {spell_count(doubtful, 'thing')} to look at.", "yellow")
        else:
            say("\nAll is well.", "green")
    return ExitCode.OK if checkup.ok else ExitCode.FAILED


def _print(findings: Sequence[Finding]) -> None:
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        first, *more = (visible(line) for line in finding.text.split("\n"))
        sign, style = STYLES[finding.state]
        output().print(Text.assemble((sign, style), f" {finding.subject:<{width}}  ", first))
        for line in more:
            output().print(Text(f"  {'':<{width}}  {line}", "dim"))
        if finding.mend:
            output().print(Text(f"  {'':<{width}}  → {visible(finding.mend)}", style))


def _spell_origin(file: str | None, options: Options) -> str:
    variables = sorted(name for name, text in os.environ.items() if name.startswith("OCTOPUS_") and text)
    sources = [file] if file else []
    sources += [", ".join(variables)] if variables else []
    sources += ["the command line"] if options.overrides() else []
    return "; ".join(sources) or "defaults only: no octopus.toml here, no OCTOPUS_* variables"


def _settings_file() -> str | None:
    """Return the file here that holds settings, if there is one."""
    file = next((name for name in ("octopus.toml", "pyproject.toml") if Path(name).is_file()), None)
    if file == "pyproject.toml" and "tool.octopus" not in Path(file).read_text(encoding="utf-8", errors="replace"):
        return None
    return file
