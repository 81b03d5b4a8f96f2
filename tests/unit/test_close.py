"""Staying close to the pretrained network: penalties and averages against a few plain lines, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regraft.engine import freeze
from regraft.engine.close import AVERAGE, WEIGHTS, asked
from regraft.engine.fit import batches, fit, seed_of, touched
from regraft.engine.predict import Graft, outputs
from regraft.engine.snapshot import Keeper
from regraft.errors import UsageError
from regraft.kit import shelf
from regraft.kit.meter import Meter
from regraft.kit.store import Folder
from regraft.planner.course import Course
from regraft.planner.families import families
from regraft.planner.price import Rate, price, state_bytes
from regraft.planner.saved import saved
from regraft.planner.sizes import Pace
from regraft.planner.timing import key, timed
from regraft.strategies._close import Close
from regraft.waist import Event, Loss, Optimizer, Plan, Scored, Step
from tests import places

Penalty = Callable[[Graft, Tensor, dict[str, Tensor], Tensor], Tensor]


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """27 training pictures of three classes, a ResNet of four stages with 16 features."""
    return places.course(tmp_path_factory.mktemp("close"))


def descent(course: Course, epochs: int = 1, **knobs: Any) -> Plan:
    """All weights by plain gradient descent, nine of the 27 rows in a step, the last weights kept."""
    plan = places.plan(course, "full", epochs=epochs, batch=9, ratio=1, schedule="constant", warmup=0, **knobs)
    rule = Optimizer("sgd", 0.05, weight_decay=0.1, momentum=0.0, clip=0.0)
    phases = tuple(dataclasses.replace(phase, stop=epochs) for phase in plan.phases)
    return dataclasses.replace(plan, phases=phases, optimizer=rule)


def events(course: Course, plan: Plan, graft: Graft, place: Path) -> Any:
    tables = lambda k: (course.table(graft.view, k, course.data.train), course.table(graft.view, k, course.data.val))  # noqa: E731
    return fit(plan, graft, course.task, tables, Keeper(place, Meter.start()), 0, lambda: course.before(plan))


def fitted(course: Course, plan: Plan, place: Path) -> dict[str, Tensor]:
    graft = course.graft(plan)
    for _ in events(course, plan, graft, place):
        pass
    return {name: t.detach().clone() for name, t in touched(plan, graft).items()}


def by_hand(course: Course, plan: Plan, penalty: Penalty, decayed: bool) -> dict[str, Tensor]:
    """The same descent in plain torch; `decayed` says whether the backbone's matrices decay, as the head's do."""
    graft = course.graft(plan)
    named = {name: p for name, (p, _) in freeze.apply(graft.view, graft.head, plan.phases[0]).items()}
    table = course.table(graft.view, 0, course.data.train)
    order = batches(table.shapes, 9, seed_of(0, "order", 0, 0))
    targets = course.task.encode([row.y for row in course.data.train])
    begun = {name: p.detach().clone() for name, p in named.items()}
    with torch.no_grad():
        pretrained = [graft.features(table.batch(index), 0) for index in order]
    decays = [p for name, p in named.items() if p.ndim > 1 and (decayed or name.startswith("head/"))]
    others = [p for p in named.values() if not any(p is one for one in decays)]
    rule = torch.optim.SGD([{"params": decays, "weight_decay": 0.1}, {"params": others}], lr=0.05)
    for index, before in zip(order, pretrained, strict=True):
        rule.zero_grad()
        features = graft.features(table.batch(index), 0)
        loss = nn.functional.cross_entropy(graft.head(features), targets[index])
        (loss + penalty(graft, features, begun, before)).backward()
        rule.step()
    return {name: p.detach() for name, p in named.items()}


def l2sp(graft: Graft, features: Tensor, begun: dict[str, Tensor], pretrained: Tensor) -> Tensor:
    return sum((0.5 * 0.4 * ((p - begun[n]) ** 2).sum() for n, _, p in graft.view.named()), torch.zeros(()))


def bss(graft: Graft, features: Tensor, begun: dict[str, Tensor], pretrained: Tensor) -> Tensor:
    return 0.4 * torch.linalg.eigvalsh(features @ features.T)[0]


def delta(graft: Graft, features: Tensor, begun: dict[str, Tensor], pretrained: Tensor) -> Tensor:
    return 0.4 * 0.5 * ((features - pretrained) ** 2).sum() / len(features)


@pytest.mark.parametrize("penalty", [l2sp, bss, delta])
def test_steps_are_those_of_a_loss_with_the_penalty(course: Course, tmp_path: Path, penalty: Penalty) -> None:
    name = penalty.__name__  # type: ignore[attr-defined]
    made = fitted(course, descent(course, **{name: 0.4}), tmp_path / "with")
    wanted = by_hand(course, descent(course), penalty, decayed=name != "l2sp")
    without = fitted(course, descent(course), tmp_path / "without")
    assert set(made) == set(wanted)
    for part, tensor in wanted.items():
        torch.testing.assert_close(made[part], tensor, rtol=1e-4, atol=2e-6, msg=part)
    assert max(float((made[part] - without[part]).abs().max()) for part in wanted) > 1e-4


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_penalty_counts_once_however_a_batch_goes_through(course: Course, tmp_path: Path, pieces: int) -> None:
    plan = descent(course, l2sp=0.4, delta=0.4)
    made = fitted(dataclasses.replace(course, pieces=pieces), plan, tmp_path)
    both: Penalty = lambda *given: l2sp(*given) + delta(*given)  # noqa: E731
    for part, tensor in by_hand(course, plan, both, decayed=False).items():
        torch.testing.assert_close(made[part], tensor, rtol=1e-4, atol=2e-6)


def test_stronger_penalties_leave_the_network_closer_to_its_start(course: Course, tmp_path: Path) -> None:
    gone = []
    for strength in (0, 0.1, 1.0):
        plan = descent(course, epochs=2, l2sp=strength)
        start = touched(plan, course.graft(plan))
        made = fitted(course, plan, tmp_path / str(strength))
        gone.append(sum(float((made[n] - start[n]).square().sum()) for n in made if not n.startswith("head/")))
    assert gone == sorted(gone, reverse=True) and gone[2] < 0.8 * gone[0]


def test_the_average_of_the_weights_is_scored_and_kept(course: Course, tmp_path: Path) -> None:
    plan = descent(course, epochs=2, ema=0.3)
    graft = course.graft(plan)
    held = touched(plan, graft)
    mean = {name: t.detach().clone() for name, t in held.items()}
    steps, losses, scored = 0, [], []
    for event in events(course, plan, graft, tmp_path):
        if isinstance(event, Step):
            share = min(0.3, (1 + steps) / (10 + steps))
            mean = {name: torch.lerp(m, held[name].detach(), 1 - share) for name, m in mean.items()}
            steps += 1
        if isinstance(event, Scored):
            scored.append(event.epoch.val_loss)
            losses.append(loss_with(course, plan, mean))
    assert steps == 6 and losses == pytest.approx(scored, rel=1e-6) and losses[0] != losses[1]
    assert all(torch.equal(held[name], mean[name]) for name in held)


def loss_with(course: Course, plan: Plan, weights: dict[str, Tensor]) -> float:
    graft = course.graft(plan)
    with torch.no_grad():
        for name, tensor in touched(plan, graft).items():
            tensor.copy_(weights[name])
    made = outputs(graft, course.table(graft.view, 0, course.data.val))
    return float(course.task.loss(made, course.task.encode([row.y for row in course.data.val]), Loss()).mean())


def test_moving_statistics_are_averaged_and_their_counts_taken_over(course: Course, tmp_path: Path) -> None:
    plan = descent(course, epochs=2, ema=0.3, norm="update")
    made = fitted(course, plan, tmp_path)
    counts = {int(t) for name, t in made.items() if name.endswith("num_batches_tracked")}
    last = fitted(course, dataclasses.replace(plan, regularise=()), tmp_path / "last")
    moved = [name for name in made if name.endswith("running_mean")]
    assert counts == {6} and moved and not any(torch.equal(made[name], last[name]) for name in moved)


# ---------------------------------------------------------------- stochastic normalisation


def test_each_channel_has_its_moving_statistics_or_the_batchs() -> None:
    layer = nn.BatchNorm2d(40)
    x = 3 + 2 * torch.randn(6, 40, 5, 5, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(3)
    made = freeze.mixed(layer, layer.forward)(x)
    again = nn.BatchNorm2d(40)
    batch, moving = again(x), again.eval()(x)
    from_batch = [torch.equal(made[:, c], batch[:, c]) for c in range(40)]
    from_moving = [torch.equal(made[:, c], moving[:, c]) for c in range(40)]
    assert all(a != b for a, b in zip(from_batch, from_moving, strict=True)) and 10 < sum(from_batch) < 30
    assert layer.training and torch.equal(layer.running_mean, again.running_mean) and layer.num_batches_tracked == 1
    torch.manual_seed(4)
    assert not torch.equal(freeze.mixed(nn.BatchNorm2d(40), nn.BatchNorm2d(40).forward)(x), made)


def test_it_mixes_in_trained_stages_alone_and_only_while_they_train(course: Course) -> None:
    plan = places.plan(course, "partial", depth=1, stochnorm=True)
    assert plan.label == "partial depth 1 lr 0.001 norm mix" and plan.phases[0].norm == "mix"
    graft = course.graft(plan)
    batch = course.table(graft.view, 3, course.data.train).batch(list(range(9)))
    norms = [m for m in graft.view.module.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        wanted = graft.forward(batch, 3)
        with freeze.mode(graft.view, graft.head, plan.phases[0]):
            mixed = [m for m in norms if "forward" in m.__dict__]
            assert 0 < len(mixed) < len(norms) and all(m.training for m in mixed)
            assert not torch.equal(graft.features(batch, 3), graft.features(batch, 3))
        assert not any("forward" in m.__dict__ or m.training for m in norms)
    assert wanted.shape == (9, 3)


# ---------------------------------------------------------------- plans, prices, refusals


def test_every_regulariser_has_a_knob_and_its_strength_is_in_the_label(course: Course) -> None:
    names = shelf.names("regularisers")
    assert names and set(names) <= {f.name for f in dataclasses.fields(Close)}
    knobs: dict[str, Any] = dict.fromkeys(names, 0.25)
    for strategy in ("full", "partial", "layerwise", "gradual"):
        plain, close = places.plan(course, strategy), places.plan(course, strategy, **knobs)
        assert dict(close.regularise) == knobs and not plain.regularise
        assert all(f"{name} 0.25" in close.label and name not in plain.label for name in names)
        assert len(families([plain, close], 0)) == 2, "they are no rates of one kind"


def test_steps_are_timed_with_what_is_added_to_them(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = places.plan(course, "full", l2sp=0.1, delta=0.1, ema=0.9)
    plain = dataclasses.replace(plan, regularise=())
    assert key(plan, plan.phases[0]) != key(plain, plan.phases[0])
    acted: list[str] = []
    for name in ("l2sp", "delta", "ema"):
        item = shelf.find("regularisers", name)
        act = item.act
        monkeypatch.setattr(item, "act", lambda *given, name=name, act=act: [acted.append(name), act(*given)][1])
    steps = timed(course, [plan, plain])
    assert set(acted) == {"l2sp", "delta", "ema"}
    costs, bare = (price(course, one, steps, Rate()) for one in (plan, plain))
    assert bare.memory.state == state_bytes(plan.optimizer, bare.memory.trained)
    assert costs.memory.state == bare.memory.state + 2 * bare.memory.trained, "the start and the average"
    features = 27 * course.view.stages[-1].out_bytes
    assert costs.cache_bytes == bare.cache_bytes + features and costs.flop > bare.flop


def test_the_pretrained_networks_passes_are_counted_and_forecast(course: Course, tmp_path: Path) -> None:
    course = dataclasses.replace(course, folder=Folder(tmp_path))
    plan = places.plan(course, "full", epochs=2, delta=0.1)
    plain = dataclasses.replace(plan, regularise=())
    pace = Pace(course)
    assert pace.fixed(plan) > pace.fixed(plain)
    pace.filled(plan)
    assert pace.fixed(plan) == pace.fixed(plain), "the features are there"
    trial = places.finish(course, plan)
    assert saved(course, [trial]).plain == 2 * 27 and saved(course, [places.finish(course, plain)]).plain == 0


def test_a_head_fitted_at_once_is_refused(course: Course, tmp_path: Path) -> None:
    plan = dataclasses.replace(places.plan(course, "probe", by="path"), regularise=(("ema", 0.9),))
    with pytest.raises(UsageError, match=r"takes no steps .* saw: ema 0\.9 by path"):
        next(events(course, plan, course.graft(plan), tmp_path))


def test_an_unknown_regulariser_is_refused(course: Course) -> None:
    with pytest.raises(UsageError, match="l2spp"):
        asked(dataclasses.replace(descent(course), regularise=(("l2spp", 0.1),)), WEIGHTS)
    assert not asked(descent(course, l2sp=0.1), AVERAGE)


@pytest.mark.parametrize("knob", ["ema=1", "ema=-0.1", "l2sp=-1", "bss=inf"])
def test_strengths_out_of_bounds_are_refused(course: Course, knob: str) -> None:
    name, value = knob.split("=")
    with pytest.raises(UsageError, match=rf"wrong kind · saw: --full\.{name} {value}"):
        places.plan(course, "full", **{name: value})


def test_statistics_that_are_kept_are_not_mixed(course: Course) -> None:
    with pytest.raises(UsageError, match="stochnorm with norm keep"):
        places.plan(course, "full", stochnorm=True, norm="keep")


def test_texts_have_no_statistics_to_mix_and_a_new_pooler_nothing_to_stay_close_to(tmp_path: Path) -> None:
    course = places.text_course(tmp_path)
    with pytest.raises(UsageError, match="stochnorm with norm auto and 0 such layers"):
        places.plan(course, "full", stochnorm=True)
    with pytest.raises(UsageError, match=r"nothing to stay close to · saw: --full.delta 0.1 with pooler at random"):
        places.plan(course, "full", delta=0.1, pooling="native")
    plan = places.plan(course, "full", delta=0.1, l2sp=0.1, epochs=1)
    assert plan.pooling == "mean"
    made: list[Event] = list(course.trial(0, plan))
    assert sum(isinstance(event, Step) for event in made) > 1
