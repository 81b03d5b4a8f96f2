"""The script that opens a bundle without regraft: golden outputs and what the library's pipeline says."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path

import pytest
import torch

from regraft.deliver import native, pack
from regraft.engine.predict import Graft
from regraft.providers import transformers as provider
from tests import places


def test_it_gives_the_golden_outputs_and_the_pipelines_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = provider.load(str(places.model(tmp_path / "model")))
    head = torch.nn.Linear(16, 2)
    view.export(head, ("blue", "red"), str(tmp_path / "out"))
    picture = places.pictures(tmp_path / "data", train=1, val=0, test=0) / "train" / "red" / "0.png"
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(view.inputs.shape)))
    made = native.main(str(tmp_path / "out"), pack.GOLDEN_SEED, 8, 1, [str(picture)])
    assert torch.allclose(torch.tensor(made["logits"]), pack.golden(Graft(view, head), 8), atol=1e-6)
    (answer,) = made["pipeline"]  # type: ignore[misc]
    assert answer["label"] in ("blue", "red") and 0.5 <= answer["score"] <= 1
    assert json.loads(json.dumps(made)) == made


def test_it_never_sees_regraft() -> None:
    tree = ast.parse(Path(native.__file__).read_text("utf-8"))
    taken = [
        n.module or "" if isinstance(n, ast.ImportFrom) else n.names[0].name
        for n in ast.walk(tree)
        if isinstance(n, (ast.Import, ast.ImportFrom))
    ]
    assert taken and not [name for name in taken if name.startswith("regraft")]
