"""A lane task, as others see it."""

from octopus.runner.generation import Generation
from octopus.types import Stretch


class Lane:
    """What one lane task is doing, for those who drain or watch.

    Attributes:
        generation: Whose records it runs; None while it has none.
        stretch: Those records.
        serial: A number that changes from stretch to stretch.
    """

    __slots__ = ("generation", "serial", "stretch")

    def __init__(self) -> None:
        self.generation: Generation | None = None
        self.stretch = Stretch(())
        self.serial = 0
