"""A bundle that was opened: every kind of cell is predicted alike, what it does not read is refused."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regraft import api, flow
from regraft.deliver import inputs, pack
from regraft.deliver.model import Model
from regraft.errors import DataError, UsageError
from regraft.waist import Bad
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
def runs(library: Path) -> dict[str, flow.Run]:
    """A run of the probe on each by each pooling; it ships, however little it learned."""
    from regraft.deliver import ship
    from regraft.waist import Verdict

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "_self_test", lambda *_: None)
        patch.setattr(ship, "gate", lambda _, winner, rule, *__: Verdict("ship", winner, rule, "", (), ()))
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


def test_every_kind_of_cell_is_predicted_alike(home: Path, finished: flow.Run) -> None:
    model = Model.load(finished.bundle)
    path = home / "data" / "test" / "red" / "0.png"
    picture = Image.open(path).convert("RGB")
    found = model.predict([path, str(path), picture, np.asarray(picture)])
    assert [answer["id"] for answer in found] == [str(path), str(path), "2", "3"]
    assert len({json.dumps(answer["probabilities"]) for answer in found}) == 1
    assert model.predict(picture)[0]["probabilities"] == found[0]["probabilities"]
    assert len(finished.predict(home / "data" / "test")) == 18


def test_a_cell_that_cannot_be_read_is_named(home: Path, finished: flow.Run, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("text")
    with pytest.raises(DataError, match=r"bad\.png"):
        finished.predict([home / "data" / "test" / "red" / "0.png", tmp_path / "bad.png"])


def test_texts_are_predicted_however_they_come(
    library: Path, runs: dict[str, flow.Run], tmp_path: Path, pooling: str
) -> None:
    model = Model.load(runs[f"class {pooling}"].bundle)
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
    runs: dict[str, flow.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rose").write_text("the sea")
    model = Model.load(runs["class native"].bundle)
    text, file = model.predict(["rose"]), model.predict("rose")
    assert text == file and text[0]["id"] == "0"


@pytest.mark.parametrize(
    ("kind", "keys"),
    [("number", {"id", "value", "low", "high"}), ("multi", {"id", "labels", "confidence", "probabilities"})],
)
def test_every_task_answers_in_its_own_way(runs: dict[str, flow.Run], kind: str, keys: set[str], pooling: str) -> None:
    (answer,) = runs[f"{kind} {pooling}"].predict("the rose and the sea")
    assert set(answer) == keys
    rows = list(csv.DictReader(io.StringIO(inputs.as_csv([answer]), newline="")))
    assert len(rows) == 1 and set(rows[0]) == keys


def test_pairs_are_predicted_however_they_come(library: Path, runs: dict[str, flow.Run], pooling: str) -> None:
    model = Model.load(runs[f"pairs {pooling}"].bundle)
    assert model.columns == ("text1", "text2")
    with (library / "pairs" / "test.csv").open(newline="") as file:
        cells = [(row["text1"], row["text2"]) for row in csv.DictReader(file)]
    wanted = model.predict(cells)
    assert [a["id"] for a in wanted] == [str(i) for i in range(9)] and "value" in wanted[0]
    assert without_ids(model.predict(library / "pairs" / "test.csv")) == without_ids(wanted)
    assert without_ids(model.predict(cells[0])) == without_ids(wanted[:1]), "a tuple of two is one pair"
    turned = model.predict([(b, a) for a, b in cells])
    assert without_ids(turned) != without_ids(wanted)


def test_a_batch_does_not_change_an_answer(runs: dict[str, flow.Run], pooling: str) -> None:
    model = Model.load(runs[f"class {pooling}"].bundle)
    cells = ["rose", "the sea and " * 12, "moss", "a", "fire " * 40]
    together = model.predict(cells)
    for cell, answer in zip(cells, together, strict=True):
        alone = model.predict([cell])[0]
        assert alone["probabilities"] == answer["probabilities"]


@pytest.mark.parametrize("cell", ["one text", ["one text"], [("a", "b"), "one text"]], ids=str)
def test_one_text_is_no_pair(runs: dict[str, flow.Run], cell: Any) -> None:
    with pytest.raises(UsageError) as caught:
        runs["pairs mean"].predict(cell)
    assert caught.value.what == "this model wants pairs of texts" and caught.value.saw == "'one text'"
    assert caught.value.allowed == "text1 + text2" and caught.value.do == "give two"


def test_a_file_of_one_text_is_no_pair(runs: dict[str, flow.Run], tmp_path: Path, pooling: str) -> None:
    (tmp_path / "one.txt").write_text("a rose")
    with pytest.raises(UsageError, match="this model wants pairs of texts"):
        runs[f"pairs {pooling}"].predict(tmp_path / "one.txt")
    with pytest.raises(UsageError, match="this model wants pairs of texts"):
        runs[f"pairs {pooling}"].predict(tmp_path)


@pytest.mark.parametrize("cell", [("a", "b"), [("a", "b")], ("a", "b", "c")], ids=str)
def test_a_pair_is_no_text(runs: dict[str, flow.Run], cell: Any) -> None:
    with pytest.raises((UsageError, DataError)):
        runs["class native"].predict(cell)


@pytest.mark.parametrize("cell", [3, None, [None], ["a", 2.5], {"text": "a"}, b"a", np.zeros((2, 2))], ids=repr)
def test_a_cell_that_is_no_text_is_refused(runs: dict[str, flow.Run], cell: Any) -> None:
    with pytest.raises((UsageError, DataError)):
        runs["class native"].predict(cell)


@pytest.mark.parametrize("cell", [("a", 3), ("a",), ("a", "b", "c"), (None, "b")], ids=repr)
def test_a_tuple_that_is_no_pair_is_refused(runs: dict[str, flow.Run], cell: Any) -> None:
    with pytest.raises((UsageError, DataError)):
        runs["pairs native"].predict([cell])


def test_tables_need_the_columns_of_training(library: Path, runs: dict[str, flow.Run], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no column of that name · saw: 'text1' .*"):
        runs["pairs native"].predict(library / "class" / "test.csv")
    places.sheet(tmp_path / "t.csv", ("TEXT", "n"), [("rose", "1"), ("", "2")])
    found = runs["class native"].predict(tmp_path / "t.csv")
    assert len(found) == 2, "the column's case does not matter, an empty text is a text"


def test_broken_rows_do_not_shift_the_answers(runs: dict[str, flow.Run], tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"n,text\n1,rose fire\n2\n3,sea,ice,x\n4,sea ice\n5,moss \xe9t\xe9\n")
    left_out: list[Bad] = []
    notes: list[str] = []
    found = runs["class native"].predict(path, left_out, notes)
    assert [answer["id"] for answer in found] == ["t:1", "t:4", "t:5"]
    assert [(one.file, one.row) for one in left_out] == [("t.csv", 2), ("t.csv", 3)]
    assert notes[0].startswith("t.csv is not UTF-8: read as cp1252")
    assert without_ids(found) == without_ids(runs["class native"].predict(["rose fire", "sea ice", "moss été"]))
    with pytest.raises(DataError, match=r"2 of 5 files and rows cannot be read · saw: 1 left out: .* t\.csv, row 2"):
        runs["class native"].predict(path)


def test_a_table_needs_no_target(runs: dict[str, flow.Run], tmp_path: Path) -> None:
    places.sheet(tmp_path / "t.csv", ("n", "text2", "text1"), [("1", "rose", "sea"), ("2", "moss", "fern")])
    model = Model.load(runs["pairs native"].bundle)
    assert without_ids(model.predict(tmp_path / "t.csv")) == without_ids(
        model.predict([("sea", "rose"), ("fern", "moss")])
    )
