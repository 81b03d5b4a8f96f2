"""A model scored on labelled data: whatever adapt reads, every metric, rows that it has seen, labels that it lacks."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from regraft.deliver import evaluate as room
from regraft.errors import DataError, UsageError
from regraft.flow import Run
from regraft.waist import Reading
from tests import places
from tests.calls import adapted, call, error_of, object_of

Captured = pytest.CaptureFixture[str]
KINDS = ("class", "number", "multi", "pairs")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, texts, pairs and models for them."""
    place = tmp_path_factory.mktemp("home")
    places.pictures(place / "data", train=4, val=2, test=3)
    places.model(place / "model")
    for kind in KINDS[:3]:
        places.texts(place / kind, kind, train=18, val=12, test=9)  # type: ignore[arg-type]
    places.pairs(place / "pairs", train=18, val=12, test=9)
    places.encoder_model(place / "encoder")
    return place


@pytest.fixture(scope="module")
def pictures(home: Path) -> Run:
    return adapted(home / "data", home / "model", home / "runs")


@pytest.fixture(scope="module")
def texts(home: Path) -> dict[str, Run]:
    """A run on texts for each kind of target, and on pairs."""
    tasks = {"number": "regress", "pairs": "regress"}
    return {
        kind: adapted(
            home / kind, home / "encoder", home / "runs", epochs=2, asked={"task": tasks.get(kind, ""), "seed": 3}
        )
        for kind in KINDS
    }


# ---------------------------------------------------------------- scores


def test_the_test_split_scores_as_in_the_run(home: Path, pictures: Run) -> None:
    found = room.evaluate(pictures.folder, home / "data")
    assert found.scores == tuple(s for s in pictures.winner.scores if s.split == "test")
    assert (found.splits, found.rows, found.trained, found.validated) == ((("test", 9),), 9, 0, 0)
    assert found.sentence == "none of the 9 rows was trained on or chose the model"


@pytest.mark.parametrize("kind", KINDS)
def test_every_task_is_scored_as_in_its_run(home: Path, texts: dict[str, Run], kind: str) -> None:
    run = texts[kind]
    found = room.evaluate(run.folder, home / kind)
    wanted = [s for s in run.winner.scores if s.split == "test"]
    assert [(s.metric, s.split, s.n, s.better) for s in found.scores] == [
        (s.metric, s.split, s.n, s.better) for s in wanted
    ]
    for score, same in zip(found.scores, wanted, strict=True):
        assert (score.value, score.low, score.high) == pytest.approx((same.value, same.low, same.high), abs=1e-5)


@pytest.mark.parametrize(
    ("split", "rows", "trained", "validated"),
    [("train", 12, 12, 0), ("val", 6, 0, 6), ("test", 9, 0, 0), ("all", 27, 12, 6)],
)
def test_rows_that_the_model_has_seen_are_counted(
    home: Path, pictures: Run, split: str, rows: int, trained: int, validated: int
) -> None:
    found = room.evaluate(pictures.folder, home / "data", split=split)
    assert (found.rows, found.trained, found.validated) == (rows, trained, validated)
    if trained or validated:
        assert found.sentence.startswith(f"of {rows} rows, ") and "flatter" in found.sentence


def test_a_row_is_known_by_its_content_alone(home: Path, pictures: Run, tmp_path: Path) -> None:
    (tmp_path / "red").mkdir()
    shutil.copy(home / "data" / "train" / "red" / "0.png", tmp_path / "red" / "elsewhere.png")
    shutil.copy(home / "data" / "test" / "red" / "0.png", tmp_path / "red" / "other.png")
    found = room.evaluate(pictures.folder, tmp_path)
    assert (found.rows, found.trained, found.scores[0].split) == (2, 1, "all")


def test_a_bundle_does_not_know_its_rows(home: Path, pictures: Run) -> None:
    found = room.evaluate(pictures.bundle, home / "data")
    assert found.trained == found.validated == -1 and "a bundle alone does not tell" in found.sentence
    assert [s.value for s in found.scores] == [s.value for s in pictures.winner.scores if s.split == "test"]


def test_chunks_do_not_change_a_score(home: Path, pictures: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = room.evaluate(pictures.folder, home / "data", split="all")
    monkeypatch.setattr(room, "CHUNK", 5)
    assert room.evaluate(pictures.folder, home / "data", split="all").scores == whole.scores


def test_rows_are_bounded(home: Path, pictures: Run) -> None:
    found = room.evaluate(pictures.folder, home / "data", Reading(max_rows=6))
    assert found.rows == 6 and found.notes == ("6 of 9 rows kept, --max-rows",)


# ---------------------------------------------------------------- columns


def sheet(place: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    return places.sheet(place, tuple(columns), [tuple(row) for row in rows])


def test_columns_are_called_as_in_training_or_named(texts: dict[str, Run], tmp_path: Path) -> None:
    rows = [("1", "rose fire", "red"), ("2", "sea ice", "blue"), ("3", "moss", ""), ("4", "", "red")]
    same = room.evaluate(texts["class"].folder, sheet(tmp_path / "a.csv", ("n", "TEXT", "y"), rows))
    assert (
        same.rows == 2
        and len(same.notes) == 2
        and same.notes[1] == "train: 1 left out: it has no y, such as a.csv, row 3"
    )
    other = sheet(tmp_path / "b.csv", ("n", "said", "colour"), rows)
    named = room.evaluate(texts["class"].folder, other, Reading(text=("said",), target="colour"))
    assert [s.value for s in named.scores] == [s.value for s in same.scores]
    with pytest.raises(UsageError) as caught:
        room.evaluate(texts["class"].folder, other, Reading(target="colour"))
    assert caught.value.what == "this data lacks a column" and caught.value.saw.startswith("no text in n, said")
    with pytest.raises(UsageError, match=r"no colr in .* did you mean --target colour\?"):
        room.evaluate(texts["class"].folder, other, Reading(target="colr", text=("said",)))


def test_broken_rows_are_counted_and_do_not_shift_the_answers(texts: dict[str, Run], tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text;y\nrose fire;red\nsea\n;blue\nmoss;green;x\nice;\nfern \xe9t\xe9;green\n")
    found = room.evaluate(texts["class"].folder, path)
    assert [(answer["id"], answer["truth"]) for answer in found.answers] == [("a:1", "red"), ("a:6", "green")]
    assert found.notes[0].startswith("a.csv is not UTF-8: read as cp1252")
    assert [note.partition(", such as ")[2] for note in found.notes[1:]] == [
        f"a.csv, row {row}" for row in (2, 4, 3, 5)
    ]
    path.write_text("text;y\nrose fire;0,25\nsea;-0,5\nmoss;none\nice;0\n")
    numbers = room.evaluate(texts["number"].folder, path)
    assert [answer["truth"] for answer in numbers.answers] == [0.25, -0.5, 0.0]


def test_a_table_names_pictures_for_a_model_of_folders(home: Path, pictures: Run, tmp_path: Path) -> None:
    rows = [(str(p), p.parent.name) for p in sorted((home / "data" / "test").rglob("*.png"))]
    table = sheet(tmp_path / "t.csv", ("file_name", "label"), rows)
    found = room.evaluate(pictures.folder, table)
    assert found.scores[0].value == room.evaluate(pictures.folder, home / "data").scores[0].value


def test_data_in_memory_is_scored(texts: dict[str, Run]) -> None:
    data = ["rose fire", "sea"], ["red", "blue"]
    found = room.evaluate(texts["class"].bundle, data, Reading(target="label"))
    assert found.rows == 2 and [answer["truth"] for answer in found.answers] == ["red", "blue"]


# ---------------------------------------------------------------- refusals


def test_labels_that_the_model_does_not_know_are_named(texts: dict[str, Run], tmp_path: Path) -> None:
    rows = [("rose", "red"), ("sea", "bleu"), ("ice", "bleu"), ("x", "a\nb")]
    with pytest.raises(DataError) as caught:
        room.evaluate(texts["class"].folder, sheet(tmp_path / "t.csv", ("text", "y"), rows))
    assert caught.value.what == "the data has labels that the model does not know"
    assert caught.value.saw == "a\nb (1 rows), bleu (2 rows)" and caught.value.allowed == "blue, green, red"
    with pytest.raises(DataError, match="does not know · saw: violet"):
        room.evaluate(texts["multi"].folder, sheet(tmp_path / "m.csv", ("text", "y"), [("x", '["red", "violet"]')]))


@pytest.mark.parametrize(
    ("columns", "rows", "what"),
    [
        (("text", "y"), [("rose", "")], "no row can be scored"),
        (("text", "y"), [("", "red")], "no row can be scored"),
    ],
)
def test_data_without_a_row_to_score_is_refused(
    texts: dict[str, Run], tmp_path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]], what: str
) -> None:
    with pytest.raises(DataError, match=what):
        room.evaluate(texts["class"].folder, sheet(tmp_path / "t.csv", columns, rows))


def test_a_number_that_is_none_is_refused(texts: dict[str, Run], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a target is no number · saw: t:1, column y: 'red'"):
        room.evaluate(texts["number"].folder, sheet(tmp_path / "t.csv", ("text", "y"), [("rose", "red")]))


def test_data_of_another_kind_is_refused(home: Path, pictures: Run, texts: dict[str, Run]) -> None:
    with pytest.raises(DataError, match=r"another kind than .* · saw: data: file \(image\) · allowed: texts"):
        room.evaluate(texts["class"].folder, home / "data")
    with pytest.raises(DataError, match=r"another kind .* · allowed: texts: pairs of text1 \+ text2"):
        room.evaluate(texts["pairs"].folder, home / "class", Reading(text=("text",), target="y"))
    with pytest.raises(UsageError, match="a folder of files has no columns · saw: --target y"):
        room.evaluate(pictures.folder, home / "data", Reading(target="y"))


@pytest.mark.parametrize(
    ("args", "code", "what"),
    [
        (["--split", "tset"], 2, "there is no split of that name"),
        (["--out", "x.txt"], 2, "predictions cannot be written in this form"),
        (["--max-rows", "-1"], 2, "Invalid value for '--max-rows'"),
    ],
)
def test_a_line_that_cannot_be_is_refused(
    home: Path, pictures: Run, capsys: Captured, args: list[str], code: int, what: str
) -> None:
    error = error_of(["evaluate", pictures.folder, home / "data", *args], capsys)
    assert error["code"] == code and error["what"].startswith(what)


def test_places_that_hold_nothing_are_refused(home: Path, pictures: Run, capsys: Captured, tmp_path: Path) -> None:
    assert error_of(["evaluate", tmp_path / "x", home / "data"], capsys)["what"] == "there is no run in this folder"
    assert error_of(["evaluate", pictures.folder, home / "dta"], capsys)["do"] == f"did you mean {home / 'data'}?"
    shutil.copytree(home / "data" / "test", tmp_path / "one" / "test")
    told = error_of(["evaluate", pictures.folder, tmp_path / "one"], capsys)
    assert told["what"] == "it is not clear which rows to score" and "own file or folder" in told["do"]
    lacking = error_of(["evaluate", pictures.folder, tmp_path / "one" / "test", "--split", "val"], capsys)
    assert (lacking["what"], lacking["allowed"]) == ("this data has no val split", "train, all")
    unfinished = shutil.copytree(pictures.folder, tmp_path / "run", symlinks=True)
    (unfinished / "bundle").unlink()
    assert error_of(["evaluate", unfinished, home / "data"], capsys)["code"] == 4


# ---------------------------------------------------------------- the command


def test_the_command_shows_scores_and_writes_answers(
    home: Path, pictures: Run, capsys: Captured, tmp_path: Path
) -> None:
    code, out, err = call(["evaluate", pictures.folder, home / "data", "--out", tmp_path / "a.csv"], capsys)
    assert code == 0 and "balanced_accuracy" in out and "none of the 9 rows was trained on" in out
    assert "scoring 9 rows (9 test)" in err
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text("utf-8"), newline="")))
    assert len(rows) == 9 and list(rows[0])[:3] == ["id", "truth", "label"]
    told = object_of(["evaluate", pictures.folder, home / "data", "--out", tmp_path / "a.jsonl"], capsys)
    first: dict[str, Any] = json.loads((tmp_path / "a.jsonl").read_text("utf-8").splitlines()[0])
    assert first["truth"] == "blue" and "answers" not in told and told["rows"] == 9
    assert told["scores"][0]["metric"] == pictures.winner.score("test").metric
