"""Laws 2 and 3: what is frozen does not move, buffers included; rates cover what trains, once, and nothing else."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from regraft.backbone.view import View
from regraft.engine import freeze
from regraft.errors import RegraftError, UsageError
from regraft.kit import shelf
from regraft.waist import Phase, PhaseDone, Plan, Said
from tests import places

WAYS: list[tuple[str, dict[str, object]]] = [
    ("asis", {}),
    ("bitfit", {"epochs": 1, "last": 2}),
    ("bottleneck", {"epochs": 1, "last": 2, "by": "parallel"}),
    ("contrast", {"epochs": 1}),
    ("full", {"epochs": 1}),
    ("full", {"epochs": 1, "norm": "update"}),
    ("gradual", {"by": "lpft", "epochs": 2}),
    ("gradual", {"by": "unfreeze", "groups": 2, "epochs": 2}),
    ("ia3", {"epochs": 1, "last": 2}),
    ("layerwise", {"epochs": 1}),
    ("lora", {"epochs": 1, "last": 2}),
    ("lora", {"epochs": 1, "dora": True, "norm": "update"}),
    ("norms", {"epochs": 1}),
    ("partial", {"epochs": 2}),
    ("probe", {"epochs": 2}),
    ("prototype", {}),
    ("scratch", {"by": "plain"}),
    ("scratch", {"by": "random", "epochs": 1}),
    ("scratch", {"by": "features"}),
    ("side", {"epochs": 2}),
]
"""Every strategy on the shelf, in each of its ways, but for those in networks with attention or linear layers alone."""
ATTENDING: list[tuple[str, dict[str, object]]] = [
    ("lora", {"epochs": 1, "last": 2, "bits": "4"}),
    ("prefix", {"epochs": 1, "last": 2}),
    ("prompt", {"epochs": 1, "last": 2}),
]
TRAINED = [way for way in WAYS if way[0] not in ("asis", "prototype") and way[1].get("by") != "plain"]
"""Those that take steps through the network or a head on top of it."""
OF_CLASSES = ("contrast", "prototype")


def test_no_strategy_is_left_out() -> None:
    assert sorted({name for name, _ in WAYS + ATTENDING}) == list(shelf.names("strategies"))


@pytest.mark.parametrize(("strategy", "knobs"), WAYS, ids=str)
def test_frozen_tensors_are_hash_equal_after_every_phase(
    tmp_path: Path, strategy: str, knobs: dict[str, object]
) -> None:
    course = places.course(tmp_path)
    chosen = places.plan(course, strategy, **knobs)
    before = freeze.hashes({f"{n}": p for n, _, p in course.view.named()} | {n: b for n, _, b in course.view.buffers()})
    done = [event for event in course.trial(0, chosen) if isinstance(event, PhaseDone)]
    assert len(done) == sum(phase.epochs > 0 for phase in chosen.phases)
    after = freeze.hashes({f"{n}": p for n, _, p in course.view.named()} | {n: b for n, _, b in course.view.buffers()})
    assert after == before, "a trial changed the backbone that other trials start from"
    graft = course.graft(chosen)
    for event, phase in zip(done, (phase for phase in chosen.phases if phase.epochs), strict=True):
        still = freeze.frozen(graft.view, graft.head, phase)
        assert event.verified == len(still)
        if phase.frontier:
            assert len(still) > 0


@pytest.mark.parametrize("pooling", ["native", "mean"])
@pytest.mark.parametrize(("strategy", "knobs"), [w for w in WAYS + ATTENDING if w[0] not in OF_CLASSES], ids=str)
def test_the_encoder_of_texts_is_left_as_it_was(
    tmp_path: Path, strategy: str, knobs: dict[str, object], pooling: str
) -> None:
    """Whatever a trial trains, its own copies move: not the weights and buffers that all trials share."""
    if strategy == "asis" and pooling == "native":
        pytest.skip("a pooler at random answers nothing as it is: there is no such plan")
    course = places.text_course(tmp_path, "pairs")
    chosen = places.plan(course, strategy, pooling=pooling, **knobs)
    before = freeze.hashes(course.view.module.state_dict())
    done = [event for event in course.trial(0, chosen) if isinstance(event, PhaseDone)]
    assert freeze.hashes(course.view.module.state_dict()) == before
    graft = course.graft(chosen)
    assert [e.verified for e in done] == [
        len(freeze.frozen(graft.view, graft.head, p)) for p in chosen.phases if p.epochs
    ]
    ended = course.restore(places.finish(course, chosen))
    moved = {
        stage
        for (_, stage, a), (_, _, b) in zip(ended.view.named(), graft.view.named(), strict=True)
        if not torch.equal(a, b)
    }
    if chosen.init == "plain":
        assert moved == set(), "a head on features without a network moves nothing else"
    else:  # a later phase that made nothing better is taken back whole: then the frontier is an earlier one
        end = len(graft.view.stages) + bool(graft.view.side)  # a side network is above all
        assert moved in [set(range(phase.frontier, end)) for phase in chosen.phases]
    assert len(chosen.phases) == 1 or strategy == "gradual"


@pytest.mark.parametrize("pooling", ["native", "mean"])
def test_rates_cover_what_features_depend_on(tmp_path: Path, pooling: str) -> None:
    """Under the mean the pooler's weights are nobody's: no pattern may be asked to match them."""
    course = places.text_course(tmp_path, network="classifier")
    for strategy, knobs in TRAINED:
        chosen = places.plan(course, strategy, pooling=pooling, **knobs)
        for phase in chosen.phases:
            graft = course.graft(chosen)
            trained = freeze.apply(graft.view, graft.head, phase)
            wanted = {id(p) for p, _ in trained.values()}
            assert {id(p) for p in graft.view.module.parameters() if p.requires_grad} | {
                id(p) for p in graft.head.parameters()
            } == wanted
            pooler = {id(p) for n, p in graft.view.module.named_parameters() if "pooler" in n}
            above = phase.frontier < len(graft.view.stages) and not chosen.inserts and strategy != "norms"
            assert bool(pooler & wanted) == (pooling == "native" and above), (strategy, knobs)


@pytest.mark.parametrize(("strategy", "knobs"), WAYS, ids=str)
def test_rates_cover_each_trainable_parameter_once(tmp_path: Path, strategy: str, knobs: dict[str, object]) -> None:
    course = places.course(tmp_path)
    chosen = places.plan(course, strategy, **knobs)
    graft = course.graft(chosen)
    for phase in chosen.phases:
        trained = freeze.apply(graft.view, graft.head, phase)
        wanted = {id(p) for p, _ in trained.values()}
        everything = [*graft.view.module.parameters(), *graft.head.parameters()]
        assert {id(p) for p in everything if p.requires_grad} == wanted
        if phase.epochs:
            assert {id(p) for p in graft.head.parameters()} <= wanted
        else:
            assert not wanted, "nothing is trained where there is no epoch"


def test_training_moves_what_it_should(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    chosen = places.plan(course, "partial", depth=1, epochs=2)
    graft = course.restore(places.finish(course, chosen))
    start = course.graft(chosen)
    moved = {
        n for (n, _, a), (_, _, b) in zip(graft.view.named(), start.view.named(), strict=True) if not torch.equal(a, b)
    }
    top = course.view.stages[-1].name
    assert moved and all(name.startswith(top + "/") for name in moved)


def test_a_buffer_that_moves_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """requires_grad=False does not stop BatchNorm: https://github.com/pytorch/pytorch/issues/86590."""
    original = freeze.mode

    @contextlib.contextmanager
    def careless(view: View, head: nn.Module, phase: Phase | None) -> Iterator[None]:
        with original(view, head, phase):
            if phase is not None:
                view.module.train()
            yield

    monkeypatch.setattr(freeze, "mode", careless)
    course = places.course(tmp_path)
    chosen = places.plan(course, "partial", depth=1, epochs=1)
    chosen = dataclasses.replace(chosen, phases=(dataclasses.replace(chosen.phases[0], frontier=0),))
    with pytest.raises(RegraftError, match=r"frozen tensors changed .* such as buffer/"):
        places.finish(course, chosen)


@pytest.mark.parametrize(
    ("rates", "what"),
    [
        ((("head/*", 1.0), ("nothing/*", 1.0)), "matches no parameter.*nothing/"),
        ((("head/*", 1.0), ("head/weight", 0.5)), "two patterns match one parameter.*head/weight"),
        ((("head/*", 1.0), ("embedder/*", 0.1)), "below the frontier.*embedder/.* stage 0"),
        ((("head/*", 0.0),), "not positive.*head/.*0.0"),
    ],
)
def test_rates_that_do_not_fit_are_refused(tmp_path: Path, rates: tuple[tuple[str, float], ...], what: str) -> None:
    course = places.course(tmp_path)
    bad = Plan("probe", (Phase(1, len(course.view.stages), rates),))
    with pytest.raises(UsageError, match=what):
        places.finish(course, bad)


def test_a_hasty_momentum_is_set_right_and_said(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    for module in course.view.module.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.997
    chosen = places.plan(course, "partial", depth=1, epochs=1, norm="update")
    said = [event.text for event in course.trial(0, chosen) if isinstance(event, Said)]
    (text,) = [text for text in said if "momentum" in text]
    assert "momentum 0.997" in text and "0.003" in text
    kept = places.plan(course, "partial", depth=1, epochs=1, norm="keep")
    assert not [e for e in course.trial(1, kept) if isinstance(e, Said) and "momentum" in e.text]


def test_kept_statistics_stay_and_updated_ones_move(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    moved = {}
    for number, norm in enumerate(("keep", "update")):
        chosen = places.plan(course, "partial", depth=1, epochs=1, norm=norm)
        graft = course.restore(places.finish(course, chosen, number))
        pairs = zip(graft.view.buffers(), course.view.buffers(), strict=True)
        moved[norm] = {name for (name, _, a), (_, _, b) in pairs if not torch.equal(a, b)}
    assert moved["keep"] == set()
    assert moved["update"] and all("stages.2" in name for name in moved["update"])


def test_few_rows_keep_their_statistics_by_default(tmp_path: Path) -> None:
    course = places.course(tmp_path)
    assert places.plan(course, "partial").phases[0].norm == "keep"
    assert places.plan(course, "full").phases[0].norm == "keep"
    assert places.plan(course, "scratch", by="random").phases[0].norm == "update"
