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
from regraft.waist import Cost, Data, Finding, Flag, Init, Phase, Plan, Row, Score, Target, Trial

TARGET = Target("label", "class", ("a", "b"), (1, 1))
ROWS = [Row(str(i), None, "b" if i % 4 == 0 else "a", "", str(i)) for i in range(80)]
DATA = Data("d", "image", TARGET, (), (), ROWS, "f")
TASK = classify.make(TARGET)
ASKED = {"chance": "pass", "leakage": "skip", "plain": "pass", "transfer": "pass"}


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
    assert {f.check: f.status for f in found} == ASKED
    assert {f.check: round(f.value, 2) for f in found} == {
        "chance": 0.95,
        "leakage": 0,
        "plain": 0.45,
        "transfer": 0.35,
    }


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
    assert {f.check: f.status for f in found} == ASKED


def test_a_check_whose_needs_cannot_be_met_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf.find("checks", "transfer"), "NEEDS", ("predictions", "activations"))
    found = audit(TASK, DATA, [trial(tmp_path, "probe", 0.95)], 0, tmp_path, 0)
    assert [f.check for f in found] == ["chance", "leakage", "plain"]


def leaking(rows: int, wrong: int) -> Data:
    """The data above, the last `rows` of its test known to training; `wrong` are ids that are no row's."""
    ids = tuple(str(i) for i in range(80 - rows, 80)) + tuple(f"gone {i}" for i in range(wrong))
    flags = (Flag("near", "warn", 1, 80, "", (), "", ids[:5]), Flag("duplicates", "warn", 1, 80, "", (), "", ids[3:]))
    return dataclasses.replace(DATA, flags=flags)


def leakage(tmp_path: Path, data: Data, share: float) -> Finding:
    found = audit(TASK, data, [trial(tmp_path, "probe", share)], 0, tmp_path, 0)
    return next(f for f in found if f.check == "leakage")


def test_a_score_that_rests_on_rows_known_to_training_is_told_without_them(tmp_path: Path) -> None:
    """The last 40 rows are answered rightly and leak: the other 40 are not."""
    y = TASK.encode([row.y for row in ROWS]).numpy()
    made = trial(tmp_path, "probe", 0.5)
    pred = np.where(np.arange(80) < 40, 1 - y, y)
    durable.write(tmp_path / "probe", save({"test": np.eye(2, dtype=np.float32)[pred]}))
    (found,) = (f for f in audit(TASK, leaking(40, 3), [made], 0, tmp_path, 0) if f.check == "leakage")
    assert (found.status, found.value, found.threshold) == ("warn", 0.5, 0.01)
    assert 0.3 < found.interval[0] < 0.5 < found.interval[1] < 0.7
    assert found.evidence.startswith("accuracy 0.500 on all 80 test rows, 0.000 without the 40 that training")
    assert "believe the score without them" in found.advice


def test_leaks_that_change_nothing_pass_and_harder_ones_do_not_flatter(tmp_path: Path) -> None:
    assert leakage(tmp_path, leaking(20, 0), 1.0).status == "pass"
    harder = leakage(tmp_path, leaking(20, 0), 0.75)  # the leaking ones are all wrong
    assert (harder.status, harder.value) == ("pass", -0.25) and harder.interval[1] < 0


def test_without_enough_clean_rows_there_is_no_score(tmp_path: Path) -> None:
    found = leakage(tmp_path, leaking(75, 0), 0.9)
    assert found.status == "warn" and "5 of 80 test rows are left" in found.evidence


def test_errors_are_compared_on_their_own_scale(tmp_path: Path) -> None:
    """The rmse without the 40 leaking rows is 2 against about 1.4 on all: lower is better, so the gap flatters."""
    target = Target("age", "number", centre=2.0, spread=1.0)
    rows = [Row(str(i), None, 1000.0, "", str(i)) for i in range(80)]
    flag = Flag("near", "warn", 1, 80, "", (), "", tuple(str(i) for i in range(40)))
    data = Data("d", "text", target, (), (), rows, "f", flags=(flag,))
    made = np.where(np.arange(80) < 40, 1000.0, 1002.0).astype(np.float32)[:, None]
    durable.write(tmp_path / "probe", save({"test": made}))
    scores = tuple(Score("rmse", split, 1.4, 1.0, 2.0, 80, "lower") for split in ("val", "test"))
    plan = Plan("probe", (Phase(1, 0, (("*", 1.0),)),))
    found = audit(regress.make(target), data, [Trial(plan, 0, scores, (), Cost(1.0, 1), "probe", "w")], 0, tmp_path, 0)
    (found_leak,) = (f for f in found if f.check == "leakage")
    assert found_leak.status == "warn" and found_leak.value == pytest.approx(2 - 2**0.5, abs=1e-3)
    assert found_leak.threshold == pytest.approx(0.02, abs=1e-4)
