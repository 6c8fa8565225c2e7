"""How far a verb has come: for a person at a terminal, on standard error, once it takes a while."""

import asyncio
import contextlib
from collections.abc import Iterator

from octopus.cli.options import Options
from octopus.cli.screen import notices
from octopus.operations.progress import Advance, unseen
from octopus.text import visible

PATIENCE = 1.0
"""Seconds of work that are not worth telling."""


@contextlib.contextmanager
def progress(options: Options, what: str, total: int | None) -> Iterator[Advance]:
    """Show how far a block has come, if it lasts, on a terminal: not with --json or --quiet. Nothing of it stays.

    Args:
        options: Of the command line.
        what: What is done, as it is told: `Copying readings`.
        total: How much there is to do; None where that cannot be known.
    """
    console = notices()
    if options.json or options.quiet or not console.is_terminal:
        yield unseen
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}", style="dim"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task(visible(what), total=total)
    begin = asyncio.get_running_loop().call_later(PATIENCE, bar.start)
    try:
        yield lambda count: bar.advance(task, count)
    finally:
        begin.cancel()
        bar.stop()
