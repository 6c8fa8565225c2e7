"""A text that does not show itself."""

_MASK = "********"


class Secret:
    """Text that is masked wherever it is printed, formatted, logged or serialised; `reveal` gives it.

    Not a `str`, on purpose: joining, formatting or encoding a secret by accident fails or shows the mask.

    Args:
        text: The secret.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"Secret({_MASK!r})"

    def __str__(self) -> str:
        return _MASK
