"""Rows of a class are pulled together: the loss against its formula, batches, and what a phase of it ends with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from regraft.engine.contrast import batches, contrast, passes
from regraft.engine.predict import everything
from regraft.errors import UsageError
from regraft.planner.sizes import refitted, shortened
from tests import places


def test_the_loss_is_that_of_all_pairs() -> None:
    draw = torch.Generator().manual_seed(0)
    rows, kinds = torch.randn(7, 5, generator=draw), [0, 0, 1, 1, 1, 2, 0]
    found = contrast(rows, torch.tensor(kinds))
    unit = rows / rows.norm(dim=1, keepdim=True)
    for i, kind in enumerate(kinds):
        near = [(1 - float(unit[i] @ unit[j])) ** 2 for j in range(7) if j != i and kinds[j] == kind]
        far = [float(unit[i] @ unit[j]) ** 2 for j in range(7) if kinds[j] != kind]
        wanted = sum(near) / max(1, len(near)) / 2 + sum(far) / len(far) / 2
        assert float(found[i]) == pytest.approx(wanted, abs=1e-5)


def test_rows_of_one_class_have_nothing_to_keep_away_from() -> None:
    rows = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert bool((contrast(rows, torch.zeros(3).long()) > 0).all())
    assert float(contrast(rows[:1], torch.zeros(1).long())) == 0.0


@pytest.mark.parametrize(("classes", "each", "size"), [(2, 8, 64), (6, 8, 16), (30, 5, 20), (40, 1, 16)])
def test_each_row_is_in_a_batch_of_each_pass_beside_others_of_its_class(classes: int, each: int, size: int) -> None:
    targets = torch.arange(classes).repeat(each)
    found = batches(targets, size, 0)
    again = passes(len(targets), size)
    assert sorted(i for one in found for i in one) == [i for i in range(len(targets)) for _ in range(again)]
    assert len(found) >= 8 and (again == 1 or len(found) < 16), "as many passes as make eight steps"
    assert found != batches(targets, size, 1) and found == batches(targets, size, 0)
    assert max(map(len, found)) <= 1.5 * size
    for one in found:
        counts = targets[one].bincount()
        assert int(counts[counts > 0].min()) >= min(each, 4)


def test_features_come_together_and_the_last_epoch_is_kept(tmp_path: Path) -> None:
    """Texts of several lengths share a batch; the head is the class means of what the last epoch left."""
    course = places.text_course(tmp_path)
    plan = places.plan(course, "contrast", pooling="mean", epochs=3, lr=1e-3)
    trial = places.finish(course, plan)
    assert trial.curve[-1].train_loss < trial.curve[0].train_loss and len(trial.curve) == 3
    assert len(trial.notes) == 1 and "class means" in trial.notes[0]
    targets = course.task.encode([row.y for row in course.data.train])

    def spread(graft: object) -> float:
        table = course.table(graft.view, plan.trunk, course.data.train)  # type: ignore[attr-defined]
        return float(contrast(everything(graft, table), targets).mean())  # type: ignore[arg-type]

    assert spread(course.restore(trial)) < spread(course.graft(plan))
    assert refitted(trial).phases == plan.phases, "no validation row had a say"
    assert shortened(plan, 2, 99).phases[0].stop == 2


def test_depth_and_target_are_checked(tmp_path: Path) -> None:
    course = places.text_course(tmp_path)
    assert dict(places.plan(course, "contrast").knobs)["depth"] == 2, "half of three blocks"
    with pytest.raises(UsageError, match=r"--contrast.depth 9 .*0 for half of them, or 1 to 3"):
        places.plan(course, "contrast", depth=9)
    numbers = places.text_course(tmp_path / "numbers", "number")
    with pytest.raises(UsageError, match=r"no pairs of one class .*y, a target of.*--strategy partial"):
        places.plan(numbers, "contrast")
