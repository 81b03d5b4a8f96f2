"""Between pretrained and tuned weights: what is better on validation is a trial as any other, and nothing else is."""

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
from regraft.planner import blend as blends
from regraft.planner import race as races
from regraft.planner.blend import along, blend, part, source
from regraft.planner.course import Course
from regraft.waist import Budget, Event, Finished, Loss, Options, Phase, Reading, Said, Trial
from tests import places
from tests.unit.test_race import race


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Course:
    return places.course(tmp_path_factory.mktemp("blend"))


@pytest.fixture
def course(base: Course, tmp_path: Path) -> Course:
    return dataclasses.replace(base, folder=Folder(tmp_path / "run"))


def wild(course: Course, strategy: str = "full", **knobs: object) -> Trial:
    """A trial whose last epoch is kept, at a rate at which it goes too far."""
    plan = places.plan(course, strategy, **{"epochs": 3, "lr": 0.02, "ratio": 1, **knobs})
    phases: tuple[Phase, ...] = tuple(dataclasses.replace(phase, stop=phase.epochs) for phase in plan.phases)
    return places.finish(course, dataclasses.replace(plan, phases=phases))


def loss(course: Course, trial: Trial) -> float:
    made = course.outputs(trial, "val")
    return float(course.task.loss(made, course.task.encode([row.y for row in course.data.val]), Loss()).mean())


def test_the_network_is_that_far_on_its_way_and_the_head_is_the_tuned_one(course: Course) -> None:
    trial = wild(course)
    start, end = (touched(trial.plan, graft) for graft in (course.graft(trial.plan), course.restore(trial)))
    made = along(course, 1, trial, 0.25)
    held = touched(made.plan, course.restore(made))
    assert set(held) == set(start) and sum(not name.startswith("head/") for name in held) > 5
    for name, tensor in held.items():
        wanted = end[name] if name.startswith("head/") else torch.lerp(start[name], end[name], 0.25)
        assert torch.equal(tensor, wanted), name
    assert any(not torch.equal(held[name], end[name]) for name in held)


def test_what_is_written_is_what_its_weights_answer(course: Course) -> None:
    made = along(course, 1, wild(course, norm="update"), 0.5)
    graft = course.restore(made)
    for split in ("val", "test"):
        rows = getattr(course.data, split)
        assert torch.equal(outputs(graft, course.table(graft.view, 0, rows)), course.outputs(made, split))
    assert made.label == "full lr 0.02 wise 0.5" and made.whole and not made.curve
    assert made.notes == ("0.5 of the way from the pretrained weights to those of full lr 0.02",)
    assert made.cost.trainable == wild(course, norm="update").cost.trainable


def test_layers_that_the_checkpoint_lacks_stay_tuned(tmp_path: Path) -> None:
    """A pooler of random numbers is no place to go back to."""
    course = places.text_course(tmp_path)
    trial = wild(course, pooling="native", epochs=1)
    end, made = touched(trial.plan, course.restore(trial)), along(course, 1, trial, 0.5)
    held = touched(made.plan, course.restore(made))
    same = {name.split("/")[0] for name in held if torch.equal(held[name], end[name])}
    assert "pooler" in same and not any("layer" in name for name in same)


@pytest.mark.parametrize(("losses", "metrics", "best"), [
    ((0.6, 0.4, 0.5, 0.9), (0.5, 0.5, 0.5, 0.5), 0.6),
    ((0.6, 0.4, 0.5, 0.9), (0.5, 0.4, 0.6, 0.5), 0.4),
    ((0.7, 0.8, 0.9, 1.0), (0.9, 0.9, 0.9, 0.9), 1.0),
    ((0.6, 0.4, 0.5, 0.9), (0.4, 0.4, 0.4, 0.4), 1.0),
])  # fmt: skip
def test_the_lowest_loss_wins_among_those_whose_metric_is_no_worse(
    course: Course,
    monkeypatch: pytest.MonkeyPatch,
    losses: tuple[float, ...],
    metrics: tuple[float, ...],
    best: float,
) -> None:
    """The tuned one has 0.5 right and a loss of 0.7; the shares are 0.8, 0.6, 0.4 and 0.2."""
    trial = wild(course)
    said = itertools.chain([(0.5, -0.7)], ((m, -at) for m, at in zip(metrics, losses, strict=True)))
    monkeypatch.setattr(blends, "judged", lambda *_: next(said))
    events: list[Event] = list(blend(course, 1, trial))
    ended = [event.trial for event in events if isinstance(event, Finished)]
    assert [t.plan for t in ended] == ([] if best == 1 else [part(trial.plan, best)])
    (told,) = [event.text for event in events if isinstance(event, Said)]
    assert told.endswith("as it is" if best == 1 else f"{best:g} of the way from the pretrained weights")
    again = list(blend(course, 1, trial)) if ended else []
    assert again == [Finished(one) for one in ended], "it is read, and nothing is scored again"


def test_where_tuning_went_too_far_less_of_it_is_better(base: Course, tmp_path: Path) -> None:
    """It learned labels by heart that say nothing: it is sure of answers that are wrong."""
    rows = [dataclasses.replace(row, y=places.LABELS[i % 3]) for i, row in enumerate(base.data.train)]
    data = dataclasses.replace(base.data, train=rows)
    course = dataclasses.replace(base, data=data, folder=Folder(tmp_path))
    trial = wild(course, epochs=12)
    ended = [event.trial for event in blend(course, 1, trial) if isinstance(event, Finished)]
    assert ended and loss(course, ended[0]) < loss(course, trial)
    assert ended[0].score("val").value >= trial.score("val").value


@pytest.mark.parametrize("strategy", ["probe", "asis"])
def test_where_nothing_pretrained_was_trained_there_is_no_way_between(course: Course, strategy: str) -> None:
    knobs = {"epochs": 1} if strategy == "probe" else {}
    assert list(blend(course, 1, places.finish(course, places.plan(course, strategy, **knobs)))) == []


def test_a_probe_that_trains_a_new_pooler_has_no_way_between(tmp_path: Path) -> None:
    course = places.text_course(tmp_path)
    trial = places.finish(course, places.plan(course, "probe", pooling="native", epochs=1))
    assert list(blend(course, 1, trial)) == []


def test_a_share_knows_the_trial_that_it_is_part_of(course: Course) -> None:
    trial = wild(course)
    made = along(course, 1, trial, 0.4)
    assert source([trial, made], made) == (trial, 0.4) and source([trial, made], trial) == (trial, 1.0)


# ---------------------------------------------------------------- in a race


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last stages win in few steps, and half of the way is found to be better."""
    monkeypatch.setattr(pack, "_self_test", lambda *_: None)
    monkeypatch.setattr(races.Race, "_pointless", lambda *_: "")

    def half(course: Course, number: int, trial: Trial) -> object:
        yield Finished(along(course, number, trial, 0.6))

    monkeypatch.setattr(after, "blend", half)
    monkeypatch.setattr(after, "closer", lambda *_: None)
    monkeypatch.setattr(after, "_around", lambda *_: None)
    monkeypatch.setattr("regraft.ahead.strategies_of", lambda options: options.strategies or ("asis", "full"))


KNOBS = (("full.epochs", "6"), ("full.lr", "0.01"))


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("refit", ["train", "all"])
def test_a_share_of_the_way_ships_and_answers_as_it_was_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refit: str
) -> None:
    options = Options(
        str(places.pictures(tmp_path / "data")),
        str(places.model(tmp_path / "model")),
        Reading(task="classify"),
        knobs=KNOBS,
        budget=Budget(epochs=20),
        refit=refit,  # type: ignore[arg-type]
    )
    shares = lambda trials: [i for i, t in enumerate(trials) if "wise" in dict(t.plan.knobs)]  # noqa: E731
    monkeypatch.setattr("regraft.deliver.ship.pick", lambda trials, *_: (shares(trials)[0], "half of the way", ()))
    run = flow.finish(flow.steps(options, tmp_path / "runs"))
    assert run.winner.label == "full lr 0.01 wise 0.6" + (" and validation" if refit == "all" else "")
    assert run.account.epochs == sum(len(t.curve) for t in run.trials if t.plan.strategy == "full")
    model = Model.load(run.bundle)
    assert model.told.plan == run.winner.plan
    from safetensors.torch import load_file

    from regraft.data.open import open_data

    data = open_data(Path(options.data), 0, options.reading)
    wanted = load_file(run.folder / run.winner.predictions)["test"].double().softmax(1).tolist()
    for answer, numbers in zip(model.predict([row.cell for row in data.test]), wanted, strict=True):
        assert list(answer["probabilities"].values()) == pytest.approx(numbers, abs=1e-5)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("how", ["free", "trials", "named", "clock"])
def test_a_race_that_may_not_spend_more_stops_before_it(course: Course, how: str) -> None:
    budget = {"trials": Budget(trials=3), "clock": Budget(seconds=3600.0)}.get(how, Budget())
    made = race(course, course.folder.path, budget, ("full",))
    made.named = how == "named"
    closing = made.pace.closing
    if how == "clock":
        made.pace.closing = lambda plan: 1e6 if len(made.trials) > 2 else closing(plan)  # type: ignore[method-assign]
    said = [event.text for event in made.run() if isinstance(event, Said)]
    assert len(made.trials) == (4 if how == "free" else 3)
    assert any("the clock does not allow it" in text for text in said) == (how == "clock")
