"""The training loop: schedules, batches, early stopping, what the optimizer holds, losses that are no numbers."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from regraft.engine import fit as engine
from regraft.engine import freeze
from regraft.engine.cache import Table
from regraft.engine.fit import batches, fit, seed_of
from regraft.engine.predict import Graft, outputs
from regraft.engine.snapshot import Keeper
from regraft.engine.trunk import Shape
from regraft.errors import DataError, UsageError
from regraft.kit.meter import Meter
from regraft.planner.course import Course
from regraft.waist import Event, Loss, Optimizer, Phase, PhaseDone, Plan, Scored, Step
from tests import places


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """27 training and 15 validation pictures of three classes, four stages with 16 features."""
    return places.course(tmp_path_factory.mktemp("fit"), cached=False)


def probe(*, lr: float = 0.01, batch: int = 9, kind: Any = "adamw", clip: float = 1.0, **phase: Any) -> Plan:
    given = {"epochs": 2, "frontier": 4, "rates": (("head/*", 1.0),)} | phase
    return Plan("probe", (Phase(**given),), optimizer=Optimizer(kind, lr, clip=clip), batch=batch)


def run(course: Course, plan: Plan, place: Path, seed: int = 0, every_s: float = 1e9) -> tuple[Graft, list[Event]]:
    graft = course.graft(plan)
    keeper = Keeper(place, Meter.start(), every_s)
    return graft, list(fit(plan, graft, course.task, lambda k: tables(course, graft, k), keeper, seed))


def tables(course: Course, graft: Graft, k: int) -> tuple[Table, Table]:
    return course.table(graft.view, k, course.data.train), course.table(graft.view, k, course.data.val)


def steps(events: list[Event]) -> list[Step]:
    return [event for event in events if isinstance(event, Step)]


def curve(events: list[Event]) -> list[float]:
    return [event.epoch.val_loss for event in events if isinstance(event, Scored)]


# ---------------------------------------------------------------- schedules and batches


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_rate_follows_the_schedule(course: Course, tmp_path: Path, schedule: Any) -> None:
    _, events = run(course, probe(epochs=4, schedule=schedule), tmp_path)
    found = [event.lr / 0.01 for event in steps(events)]
    done = [i / 12 for i in range(12)]
    wanted = {
        "constant": [1.0] * 12,
        "linear": [1 - d for d in done],
        "cosine": [0.5 * (1 + math.cos(math.pi * d)) for d in done],
    }
    assert found == pytest.approx(wanted[schedule])
    assert all(0 < factor <= 1 for factor in found)


def test_the_rate_warms_up_in_a_straight_line(course: Course, tmp_path: Path) -> None:
    _, events = run(course, probe(epochs=4, schedule="linear", warmup_frac=0.25), tmp_path)
    found = [event.lr / 0.01 for event in steps(events)]
    assert found == pytest.approx([1 / 3, 2 / 3, 1, *(1 - i / 9 for i in range(9))])


@pytest.mark.parametrize("options", [Loss(focal=2.0), Loss(robust=0.7, smoothing=0.1), Loss(adjust=1.0)], ids=str)
def test_validation_is_judged_by_cross_entropy_whatever_is_trained(
    course: Course, tmp_path: Path, options: Loss
) -> None:
    graft, events = run(course, dataclasses.replace(probe(epochs=1), loss=options), tmp_path)
    val = tables(course, graft, 4)[1]
    targets = course.task.encode([row.y for row in val.rows])
    plain = course.task.loss(outputs(graft, val), targets, Loss()).mean().item()  # classes are equal: weights are 1
    assert curve(events) == pytest.approx([plain]) and steps(events)[0].loss != pytest.approx(plain)


def test_steps_count_over_all_phases(course: Course, tmp_path: Path) -> None:
    plan = probe()
    second = Phase(1, 3, (("head/*", 1.0), (f"{course.view.stages[3].name}/*", 0.1)))
    _, events = run(course, dataclasses.replace(plan, phases=(*plan.phases, second)), tmp_path)
    assert [(e.phase, e.step, e.steps) for e in steps(events)] == [(i // 6, i + 1, 9) for i in range(9)]
    assert [e.phase for e in events if isinstance(e, PhaseDone)] == [0, 1]


@pytest.mark.parametrize("batch", [1, 4, 10, 27, 100])
def test_each_epoch_takes_every_row_once_in_a_new_order(
    course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    taken: list[list[int]] = []
    original = Table.batch

    def watched(self: Table, index: Any) -> Any:
        if isinstance(index, list) and len(self.rows) == 27:
            taken.append(list(index))
        return original(self, index)

    monkeypatch.setattr(Table, "batch", watched)
    run(course, probe(batch=batch), tmp_path)
    assert max(map(len, taken)) <= batch and max(map(len, taken)) - min(map(len, taken)) <= 1
    order = [i for index in taken for i in index]
    assert sorted(order[:27]) == sorted(order[27:]) == list(range(27)) and order[:27] != order[27:]


def test_the_curve_holds_the_mean_loss_over_rows(course: Course, tmp_path: Path) -> None:
    _, events = run(course, probe(batch=27, epochs=1), tmp_path)
    (scored,) = [event.epoch for event in events if isinstance(event, Scored)]
    assert scored.train_loss == pytest.approx(math.log(3)) == pytest.approx(steps(events)[0].loss)
    assert 0 <= scored.metric <= 1


def test_a_fit_follows_its_seed_alone(course: Course, tmp_path: Path) -> None:
    made = []
    for i, seed in enumerate((0, 0, 1)):
        torch.manual_seed(i)
        made.append(run(course, probe(), tmp_path / str(i), seed)[0].head.weight)
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


def test_a_fit_leaves_the_generator_alone(course: Course, tmp_path: Path) -> None:
    graft, keeper = course.graft(probe()), Keeper(tmp_path, Meter.start(), 1e9)
    state = torch.get_rng_state()
    list(fit(probe(), graft, course.task, lambda k: tables(course, graft, k), keeper, 0))
    assert torch.equal(torch.get_rng_state(), state)


def test_seeds_depend_on_every_part() -> None:
    found = {seed_of(0, "order", 0, 1), seed_of(0, "order", 1, 0), seed_of(1, "order", 0, 1), seed_of(0, "step", 0, 1)}
    assert len(found) == 4 and all(0 <= seed < 2**60 for seed in found)
    assert seed_of(0, "order") == seed_of(0, "order")


# ---------------------------------------------------------------- rows of several shapes

SHAPES = some.lists(
    some.sampled_from([((16, 1),), ((32, 1),), ((64, 3),), ((16, 1), (32, 1))]), min_size=1, max_size=60
)


@given(SHAPES, some.integers(1, 20), some.integers(0, 2**60))
def test_batches_hold_every_row_once_and_one_shape_each(shapes: list[Shape], size: int, seed: int) -> None:
    found = batches(shapes, size, seed)
    assert sorted(i for index in found for i in index) == list(range(len(shapes)))
    assert all(1 <= len(index) <= size and len({shapes[i] for i in index}) == 1 for index in found)
    assert len(found) == len(batches(shapes, size, seed + 1)) == sum(-(-n // size) for n in Counter(shapes).values())
    for shape in set(shapes):
        counts = [len(index) for index in found if shapes[index[0]] == shape]
        assert max(counts) - min(counts) <= 1
    assert found == batches(shapes, size, seed)


@pytest.mark.parametrize(("rows", "size", "cuts"), [(27, 10, [9, 18]), (28, 10, [9, 18]), (5, 9, []), (6, 4, [3])])
def test_rows_of_one_shape_are_one_permutation_dealt_out_evenly(rows: int, size: int, cuts: list[int]) -> None:
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(7)).tolist()
    wanted = [order[a:b] for a, b in itertools.pairwise([0, *cuts, rows])]
    assert batches([((32, 1),)] * rows, size, 7) == wanted


def test_batches_of_several_shapes_come_in_random_order() -> None:
    shapes: list[Shape] = [((16 << i % 3, 1),) for i in range(60)]
    orders = [[shapes[index[0]] for index in batches(shapes, 5, seed)] for seed in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    assert all(order != sorted(order) for order in orders)


@pytest.mark.parametrize("size", [100, 5])
def test_a_row_counts_the_same_in_a_short_batch(tmp_path: Path, size: int) -> None:
    """Steps so small that gradients hardly change: an epoch moves the head by its steps times the gradient of all."""
    texts = places.text_course(tmp_path, "class", cached=False)
    texts.data = dataclasses.replace(texts.data, train=texts.data.train[:32])
    plan = probe(kind="sgd", lr=1e-4, clip=0.0, batch=size, epochs=1, schedule="constant")
    plan = dataclasses.replace(plan, pooling="mean", optimizer=dataclasses.replace(plan.optimizer, momentum=0.0))
    graft, events = run(texts, plan, tmp_path / "kept")
    table, _ = tables(texts, start := texts.graft(plan), 4)
    assert len({len(index) for index in batches(table.shapes, size, 0)}) > 1, "all batches are of one size"
    loss = texts.task.loss(outputs(start, table), texts.task.encode([row.y for row in table.rows]), Loss())
    assert float(loss.mean()) == pytest.approx(math.log(3)), "the head starts at zero"
    whole = sum(
        texts.task.loss(start.forward(table.batch([i]), 4), texts.task.encode([row.y]), Loss()).sum()
        for i, row in enumerate(table.rows)
    )
    (wanted,) = torch.autograd.grad(whole / 32, [start.head.weight])  # type: ignore[operator]
    torch.testing.assert_close(graft.head.weight / len(steps(events)) / 1e-4, -wanted, rtol=0.01, atol=2e-3)


def test_the_curve_holds_the_mean_over_rows_of_batches_of_all_sizes(tmp_path: Path) -> None:
    texts = places.text_course(tmp_path, "class", cached=False)
    plan = dataclasses.replace(probe(lr=1e-30, batch=7, epochs=1), pooling="mean")
    _, events = run(texts, plan, tmp_path)
    (scored,) = [event.epoch for event in events if isinstance(event, Scored)]
    assert scored.train_loss == pytest.approx(math.log(3)) and len(steps(events)) == 6


# ---------------------------------------------------------------- stopping and resuming


def test_patience_ends_a_phase_and_the_best_weights_stay(course: Course, tmp_path: Path) -> None:
    graft, events = run(course, probe(lr=30.0, epochs=50, patience_epochs=2), tmp_path)
    found = curve(events)
    assert len(found) < 50 and len(found) == found.index(min(found)) + 3
    _, val = tables(course, graft, 4)
    loss = course.task.loss(outputs(graft, val), course.task.encode([row.y for row in course.data.val]), Loss())
    assert float(loss.mean()) == min(found)


def test_without_patience_all_epochs_are_run(course: Course, tmp_path: Path) -> None:
    _, events = run(course, probe(lr=30.0, epochs=8), tmp_path)
    assert len(curve(events)) == 8


def test_a_finished_fit_has_nothing_left_to_do(course: Course, tmp_path: Path) -> None:
    first, _ = run(course, probe(), tmp_path, every_s=0)
    again, events = run(course, probe(), tmp_path)
    assert events == [] and torch.equal(first.head.weight, again.head.weight)


# ---------------------------------------------------------------- the optimizer


def chosen(course: Course) -> tuple[Plan, Graft, dict[str, Any]]:
    name = course.view.stages[3].name
    plan = probe(frontier=3, rates=(("head/*", 1.0), (f"{name}/*", 0.25)))
    graft = course.graft(plan)
    return plan, graft, freeze.apply(graft.view, graft.head, plan.phases[0])


def test_the_optimizer_holds_what_trains_and_nothing_else(course: Course) -> None:
    plan, graft, trained = chosen(course)
    optimizer = engine._optimizer(plan, trained)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    everything = [*graft.view.module.parameters(), *graft.head.parameters()]
    assert held == {id(p) for p in everything if p.requires_grad} and len(held) < len(everything)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_matrices_decay_and_vectors_do_not(course: Course, kind: Any) -> None:
    plan, _, trained = chosen(course)
    plan = dataclasses.replace(plan, optimizer=Optimizer(kind, 0.5, weight_decay=0.1))
    found = {
        group["params"][0].ndim > 1: group["weight_decay"] for group in engine._optimizer(plan, trained).param_groups
    }
    assert found == {True: 0.1, False: 0.0}


def test_rates_multiply_the_rate(course: Course) -> None:
    plan, graft, trained = chosen(course)
    bases = {id(group["params"][0]): group["base"] for group in engine._optimizer(plan, trained).param_groups}
    head = {id(p) for p in graft.head.parameters()}
    assert {bases[i] for i in head} == {0.01} and {bases[i] for i in bases if i not in head} == {0.0025}


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_steps_are_those_of_the_plain_rule(kind: Any) -> None:
    """Fused steps round otherwise than PyTorch's plain ones, and differ in nothing else."""
    weight, bias = torch.linspace(-1, 1, 12).reshape(3, 4), torch.linspace(0, 1, 3)
    ours, plain = ([torch.nn.Parameter(t.clone()) for t in (weight, bias)] for _ in range(2))
    plan = dataclasses.replace(probe(), optimizer=Optimizer(kind, 0.1, weight_decay=0.5))
    optimizer = engine._optimizer(plan, {"weight": (ours[0], 1.0), "bias": (ours[1], 0.5)})
    groups = [
        {"params": [plain[0]], "lr": 0.1, "weight_decay": 0.5},
        {"params": [plain[1]], "lr": 0.05, "weight_decay": 0.0},
    ]
    rule = torch.optim.AdamW(groups) if kind == "adamw" else torch.optim.SGD(groups, momentum=0.9)
    for i in range(4):
        for one, other in zip(ours, plain, strict=True):
            one.grad = other.grad = torch.sin(torch.arange(one.numel()) + i).reshape(one.shape)
        for group in optimizer.param_groups:
            group["lr"] = group["base"]
        optimizer.step()
        rule.step()
    for one, other, start in zip(ours, plain, (weight, bias), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
        assert float((one - start).detach().abs().max()) > 0.01


@pytest.mark.parametrize(("clip", "bounded"), [(1e-3, True), (0.0, False)])
def test_gradients_are_clipped(course: Course, tmp_path: Path, clip: float, bounded: bool) -> None:
    graft, _ = run(course, probe(kind="sgd", lr=1.0, clip=clip, batch=27, epochs=1), tmp_path)
    moved = math.sqrt(sum(float((p.detach() ** 2).sum()) for p in graft.head.parameters()))  # the head starts at zero
    assert moved > 0 and (moved <= 1.001e-3) == bounded


# ---------------------------------------------------------------- refusals


def test_a_rate_that_blows_up_names_the_step_and_the_rows(course: Course, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        run(course, probe(lr=math.inf), tmp_path)
    assert caught.value.what == "the loss is not finite at step 2 (phase 1, epoch 1)"
    assert caught.value.saw.startswith("nan for train/") and caught.value.saw.count("train/") == 4
    assert "lower the rate (now inf)" in caught.value.do


def test_validation_rows_without_a_finite_loss_are_named_and_the_last_snapshot_stays(
    course: Course, tmp_path: Path
) -> None:
    """Weights that give no numbers are never the best ones."""
    bad, keeper = course.data.val[2], Keeper(tmp_path, Meter.start(), 0)

    def tensors(cells: Any) -> dict[str, torch.Tensor]:
        made = course.encoder.tensors(cells)
        for i, cell in enumerate(cells):
            if cell == bad.cell:
                made["pixel_values"][i] = math.nan
        return made

    spoilt = dataclasses.replace(course, encoder=dataclasses.replace(course.encoder, tensors=tensors))
    graft, plan = spoilt.graft(probe()), probe()
    with pytest.raises(DataError, match=r"loss is not finite at step 4 \(phase 1, epoch 1\)") as caught:
        list(fit(plan, graft, spoilt.task, lambda k: tables(spoilt, graft, k), keeper, 0))
    assert caught.value.saw == f"nan for {bad.id} …"
    progress, held = keeper.load() or pytest.fail("no snapshot")
    assert progress.step == 3 and all(t.isfinite().all() for t in held.values())


def test_a_picture_that_gives_no_numbers_is_named(course: Course, tmp_path: Path) -> None:
    bad = course.data.train[5]

    def tensors(cells: Any) -> dict[str, torch.Tensor]:
        made = course.encoder.tensors(cells)
        for i, cell in enumerate(cells):
            if cell == bad.cell:
                made["pixel_values"][i] = math.nan
        return made

    with pytest.raises(DataError, match=r"loss is not finite at step 5 .*epoch 1") as caught:
        run(
            dataclasses.replace(course, encoder=dataclasses.replace(course.encoder, tensors=tensors)),
            probe(batch=1, lr=1e-6),
            tmp_path,
            seed=first_seed(5, 4),
        )
    assert caught.value.saw == f"nan for {bad.id} …"


def first_seed(row: int, place: int) -> int:
    """A seed whose first epoch takes `row` as its step number `place`, counted from 0."""
    shapes: list[Shape] = [((0, 1),)] * 27
    return next(s for s in range(1000) if batches(shapes, 1, seed_of(s, "order", 0, 0))[place] == [row])


UNBUILT = [
    ("pooling", "tokens"),
]


@pytest.mark.parametrize(("field", "value"), UNBUILT, ids=[field for field, _ in UNBUILT])
def test_what_is_not_built_is_refused_by_name(course: Course, tmp_path: Path, field: str, value: Any) -> None:
    plan = dataclasses.replace(probe(), **{field: value})
    work: Iterator[Event] = fit(
        plan, course.graft(probe()), course.task, lambda _: pytest.fail("read"), Keeper(tmp_path, Meter()), 0
    )
    with pytest.raises(
        UsageError, match=r"cannot train a plan with this setting · saw: pooling = 'tokens' · allowed: native or mean"
    ):
        next(work)
