"""The verbs in Python: requests checked before any work, runs opened by name, predictions as dictionaries and CSV."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regraft import api
from regraft.deliver import pack
from regraft.errors import DataError, ModelError, UsageError
from regraft.kit import shelf
from regraft.waist import Data, Options, Said, Target
from tests import places

IMAGE = shelf.find("modalities", "image")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a model."""
    place = tmp_path_factory.mktemp("home")
    places.pictures(place / "data")
    places.model(place / "model")
    return place


@pytest.fixture(scope="module")
def finished(home: Path) -> api.Run:
    """A run of the probe; the bundle's test in a fresh process is left to the journeys."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "_self_test", lambda *_: None)
        return api.adapt(
            home / "data", model=home / "model", strategies=["probe"], knobs={"probe.epochs": 2}, out=home / "runs"
        )


def options(home: Path, **given: Any) -> Options:
    return Options(str(home / "data"), str(home / "model"), **{"strategies": ("probe",)} | given)


# ---------------------------------------------------------------- runs and bundles


def test_a_run_is_whole(finished: api.Run) -> None:
    assert finished.verdict.winner == 0 and finished.winner.plan.strategy == "probe"
    assert finished.data.rows == (("train", 27), ("val", 15), ("test", 18))
    assert finished.report.read_text("utf-8").startswith("# data on model")
    assert finished.bundle.is_symlink() and (finished.bundle / "README.md").is_file()


def test_the_same_request_reads_the_run(home: Path, finished: api.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_work", lambda *_: pytest.fail("worked again"))
    work = api.steps(options(home, knobs=(("probe.epochs", "2"),)), home / "runs")
    said: list[str] = []
    while True:
        try:
            said.append(next(work).text)  # type: ignore[union-attr]
        except StopIteration as end:
            assert end.value == finished
            break
    assert said[-1] == f"this was run before: reading {finished.folder}"


def test_runs_and_bundles_are_opened(finished: api.Run) -> None:
    assert api.open_result(finished.folder) == finished
    assert isinstance(api.open_result(finished.bundle), api.Model)
    assert api.open_model(finished.folder).labels == places.LABELS


def test_every_kind_of_cell_is_predicted_alike(home: Path, finished: api.Run) -> None:
    model = api.Model.load(finished.bundle)
    path = home / "data" / "test" / "red" / "0.png"
    picture = Image.open(path).convert("RGB")
    found = model.predict([path, str(path), picture, np.asarray(picture)])
    assert [answer["id"] for answer in found] == [str(path), str(path), "2", "3"]
    assert len({json.dumps(answer["probabilities"]) for answer in found}) == 1
    assert model.predict(picture)[0]["probabilities"] == found[0]["probabilities"]
    assert len(finished.predict(home / "data" / "test")) == 18


def test_a_cell_that_cannot_be_read_is_named(home: Path, finished: api.Run, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("text")
    with pytest.raises(DataError, match=r"bad\.png"):
        finished.predict([home / "data" / "test" / "red" / "0.png", tmp_path / "bad.png"])


def test_a_run_that_is_not_there_gets_the_nearest(finished: api.Run) -> None:
    for opening in (api.open_result, api.open_model):
        with pytest.raises(UsageError, match=rf"no run in this folder .* did you mean {finished.folder}\?"):
            opening(Path(str(finished.folder)[:-1]))


def test_an_unfinished_run_is_refused_with_the_command_that_goes_on(home: Path, tmp_path: Path) -> None:
    work = api.steps(options(home), tmp_path)
    run = begun(work)
    work.close()
    with pytest.raises(UsageError, match=rf"not come that far · saw: no verdict\.json .* adapt --resume {run}"):
        api.open_result(run)
    with pytest.raises(ModelError, match=rf"no bundle here · saw: {run}/bundle · .* adapt --resume RUN"):
        api.open_model(run)


def begun(work: Iterator[Any]) -> Path:
    """Pull a run until its folder is there."""
    for event in work:
        if isinstance(event, Said) and event.text.startswith("run "):
            return Path(event.text[4:])
    raise AssertionError("the run never began")


def test_a_run_in_use_is_refused(home: Path, tmp_path: Path) -> None:
    work = api.steps(options(home), tmp_path)
    run = begun(work)
    with pytest.raises(UsageError, match=rf"the run {run} is in use by another process · saw: process \d+"):
        list(api.steps(options(home), tmp_path))
    work.close()


def test_a_resumed_run_insists_on_its_data(home: Path, tmp_path: Path) -> None:
    data = shutil.copytree(home / "data", tmp_path / "data")
    asked = Options(str(data), str(home / "model"), "", ("probe",))
    work = api.steps(asked, tmp_path / "runs")
    run = begun(work)
    work.close()
    (data / "train" / "red" / "0.png").unlink()
    with pytest.raises(UsageError, match=r"data or the model has changed since this run began · saw: .*data, .*model"):
        list(api.steps(asked, tmp_path / "runs", resume=run))


def test_splits_are_written_as_they_were_used(finished: api.Run) -> None:
    rows = list(csv.DictReader(io.StringIO((finished.folder / "splits.csv").read_text("utf-8"), newline="")))
    assert len(rows) == 60 and rows[0]["id"] == "train/blue/0.png" and rows[0]["split"] == "train"
    assert {len(row["sha256"]) for row in rows} == {64}


def test_a_refused_result_ships_nothing(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from regraft.audit import gate
    from regraft.waist import Verdict

    monkeypatch.setattr(pack, "_self_test", lambda *_: None)
    monkeypatch.setattr(gate, "gate", lambda *_: Verdict("refuse", 0, "r", "all", (), ()))
    knobs = {"probe.epochs": 1}
    run = api.adapt(home / "data", model=home / "model", strategies=["probe"], knobs=knobs, out=tmp_path)
    assert run.verdict.decision == "refuse" and not run.bundle.exists()
    with pytest.raises(ModelError, match="no bundle here"):
        run.predict(home / "data" / "test")
    assert "regraft predict" not in run.report.read_text("utf-8"), "a command that cannot work is shown"


def test_a_forecast_trains_and_writes_nothing(home: Path, tmp_home: Path) -> None:
    before = sorted(home.rglob("*"))
    probe, scratch = api.finish(api.forecast(options(home, strategies=("probe", "scratch"))))
    assert (probe["frontier"], probe["trainable"], probe["cache_bytes"]) == (4, 16 * 3 + 3, 60 * 16 * 4)
    assert (scratch["frontier"], scratch["cache_bytes"]) == (0, 0)
    assert 0 < probe["gflop_at_most"] < scratch["gflop_at_most"]
    assert sorted(home.rglob("*")) == before and not list(tmp_home.rglob("*.block"))


# ---------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"strategies": ()}, r"no strategy of that name · saw: '' · allowed: partial, probe, scratch"),
        ({"strategies": ("probe", "prtial")}, r"no strategy of that name · saw: 'prtial' .* did you mean partial\?"),
        (
            {"precision": "fp23"},
            r"no precision of that name · saw: 'fp23' · allowed: auto, fp32 · do: did you mean fp32",
        ),
        ({"knobs": (("probe.epoch", "3"),)}, r"no knob of that name · saw: 'probe\.epoch' .* mean probe\.epochs\?"),
    ],
)
def test_a_request_that_cannot_be_is_refused_first(home: Path, given: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        api.check_request(options(home, **given))
    with pytest.raises(UsageError, match=what):
        next(api.steps(options(home / "nowhere", **given), home / "never"))


def test_a_sound_request_passes(home: Path) -> None:
    api.check_request(options(home, strategies=("probe", "partial"), knobs=(("partial.depth", "1"),)))


def test_a_model_that_is_not_there_gets_the_nearest(home: Path) -> None:
    with pytest.raises(ModelError) as caught:
        api.find_provider(str(home / "modle"))
    assert caught.value.what == "there is no model of that name here" and caught.value.saw == str(home / "modle")
    assert caught.value.do == f"did you mean {home / 'model'}?"
    with pytest.raises(ModelError, match=r"this folder holds no model .* nothing is fetched from the network .* check"):
        api.find_provider(str(home / "data"))


def test_a_target_without_a_task_is_refused() -> None:
    data = Data("d", "image", Target("age", "number"), (), (), (), "f")
    with pytest.raises(UsageError, match=r"no task fits this target · saw: number · allowed: classify"):
        api.choose_task(data)


# ---------------------------------------------------------------- cells


def test_folders_become_the_files_that_are_known(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "data" / "test" / "red", tmp_path / "b")
    (tmp_path / "b" / "notes.txt").write_text("text")
    found = api.expand([tmp_path, str(tmp_path / "b" / "0.png")], IMAGE)
    assert [Path(name).name for name, _ in found] == [*(f"{i}.png" for i in range(6)), "0.png"]
    assert found[0][1] == tmp_path / "b" / "0.png"


def test_values_are_named_by_their_place() -> None:
    array = np.zeros((2, 2, 3), np.uint8)
    assert [name for name, _ in api.expand([array, array], IMAGE)] == ["0", "1"]
    assert api.expand(array, IMAGE)[0][0] == "0"


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file or folder · saw: .*none\.png · do: check the path"):
        api.expand(tmp_path / "none.png", IMAGE)


def test_a_name_that_no_file_can_have_is_refused() -> None:
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(UsageError, match="no such file or folder"):
            api.expand(name, IMAGE)


def test_nothing_to_predict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"there are no pictures to predict · saw: {tmp_path}"):
        api.expand(str(tmp_path), IMAGE)
    with pytest.raises(UsageError, match="there are no pictures to predict · saw: nothing"):
        api.expand([], IMAGE)


# ---------------------------------------------------------------- CSV


def answer(name: str, label: str = "red") -> dict[str, Any]:
    return {"id": name, "label": label, "confidence": 0.75, "probabilities": {label: 0.75, 'a"b,': 0.25}}


@pytest.mark.parametrize("name", ["a,b", 'a"b', "a\nb", "a\rb", "a\r\n=b", "größe 🐜", "a;b", ""])
def test_csv_reads_back_as_it_was(name: str) -> None:
    (row,) = csv.DictReader(io.StringIO(api.as_csv([answer(name)]), newline=""))
    assert (row["id"], row["label"], row["confidence"]) == (name, "red", "0.750000")
    assert json.loads(row["probabilities"]) == answer(name)["probabilities"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_formulas_are_quoted_wherever_they_stand(start: str) -> None:
    text = api.as_csv([answer(start + "cmd", start + "label")])
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["id"] == f"'{start}cmd" and row["label"] == f"'{start}label"


def test_csv_of_nothing_is_its_head() -> None:
    assert list(csv.reader([api.as_csv([])])) == [["id", "label", "confidence", "probabilities"]]
