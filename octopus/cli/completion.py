"""`octopus --install-completion`: shells learn to complete its commands and options."""

from typing import Literal

from octopus.cli.program import build_program
from octopus.cli.screen import say


def install_completion(*, shell: Literal["bash", "zsh", "fish"] | None = None) -> None:
    """Teach this shell to complete octopus.

    Args:
        shell: The shell to teach. The default is the one that runs this command.
    """
    path = build_program().install_completion(shell=shell)
    say(f"Wrote {path}. It counts from the next shell on.", "green")
