"""What is printed: harmless, plain when piped, exact as JSON."""

import io

import pytest
from rich.console import Console

from octopus.cli.screen import table


def test_a_table_that_is_piped_is_aligned_plain_and_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    table(("name", ">count"), [("a" * 200, 7), ("[bold]b", 12345)])
    head, first, second = capsys.readouterr().out.splitlines()
    assert head == f"{'NAME':<200}  COUNT"
    assert first == f"{'a' * 200}      7"
    assert second == f"{'[bold]b':<200}  12345"


def test_on_a_terminal_what_may_be_long_is_cut_to_what_the_other_columns_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    paper = io.StringIO()
    console = Console(file=paper, force_terminal=True, width=60, highlight=False, color_system=None)
    monkeypatch.setattr("octopus.cli.screen.output", lambda: console)
    table(("place", "reason…"), [("t.dead-letter[0]@1", "x" * 3000), ("t.dead-letter[0]@2", "short")])
    lines = [line.rstrip() for line in paper.getvalue().splitlines() if line.strip()]
    assert lines[0].split() == ["place", "reason"]
    assert len(lines[2]) == 60
    assert lines[2].endswith("xxx…")
    assert lines[3].split() == ["t.dead-letter[0]@2", "short"]
    assert len(lines) == 4


def test_a_long_text_that_is_piped_does_not_pad_its_heading(capsys: pytest.CaptureFixture[str]) -> None:
    table(("place", "reason…"), [("a", "x" * 3000)])
    assert capsys.readouterr().out.splitlines() == ["PLACE  REASON", f"a      {'x' * 3000}"]
