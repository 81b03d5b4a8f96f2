"""What a user hands over becomes cells, answers become CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regraft.deliver import inputs
from regraft.errors import UsageError
from regraft.kit import shelf
from regraft.waist import Bad
from tests import places

IMAGE, TEXT = (shelf.find("modalities", name) for name in ("image", "text"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a model."""
    place = tmp_path_factory.mktemp("home")
    places.pictures(place / "data")
    places.model(place / "model")
    return place


def test_folders_become_the_files_that_are_known(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "data" / "test" / "red", tmp_path / "b")
    (tmp_path / "b" / "notes.txt").write_text("text")
    found = inputs.expand([tmp_path, str(tmp_path / "b" / "0.png")], IMAGE)
    assert [Path(name).name for name, _ in found] == [*(f"{i}.png" for i in range(6)), "0.png"]
    assert found[0][1] == tmp_path / "b" / "0.png"


def test_values_are_named_by_their_place() -> None:
    array = np.zeros((2, 2, 3), np.uint8)
    assert [name for name, _ in inputs.expand([array, array], IMAGE)] == ["0", "1"]
    assert inputs.expand(array, IMAGE)[0][0] == "0"


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file or folder · saw: .*none\.png · do: check the path"):
        inputs.expand(tmp_path / "none.png", IMAGE)


def test_a_name_that_no_file_can_have_is_refused() -> None:
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(UsageError, match="no such file or folder"):
            inputs.expand(name, IMAGE)


def test_nothing_to_predict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"there are no pictures to read · saw: {tmp_path}"):
        inputs.expand(str(tmp_path), IMAGE)
    with pytest.raises(UsageError, match="there are no pictures to read · saw: nothing"):
        inputs.expand([], IMAGE)


def answer(name: str, label: str = "red") -> dict[str, Any]:
    return {"id": name, "label": label, "confidence": 0.75, "probabilities": {label: 0.75, 'a"b,': 0.25}}


@pytest.mark.parametrize("name", ["a,b", 'a"b', "a\nb", "a\rb", "a\r\n=b", "größe 🐜", "a;b", ""])
def test_csv_reads_back_as_it_was(name: str) -> None:
    (row,) = csv.DictReader(io.StringIO(inputs.as_csv([answer(name)]), newline=""))
    assert (row["id"], row["label"], row["confidence"]) == (name, "red", "0.75")
    assert json.loads(row["probabilities"]) == answer(name)["probabilities"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_formulas_are_quoted_wherever_they_stand(start: str) -> None:
    text = inputs.as_csv([answer(start + "cmd", start + "label")])
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
    rows = list(csv.DictReader(io.StringIO(inputs.as_csv(answers), newline="")))
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


@dataclasses.dataclass
class Asked:
    """What `lines` and `texts` ask of a model."""

    columns: tuple[str, ...] = ("text",)
    literal: bool = True


def test_lines_are_texts_pairs_or_paths() -> None:
    given = ["a rose\n", "\n", "  \n", "the\tsea\r\n", " last"]
    assert inputs.lines(given, Asked()) == ["a rose", "the\tsea", " last"]
    pairs = Asked(("a", "b"))
    assert inputs.lines(["a rose\tthe sea\n", "x\ty\tz\n"], pairs) == [("a rose", "the sea"), ("x", "y\tz")]
    assert inputs.lines(["a b.png\n", "\n", "c.png"], Asked((), False)) == [Path("a b.png"), Path("c.png")]
    with pytest.raises(UsageError, match=r"a line holds no pair · saw: 'one text' · allowed: two texts with a tab"):
        inputs.lines(["x\ty", "one text"], pairs)


def test_texts_come_one_by_one_or_by_twos() -> None:
    assert inputs.texts(["a", "b"], Asked()) == ["a", "b"] and inputs.texts([], Asked((), False)) == []
    assert inputs.texts(["a", "b", "c", "d"], Asked(("x", "y"))) == [("a", "b"), ("c", "d")]
    with pytest.raises(UsageError, match=r"a pair lacks its second text · saw: 'c' · allowed: x \+ y"):
        inputs.texts(["a", "b", "c"], Asked(("x", "y")))
    with pytest.raises(UsageError, match=r"this model reads no texts · saw: --text · allowed: files"):
        inputs.texts(["a"], Asked((), False))


def test_a_folder_of_texts_becomes_the_files_that_are_texts(tmp_path: Path) -> None:
    for name in ("b.txt", "a/c.md", "x.png", ".hidden.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a")
    found = inputs.expand(tmp_path, TEXT, ("text",))
    assert sorted(Path(name).name for name, _ in found) == ["b.txt", "c.md"]
    assert inputs.expand("x.png", TEXT) == [("0", "x.png")]
    with pytest.raises(UsageError, match="there are no texts to read"):
        inputs.expand([], TEXT)
    with pytest.raises(UsageError, match="no such file or folder"):
        inputs.expand(tmp_path / "none.txt", TEXT)


def zipped(root: Path, there: Path) -> Path:
    with zipfile.ZipFile(there, "w") as archive:
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(root))
    return there


def test_an_archive_becomes_the_files_in_it_and_says_what_it_leaves_out(home: Path, tmp_path: Path) -> None:
    there = zipped(home / "data" / "test", tmp_path / "x.zip")
    with zipfile.ZipFile(there, "a") as archive:
        archive.writestr("../up.png", "x")
        archive.writestr("red/broken.png", b"\x89PNG\r\n\x1a\n")
    left_out: list[Bad] = []
    notes: list[str] = []
    found = inputs.expand(there, IMAGE, (), left_out, notes)
    assert len(found) == 18 and found[0] == (f"{there}/blue/0.png", there / "blue" / "0.png")
    assert [one.file for one in left_out] == [f"{there}/red/broken.png"]
    assert notes == ["x.zip: 1 left out: a name that leads out of the archive, such as ../up.png"]


def test_a_folder_or_an_archive_with_a_single_table_becomes_its_rows(tmp_path: Path) -> None:
    places.sheet(tmp_path / "in" / "table.csv", ("text", "y"), [("a rose", "x"), ("the sea", "y")])
    for there in (tmp_path / "in", zipped(tmp_path / "in", tmp_path / "x.zip")):
        assert inputs.expand(there, TEXT, ("text",)) == [("table:1", "a rose"), ("table:2", "the sea")]


def test_names_that_are_no_utf8_become_ids_that_can_be_written(home: Path, tmp_path: Path) -> None:
    shutil.copy(home / "data" / "test" / "red" / "0.png", os.fsencode(tmp_path) + b"/\xff.png")
    ((name, path),) = inputs.expand(tmp_path, IMAGE)
    assert name == f"{tmp_path}/\\xff.png" and path.is_file()
    assert "\\xff" in inputs.as_csv([{"id": name, "label": "red"}]).encode().decode()


def test_links_that_lead_out_of_a_folder_are_said(home: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(home / "data" / "test" / "red" / "0.png", tmp_path / "in" / "0.png")
    (tmp_path / "in" / "1.png").symlink_to(home / "data" / "test" / "red" / "1.png")
    notes: list[str] = []
    assert len(inputs.expand(tmp_path / "in", IMAGE, (), [], notes)) == 1
    assert notes[0].startswith("1 links lead out of the folder and are left out, such as 1.png")
