"""What our loggers pass on is harmless, and they outlast the set-up of the program around them."""

import io
import logging
import logging.config
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from octopus import logs
from octopus.logs import LineFormatter, get_logger, show

ROOT = Path(logs.__file__).parent
FORGED = "no\n2026-01-01T00:00:00Z INFO octopus.worker: all is well \x1b[2J\x9b31m\u202e"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Put the program's set-up back."""
    root, ours = logging.getLogger(), logging.getLogger("octopus")
    handlers, levels = [*root.handlers], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What a handler of the program writes, with a plain formatter."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    yield stream
    logging.getLogger().removeHandler(handler)


def raised() -> ValueError:
    try:
        raise ValueError(FORGED)
    except ValueError as error:
        return error


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("text", "arguments", "error"),
    [
        pytest.param("%s failed", (FORGED,), None, id="a text"),
        pytest.param("%s failed, attempt %d", (raised(), 3), None, id="an exception"),
        pytest.param("%r failed", (FORGED,), None, id="a representation"),
        pytest.param(FORGED, (), None, id="a sentence that is ready"),
        pytest.param("failed", (), raised(), id="a traceback"),
        pytest.param("%s failed", (Wordless(),), None, id="an exception without a text"),
    ],
)
def test_what_comes_from_outside_cannot_begin_a_line_or_reach_a_terminal_raw(
    written: io.StringIO, text: str, arguments: tuple[object, ...], error: Exception | None
) -> None:
    get_logger("octopus.worker").error(text, *arguments, exc_info=error)
    first, *more = written.getvalue().splitlines()
    assert first.startswith("ERROR octopus.worker: ")
    assert all(line.startswith("    ") for line in more)
    assert all(line.isprintable() for line in (first, *more))


def test_our_formatter_does_the_same_for_everybodys_records() -> None:
    record = logging.LogRecord("mine", logging.ERROR, "", 1, "it says %s", (FORGED,), None)
    record.exc_info = (ValueError, error := raised(), error.__traceback__)
    text = LineFormatter("%(levelname)s %(name)s: %(message)s").format(record)
    first, *more = text.splitlines()
    assert first.startswith("ERROR mine: it says no")
    assert all(line.startswith("    ") and line.isprintable() for line in more)


def test_a_program_that_disables_every_logger_there_is_does_not_silence_ours(written: io.StringIO) -> None:
    ours, other = get_logger("octopus.worker"), logging.getLogger("somebody.else")
    there = [each for each in logging.Logger.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    enabled = [each for each in there if not each.disabled]
    try:
        logging.config.dictConfig({"version": 1})
        assert other.disabled
        ours.warning("still here")
        assert "octopus.worker: still here" in written.getvalue()
    finally:
        for each in enabled:
            each.disabled = False


def test_where_nobody_has_set_up_logging_the_level_holds_for_the_programs_loggers_too() -> None:
    logging.getLogger().handlers[:] = []
    stream = io.StringIO()
    show(logging.StreamHandler(stream), "INFO")
    logging.getLogger("mine").info("an info line of the app")
    get_logger("octopus.worker").info("one of ours")
    assert stream.getvalue() == "an info line of the app\none of ours\n"


def test_a_second_set_up_replaces_the_first() -> None:
    logging.getLogger().handlers[:] = []
    first, second = (logging.StreamHandler(io.StringIO()) for _ in range(2))
    show(first, "INFO")
    show(second, "WARNING")
    assert logging.getLogger().handlers == [second]
    assert logging.getLogger("octopus").level == logging.WARNING


@pytest.mark.parametrize(("level", "is_shown"), [("INFO", False), ("DEBUG", True)])
def test_libraries_whose_records_are_noise_are_heard_in_debugging_only(level: str, is_shown: bool) -> None:
    loggers = [logging.getLogger(name) for name in logs.QUIET]
    before = [logger.level for logger in loggers]
    assert "watchfiles" in logs.QUIET  # a line for each change of a file
    for logger in loggers:
        logger.setLevel(logging.NOTSET)
    try:
        show(logging.NullHandler(), level)
        assert [logger.isEnabledFor(logging.INFO) for logger in loggers] == [is_shown] * len(loggers)
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.setLevel(old)


def test_every_logger_of_ours_is_one_of_these() -> None:
    plain = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in ROOT.rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.match(r'_?\w+ = logging\.getLogger\(("octopus|__name__)', line)
    ]
    assert plain == []
