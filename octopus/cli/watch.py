"""`octopus watch`: what happens to files, published as events."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter

from octopus.cli.logs import configure_logs
from octopus.cli.options import DEFAULTS, Options
from octopus.cli.reaching import reaching, run_async
from octopus.cli.screen import note, notices, output
from octopus.config import Settings
from octopus.errors import ConfigurationError
from octopus.operations.file_events import FileEvent, FileWatcher
from octopus.operations.file_relay import broker_directories, publish_file_events
from octopus.operations.progress import unseen
from octopus.operations.spelling import spell_bytes
from octopus.text import printable_json, visible

verb = App(name="watch", help_epilogue="")


@verb.default
def watch(
    directories: Annotated[tuple[Path, ...], Parameter(name="DIR", consume_multiple=True)],
    /,
    *,
    to: str,
    pattern: tuple[str, ...] = (),
    recursive: Annotated[bool, Parameter(negative="--no-recursive")] = True,
    existing: bool = False,
    poll: bool = False,
    key: Literal["path", "name"] = "path",
    count: Annotated[int | None, Parameter(name=("--count", "-n"))] = None,
    options: Options = DEFAULTS,
) -> None:
    """Publish what happens to files as events.

    Each event says: event (created, modified, deleted), path, name, directory,
    size, modified, host, time. Events of one file keep their order. While the
    broker is away they wait, and no last state of a file is ever missed.

        octopus watch /data/detector --to files --pattern '*.tif'

    Args:
        directories: What to watch.
        to: Topic to publish to.
        pattern: Only files with such names: '*.tif'. May be repeated.
        recursive: Watch the directories below it, too.
        existing: Begin with the files that exist, as created.
        poll: Compare the files at intervals instead of being notified, for network file systems.
        key: What becomes the key of each event.
        count: Stop after so many events.
    """
    if not directories:
        raise ConfigurationError("Which directory?")
    for directory in directories:
        if not directory.is_dir():
            what = "is a file, not a directory" if directory.exists() else "does not exist"
            raise ConfigurationError(f"{str(directory)!r} {what}.")
    settings = options.settings()
    configure_logs(settings.log, notices())
    watcher = FileWatcher(
        directories,
        recursive=recursive,
        patterns=pattern,
        existing=existing,
        exclude=broker_directories(settings),
        polling=True if poll else None,
    )
    run_async(options, _watch(settings, watcher, to, key, count, options))


async def _watch(
    settings: Settings,
    watcher: FileWatcher,
    topic: str,
    key: Literal["path", "name"],
    count: int | None,
    options: Options,
) -> None:
    async with reaching(settings) as transport:

        def begun() -> None:
            if not options.quiet:
                note(f"Watching; events go to {topic} on {transport.address}. Ctrl-C ends.")

        show = _show_json if options.json else unseen if options.quiet else _show
        await publish_file_events(transport, settings, watcher, topic, key=key, most=count, begun=begun, published=show)


STYLES = {"created": "green", "modified": "yellow", "deleted": "red"}


def _show(event: FileEvent) -> None:
    from rich.text import Text

    size = "" if event.size is None else f"  {spell_bytes(event.size)}"
    output().print(Text.assemble((f"{event.event:<8}", STYLES[event.event]), f"  {visible(event.path)}", (size, "dim")))


def _show_json(event: FileEvent) -> None:
    output().out(printable_json(msgspec.json.encode(event).decode()), highlight=False)
