"""The screen: calm lines, tables, signals; text from data cannot steer it."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import signal
import sys
from collections.abc import Generator
from typing import Any

import pytest

from regraft.cli import screen
from regraft.errors import Interrupted
from regraft.waist import (
    Cost,
    Epoch,
    Filled,
    Finished,
    Phase,
    PhaseDone,
    Plan,
    Said,
    Score,
    Scored,
    Step,
    Trial,
)

SCORES = tuple(Score("accuracy", split, 0.5, 0.4, 0.6, 9) for split in ("val", "test"))


TRIAL = Trial(Plan("probe", (Phase(1, 0, (("*", 1.0),)),)), 0, SCORES, (), Cost(1.25, 1), "", "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größe 🐜 × …", "größe 🐜 × …"),
        ("\x1b[31mred\x07", "�[31mred�"),
        ("a\nb\r\tc", "a�b��c"),
        ("\u202eevil", "�evil"),
    ],
)
def test_control_characters_are_shown_and_not_sent(text: str, shown: str) -> None:
    assert screen.clean(text) == shown


def test_events_become_calm_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "EVERY_S", -1.0)
    shown = screen.Screen()
    for event in (
        Said("hello\x1b"),
        Filled(3, 8, 20),
        Step(0, 3, 9, 1.5, 0.1),
        Scored(Epoch(0, 1, 0.5, 0.25, 0.75)),
        PhaseDone(0, 12),
        PhaseDone(1, 0),
        Finished(TRIAL),
    ):
        shown.event(event)
    assert capsys.readouterr().err.splitlines() == [
        "hello�",
        "  trunk: 8/20 examples",
        "  step 3/9: loss 1.5000",
        "  epoch 2: loss 0.5000, validation 0.750",
        "  12 frozen tensors hashed before and after: unchanged",
        "  probe: validation 0.500, 1.2 s",
    ]


def test_a_quiet_screen_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    shown = screen.Screen(quiet=True)
    shown.event(Said("hello"))
    shown.event(Step(0, 3, 9, 1.5, 0.1))
    assert capsys.readouterr() == ("", "")


def test_a_table_keeps_long_cells(capsys: pytest.CaptureFixture[str]) -> None:
    screen.Screen().table(["id", "label"], [["a/" + "long" * 20 + ".png", "[bold]x[/]\x1b"]])
    out = capsys.readouterr().out
    assert "long" * 20 in out and "[bold]x[/]�" in out and "\x1b" not in out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_a_run_at_its_next_step(number: signal.Signals, code: int) -> None:
    closed: list[int] = []

    def work() -> Generator[Any, None, None]:
        try:
            for i in range(9):
                if i == 2:
                    signal.raise_signal(number)
                yield Said(str(i))
        except GeneratorExit:
            closed.append(i)
            raise

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="what was done is kept · do: run the same command again") as caught:
        screen.Screen(quiet=True).watch(work())
    assert caught.value.code == code and closed == [2] and signal.getsignal(number) is before


def test_watching_gives_what_the_work_made() -> None:
    def work() -> Generator[Any, None, int]:
        yield Said("x")
        return 7

    assert screen.Screen(quiet=True).watch(work()) == 7


def test_a_trial_that_was_stopped_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    stopped = dataclasses.replace(TRIAL, scores=TRIAL.scores[:1], stopped="another rate is ahead")
    screen.Screen().event(Finished(stopped))
    screen.Screen().event(Finished(dataclasses.replace(stopped, scores=())))
    assert capsys.readouterr().err.splitlines() == [
        "  probe: validation 0.500, 1.2 s, stopped: another rate is ahead",
        "  probe: 1.2 s, stopped: another rate is ahead",
    ]


def test_an_object_holds_no_number_that_json_has_no_word_for(capsys: pytest.CaptureFixture[str]) -> None:
    screen.put_object("x", {"a": [math.nan, {"b": math.inf}, 1.5], "c": (1, "d")})
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert told == {"schema": 1, "command": "x", "ok": True, "a": [None, {"b": None}, 1.5], "c": [1, "d"]}


def test_the_first_column_keeps_some_width(capsys: pytest.CaptureFixture[str]) -> None:
    screen.Screen().table(["run", "wide"], [["runs/some", "w" * 300]])
    out = capsys.readouterr().out
    assert "runs/some" in out and "w" * 300 in out


def test_work_that_keeps_nothing_says_so() -> None:
    def work() -> Generator[Any, None, None]:
        signal.raise_signal(signal.SIGINT)
        yield Said("x")

    with pytest.raises(Interrupted, match=r"stopped; nothing was written · do: run the same command again$"):
        screen.Screen(quiet=True).watch(work(), kept=False)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_sentence_is_folded_between_words_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    line = "  pass  chance: " + "some words of a finding, " * 6 + "a/very/long/path/" * 6
    shown = screen.folded(line, Terminal()).split("\n")
    assert " ".join(part.strip() for part in shown).split() == line.split()
    assert len(shown) > 3 and all(len(part) <= 60 for part in shown[:-1]) and shown[1].startswith("    finding")
    assert screen.folded(line, io.StringIO()) == line, "a log keeps one line"


def test_a_small_terminal_gets_fewer_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head, row = ["plan", "validation", "test", "memory"], ["probe lr 0.001", "0.9", "0.8", "3 MB"]
    screen.Screen().table(head, [row], kept=2)
    assert "memory" in capsys.readouterr().out, "a log has all"
    for columns, there in (("80", 4), ("38", 3), ("28", 2)):
        monkeypatch.setattr(sys, "stdout", shown := Terminal())
        monkeypatch.setenv("COLUMNS", columns)
        screen.Screen().table(head, [row], kept=2)
        assert sum(name in shown.getvalue() for name in head) == there
