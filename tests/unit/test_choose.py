"""Choosing among backbones: one sample for all, shared trunks run once, ranks, and what cannot be used."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import regraft
from regraft import api
from regraft.data.open import open_data
from regraft.deliver.chosen import choosing, shorter
from regraft.engine import heads
from regraft.errors import ModelError, UsageError
from regraft.flow import finish
from regraft.kit import hardware
from regraft.kit.store import Folder
from regraft.planner import advise, choose, profile
from regraft.planner.choose import Candidate, Choice, LeftOut
from regraft.waist import Options, Reading, plain
from tests import places
from tests.calls import call, error_of, object_of

Captured = pytest.CaptureFixture[str]
NATIVE = ("red", "green", "blue", "grey", "pink")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, and a zoo: a network, the same with a head that has names, another one, one for texts, no model."""
    root = tmp_path_factory.mktemp("choose")
    places.pictures(root / "data", train=14, val=4, test=4)
    places.model(root / "zoo" / "first")
    named(root / "zoo" / "first", root / "zoo" / "named")
    places.model(root / "zoo" / "other", seed=1)
    places.encoder_model(root / "zoo" / "texts")
    (root / "zoo" / "empty").mkdir()
    (root / "zoo" / ".hidden").mkdir()
    return root


def named(source: Path, target: Path) -> Path:
    """The same trunk under another head, whose outputs have names."""
    shutil.copytree(source, target)
    held = load_file(target / "model.safetensors")
    draw = torch.Generator().manual_seed(5)
    head = {name: torch.randn(t.shape, generator=draw) for name, t in held.items() if name.startswith("classifier")}
    assert head
    save_file(held | head, target / "model.safetensors", {"format": "pt"})
    told = json.loads((target / "config.json").read_text("utf-8"))
    told |= {"id2label": dict(enumerate(NATIVE)), "label2id": {label: i for i, label in enumerate(NATIVE)}}
    (target / "config.json").write_text(json.dumps(told), "utf-8")
    return target


def chosen(root: Path, names: tuple[str, ...], also: tuple[str, ...] = (), **asked: Any) -> Choice:
    """A choice among `names`, all asked for by name, and `also` as a zoo's."""
    options = Options(str(root / "data"), "", **asked)
    queries = {name: str(root / "zoo" / name) for name in (*names, *also)}
    return finish(choose.choose(options, open_data(options.data, 0, options.reading), queries, names))


def test_all_are_judged_on_the_same_rows_and_what_cannot_be_used_is_named(home: Path) -> None:
    told = chosen(home, (), ("empty", "first", "named", "other", "texts"))
    assert told.rows == 42 and {one.name for one in told.candidates} == {"first", "named", "other"}
    assert [(one.name, one.what) for one in told.left_out] == [
        ("empty", "this folder holds no model"),
        ("texts", "this model reads texts"),
    ]
    assert [one.rank for one in told.candidates] == sorted(one.rank for one in told.candidates)
    assert [one.size for one in told.candidates] == [2.0] * 3 and told.largest == told.best.name
    assert told.by == "logme" and told.error is not None and 0 < told.error < 0.5
    assert all(one.seconds >= 0 for one in told.candidates) and told.seconds > 0


def test_a_trunk_that_two_checkpoints_share_is_run_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, features = [], choose.features

    def noted(graft: Any, table: Any) -> Any:
        ran.append(graft.view.name)
        return features(graft, table)

    monkeypatch.setattr(choose, "features", noted)
    told = {one.name: one for one in chosen(home, ("first", "named", "other")).candidates}
    assert ran == ["first", "other"]
    assert (told["first"].same, told["named"].same, told["other"].same) == ("", "first", "")
    own, shared = dict(told["first"].scores), dict(told["named"].scores)
    assert "leep" not in own and shared.pop("leep") < 0 and shared == own != dict(told["other"].scores)
    assert told["first"].rank == told["named"].rank and told["first"].asis is None and told["named"].asis is not None


def test_networks_that_together_are_too_much_are_opened_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, opened = chosen(home, ("first", "other")), []
    prepare = choose.prepare
    monkeypatch.setattr(choose, "fits", lambda need: need < 40_000)
    monkeypatch.setattr(choose, "prepare", lambda *given: [opened.append(Path(given[2]).name), prepare(*given)][1])
    told = chosen(home, ("first", "other"))
    assert opened == ["first", "other", "other"], "9,024 weights take 36,096 bytes"
    assert [one.scores for one in told.candidates] == [one.scores for one in usual.candidates]


def test_as_is_is_what_the_strategy_reaches(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "data", tmp_path / "data")
    shutil.copytree(home / "zoo" / "named", tmp_path / "model")
    course = places.course(tmp_path)
    rows, plan = course.data.train, places.plan(course, "asis", by="labels")
    graft = course.graft(plan)
    table = course.table(graft.view, plan.trunk, rows)
    heads.begin(plan, graft, course.task, table, course.data.target)
    answers = graft.head(heads.features(graft, table)).argmax(1)
    right = float((answers == course.task.encode([row.y for row in rows])).double().mean())
    seen = finish(advise.survey(course))
    assert seen.asis == pytest.approx(right, abs=1e-4) and 0 < right < 1
    (told,) = chosen(home, ("named",)).candidates
    assert told.asis == seen.asis, "the choice looks at the same rows"
    assert dict(told.scores) | {"leep": 0} == pytest.approx(dict(seen.depths[-1].scores) | {"leep": 0}, abs=1e-6)


def test_a_network_without_these_labels_is_nothing_as_it_is(home: Path) -> None:
    view = places.prepare(Options("", ""), open_data(str(home / "data"), 0, Reading()), str(home / "zoo" / "named"))[0]
    x, y = torch.randn(6, view.dim), torch.tensor([0, 1, 2] * 2)
    assert profile.as_is(view, x, y, ("red", "green", "blue")) is not None
    assert profile.as_is(view, x, y, ("red", "green", "cyan")) is None
    assert profile.as_is(view, x, y.float(), ()) is None, "numbers"
    assert profile.native(view, torch.randn(6, 4 * view.dim)) is None, "pairs are joined features"


def test_slow_networks_make_a_smaller_sample(home: Path) -> None:
    data = open_data(str(home / "data"), 0, Reading())
    many = dataclasses.replace(data, train=[*data.train] * 3)
    assert len(profile.sample(many, 1e-9, 20.0, 0)) == 126
    assert len(profile.sample(many, 0.2, 20.0, 0)) == 100
    assert len(profile.sample(many, 20.0, 20.0, 0)) == profile.FEWEST


@pytest.mark.parametrize("of", ["number", "multi"])
def test_other_targets_are_ranked_by_what_scores_they_have(of: Any, tmp_path: Path) -> None:
    places.texts(tmp_path / "data", of)
    places.encoder_model(tmp_path / "zoo" / "a")
    places.encoder_model(tmp_path / "zoo" / "b", "classifier", seed=1)
    told = chosen(tmp_path, ("a", "b"), reading=Reading(task=places.TASKS[of]))
    assert told.by == ("logme" if of == "number" else "size") and told.error is None
    if of == "multi":
        assert told.best.name == told.largest and "no score knows such targets" in choosing(told)[0]


# ---------------------------------------------------------------- ranks and words


def candidate(name: str, params: int, knn: float, ridge: float, logme: float) -> Candidate:
    return Candidate(name, params, (("knn", knn), ("ridge", ridge), ("logme", logme)), None, "", 1.0)


def test_ranks_are_by_logme_and_equal_ones_share_theirs() -> None:
    made = [candidate("a", 5, 0.9, 0.8, -1), candidate("b", 9, 0.7, 0.8, -1), candidate("c", 2, 0.5, 0.9, 1)]
    told = choose.ranked(made)
    assert [(one.name, one.size, one.rank) for one in told] == [("c", 3, 1), ("a", 2, 2.5), ("b", 1, 2.5)]
    choice = Choice(100, told, (LeftOut("d", "no model", "d"), LeftOut("e", "no model", "e")), 1.0)
    assert choice.split == (("knn", "a"),) and choice.largest == "b"
    lines = choosing(choice)
    assert lines[0] == "c is taken, the first of 3 by logme, on the same 100 rows"
    assert lines[1:3] == ["scores do not agree: knn puts a first", "by size alone it would be b"]
    assert lines[3:] == ["left out: d, e: no model"]


def test_what_the_sample_cannot_tell_apart_is_said() -> None:
    def one(name: str, right: float) -> Candidate:
        return Candidate(name, 1, (("knn", right), ("ridge", right), ("h_score", right), ("logme", right)), None, "", 1)

    told = Choice(100, choose.ranked([one("a", 0.9), one("b", 0.88), one("c", 0.8)]), (), 1.0)
    assert told.error == pytest.approx(0.03) and told.close == ("b",)
    assert choosing(told)[0].endswith("a standard error of 3.0 points; within it of the best: b)")


def test_folders_go_by_their_last_name_unless_two_share_it(tmp_path: Path) -> None:
    for name in ("x/a", "y/a", "x/b"):
        (tmp_path / name).mkdir(parents=True)
    found = tuple(candidate(str(tmp_path / name), 1, 0, 0, 0) for name in ("x/a", "y/a", "x/b"))
    told = shorter(Choice(10, (*found, candidate("minilm", 1, 0, 0, 0)), (), 1.0))
    assert list(told.values()) == [str(tmp_path / "x/a"), str(tmp_path / "y/a"), "b", "minilm"]


# ---------------------------------------------------------------- what cannot be


def test_a_model_that_was_named_must_be_usable(home: Path) -> None:
    with pytest.raises(ModelError, match="reads texts"):
        chosen(home, ("first", "texts"))
    with pytest.raises(ModelError, match="none of these models") as told:
        chosen(home, (), ("texts", "empty"))
    assert "texts: this model reads texts" in told.value.saw and "empty: this folder holds no model" in told.value.saw


def test_a_zoo_without_a_folder_is_refused_before_data_is_read(home: Path, capsys: Captured) -> None:
    for zoo in (home / "zoo" / "empty", home / "nowhere", home / "zoo" / "first" / "config.json"):
        error = error_of(["advise", home / "no data", "--zoo", zoo], capsys)
        assert error["code"] == UsageError.code and error["what"] == "there are no models in this zoo"
    error = error_of(["advise", home / "data"], capsys)
    assert error["what"] == "no model is named to advise on" and "--zoo" in error["saw"]
    with pytest.raises(UsageError, match="no model is named"):
        regraft.advise(home / "data")


# ---------------------------------------------------------------- the command and the function


def test_the_command_tells_the_choice_and_goes_on_with_it(home: Path, capsys: Captured) -> None:
    kept = home / "kept"
    code, out, _ = call(["advise", home / "data", "--zoo", home / "zoo", "--goal", "speed", "--out", kept], capsys)
    assert code == 0 and "by size" in out and "  rank  " in out and "leep" in out and "as is" in out
    assert "left out: texts: this model reads texts" in out and "has the same trunk as first" in out
    (best,) = [line.partition(" is taken")[0] for line in out.splitlines() if " is taken, the first of 3 " in line]
    (line,) = [line for line in out.splitlines() if line.startswith("begin with probe")]
    assert f"--model {home / 'zoo' / best} " in line
    assert "and hold the second best model against it: regraft adapt" in out
    for page in (kept / "advice.html", kept / "advice.md"):
        told = page.read_text("utf-8")
        assert "How the model was chosen" in told and "has the same trunk as first" in told


def test_python_gets_the_advice_and_its_record_holds_all(home: Path) -> None:
    models = [str(home / "zoo" / name) for name in ("first", "other")]
    found = regraft.advise(home / "data", model=models, goal="speed")
    told = json.loads(json.dumps(plain(found)))
    assert found.model == told["model"] == told["choice"]["candidates"][0]["name"] and found.model in models
    assert found.first.strategy == "probe" and told["survey"]["asis"] is None and told["choice"]["rows"] == 42
    assert [name for name, _ in told["choice"]["candidates"][1]["scores"]] == [
        "knn",
        "ridge",
        "h_score",
        "logme",
        "nleep",
    ]


def test_networks_in_python_are_called_by_their_class(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Any] = []

    def noted(options: Options, needs: Any, hourly: float, on: str, data: Any, named: Any, zoo: str) -> None:
        held[:] = [options.model, dict(named)]
        raise UsageError("this is as far as it goes")

    monkeypatch.setattr(api.ahead, "advice", noted)
    one, two = torch.nn.Sequential(), torch.nn.Sequential()
    for model, name, named in (
        ([one, two, one], "<Sequential>", {"<Sequential>": one, "<Sequential> 2": two}),
        ((one, {}), "<Sequential>", {"<Sequential>": (one, {})}),
        (Path("net"), "net", {"net": Path("net")}),
    ):
        with pytest.raises(UsageError, match="as far as it goes"):
            regraft.advise("data", model=model)
        assert held == [name, named]


@pytest.mark.shared
def test_photographs_are_better_told_apart_by_a_network_that_knows_photographs(
    home: Path, shared: Path, tmp_path: Path
) -> None:
    (tmp_path / "zoo").mkdir()
    places.model(tmp_path / "zoo" / "random")
    for name in ("mobilenet_v1_0.75_224", "stories260K", "resnet20_cifar10"):
        (tmp_path / "zoo" / name).symlink_to(shared / "models" / name)
    (tmp_path / "data").symlink_to(shared / "data" / "ants_bees")
    names = ("mobilenet_v1_0.75_224", "random", "resnet20_cifar10", "stories260K")
    told = chosen(tmp_path, (), names, reading=Reading(max_rows=40))
    assert told.best.name == "mobilenet_v1_0.75_224" and [one.name for one in told.candidates[1:]] == ["random"]
    assert told.rows == 32 and dict(told.best.scores)["ridge"] > 0.65 and dict(told.best.scores)["leep"] < 0
    assert told.best.asis is not None and told.best.asis > 0.75, "ImageNet has ants and bees"
    assert {one.name for one in told.left_out} == {"resnet20_cifar10", "stories260K"}


def test_the_best_of_several_models_is_adapted_and_the_report_says_how_it_was_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = places.pictures(tmp_path / "data")
    models = [str(places.model(tmp_path / "zoo" / name, seed)) for seed, name in enumerate(("one", "other"))]
    asked = ["adapt", data, "--strategy", "probe", "--probe.epochs", 2, "--out", tmp_path / "runs"]
    capsys.readouterr()  # what saving models drew
    told = object_of([*asked, "--zoo", tmp_path / "zoo"], capsys)
    run = Path(told["run"])
    choice = Folder(run).load("choice", Choice)
    assert {one.name for one in choice.candidates} == {*models}
    assert Folder(run).load("options", Options).model == choice.best.name
    for name in ("report.md", "report.html"):
        assert "How the model was chosen" in (run / name).read_text("utf-8")
    again = regraft.adapt(data, model=[*models], strategies=["probe"], knobs={"probe.epochs": 2}, out=tmp_path / "runs")
    assert again.folder == run, "the same choice, the same run"
    error = error_of(["adapt", data, data, *(w for m in models for w in ("--model", m))], capsys)
    assert error["what"] == "several tasks share one model"


def test_a_budget_for_several_models_begins_with_the_call_in_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "begun", lambda: -1e6)  # a notebook that has been open for days
    data = places.pictures(tmp_path / "data")
    models = [places.model(tmp_path / name, seed) for seed, name in enumerate(("one", "other"))]
    knobs = {"probe.epochs": 2, "probe.lr": 0.01}
    asked = {"strategies": ["probe"], "knobs": knobs, "budget": "5m", "out": tmp_path / "runs"}
    run = regraft.adapt(data, model=models, **asked)
    assert run.account.seconds < 300 and any(trial.plan.strategy == "probe" for trial in run.trials)
