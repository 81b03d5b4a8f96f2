"""Advice: what a look at some rows shows, what the rules make of it, and how the command tells it."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from regraft import flow
from regraft.deliver.foreseen import sentences
from regraft.errors import ModelError
from regraft.flow import finish
from regraft.kit.store import Folder
from regraft.planner import advise, profile, rules
from regraft.planner.course import Course
from regraft.planner.propose import propose
from regraft.planner.rules import Fired, Measured, Needs
from regraft.planner.survey import backbone
from regraft.planner.timing import Steps, Timed, key
from regraft.waist import Budget, Facts, Finished, Options, Plan, Said, Trial
from tests import places
from tests.calls import call, error_of, object_of

Captured = pytest.CaptureFixture[str]
NAMES = ["knn", "ridge", "h_score", "logme", "nleep"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("advise")


@pytest.fixture(scope="module")
def course(home: Path) -> Course:
    places.pictures(home / "data", train=14, val=5, test=6)
    return places.course(home)


def plans_of(course: Course, *names: str) -> list[Plan]:
    facts = Facts(places.card(course), backbone(course.view, "mark"), course.machine)
    return propose(facts, names, ())


def test_a_survey_holds_scores_by_depth_and_beside_them_those_of_random_weights(course: Course) -> None:
    seen = finish(advise.survey(course))
    assert seen.rows == len(course.data.train) and [depth.stage for depth in seen.depths][-1] == advise.NATIVE
    assert all([name for name, _ in depth.scores] == NAMES for depth in (*seen.depths, seen.untrained))
    shares = [depth.share for depth in seen.depths]
    assert shares == sorted(shares) and shares[-1] == 1.0 and 0 < shares[0] < 1
    assert seen.chance == pytest.approx(1 / 3, abs=1e-4) and seen.noise is not None and 0 <= seen.noise <= 1
    assert seen.labels is None, "42 rows are too few for a curve"
    assert seen.similarity is not None and 0 < seen.similarity < 1 and len(seen.shifts) > 3
    assert finish(advise.survey(course)) == dataclasses.replace(seen, seconds=pytest.approx(seen.seconds, abs=60))


def test_scores_that_disagree_are_shown(course: Course) -> None:
    seen = finish(advise.survey(course))
    low, high = (("knn", 0.5), ("logme", 1.0)), (("knn", 0.7), ("logme", 0.2))
    depths = (advise.Depth("a", 0.5, low), advise.Depth("features", 1.0, high))
    assert dataclasses.replace(seen, depths=depths).split == (("knn", "features"), ("logme", "a"))
    assert dataclasses.replace(seen, depths=(depths[1],)).split == ()


def test_features_that_stop_serving_are_told_where_both_counts_say_so(course: Course) -> None:
    seen = finish(advise.survey(course))
    good, bad = (("knn", 0.9), ("ridge", 0.9)), (("knn", 0.7), ("ridge", 0.8))
    depths = [advise.Depth("early", 0.5, good), advise.Depth(advise.NATIVE, 1.0, bad)]
    told = dataclasses.replace(seen, depths=tuple(depths))
    assert told.peak == depths[0] and any("after early, at 50% of the work" in line for line in sentences(told))
    for last in (good, (("knn", 0.95), ("ridge", 0.8))):
        other = dataclasses.replace(seen, depths=(depths[0], advise.Depth(advise.NATIVE, 1.0, last)))
        late = dataclasses.replace(other, depths=other.depths[::-1]) if last is good else other
        assert late.peak is None and not any("of the work" in line for line in sentences(late))


@pytest.mark.parametrize("of", ["number", "multi", "pairs"])
def test_targets_without_such_scores_are_looked_at_as_far_as_it_goes(of: Any, tmp_path: Path) -> None:
    course = places.text_course(tmp_path, of)
    seen = finish(advise.survey(course))
    assert seen.similarity is None and seen.shifts == () and seen.chance is None and seen.noise is None
    assert bool(seen.depths) == (of != "multi")
    if seen.depths:
        assert [name for name, _ in seen.depths[0].scores] == ["knn", "ridge", "logme"]


def test_slow_networks_are_shown_fewer_rows(course: Course) -> None:
    slow = dataclasses.replace(course, machine=dataclasses.replace(course.machine, forward_s=advise.PASS_S / 30))
    assert len(profile.sample(course.data, course.machine.forward_s, 1e9, 0)) == len(course.data.train)
    assert finish(advise.survey(slow)).rows == min(profile.FEWEST, len(course.data.train))


def test_a_network_that_cannot_start_at_random_goes_without(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise ModelError("this backbone cannot be started at random")

    monkeypatch.setattr(type(course.view), "randomise", refuse)
    seen = finish(advise.survey(course))
    assert seen.untrained is None and seen.head is not None


def test_every_plan_goes_one_way(course: Course) -> None:
    stages = len(course.view.stages)
    ways = {
        name: {advise.way_of(plan, stages) for plan in plans_of(course, name)}
        for name in ("asis", "probe", "partial", "full", "gradual", "layerwise", "scratch")
    }
    assert ways["asis"] == {"asis"} and ways["probe"] == {"extract"} and ways["scratch"] == {"plain", "scratch"}
    assert ways["partial"] == ways["full"] == ways["gradual"] == ways["layerwise"] == {"tune"}
    drawn = next(plan for plan in plans_of(course, "scratch") if plan.label == "scratch features")
    assert advise.way_of(drawn, stages) == "plain", "a head on random features is a baseline, no way to go"


def test_the_epoch_that_is_foreseen_trains_all_of_the_network(course: Course) -> None:
    plan = next(plan for plan in plans_of(course, "gradual") if plan.phases[0].frontier > plan.phases[-1].frontier)
    some = [Timed(float(i), 1, 1, 0, 0.0, 0.0, 0.0, 0.0, 0.0) for i in range(len(plan.phases))]
    kinds = {key(plan, phase): one for phase, one in zip(plan.phases, some, strict=True)}
    assert advise.epoch_s(Steps(0, 0.0, kinds), plan) == len(plan.phases) - 1


@pytest.mark.parametrize(("goal", "begins"), [("speed", "probe"), ("stability", "probe")])
def test_advice_names_a_plan_of_the_way_that_the_rules_name(course: Course, goal: Any, begins: str) -> None:
    facts = Facts(places.card(course), backbone(course.view, "mark"), course.machine)
    plans = plans_of(course, "asis", "probe", "partial", "full", "scratch")
    told = finish(advise.advise(facts, course, plans, Needs(goal=goal)))
    assert told.first.strategy == begins and told.first.label not in told.others
    assert {one.label for one in told.priced} <= {plan.label for plan in plans}
    assert {one.id for one in told.fired} == {f"E{i}" for i in range(1, 22)}
    assert next(one for one in told.fired if one.id == "E1").fires, "42 rows are few"


def test_advice_begins_with_what_runs_where_no_plan_goes_the_way_that_is_named(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = Fired("E1", "few rows", "extract", True, "42 rows", "an article")
    monkeypatch.setattr("regraft.planner.rules.rules", lambda *_: (few,))
    facts = Facts(places.card(course), backbone(course.view, "mark"), course.machine)
    told = finish(advise.advise(facts, course, plans_of(course, "full"), Needs()))
    assert told.way == "extract" and told.first.strategy == "full" and not told.others


@pytest.mark.parametrize(
    ("against", "stands", "begins"),
    [
        ({"extract"}, (), "tune"),
        ({"tune"}, (), "extract"),
        (set(), (), "extract"),
        ({"extract"}, ("extract",), "extract"),
    ],
)
def test_a_race_begins_with_a_way_that_no_evidence_speaks_against(
    course: Course, monkeypatch: pytest.MonkeyPatch, against: set[str], stands: Sequence[str], begins: str
) -> None:
    fired = tuple(Fired("E3", "a rule", way, True, "1,200 rows", "an article") for way in stands)
    monkeypatch.setattr("regraft.planner.rules.rules", lambda *_: fired)
    monkeypatch.setattr("regraft.planner.rules.verdict", lambda *_: ("race", "no rule decides"))
    monkeypatch.setattr("regraft.planner.rules.against", lambda *_: against)
    monkeypatch.setattr("regraft.planner.rules.explain", lambda *_: "")
    facts = Facts(places.card(course), backbone(course.view, "mark"), course.machine)
    told = finish(advise.advise(facts, course, plans_of(course, "probe", "partial", "full", "scratch"), Needs()))
    ways = {one.label: one.way for one in told.priced}
    assert told.way == "race" and told.first.way == begins
    tuned = [plan for plan in told.priced if plan.way == "tune"]
    assert told.first == (tuned[-1] if begins == "tune" else told.priced[0]), "the deepest where there is much to gain"
    assert {ways[label] for label in told.others} <= {"extract", "tune"}


def test_evidence_speaks_against_one_way_at_most() -> None:
    some = Measured(rows=800, classes=2, params=11_700_000, untrained=0.5, chance=0.5)
    told = {probe: rules.against(dataclasses.replace(some, probe=probe)) for probe in (0.55, 0.7, 0.95, 0.99)}
    assert told == {0.55: set(), 0.7: {"extract"}, 0.95: set(), 0.99: {"tune"}}


# ---------------------------------------------------------------- the command


def test_the_command_tells_what_was_seen_and_writes_nothing(
    home: Path, course: Course, capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(["advise", home / "data", "--model", home / "model", "--goal", "speed"], capsys)
    assert code == 0 and "features" in out and "random weights" in out
    assert "E1 " in out and "E12 " in out and "begin with probe" in out and "--strategy probe" in out
    assert not any(tmp_path.iterdir())


def test_the_command_that_it_ends_with_reads_the_same_data(tmp_path: Path, capsys: Captured) -> None:
    places.texts(tmp_path / "my data", "class")
    places.encoder_model(tmp_path / "model", "encoder")
    table = next(p for p in sorted((tmp_path / "my data").iterdir()) if p.suffix == ".csv")
    with open(table, encoding="utf-8") as file:
        target = next(name for name in file.readline().strip().split(",") if name != "text")
    asked = [table, "--model", tmp_path / "model", "--target", target, "--text", "text", "--seed", 3]
    code, out, _ = call(["advise", *asked], capsys)
    (line,) = [line for line in out.splitlines() if line.startswith("or race all ways: ")]
    words = shlex.split(line.partition(": ")[2])
    assert code == 0 and words[:2] == ["regraft", "adapt"] and words[2:] == [str(one) for one in asked]
    assert call([*words[1:], "--dry-run"], capsys)[0] == 0


def test_what_was_found_is_kept_where_that_is_asked_for(
    home: Path, course: Course, tmp_path: Path, capsys: Captured
) -> None:
    asked = ["advise", home / "data", "--model", home / "model", "--out", tmp_path / "kept"]
    code, out, _ = call(asked, capsys)
    assert code == 0 and out.splitlines()[-1] == f"kept: {tmp_path / 'kept' / 'advice.html'}"
    found = Folder(tmp_path / "kept").load("advice", advise.Advice)
    assert found.first.label in (tmp_path / "kept/advice.md").read_text("utf-8")
    told = object_of(asked, capsys)
    assert told["kept"] == str(tmp_path / "kept" / "advice.html") and told["way"] == found.way
    (tmp_path / "file").write_text("")
    assert error_of([*asked[:5], tmp_path / "file"], capsys)["code"] == 2


# ---------------------------------------------------------------- before a race


def run_of(home: Path, out: Path, until: str = "Finished", **asked: Any) -> tuple[Path, list[str], Trial | None]:
    """A run of a probe, up to an event or a beginning of what is said: its folder, what it said, and its trial."""
    knobs = (("probe.epochs", "2"),)
    options = Options(str(home / "data"), str(home / "model"), strategies=("probe",), knobs=knobs, **asked)
    with contextlib.closing(flow.steps(options, out)) as work:
        said, trial = list[str](), None
        for event in work:
            said += [event.text] if isinstance(event, Said) else []
            trial = event.trial if isinstance(event, Finished) else trial
            if type(event).__name__ == until or (said and said[-1].startswith(until)):
                break
    return next(path.parent for path in out.glob("*/options.json")), said, trial


def test_a_run_keeps_what_was_foreseen_and_ends_as_without_it(home: Path, course: Course, tmp_path: Path) -> None:
    plain, quiet, alone = run_of(home, tmp_path / "plain")
    run, said, trial = run_of(home, tmp_path / "told", until="never", advice=True)
    assert not (plain / "advice.json").exists() and not any(text.startswith("advice:") for text in quiet)
    found = Folder(run).load("advice", advise.Advice)
    assert f"advice: {found.way}, begin with {found.first.label}: {found.why}" in said
    assert trial is not None and alone is not None and found.first.label == trial.label == "probe lr 0.001"
    assert (trial.scores, trial.address) == (alone.scores, alone.address)
    one, other = (plain / alone.snapshot).read_bytes(), (run / trial.snapshot).read_bytes()
    assert one == other, "a look beforehand changes no bit of what is trained"
    assert all("What was foreseen" in (run / name).read_text("utf-8") for name in ("report.html", "report.md"))


def test_a_run_that_goes_on_reads_what_was_foreseen(
    home: Path, course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, said, _ = run_of(home, tmp_path, until="advice:", advice=True)
    before = (run / "advice.json").read_bytes()
    monkeypatch.setattr(advise, "advise", lambda *_: pytest.fail("looked again"))
    again, more, _ = run_of(home, tmp_path, until="advice:", advice=True)
    assert again == run and (run / "advice.json").read_bytes() == before
    assert more[-1] == said[-1] and not any("looking at" in text for text in more)


def test_advice_that_would_take_too_much_of_the_clock_is_left_out(
    home: Path, course: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advise, "takes", lambda *_: 31.0)
    run, said, _ = run_of(home, tmp_path, until="1/", advice=True, budget=Budget(seconds=300.0))
    assert "no advice: it takes about 31 s, more than 10% of 300 s" in said
    assert said[-1].startswith("1/") and not (run / "advice.json").exists()


def test_what_advice_takes_grows_with_a_pass_and_with_the_plans(course: Course) -> None:
    plans = plans_of(course, "probe", "full")
    slow = dataclasses.replace(course, machine=dataclasses.replace(course.machine, forward_s=10.0))
    assert 0 < advise.takes(course, plans[:1]) < advise.takes(course, plans) < advise.takes(slow, plans)


def test_a_reader_new_to_it_gets_it_all_explained(home: Path, course: Course, capsys: Captured) -> None:
    code, out, _ = call(["advise", home / "data", "--model", home / "model", "--explain"], capsys)
    assert code == 0 and "“Transfer learning” means two things" in out and "Overfitting" in out


def test_plans_are_priced_here_and_on_a_card(home: Path, course: Course, capsys: Captured) -> None:
    asked = ["advise", home / "data", "--model", home / "model", "--on", "l4", "--hourly", "3.6"]
    told = object_of(asked, capsys)
    labels = [one["label"] for one in told["priced"]]
    assert len(labels) == len(set(labels)) and {one["way"] for one in told["priced"]} >= {"extract", "tune", "asis"}
    for one in told["priced"]:
        assert one["fit"][0] == "fits" and one["there"]["money"] == pytest.approx(
            one["there"]["cost"]["seconds"] / 1000
        )
        assert one["here"]["cost"]["kwh"] > 0 and one["here"]["cost"]["grams_co2"] > 0
    code, out, _ = call(asked, capsys)
    assert code == 0 and "there: seconds" in out and "money" in out and "NVIDIA L4" in out
    error = error_of([*asked[:5], "l40"], capsys)
    assert error["code"] == 2 and "l4" in error["do"]


def test_a_rate_is_no_plan_of_its_own(course: Course) -> None:
    facts = Facts(places.card(course), backbone(course.view, "mark"), course.machine)
    plans = propose(facts, ("probe", "full"), (), raced=True)
    told = finish(advise.advise(facts, course, plans, Needs()))
    assert len(told.priced) == 2 < len(plans)


def test_scripts_get_one_object(home: Path, course: Course, capsys: Captured) -> None:
    told = object_of(["advise", home / "data", "--model", home / "model", "--many-tasks"], capsys)
    assert {"data", "survey", "fired", "way", "why", "first", "others", "explained"} <= set(told)
    assert told["survey"]["depths"][-1]["stage"] == "features"
    assert next(one for one in told["fired"] if one["id"] == "E15")["fires"]


def test_an_unknown_goal_is_refused(home: Path, course: Course, capsys: Captured) -> None:
    error = error_of(["advise", home / "data", "--model", home / "model", "--goal", "speeed"], capsys)
    assert error["code"] == 2 and "speed" in error["do"] + error["allowed"]
