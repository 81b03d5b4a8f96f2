"""The audit's evidence: test labels and every trial's test predictions, chance for every metric, all checks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save

from regraft.audit.gather import audit, baselines
from regraft.kit import durable, shelf
from regraft.tasks import classify
from regraft.waist import Cost, Data, Phase, Plan, Row, Score, Target, Trial

TARGET = Target("label", "class", ("a", "b"), (1, 1))
ROWS = [Row(str(i), None, "b" if i % 4 == 0 else "a", "", str(i)) for i in range(80)]
DATA = Data("d", "image", TARGET, (), (), ROWS, "f")
TASK = classify.make(TARGET)


def trial(folder: Path, name: str, share: float, *, random: bool = False) -> Trial:
    """A trial that gets the first `share` of the test rows right."""
    y = TASK.encode([row.y for row in ROWS]).numpy()
    pred = np.where(np.arange(80) < share * 80, y, 1 - y)
    durable.write(folder / name, save({"test": np.eye(2, dtype=np.float32)[pred]}))
    plan = Plan(name, (Phase(1, 0, (("*", 1.0),)),), init="random" if random else "pretrained")
    score = Score("accuracy", "test", share, share - 0.05, share + 0.05, 80)
    return Trial(plan, 0, (score,), (), Cost(1.0, 1), name, "")


def test_chance_is_told_for_every_metric() -> None:
    assert baselines(TASK, DATA) == (
        Score("accuracy", "test", 0.75, 0.75, 0.75, 80),
        Score("balanced_accuracy", "test", 0.5, 0.5, 0.5, 80),
    )


def test_every_check_on_the_shelf_is_asked(tmp_path: Path) -> None:
    trials = [trial(tmp_path, "probe", 0.95), trial(tmp_path, "scratch", 0.6, random=True)]
    found = audit(TASK, DATA, trials, 0, tmp_path, 0)
    assert [f.check for f in found] == list(shelf.names("checks"))
    assert {f.check: f.status for f in found} == {"chance": "pass", "transfer": "pass"}


def test_the_winner_is_questioned_and_not_the_first(tmp_path: Path) -> None:
    trials = [trial(tmp_path, "probe", 0.95), trial(tmp_path, "partial", 0.5)]
    found = {f.check: f for f in audit(TASK, DATA, trials, 1, tmp_path, 0)}
    assert found["chance"].status == "fail" and found["chance"].value == 0.5
    assert found["transfer"].evidence == "no trial from scratch was run"
