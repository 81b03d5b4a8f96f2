"""Model soups: the mean of tuned trials, which of them may be averaged, which are taken on, and what ships."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch

from regraft import flow
from regraft.deliver import pack
from regraft.deliver.model import Model
from regraft.engine.fit import touched
from regraft.engine.predict import outputs
from regraft.kit.store import Folder
from regraft.planner import after
from regraft.planner import race as races
from regraft.planner import soup as soups
from regraft.planner.course import Course
from regraft.planner.soup import mates, mixed, soup
from regraft.waist import Budget, Event, Finished, Options, Phase, Reading, Said, Trial
from tests import places


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return places.course(tmp_path_factory.mktemp("soup"))


@pytest.fixture
def course(base: Course, tmp_path: Path) -> Course:
    return dataclasses.replace(base, folder=Folder(tmp_path / "run"))


def tuned(course: Course, lr: float, strategy: str = "full", **knobs: object) -> Trial:
    """A trial of one epoch, its last weights kept, so that rates end at weights of their own."""
    plan = places.plan(course, strategy, **{"epochs": 1, "lr": lr, "batch": 9, **knobs})
    phases: tuple[Phase, ...] = tuple(dataclasses.replace(phase, stop=phase.epochs) for phase in plan.phases)
    return places.finish(course, dataclasses.replace(plan, phases=phases))


def served(events: list[Event]) -> list[Trial]:
    return [event.trial for event in events if isinstance(event, Finished)]


def all_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soups, "_greedy", lambda _, some: list(range(len(some))))


def test_the_weights_are_the_mean_and_answer_as_it_was_scored(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    all_in(monkeypatch)
    some = [tuned(course, lr, norm="update") for lr in (0.01, 0.02, 0.005)]
    (made,) = served(list(soup(course, 7, some)))
    graft = course.restore(made)
    held = touched(made.plan, graft)
    ends = [touched(one.plan, course.restore(one)) for one in some]
    for name, tensor in held.items():
        wanted = sum((end[name] for end in ends), torch.zeros_like(tensor)) / 3
        if not tensor.is_floating_point():
            wanted = ends[0][name]
        torch.testing.assert_close(tensor, wanted, rtol=1e-5, atol=1e-6, msg=name)
    for split in ("val", "test"):
        rows = getattr(course.data, split)
        assert torch.equal(outputs(graft, course.table(graft.view, 0, rows)), course.outputs(made, split))
    assert made.label == "full lr 0.01 soup 3" and made.whole and not made.curve
    assert made.notes == ("the mean of the weights of full lr 0.01, full lr 0.02, full lr 0.005",)
    assert made.cost.seconds >= sum(one.cost.seconds for one in some)
    assert made.cost.trainable == some[0].cost.trainable


@pytest.mark.parametrize(("found", "taken"), [
    (((0.5, -0.6), (0.5, -0.5)), [0, 1, 2]),
    (((0.5, -0.6), (0.6, -0.65)), [0, 1]),
    (((0.4, -0.1), (0.5, -0.7)), [0, 2]),
    (((0.4, -0.1), (0.5, -0.8)), [0]),
])  # fmt: skip
def test_one_is_taken_on_where_neither_metric_nor_loss_is_worse(
    course: Course, monkeypatch: pytest.MonkeyPatch, found: tuple[tuple[float, float], ...], taken: list[int]
) -> None:
    """The first has 0.5 right and a loss of 0.7; each that is taken on raises what the next must reach."""
    some = [tuned(course, lr) for lr in (0.01, 0.02, 0.005)]
    said = itertools.chain([(0.5, -0.7)], found)
    monkeypatch.setattr(soups, "judged", lambda *_: next(said))
    events = list(soup(course, 7, some))
    wanted = [some[i] for i in taken]
    assert [trial.plan for trial in served(events)] == ([mixed([t.plan for t in wanted])] if len(taken) > 1 else [])
    (told,) = [event.text for event in events if isinstance(event, Said)]
    assert ("no other trial" in told) == (len(taken) == 1)
    assert served(list(soup(course, 7, some))) == served(events), "it is read, and nothing is scored again"


def test_only_trials_of_one_kind_of_start_and_trained_set_are_mates(course: Course) -> None:
    lead, close = tuned(course, 0.01), tuned(course, 0.02, l2sp=0.1)
    layered = tuned(course, 0.01, "layerwise")
    others = [
        tuned(course, 0.01, "partial", depth=2),
        tuned(course, 0.01, "full", norm="update"),
        tuned(course, 0.01, "lora", last=1),
        places.finish(course, places.plan(course, "scratch", by="random", epochs=1)),
        places.finish(course, places.plan(course, "probe", epochs=1)),
        dataclasses.replace(tuned(course, 0.03), snapshot=""),
    ]
    found = mates(course, [*others, layered, lead, close], lead)
    assert found[0] == lead and {t.label for t in found[1:]} == {close.label, layered.label}
    assert mates(course, [lead, *others], lead) == [lead]


def test_adapters_are_not_averaged(course: Course) -> None:
    """The mean of two products of matrices is not the product of the means."""
    one, other = (tuned(course, lr, "lora", last=1) for lr in (0.01, 0.02))
    assert mates(course, [one, other], one) == [one]


# ---------------------------------------------------------------- in a race


def test_a_soup_ships_and_is_not_fitted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    all_in(monkeypatch)
    monkeypatch.setattr(pack, "_self_test", lambda *_: None)
    monkeypatch.setattr(races.Race, "_pointless", lambda *_: "")
    monkeypatch.setattr(races.Race, "_behind", lambda *_: "")
    monkeypatch.setattr(after, "blend", lambda *_: iter(()))
    monkeypatch.setattr(after, "closer", lambda *_: None)
    monkeypatch.setattr("regraft.ahead.strategies_of", lambda options: options.strategies or ("layerwise", "full"))
    options = Options(
        str(places.pictures(tmp_path / "data")),
        str(places.model(tmp_path / "model")),
        Reading(task="classify"),
        knobs=(("full.epochs", "2"), ("full.lr", "0.01"), ("layerwise.epochs", "2"), ("layerwise.lr", "0.01")),
        budget=Budget(epochs=20),
        refit="all",
    )
    at = lambda trials: next(i for i, t in enumerate(trials) if "soup" in dict(t.plan.knobs))  # noqa: E731
    monkeypatch.setattr("regraft.deliver.ship.pick", lambda trials, *_: (at(trials), "the mean", ()))
    events: list[Event] = []
    work = flow.steps(options, tmp_path / "runs")
    while True:
        try:
            events.append(next(work))
        except StopIteration as end:
            run = end.value
            break
    said = [event.text for event in events if isinstance(event, Said)]
    assert "soup 2" in run.winner.label and "and validation" not in run.winner.label
    assert f"not fitted again on all rows: {run.winner.label} is the mean of several trials" in said
    model = Model.load(run.bundle)
    assert model.told.plan == run.winner.plan and run.account.epochs == 4
