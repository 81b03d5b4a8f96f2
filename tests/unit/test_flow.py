"""The line from data to verdict: runs made, read, resumed and refused; forecasts."""

from __future__ import annotations

import csv
import gc
import io
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regraft import ahead, api, flow
from regraft.data.open import open_data
from regraft.deliver import pack
from regraft.deliver.model import open_model
from regraft.engine.snapshot import Keeper
from regraft.errors import ModelError, ResourceError, UsageError
from regraft.kit.store import Folder
from regraft.planner import request
from regraft.waist import Budget, MachineCard, Options, Reading, Said, Step
from tests import places


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a model."""
    place = tmp_path_factory.mktemp("home")
    places.pictures(place / "data")
    places.model(place / "model")
    return place


@pytest.fixture(scope="module")
def finished(home: Path) -> flow.Run:
    """A run of the probe; the bundle's test in a fresh process is left to the journeys."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "_self_test", lambda *_: None)
        return api.adapt(
            home / "data", model=home / "model", strategies=["probe"], knobs={"probe.epochs": 2}, out=home / "runs"
        )


def options(home: Path, **given: Any) -> Options:
    return Options(str(home / "data"), str(home / "model"), **{"strategies": ("probe",)} | given)


def test_a_run_is_whole(finished: flow.Run) -> None:
    assert finished.verdict.winner == 0 and finished.winner.plan.strategy == "probe"
    assert finished.data.rows == (("train", 27), ("val", 15), ("test", 18))
    assert finished.report == finished.folder / "report.html" and finished.report.is_file()
    assert (finished.folder / "report.md").read_text("utf-8").startswith("# data on model")
    assert finished.bundle.is_symlink() and (finished.bundle / "README.md").is_file()


def test_the_same_request_reads_the_run(home: Path, finished: flow.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "_work", lambda *_: pytest.fail("worked again"))
    work = flow.steps(options(home, knobs=(("probe.epochs", "2"),)), home / "runs")
    said: list[str] = []
    while True:
        try:
            said.append(next(work).text)  # type: ignore[union-attr]
        except StopIteration as end:
            assert end.value == finished
            break
    assert said[-1] == f"this was run before: reading {finished.folder}"


def test_an_unfinished_run_is_refused_with_the_command_that_goes_on(home: Path, tmp_path: Path) -> None:
    work = flow.steps(options(home), tmp_path)
    run = begun(work)
    work.close()
    with pytest.raises(UsageError, match=rf"not come that far · saw: no verdict\.json .* adapt --resume {run}"):
        api.open_result(run)
    with pytest.raises(ModelError, match=rf"no bundle here · saw: {run}/bundle · .* adapt --resume RUN"):
        open_model(run)


def begun(work: Iterator[Any]) -> Path:
    """Pull a run until its folder is there."""
    for event in work:
        if isinstance(event, Said) and event.text.startswith("run "):
            return Path(event.text[4:])
    raise AssertionError("the run never began")


def test_a_run_in_use_is_refused(home: Path, tmp_path: Path) -> None:
    work = flow.steps(options(home), tmp_path)
    run = begun(work)
    with pytest.raises(UsageError, match=rf"the run {run} is in use by another process · saw: process \d+"):
        list(flow.steps(options(home), tmp_path))
    work.close()


def test_a_resumed_run_insists_on_its_data(home: Path, tmp_path: Path) -> None:
    data = shutil.copytree(home / "data", tmp_path / "data")
    asked = Options(str(data), str(home / "model"), strategies=("probe",))
    work = flow.steps(asked, tmp_path / "runs")
    run = begun(work)
    work.close()
    (data / "train" / "red" / "0.png").unlink()
    with pytest.raises(UsageError, match=r"data or the model has changed since this run began · saw: .*data, .*model"):
        list(flow.steps(asked, tmp_path / "runs", resume=run))


def test_a_run_with_splits_of_their_own_goes_on_from_any_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home / "data")
    asked = Options("train", str(home / "model"), strategies=("probe",), reading=Reading(test="test"))
    work = flow.steps(asked, tmp_path / "runs")
    run = begun(work)
    work.close()
    monkeypatch.chdir(tmp_path)
    again = flow.steps(Folder(run).load("options", Options), tmp_path, resume=run)
    assert any(isinstance(event, Said) and event.text == f"going on with the run {run}" for event in again)


def test_a_disk_that_fails_twice_is_one_error(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race is ended with the run: not later, by a collector that can only print what fails then."""
    full = ResourceError("writing failed", "No space left on device")
    unraised: list[Any] = []

    def fails(*_: Any) -> None:
        raise full

    work = flow.steps(options(home, strategies=("partial",)), tmp_path)
    next(event for event in work if isinstance(event, Step))
    monkeypatch.setattr(sys, "unraisablehook", unraised.append)
    monkeypatch.setattr(Keeper, "save", fails)
    monkeypatch.setattr(Folder, "log", fails)
    with pytest.raises(ResourceError):
        list(work)
    del work
    gc.collect()
    assert not unraised


def test_splits_are_written_as_they_were_used(finished: flow.Run) -> None:
    rows = list(csv.DictReader(io.StringIO((finished.folder / "splits.csv").read_text("utf-8"), newline="")))
    assert len(rows) == 60 and rows[0]["id"] == "train/blue/0.png" and rows[0]["split"] == "train"
    assert {len(row["sha256"]) for row in rows} == {64}


def test_a_refused_result_ships_nothing(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from regraft.deliver import ship
    from regraft.waist import Verdict

    monkeypatch.setattr(pack, "_self_test", lambda *_: None)
    monkeypatch.setattr(ship, "gate", lambda *_: Verdict("refuse", 0, "r", "all", (), ()))
    knobs = {"probe.epochs": 1}
    run = api.adapt(home / "data", model=home / "model", strategies=["probe"], knobs=knobs, out=tmp_path)
    assert run.verdict.decision == "refuse" and not run.bundle.exists()
    with pytest.raises(ModelError, match="no bundle here"):
        run.predict(home / "data" / "test")
    assert "regraft predict" not in run.report.read_text("utf-8"), "a command that cannot work is shown"


def test_a_forecast_trains_and_writes_nothing(home: Path, tmp_home: Path) -> None:
    before = sorted(home.rglob("*"))
    asked = options(home, strategies=("probe", "scratch"), knobs=(("probe.lr", "0.001"), ("scratch.lr", "0.001")))
    probe, *_, scratch = flow.finish(ahead.forecast(asked))
    assert (probe["frontier"], probe["trainable"], probe["cache_bytes"]) == (4, 16 * 3 + 3, 60 * 16 * 4)
    assert (scratch["frontier"], scratch["cache_bytes"]) == (0, 0)
    assert 0 < probe["gflop_at_most"] < scratch["gflop_at_most"]
    assert sorted(home.rglob("*")) == before and not list(tmp_home.rglob("*.block"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts, pairs and a tiny model for them."""
    place = tmp_path_factory.mktemp("library")
    for kind in ("class", "number", "multi"):
        places.texts(place / kind, kind, train=18, val=12, test=9)  # type: ignore[arg-type]
    places.pairs(place / "pairs", train=18, val=12, test=9)
    places.encoder_model(place / "model", "classifier")
    return place


def test_a_forecast_says_first_what_the_data_is(library: Path, tmp_path: Path) -> None:
    asked = Options(str(library / "class"), str(library / "model"), strategies=("probe",))
    said = [event.text for event in ahead.forecast(asked) if isinstance(event, Said)]
    assert said[0].startswith("class: ") and said[1].startswith("columns: text = text (by its name), target = y")


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"strategies": ("probe", "prtial")}, r"no strategy of that name · saw: 'prtial' .* did you mean partial\?"),
        (
            {"precision": "fp23"},
            r"no precision of that name · saw: 'fp23' · allowed: auto, fp32 · do: did you mean fp32",
        ),
        (
            {"balance": "clases"},
            r"no balance of that name · saw: 'clases' · allowed: auto, classes, none .* mean classes",
        ),
        ({"long": "window"}, r"no way with long texts of that name · saw: 'window' · .* did you mean windows"),
        ({"knobs": (("probe.epoch", "3"),)}, r"no knob of that name · saw: 'probe\.epoch' .* mean probe\.epochs\?"),
    ],
)
def test_a_request_that_cannot_be_is_refused_first(home: Path, given: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        request.check_request(options(home, **given))
    with pytest.raises(UsageError, match=what):
        next(flow.steps(options(home / "nowhere", **given), home / "never"))


@pytest.mark.parametrize("name", ["transformers/no/name", "torchvision/resnet18", "timm/resnet18.a1_in1k"])
def test_a_model_that_is_not_here_is_said_at_once_and_never_fetched(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The network guard of these tests turns any attempt into another error."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    began = time.perf_counter()
    with pytest.raises(ModelError, match="not on this machine"):
        flow.finish(flow.steps(Options(str(home / "data"), name, strategies=("probe",)), tmp_path / "runs"))
    assert time.perf_counter() - began < 10
    assert not (tmp_path / "runs").exists()


# ---------------------------------------------------------------- what seconds allow


def paced(seconds: float) -> MachineCard:
    """A machine that takes so long for a row."""
    return MachineCard("cpu", 1, 10**9, "cpu", "float32", "exact", 8, forward_s=seconds)


def test_rows_are_cut_only_where_a_pass_over_all_is_too_much(home: Path) -> None:
    data = open_data(str(home / "data"))
    sizes = {name: len(getattr(data, name)) for name in ("train", "val", "test")}
    enough = sum(sizes.values()) / sum(flow.PASS.values())
    assert flow._limits(enough, paced(1.0), data) == sizes, "the test split alone would not fit its share"
    assert flow._affordable(data, sizes, options(home)) == (data, ())
    short = flow._limits(enough / 2, paced(1.0), data)
    assert short["train"] >= flow.FEWEST["train"], "a few rows are used in any case"


def test_what_was_cut_is_said_and_every_class_stays(home: Path) -> None:
    data = open_data(str(home / "data"))
    asked = options(home, budget=Budget(seconds=30.0))
    less, (note,) = flow._affordable(data, {"train": 1, "val": 4, "test": 99}, asked)
    assert {row.y for row in less.train} == set(data.target.labels) and len(less.train) == 6
    assert len(less.val) == 4 and less.test == data.test
    assert note == "30s do not suffice to read all rows once: 6 of 27 train rows, 4 of 15 val rows are used"
