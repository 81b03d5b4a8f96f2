"""The verbs in Python: requests checked before any work, runs opened by name, predictions as dictionaries and CSV."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import io
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regraft import api
from regraft.deliver import pack
from regraft.errors import DataError, ModelError, UsageError
from regraft.kit import shelf, store
from regraft.waist import Data, Options, Reading, Said, Target
from tests import places

IMAGE, TEXT = (shelf.find("modalities", name) for name in ("image", "text"))


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
    asked = Options(str(data), str(home / "model"), strategies=("probe",))
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


def test_a_forecast_says_first_what_the_data_is(library: Path, tmp_path: Path) -> None:
    asked = Options(str(library / "class"), str(library / "model"), strategies=("probe",))
    said = [event.text for event in api.forecast(asked) if isinstance(event, Said)]
    assert said[0].startswith("class: ") and said[1].startswith("columns: text = text (by its name), target = y")


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
    data = Data("d", "image", Target("where", "boxes"), (), (), (), "f")
    with pytest.raises(UsageError, match=r"no task fits this target · saw: boxes · allowed: classify, multilabel"):
        api.choose_task(data, Options("d", "m"))


@pytest.mark.parametrize(
    ("kind", "task", "name"),
    [
        ("class", "", "classify"),
        ("multi", "", "multilabel"),
        ("number", "", "regress"),
        ("class", "ordinal", "ordinal"),
        ("class", "classify", "classify"),
    ],
)
def test_a_task_is_guessed_from_the_target_or_asked_for(kind: Any, task: str, name: str) -> None:
    labels = () if kind == "number" else ("a", "b")
    data = Data("d", "text", Target("y", kind, labels, (3, 3)[: len(labels)], ordered=True), (), (), (), "f")
    assert api.choose_task(data, Options("d", "m", Reading(task=task))).name == name


def test_a_metric_that_is_asked_for_decides_and_an_unknown_one_is_refused() -> None:
    data = Data("d", "text", Target("y", "class", ("a", "b"), (3, 3)), (), (), (), "f")
    assert api.choose_task(data, Options("d", "m", metric="macro_f1")).metrics[0].name == "macro_f1"
    with pytest.raises(UsageError, match=r"no metric of that name · saw: 'acuracy' .* did you mean accuracy\?"):
        api.choose_task(data, Options("d", "m", metric="acuracy"))


@pytest.mark.parametrize(
    ("balance", "counts", "metric", "wanted"),
    [
        ("auto", (9, 3), "balanced_accuracy", 0.5),
        ("auto", (9, 3), "accuracy", 0.0),
        ("auto", (8, 3), "", 0.0),
        ("auto", (9, 3), "", 0.5),
        ("none", (9, 1), "balanced_accuracy", 0.0),
        ("classes", (5, 5), "accuracy", 1.0),
    ],
)
def test_rare_classes_weigh_more_where_it_is_asked_or_the_metric_wants_it(
    balance: Any, counts: tuple[int, ...], metric: str, wanted: float
) -> None:
    data = Data("d", "text", Target("y", "class", ("a", "b"), counts), (), (), (), "f")
    asked = Options("d", "m", balance=balance, metric=metric)
    assert api.balance_of(asked, data, api.choose_task(data, asked)) == wanted


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
    assert (row["id"], row["label"], row["confidence"]) == (name, "red", "0.75")
    assert json.loads(row["probabilities"]) == answer(name)["probabilities"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_formulas_are_quoted_wherever_they_stand(start: str) -> None:
    text = api.as_csv([answer(start + "cmd", start + "label")])
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["id"] == f"'{start}cmd" and row["label"] == f"'{start}label"


ANSWERS: dict[str, dict[str, Any]] = {
    "classify": {"label": "red", "confidence": 0.75, "probabilities": {"red": 0.75, "=blue": 0.25}},
    "multilabel": {"labels": ["red", "=blue"], "confidence": 0.6, "probabilities": {"red": 0.9, "=blue": 0.6}},
    "no labels": {"labels": [], "confidence": 0.6, "probabilities": {"red": 0.1, "=blue": 0.4}},
    "regress": {"value": -3.25, "low": -4.0, "high": -2.5},
    "ordinal": {"label": "-1", "confidence": 0.5, "probabilities": {"-1": 0.5, "2": 0.5}, "rank": 1.5},
}


@pytest.mark.parametrize("given", ANSWERS.values(), ids=ANSWERS)
def test_csv_holds_the_answers_of_every_task(given: dict[str, Any]) -> None:
    answers = [{"id": "a", **given}, {"id": "b", **given}]
    rows = list(csv.DictReader(io.StringIO(api.as_csv(answers), newline="")))
    assert [row["id"] for row in rows] == ["a", "b"] and list(rows[0]) == ["id", *given]
    for name, value in given.items():
        read = rows[0][name]
        if isinstance(value, float):
            assert float(read) == value, "a number stays a number, though it begins with a sign"
        elif isinstance(value, str):
            assert read.lstrip("'") == value and (read[0] == "'") == value.startswith(("=", "-"))
        else:
            assert json.loads(read) == value
            assert not read.startswith(("=", "+", "-", "@"))


# ---------------------------------------------------------------- which provider


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def provider_of(query: Any) -> str:
    return api.find_provider(query).__name__.rpartition(".")[2]


def test_a_path_that_exists_comes_before_every_name(folder: Path) -> None:
    assert provider_of("minilm") == "minilm"
    assert [provider_of(f"{name}/resnet18") for name in NAMED] == list(NAMED)
    for name in ("minilm", *(f"{name}/resnet18" for name in NAMED)):
        places.model(folder / name)
        assert provider_of(name) == "transformers" == provider_of(folder / name)
        assert Path(name).exists()


NAMED = ("timm", "torchvision", "transformers")


@pytest.mark.parametrize("name", ["resnet18", "modl", "bert-base-uncased", "minlm", "all_minilm_l6_v2"])
def test_a_bare_name_is_not_guessed_at(folder: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        api.find_provider(name)
    assert (caught.value.code, caught.value.what, caught.value.saw) == (2, "this name could mean several things", name)
    assert caught.value.allowed == f"timm/{name}, torchvision/{name}, transformers/{name}, minilm, a path"


@pytest.mark.parametrize(
    "name", ["some/where", "./model", "../model", "a/b/c", "model.pt", "model.safetensors", "/nope"]
)
def test_a_path_that_is_not_there_is_no_name(folder: Path, name: str) -> None:
    with pytest.raises(ModelError, match="there is no model of that name here"):
        api.find_provider(name)


@pytest.mark.parametrize("query", [None, 3, "", b"model"])
def test_what_is_no_model_at_all_is_refused(folder: Path, query: Any) -> None:
    with pytest.raises((ModelError, UsageError)):
        api.find_provider(query)


def test_a_module_and_a_state_dict_have_providers(folder: Path) -> None:
    from torch import nn

    assert provider_of(nn.Linear(2, 2)) == "module"
    (folder / "w.safetensors").write_bytes(b"")
    assert provider_of("w.safetensors") == "weights"


@pytest.mark.parametrize("name", ["transformers/no/name", "torchvision/resnet18", "timm/resnet18.a1_in1k"])
def test_a_model_that_is_not_here_is_said_at_once_and_never_fetched(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The network guard of these tests turns any attempt into another error."""
    if not name.startswith("transformers"):
        pytest.importorskip("torchvision", exc_type=Exception)
        pytest.importorskip("timm", exc_type=Exception)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    began = time.perf_counter()
    with pytest.raises(ModelError, match="not on this machine"):
        api.finish(api.steps(Options(str(home / "data"), name, strategies=("probe",)), tmp_path / "runs"))
    assert time.perf_counter() - began < 10
    assert not (tmp_path / "runs").exists()


# ---------------------------------------------------------------- texts and pairs


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts, pairs and a tiny model for them."""
    place = tmp_path_factory.mktemp("library")
    for kind in ("class", "number", "multi"):
        places.texts(place / kind, kind, train=18, val=12, test=9)  # type: ignore[arg-type]
    places.pairs(place / "pairs", train=18, val=12, test=9)
    places.encoder_model(place / "model", "classifier")
    return place


@pytest.fixture(scope="module")
def runs(library: Path) -> dict[str, api.Run]:
    """A run of the probe on each by each pooling; it ships, however little it learned."""
    from regraft.audit import gate
    from regraft.waist import Verdict

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "_self_test", lambda *_: None)
        patch.setattr(gate, "gate", lambda winner, rule, *_: Verdict("ship", winner, rule, "", (), ()))
        made = {}
        for name in ("class", "number", "multi", "pairs"):
            for pooling in ("native", "mean"):
                made[f"{name} {pooling}"] = api.adapt(
                    library / name,
                    model=library / "model",
                    task={"number": "regress", "pairs": "regress"}.get(name, ""),
                    strategies=["probe"],
                    knobs={"probe.epochs": 2, "probe.pooling": pooling},
                    out=library / "runs",
                )
        return made


@pytest.fixture(params=["native", "mean"])
def pooling(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def without_ids(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in answer.items() if k != "id"} for answer in answers]


def test_texts_are_predicted_however_they_come(
    library: Path, runs: dict[str, api.Run], tmp_path: Path, pooling: str
) -> None:
    model = api.Model.load(runs[f"class {pooling}"].bundle)
    assert model.literal and model.columns == ("text",)
    with (library / "class" / "test.csv").open(newline="") as file:
        said = [row["text"] for row in csv.DictReader(file)]
    wanted = model.predict(said)
    assert [a["id"] for a in wanted] == [str(i) for i in range(9)]
    assert set(wanted[0]) == {"id", "label", "confidence", "probabilities"}
    for i, text in enumerate(said):
        (tmp_path / f"{i}.txt").write_text(text)
    (tmp_path / "notes.png").write_bytes(b"")
    by_folder = model.predict(tmp_path)
    assert [a["id"] for a in by_folder] == [str(tmp_path / f"{i}.txt") for i in range(9)]
    by_table = model.predict(library / "class" / "test.csv")
    single = [model.predict(text)[0] for text in said]
    assert without_ids(wanted) == without_ids(by_folder) == without_ids(by_table) == without_ids(single)
    assert without_ids(model.predict([tmp_path / "3.txt", said[4]])) == without_ids(wanted[3:5])
    assert without_ids(runs[f"class {pooling}"].predict(said[0])) == without_ids(wanted[:1])


def test_a_string_is_a_text_though_a_file_is_called_so(
    runs: dict[str, api.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rose").write_text("the sea")
    model = api.Model.load(runs["class native"].bundle)
    text, file = model.predict(["rose"]), model.predict("rose")
    assert text == file and text[0]["id"] == "0"


@pytest.mark.parametrize(
    ("kind", "keys"),
    [("number", {"id", "value", "low", "high"}), ("multi", {"id", "labels", "confidence", "probabilities"})],
)
def test_every_task_answers_in_its_own_way(runs: dict[str, api.Run], kind: str, keys: set[str], pooling: str) -> None:
    (answer,) = runs[f"{kind} {pooling}"].predict("the rose and the sea")
    assert set(answer) == keys
    rows = list(csv.DictReader(io.StringIO(api.as_csv([answer]), newline="")))
    assert len(rows) == 1 and set(rows[0]) == keys


def test_pairs_are_predicted_however_they_come(library: Path, runs: dict[str, api.Run], pooling: str) -> None:
    model = api.Model.load(runs[f"pairs {pooling}"].bundle)
    assert model.columns == ("text1", "text2")
    with (library / "pairs" / "test.csv").open(newline="") as file:
        cells = [(row["text1"], row["text2"]) for row in csv.DictReader(file)]
    wanted = model.predict(cells)
    assert [a["id"] for a in wanted] == [str(i) for i in range(9)] and "value" in wanted[0]
    assert without_ids(model.predict(library / "pairs" / "test.csv")) == without_ids(wanted)
    assert without_ids(model.predict(cells[0])) == without_ids(wanted[:1]), "a tuple of two is one pair"
    turned = model.predict([(b, a) for a, b in cells])
    assert without_ids(turned) != without_ids(wanted)


def test_a_batch_does_not_change_an_answer(runs: dict[str, api.Run], pooling: str) -> None:
    model = api.Model.load(runs[f"class {pooling}"].bundle)
    cells = ["rose", "the sea and " * 12, "moss", "a", "fire " * 40]
    together = model.predict(cells)
    for cell, answer in zip(cells, together, strict=True):
        alone = model.predict([cell])[0]
        assert alone["probabilities"] == answer["probabilities"]


@pytest.mark.parametrize("cell", ["one text", ["one text"], [("a", "b"), "one text"]], ids=str)
def test_one_text_is_no_pair(runs: dict[str, api.Run], cell: Any) -> None:
    with pytest.raises(UsageError) as caught:
        runs["pairs mean"].predict(cell)
    assert caught.value.what == "this model wants pairs of texts" and caught.value.saw == "'one text'"
    assert caught.value.allowed == "text1 + text2" and caught.value.do == "give two"


def test_a_file_of_one_text_is_no_pair(runs: dict[str, api.Run], tmp_path: Path, pooling: str) -> None:
    (tmp_path / "one.txt").write_text("a rose")
    with pytest.raises(UsageError, match="this model wants pairs of texts"):
        runs[f"pairs {pooling}"].predict(tmp_path / "one.txt")
    with pytest.raises(UsageError, match="this model wants pairs of texts"):
        runs[f"pairs {pooling}"].predict(tmp_path)


@pytest.mark.parametrize("cell", [("a", "b"), [("a", "b")], ("a", "b", "c")], ids=str)
def test_a_pair_is_no_text(runs: dict[str, api.Run], cell: Any) -> None:
    with pytest.raises((UsageError, DataError)):
        runs["class native"].predict(cell)


@pytest.mark.parametrize("cell", [3, None, [None], ["a", 2.5], {"text": "a"}, b"a", np.zeros((2, 2))], ids=repr)
def test_a_cell_that_is_no_text_is_refused(runs: dict[str, api.Run], cell: Any) -> None:
    with pytest.raises((UsageError, DataError)):
        runs["class native"].predict(cell)


@pytest.mark.parametrize("cell", [("a", 3), ("a",), ("a", "b", "c"), (None, "b")], ids=repr)
def test_a_tuple_that_is_no_pair_is_refused(runs: dict[str, api.Run], cell: Any) -> None:
    with pytest.raises((UsageError, DataError)):
        runs["pairs native"].predict([cell])


def test_tables_need_the_columns_of_training(library: Path, runs: dict[str, api.Run], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no column of that name · saw: 'text1' .*"):
        runs["pairs native"].predict(library / "class" / "test.csv")
    places.sheet(tmp_path / "t.csv", ("TEXT", "n"), [("rose", "1"), ("", "2")])
    found = runs["class native"].predict(tmp_path / "t.csv")
    assert len(found) == 2, "the column's case does not matter, an empty text is a text"


def test_a_table_needs_no_target(runs: dict[str, api.Run], tmp_path: Path) -> None:
    places.sheet(tmp_path / "t.csv", ("n", "text2", "text1"), [("1", "rose", "sea"), ("2", "moss", "fern")])
    model = api.Model.load(runs["pairs native"].bundle)
    assert without_ids(model.predict(tmp_path / "t.csv")) == without_ids(
        model.predict([("sea", "rose"), ("fern", "moss")])
    )


# ---------------------------------------------------------------- lines and texts of the command line


@dataclasses.dataclass
class Asked:
    """What `lines` and `texts` ask of a model."""

    columns: tuple[str, ...] = ("text",)
    literal: bool = True


def test_lines_are_texts_pairs_or_paths() -> None:
    given = ["a rose\n", "\n", "  \n", "the\tsea\r\n", " last"]
    assert api.lines(given, Asked()) == ["a rose", "the\tsea", " last"]
    pairs = Asked(("a", "b"))
    assert api.lines(["a rose\tthe sea\n", "x\ty\tz\n"], pairs) == [("a rose", "the sea"), ("x", "y\tz")]
    assert api.lines(["a b.png\n", "\n", "c.png"], Asked((), False)) == [Path("a b.png"), Path("c.png")]
    with pytest.raises(UsageError, match=r"a line holds no pair · saw: 'one text' · allowed: two texts with a tab"):
        api.lines(["x\ty", "one text"], pairs)


def test_texts_come_one_by_one_or_by_twos() -> None:
    assert api.texts(["a", "b"], Asked()) == ["a", "b"] and api.texts([], Asked((), False)) == []
    assert api.texts(["a", "b", "c", "d"], Asked(("x", "y"))) == [("a", "b"), ("c", "d")]
    with pytest.raises(UsageError, match=r"a pair lacks its second text · saw: 'c' · allowed: x \+ y"):
        api.texts(["a", "b", "c"], Asked(("x", "y")))
    with pytest.raises(UsageError, match=r"this model reads no texts · saw: --text · allowed: files"):
        api.texts(["a"], Asked((), False))


# ---------------------------------------------------------------- cells of texts


def test_a_folder_of_texts_becomes_the_files_that_are_texts(tmp_path: Path) -> None:
    for name in ("b.txt", "a/c.md", "x.png", ".hidden.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a")
    found = api.expand(tmp_path, TEXT, ("text",))
    assert sorted(Path(name).name for name, _ in found) == ["b.txt", "c.md"]
    assert api.expand("x.png", TEXT) == [("0", "x.png")]
    with pytest.raises(UsageError, match="there are no texts to predict"):
        api.expand([], TEXT)
    with pytest.raises(UsageError, match="no such file or folder"):
        api.expand(tmp_path / "none.txt", TEXT)


# ---------------------------------------------------------------- data in memory


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "_self_test", lambda *_: None)


def rows_of(library: Path, name: str, split: str) -> list[dict[str, str]]:
    with (library / name / f"{split}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def sources(library: Path) -> dict[str, Any]:
    """The texts of `class` as Python objects of every kind."""
    import pandas as pd

    splits = {split: rows_of(library, "class", split) for split in ("train", "val", "test")}
    datasets = importlib.import_module("datasets")
    return {
        "frame": {split: pd.DataFrame(rows) for split, rows in splits.items()},
        "arrays": {
            split: ([row["text"] for row in rows], np.array([row["y"] for row in rows]))
            for split, rows in splits.items()
        },
        "dataset": datasets.DatasetDict({s: datasets.Dataset.from_list(rows) for s, rows in splits.items()}),
    }


@pytest.mark.parametrize("kind", ["frame", "arrays", "dataset"])
def test_data_in_memory_gives_what_files_give(
    library: Path, runs: dict[str, api.Run], tmp_path: Path, unpacked: None, kind: str
) -> None:
    run = api.adapt(
        sources(library)[kind],
        model=library / "model",
        target="" if kind == "arrays" else "y",
        strategies=["probe"],
        knobs={"probe.epochs": 2, "probe.pooling": "native"},
        out=tmp_path,
    )
    assert run.data.rows == (("train", 18), ("val", 12), ("test", 9))
    assert run.winner.score("val").value == runs["class native"].winner.score("val").value
    names = [name for name, _ in run.winner.plan.knobs]
    assert names == ["lr", "epochs", "batch"]
    assert (run.folder / "options.json").is_file() and len(run.predict("a rose")) == 1


def test_the_same_frame_is_the_same_run(library: Path, tmp_path: Path, unpacked: None) -> None:
    import pandas as pd

    frame = pd.DataFrame(rows_of(library, "class", "train") + rows_of(library, "class", "val"))
    asked: dict[str, Any] = {"model": library / "model", "target": "y", "strategies": ["probe"], "out": tmp_path}
    asked["knobs"] = {"probe.epochs": 1, "probe.pooling": "native"}
    first = api.adapt(frame, **asked)
    assert api.adapt(frame.copy(), **asked) == first
    other = api.adapt(frame.assign(text=frame["text"] + " a"), **asked)
    assert other.folder != first.folder
    with pytest.raises(UsageError):
        api.finish(api.steps(store.Folder(first.folder).load("options", Options), tmp_path, resume=first.folder))


def test_pictures_in_memory_are_adapted_to(home: Path, tmp_path: Path, unpacked: None) -> None:
    x = [np.asarray(Image.open(p)) for p in sorted((home / "data" / "train").rglob("*.png"))]
    y = [p.parent.name for p in sorted((home / "data" / "train").rglob("*.png"))]
    run = api.adapt((x, y), model=home / "model", strategies=["probe"], knobs={"probe.epochs": 1}, out=tmp_path)
    assert run.data.modality == "image" and sum(count for _, count in run.data.rows) == 27
    assert len(run.predict(x[:2])) == 2


# ---------------------------------------------------------------- what was asked for reaches the records


def test_what_was_asked_for_reaches_the_records(library: Path, tmp_path: Path, unpacked: None) -> None:
    rows = [
        (row["text"], "good" if row["y"] == "red" else "bad", str(i // 2), "mf"[i % 2], f"20{i:02d}-01-01")
        for i, row in enumerate(rows_of(library, "class", "train") + rows_of(library, "class", "val"))
    ]
    table = places.sheet(tmp_path / "t.csv", ("said", "verdict", "who", "sex", "day"), rows)
    run = api.adapt(
        table,
        model=library / "model",
        target="verdict",
        text="said",
        group="who",
        sensitive="sex",
        task="classify",
        max_rows=24,
        positive="bad",
        metric="f1",
        balance="classes",
        long="ends",
        max_tokens=12,
        strategies=["probe"],
        knobs={"probe.epochs": 1},
        out=tmp_path / "runs",
        seed=3,
    )
    folder = store.Folder(run.folder)
    asked = folder.load("options", Options)
    assert asked.reading == Reading(
        target="verdict",
        text=("said",),
        group="who",
        sensitive=("sex",),
        task="classify",
        max_rows=24,
        positive="bad",
    )
    assert (asked.metric, asked.balance, asked.long, asked.max_tokens) == ("f1", "classes", "ends", 12)
    assert run.data.target.labels == ("good", "bad") and run.data.columns == ("said",)
    assert all(trial.plan.loss.balance for trial in run.trials)
    assert run.winner.score("val").metric == "f1"
    body = json.loads((run.folder / "backbone.json").read_text())
    assert "who" not in json.dumps(body)
    bundle = json.loads((run.bundle / "regraft.json").read_text())
    settings = dict(map(tuple, bundle["inputs"]["settings"]))
    assert (settings["long"], settings["max_tokens"]) == ("ends", 12)
    sheet = list(csv.DictReader(io.StringIO((run.folder / "splits.csv").read_text("utf-8"), newline="")))
    assert set(sheet[0]) == {"id", "split", "verdict", "sha256", "group", "sex"} and {r["sex"] for r in sheet} <= {
        "m",
        "f",
    }
    by_group: dict[str, set[str]] = {}
    for row in sheet:
        by_group.setdefault(row["group"], set()).add(row["split"])
    assert all(len(found) == 1 for found in by_group.values())


def test_the_latest_rows_are_the_test(library: Path, tmp_path: Path, unpacked: None) -> None:
    given = rows_of(library, "class", "train") + rows_of(library, "class", "val")
    rows = [(row["text"], row["y"], f"2020-{1 + i // 28:02d}-{1 + i % 28:02d}") for i, row in enumerate(given)]
    table = places.sheet(tmp_path / "t.csv", ("text", "y", "day"), rows)
    asked: dict[str, Any] = {"model": library / "model", "target": "y", "strategies": ["probe"], "time": "day"}
    run = api.adapt(table, **asked, knobs={"probe.epochs": 1, "probe.pooling": "native"}, out=tmp_path / "runs")
    sheet = list(csv.DictReader(io.StringIO((run.folder / "splits.csv").read_text("utf-8"), newline="")))
    order = {name: [int(r["id"].rpartition(":")[2]) for r in sheet if r["split"] == name] for name in ("train", "test")}
    assert max(order["train"]) < min(order["test"])
