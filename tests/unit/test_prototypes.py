"""Class means as a head: which kind is chosen, that a row is left out of its own mean, and where there are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from regraft.engine.prototypes import beside, choose
from regraft.errors import UsageError
from regraft.kit import shelf
from regraft.waist import Loss, Target, Task
from tests import places


def task(classes: int = 2) -> Task:
    made: Task = shelf.find("tasks", "classify").make(Target("y", "class", tuple("abcdef"[:classes]), (8,) * classes))
    return made


def chosen(rows: torch.Tensor, kinds: torch.Tensor, names: list[str] | None = None, bias: bool = True) -> object:
    classes = int(kinds.max()) + 1
    head = task(classes).head(rows.shape[1], bias)
    names = names or [str(i) for i in range(len(rows))]
    return choose(head, rows, kinds, task(classes), Loss(), names, 0), head


def test_the_kind_that_answers_rows_left_out_best_is_taken() -> None:
    draw = torch.Generator().manual_seed(0)
    kinds = torch.arange(40) % 2
    noise = torch.randn(40, 6, generator=draw) * 0.02
    lengths = torch.rand(40, 1, generator=draw) * 9 + 0.5
    rays = (torch.eye(6)[kinds] + torch.eye(6)[2] + noise) * lengths
    found, _ = chosen(rays, kinds)  # type: ignore[misc]
    assert "cosine" in found.family and found.score == 1.0, "what tells the classes apart is the direction"
    rings = noise + torch.where(kinds[:, None] == 0, 1.0, 3.0) * torch.eye(6)[0]
    found, head = chosen(rings, kinds)  # type: ignore[misc]
    assert found.family == "euclidean" and found.score == 1.0, "one direction, two lengths"
    assert torch.equal(head(rings).argmax(1), kinds)
    found, head = chosen(rays, kinds, bias=False)  # type: ignore[misc]
    assert found.family == "cosine" and head.bias is None


def test_a_row_has_no_part_in_the_mean_that_answers_it() -> None:
    """Rows of noise: with their own mean all would be right, without it half of them are."""
    draw = torch.Generator().manual_seed(0)
    rows, kinds = torch.randn(16, 400, generator=draw), torch.arange(16) % 2
    found, head = chosen(rows, kinds)  # type: ignore[misc]
    assert float((head(rows).argmax(1) == kinds).float().mean()) == 1.0 and found.score <= 0.75
    twice = [str(i % 8) for i in range(16)]
    pairs, _ = chosen(rows[:8].repeat(2, 1), kinds, twice)  # type: ignore[misc]
    assert pairs.score <= 0.75, "nor has its twin"
    alone, _ = chosen(rows[:8].repeat(2, 1), kinds)  # type: ignore[misc]
    assert alone.score == 1.0


def test_one_row_of_each_class_is_enough() -> None:
    found, head = chosen(torch.eye(3), torch.arange(3))  # type: ignore[misc]
    assert torch.equal(head(torch.eye(3)).argmax(1), torch.arange(3))
    assert found.family == "cosine" and found.loss > 0.01, "there was nothing to be sure by"


def test_it_trains_nothing_and_says_what_it_chose(tmp_path: Path) -> None:
    course = places.text_course(tmp_path)
    plan = places.plan(course, "prototype", pooling="mean")
    trial = places.finish(course, plan)
    assert trial.plan.trunk == len(course.view.pooled("mean").stages) and len(trial.curve) == 1
    assert trial.notes[0].startswith("head chosen on the training rows among 18 kinds of class means by")


def test_rows_without_labels_move_the_means_where_answers_to_rows_left_out_are_better() -> None:
    """Two wide clouds and few labelled rows of each: what lies between the clouds is told by the other rows."""
    draw = torch.Generator().manual_seed(1)
    wide = torch.ones(30) * 1.5
    wide[0] = 0.2

    def cloud(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        kinds = torch.arange(n) % 2
        return torch.randn(n, 30, generator=draw) * wide + torch.eye(30)[0] * (4.0 * kinds[:, None] - 2.0), kinds

    (rows, kinds), (more, _), (asked, truth) = cloud(8), cloud(400), cloud(400)
    names = [str(i) for i in range(8)]
    heads = [task().head(30, True) for _ in range(3)]
    given = rows, kinds, task(), Loss(), names, 0
    alone, helped = choose(heads[0], *given), beside(more)(heads[1], *given)
    right = [float((head(asked).argmax(1) == truth).float().mean()) for head in heads[:2]]
    assert helped.score >= alone.score and right[1] > right[0] + 0.05
    assert "400 rows without labels weigh" in helped.told and "nothing beside" not in helped.told
    elsewhere = torch.eye(30)[1] * 20 - torch.eye(30)[0] + torch.randn(400, 30, generator=draw) * 0.1
    spoilt = beside(elsewhere)(heads[2], rows * (torch.eye(30)[0] + 0.01), *given[1:])
    assert "400 rows without labels weigh nothing beside the labelled ones" in spoilt.told


def test_a_single_row_of_each_class_is_not_moved() -> None:
    found = beside(torch.eye(3))(task(3).head(3, True), torch.eye(3), torch.arange(3), task(3), Loss(), list("abc"), 0)
    assert "weigh nothing" in found.told, "no answer to a row left out could say whether it helps"


def test_a_trial_takes_rows_without_labels(tmp_path: Path) -> None:
    course = replace(places.text_course(tmp_path), mark="mark")
    plan = places.plan(course, "prototype", pooling="mean")
    some = [replace(row, y=None, key=f"{row.key}+", cell=f"{row.cell} red") for row in course.data.val]
    more = replace(course, data=replace(course.data, unlabelled=tuple(some)))
    assert more.earlier.address(plan) != course.earlier.address(plan)
    told = [dict(places.plan(more, name).knobs)["unlabelled"] for name in ("prototype", "contrast")]
    assert told == [18, 18]
    assert "18 rows without labels weigh" in places.finish(more, plan).notes[0]


def test_targets_and_features_that_have_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no class means for this target .*y, a target of kind"):
        places.plan(places.text_course(tmp_path / "numbers", "number"), "prototype")
    with pytest.raises(UsageError, match=r"layers that its checkpoint lacks .*pooling native"):
        places.plan(places.text_course(tmp_path / "pooler"), "prototype", pooling="native")
