"""`regraft predict`: what is asked becomes cells, answers become tables and files."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from regraft.deliver import inputs
from regraft.deliver import model as models
from regraft.waist import Bad
from tests.calls import call, error_of


class Echo:
    """A model that answers with what it was asked."""

    def __init__(self, columns: tuple[str, ...] = ("text",), literal: bool = True) -> None:
        self.columns, self.literal = columns, literal

    def predict(self, cells: list[Any], left_out: list[Bad], notes: list[str]) -> list[dict[str, Any]]:
        return [
            {"id": str(i), "label": f"{type(c).__name__}:{c}", "confidence": 0.5, "probabilities": {"x": 0.5}}
            for i, c in enumerate(cells)
        ]


def asked(
    args: Sequence[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    model: Echo,
    said: str = "",
) -> list[str]:
    """The cells that a predict command hands to the model."""
    monkeypatch.setattr(models, "open_model", lambda _: model)
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    code, out, _ = call(["predict", "run", *args, "--json"], capsys)
    assert code == 0, out
    told = json.loads(out)
    assert list(told) == ["schema", "command", "ok", "run", "predictions", "left_out"] and told["run"] == "run"
    return [answer["label"] for answer in told["predictions"]]


KIND = type(Path()).__name__


ASKED: list[tuple[list[str], Echo, str, list[str]]] = [
    (["a.txt", "b"], Echo(), "", [f"{KIND}:a.txt", f"{KIND}:b"]),
    (["--text", "a rose", "--text", "the sea"], Echo(), "", ["str:a rose", "str:the sea"]),
    (["t.csv", "--text", "-"], Echo(), "", [f"{KIND}:t.csv", "str:-"]),
    (["-"], Echo(), "one\n\ntwo\tthree\n", ["str:one", "str:two\tthree"]),
    (["a.txt", "-", "b.txt"], Echo(), "one\n", [f"{KIND}:a.txt", "str:one", f"{KIND}:b.txt"]),
    (["-"], Echo((), False), "a.png\nb c.png\n", [f"{KIND}:a.png", f"{KIND}:b c.png"]),
    (["-"], Echo(("x", "y")), "one\ttwo\n", ["tuple:('one', 'two')"]),
    (["--text", "one", "--text", "two"], Echo(("x", "y")), "", ["tuple:('one', 'two')"]),
]


@pytest.mark.parametrize(("args", "model", "said", "cells"), ASKED, ids=[" ".join(a[0]) for a in ASKED])
def test_what_is_asked_becomes_cells(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    model: Echo,
    said: str,
    cells: list[str],
) -> None:
    assert asked(args, capsys, monkeypatch, model, said) == cells


@pytest.mark.parametrize(
    ("args", "model", "said", "what"),
    [
        (["--text", "one"], Echo(("x", "y")), "", "a pair lacks its second text"),
        (["-"], Echo(("x", "y")), "one\n", "a line holds no pair"),
        (["--text", "one"], Echo((), False), "", "this model reads no texts"),
    ],
)
def test_what_is_no_cell_is_refused(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    model: Echo,
    said: str,
    what: str,
) -> None:
    monkeypatch.setattr(models, "open_model", lambda _: model)
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    error = error_of(["predict", "run", *args], capsys)
    assert (error["code"], error["what"]) == (2, what)


def test_answers_of_every_task_are_shown_as_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers = {
        "labels": {"id": "a", "labels": ["x", "y"], "confidence": 0.5, "probabilities": {"x": 0.5}},
        "value": {"id": "a", "value": -3.25, "low": -4.0, "high": -2.5},
        "rank": {"id": "a", "label": "2", "confidence": 0.5, "probabilities": {"2": 0.5}, "rank": 1.5},
    }
    shown = {
        "labels": ["id", "labels", "confidence", "a", "x, y", "0.500"],
        "value": ["id", "value", "low", "high", "a", "-3.250", "-4.000", "-2.500"],
        "rank": ["id", "label", "confidence", "rank", "a", "2", "0.500", "1.500"],
    }
    for kind, answer in answers.items():
        model = Echo()
        monkeypatch.setattr(model, "predict", lambda *_, answer=answer: [answer])
        monkeypatch.setattr(models, "open_model", lambda _, model=model: model)
        code, out, _ = call(["predict", "run", "--text", "a", "--out", tmp_path / f"{kind}.csv"], capsys)
        assert code == 0 and " ".join(out.split()) == " ".join(shown[kind])
        assert (tmp_path / f"{kind}.csv").read_bytes().decode() == inputs.as_csv([answer])
        assert call(["predict", "run", "--text", "a", "--out", tmp_path / "x.jsonl"], capsys)[0] == 0
        assert json.loads((tmp_path / "x.jsonl").read_text()) == answer
