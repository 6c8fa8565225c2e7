"""Files that hold secrets and may be read by others on this machine."""

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from octopus.config import Secret, Settings, Source
from octopus.config.tree import leaves, tree

OTHERS = stat.S_IRGRP | stat.S_IROTH


class Exposed(NamedTuple):
    """A file with secrets that others may read.

    Attributes:
        path: Which.
        what: What it holds.
        mode: Its permissions.
    """

    path: Path
    what: str
    mode: int


def exposed_files(sources: Mapping[str, Source], settings: Settings) -> Iterator[Exposed]:
    """Yield the files that hold secrets and that others may read.

    Args:
        sources: What files of settings say, by the name of the file.
        settings: What is in force: it names files with keys and tokens.
    """
    held = {name: ", ".join(_secrets_in(source.settings)) for name, source in sources.items()}
    security = settings.security
    held |= {
        file: what
        for file, what in (
            (security.token_file, "the token"),
            (security.key_file, "the private key"),
            (None if security.key_file else security.certificate_file, "the private key"),
        )
        if file is not None
    }
    for name, what in held.items():
        path = Path(name).expanduser()
        if what and path.is_file() and (mode := stat.S_IMODE(path.stat().st_mode)) & OTHERS:
            yield Exposed(path, what, mode)


def _secrets_in(settings: Mapping[str, Any]) -> Iterator[str]:
    for path, leaf in leaves(tree()):
        value: Any = settings
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if leaf.kind is Secret and value:
            yield path
