"""`octopus doctor`: what is configured, what is reachable, what is wrong and how to mend it."""

from pathlib import Path

from cyclopts import App
from rich.text import Text

from octopus.cli.checkup import Finding, State, examine
from octopus.cli.options import DEFAULTS, Options
from octopus.cli.reaching import run_async
from octopus.cli.screen import document, output, say, spell_count
from octopus.operations.apps import USUAL
from octopus.text import visible
from octopus.worker.process import ExitCode

verb = App(name="doctor", help_epilogue="")

STYLES = {State.GOOD: "green", State.DOUBTFUL: "yellow", State.WRONG: "red"}


@verb.default
def doctor(app: str | None = None, /, *, options: Options = DEFAULTS) -> int:
    """Say what is configured, what is reachable, what is wrong and how to mend it.

    Changes nothing and starts nothing. The exit code is 0 when nothing is wrong,
    1 otherwise.

    Args:
        app: module:app or path/to/file.py:app; app.py or main.py when there is one here.
    """
    target = app or next((name for name in USUAL if Path(name).is_file()), None)
    findings = run_async(options, examine(options, target))
    wrong = sum(finding.state is State.WRONG for finding in findings)
    if options.json:
        document({"ok": not wrong, "checks": [finding.as_json() for finding in findings]})
    else:
        _print(findings)
        doubtful = sum(finding.state is State.DOUBTFUL for finding in findings)
        if wrong:
            say(f"\n{spell_count(wrong, 'thing')} to mend.", "red")
        elif doubtful:
            say(f"\nNothing is wrong; {spell_count(doubtful, 'thing')} to look at.", "yellow")
        else:
            say("\nAll is well.", "green")
    return ExitCode.FAILED if wrong else ExitCode.OK


def _print(findings: list[Finding]) -> None:
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        first, *more = (visible(line) for line in finding.text.split("\n"))
        style = STYLES[finding.state]
        output().print(Text.assemble((finding.state.value, style), f" {finding.subject:<{width}}  ", first))
        for line in more:
            output().print(Text(f"  {'':<{width}}  {line}", "dim"))
        if finding.mend:
            output().print(Text(f"  {'':<{width}}  → {visible(finding.mend)}", style))
