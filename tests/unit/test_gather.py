"""The audit's evidence: test labels and every trial's test predictions, chance for every metric, all checks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from regraft.audit.gather import audit, baselines
from regraft.kit import durable, shelf
from regraft.tasks import classify, multilabel, ordinal, regress
from regraft.waist import Cost, Data, Init, Phase, Plan, Row, Score, Target, Trial

TARGET = Target("label", "class", ("a", "b"), (1, 1))
ROWS = [Row(str(i), None, "b" if i % 4 == 0 else "a", "", str(i)) for i in range(80)]
DATA = Data("d", "image", TARGET, (), (), ROWS, "f")
TASK = classify.make(TARGET)


def trial(folder: Path, name: str, share: float, init: Init = "pretrained") -> Trial:
    """A trial that gets the first `share` of the test rows right."""
    y = TASK.encode([row.y for row in ROWS]).numpy()
    pred = np.where(np.arange(80) < share * 80, y, 1 - y)
    durable.write(folder / name, save({"test": np.eye(2, dtype=np.float32)[pred]}))
    plan = Plan(name, (Phase(1, 0, (("*", 1.0),)),), init=init)
    score = Score("accuracy", "test", share, share - 0.05, share + 0.05, 80)
    return Trial(plan, 0, (score, dataclasses.replace(score, split="val")), (), Cost(1.0, 1), name, "w")


def test_chance_is_told_for_every_metric() -> None:
    found = baselines(TASK, DATA)
    assert found[:2] == (
        Score("accuracy", "test", 0.75, 0.75, 0.75, 80),
        Score("balanced_accuracy", "test", 0.5, 0.5, 0.5, 80),
    )
    assert [score.metric for score in found] == [metric.name for metric in TASK.metrics]


def test_a_guess_says_which_way_is_better() -> None:
    target = Target("age", "number", centre=2.0, spread=1.0)
    rows = [Row(str(i), None, float(i), "", str(i)) for i in range(4)]
    found = baselines(regress.make(target), Data("d", "text", target, (), (), rows, "f"))
    assert [(score.metric, score.better) for score in found[:3]] == [
        ("rmse", "lower"),
        ("mae", "lower"),
        ("r2", "higher"),
    ]
    assert found[1].value == 1.0


def test_every_check_on_the_shelf_is_asked(tmp_path: Path) -> None:
    trials = [
        trial(tmp_path, "probe", 0.95),
        trial(tmp_path, "scratch", 0.6, "random"),
        trial(tmp_path, "a", 0.5, "plain"),
    ]
    found = audit(TASK, DATA, trials, 0, tmp_path, 0)
    assert [f.check for f in found] == list(shelf.names("checks"))
    assert {f.check: f.status for f in found} == {"chance": "pass", "plain": "pass", "transfer": "pass"}
    assert {f.check: round(f.value, 2) for f in found} == {"chance": 0.95, "plain": 0.45, "transfer": 0.35}


def test_a_trial_that_lost_early_is_no_evidence(tmp_path: Path) -> None:
    """It has no predictions; what stands beside it is found at its own place all the same."""
    lost = dataclasses.replace(trial(tmp_path, "lost", 1.0, "plain"), predictions="", snapshot="", stopped="behind")
    trials = [
        lost,
        trial(tmp_path, "probe", 0.95),
        trial(tmp_path, "b", 0.9, "plain"),
        trial(tmp_path, "c", 0.7, "plain"),
    ]
    found = {f.check: f for f in audit(TASK, DATA, trials, 1, tmp_path, 0)}
    assert found["plain"].value == pytest.approx(0.05), "the best plain one on validation is the one to beat"
    assert found["transfer"].status == "skip"


def test_the_winner_is_questioned_and_not_the_first(tmp_path: Path) -> None:
    trials = [trial(tmp_path, "probe", 0.95), trial(tmp_path, "partial", 0.5)]
    found = {f.check: f for f in audit(TASK, DATA, trials, 1, tmp_path, 0)}
    assert found["chance"].status == "fail" and found["chance"].value == 0.5
    assert found["transfer"].evidence == "no trial from scratch was run"


AT = np.arange(80)
KINDS = [
    (Target("age", "number", centre=3.5, spread=2.0), regress, [float(i % 8) for i in AT], AT[:, None] % 8),
    (
        Target("tags", "multi", ("a", "b"), (4, 1)),
        multilabel,
        [("a",) if i % 4 else ("a", "b") for i in AT],
        np.stack([0 * AT + 4, 4 - 8 * (AT % 4 > 0)], 1),
    ),
    (
        Target("grade", "class", ("a", "b", "c"), (2, 2, 2), ordered=True),
        ordinal,
        ["abc"[i % 3] for i in AT],
        np.eye(3)[AT % 3],
    ),
]


@pytest.mark.parametrize(("target", "kind", "ys", "right"), KINDS, ids=["regress", "multilabel", "ordinal"])
def test_every_task_is_audited(
    tmp_path: Path, target: Target, kind: ModuleType, ys: list[Any], right: np.ndarray
) -> None:
    """A trial that is right everywhere against one that gives the same outputs for every row."""
    task = kind.make(target)
    metric, y = task.metrics[0], task.encode(ys).numpy()
    trials, flat = [], right * 0 + right.mean(0)
    for name, init, outputs in (("probe", "pretrained", right), ("scratch", "random", flat), ("words", "plain", flat)):
        made = outputs.astype(np.float32)
        durable.write(tmp_path / name, save({"test": made}))
        value = metric.fn(task.decode(torch.from_numpy(made))[metric.takes], y, None)
        scores = tuple(Score(metric.name, s, value, value, value, 80, metric.better) for s in ("val", "test"))
        plan = Plan(name, (Phase(1, 0, (("*", 1.0),)),), init=init)
        trials.append(Trial(plan, 0, scores, (), Cost(1.0, 1), name, "w"))
    rows = [Row(str(i), None, label, "", str(i)) for i, label in enumerate(ys)]
    found = audit(task, Data("d", "text", target, (), (), rows, "f"), trials, 0, tmp_path, 0)
    assert {f.check: f.status for f in found} == {"chance": "pass", "plain": "pass", "transfer": "pass"}


def test_a_check_whose_needs_cannot_be_met_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf.find("checks", "transfer"), "NEEDS", ("predictions", "activations"))
    found = audit(TASK, DATA, [trial(tmp_path, "probe", 0.95)], 0, tmp_path, 0)
    assert [f.check for f in found] == ["chance", "plain"]
