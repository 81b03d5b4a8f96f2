"""The table of a race: a row per plan and rung, redrawn in place on a terminal, nowhere else."""

from __future__ import annotations

import dataclasses
import io
import sys

import pytest
from rich.console import Console

from regraft.cli import board, screen
from regraft.cli.board import Board
from regraft.waist import Cost, Finished, Phase, Plan, Raced, Said, Score, Standing, Step, Trial
from tests.unit.test_cli_screen import Terminal

SCORE = Score("accuracy", "val", 0.9, 0.8, 0.95, 40)
ROWS = (
    Standing(0, "probe c 1", 0, "finished", 2.4, 3.0, SCORE),
    Standing(1, "full lr 0.001", 7, "paused", 30.0, 41.0, dataclasses.replace(SCORE, low=0.9, high=0.9)),
    Standing(2, "scratch", 0, "left out"),
    Standing(1, "full lr 0.001", 0, "runs", 30.0, 120.0, SCORE),
)


def made(height: int = 24) -> tuple[Board, io.StringIO]:
    shown = io.StringIO()
    return Board(Console(file=shown, force_terminal=True, width=100, height=height, color_system=None)), shown


def shown_by(one: Board, most: int = 99) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=100, color_system=None).print(one.table(most))
    return [" ".join(line.split()) for line in text.getvalue().splitlines()]


def test_a_plan_has_a_row_for_each_rung_with_score_price_and_state() -> None:
    one, _ = made()
    for row in ROWS:
        one.put(row)
    one.passing("step 3/9")
    assert shown_by(one) == [
        "plan to validation accuracy time state",
        "probe c 1 its end 0.900 [0.800, 0.950] 2 s finished",
        "full lr 0.001 epoch 7 0.900 30 s of ~41 s paused",
        "scratch its end – – left out",
        "full lr 0.001 its end 0.900 [0.800, 0.950] 30 s of ~120 s runs",
        "step 3/9",
    ]
    one.put(dataclasses.replace(ROWS[3], state="lost", seconds=44.0))
    assert shown_by(one)[-1] == "full lr 0.001 its end 0.900 [0.800, 0.950] 44 s lost"
    one.close()


def test_a_low_terminal_shows_the_latest_rows_and_gets_all_at_the_end() -> None:
    one, shown = made(height=8)
    for i in range(9):
        one.put(Standing(i, f"plan {i}", 0, "finished", 1.0))
    assert [line.split(" its")[0] for line in shown_by(one, 8 - board.AROUND)[1:]] == ["plan 6", "plan 7", "plan 8"]
    before = len(shown.getvalue())
    one.put(dataclasses.replace(ROWS[2], number=0, label="plan 0"))
    one.close()
    end = shown.getvalue()[before:].rpartition(" time ")[2]
    assert [end.index(f"plan {i}") for i in (1, 8, 0)] == sorted(end.index(f"plan {i}") for i in (1, 8, 0))
    assert "left out" in end


def test_names_cannot_steer_the_terminal() -> None:
    one, shown = made()
    one.put(dataclasses.replace(ROWS[0], label="\x1b[31mevil [bold]x[/]\n"))
    one.close()
    assert "\x1b[31m" not in shown.getvalue() and "[bold]x[/]" in shown.getvalue()


def test_a_log_has_plain_lines_and_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    one = screen.Screen()
    for event in (*ROWS, Said("2/3 full lr 0.001"), Raced()):
        one.event(event)
    assert capsys.readouterr().err == "2/3 full lr 0.001\n"


def test_on_a_terminal_the_table_says_what_lines_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    one = screen.Screen()
    trial = Trial(Plan("full", (Phase(1, 0, (("*", 1.0),)),)), 0, (SCORE,), (), Cost(1.25, 1), "", "")
    for event in (ROWS[3], Said("2/3 full lr 0.001 goes on"), Said("cache at stage 5"), Finished(trial), Raced()):
        one.event(event)
    one.event(Said("packing"))
    text = shown.getvalue()
    assert "goes on" not in text and "full: validation" not in text, "the table has it"
    assert text.index("cache at stage 5") < text.rindex("full lr 0.001") < text.index("packing")
    assert "\x1b[?25h" in text, "the cursor is shown again"


def test_a_terminal_that_cannot_redraw_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    one = screen.Screen()
    for event in (ROWS[3], Said("2/3 full lr 0.001"), Step(0, 1, 2, 0.5, 0.1), Raced()):
        one.event(event)
    assert "2/3 full lr 0.001\n" in shown.getvalue() and " time " not in shown.getvalue()


def test_work_that_ends_early_leaves_the_terminal_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", shown := Terminal())

    def work():  # type: ignore[no-untyped-def]
        yield ROWS[3]
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        screen.Screen().watch(work())
    assert "\x1b[?25h" in shown.getvalue()
