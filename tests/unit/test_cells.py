"""Cells of columns: texts, pairs, files inside the data's folder; keys cover content alone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regraft.data.cells import column_called, file_cells, located, modality_of, read_cells, text_cells
from regraft.data.tables import Table, make_table
from regraft.errors import DataError, UsageError
from regraft.kit import places
from regraft.waist import Bad


def table(folder: Path | None = None, root: Path | None = None, **columns: list[Any]) -> Table:
    return make_table(columns, "t", folder, root or folder)


def picture(path: Path, shade: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (3, 3), shade).save(path)
    return path


# ---------------------------------------------------------------- texts


def test_texts_and_pairs_have_keys_by_content() -> None:
    found = table(a=["x", " ", None, "x"], b=["y", "y", "y", ""])
    assert text_cells(found, ["a"])[0] == ["x", " ", "", "x"]
    one, blank, none, again = text_cells(found, ["a"])[1]
    assert one == again == hashlib.sha256(b"x").hexdigest() and blank == none == ""
    cells, keys, looks = text_cells(found, ["a", "b"])
    assert [look.problem for look in looks] == ["", *["it has no text"] * 3]
    assert cells[0] == ("x", "y") and keys == [hashlib.sha256(b"x\0y").hexdigest(), "", "", ""]


def test_a_pair_is_not_its_texts_put_together() -> None:
    found = table(a=["ab", "a"], b=["c", "bc"])
    first, second = text_cells(found, ["a", "b"])[1]
    assert first != second


@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}, b"raw"])
def test_what_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(DataError) as caught:
        text_cells(table(a=["x", value, value]), ["a"])
    assert caught.value.what == "a text column holds something else"
    assert caught.value.saw == f"t:2, column a: {value}"
    cells, keys, looks = text_cells(table(a=["x", value]), ["a"])
    assert cells == ["x", ""] and keys[1] == "" and looks[1].problem == "its text is something else"


# ---------------------------------------------------------------- files


def test_files_are_found_below_the_table(tmp_path: Path) -> None:
    first = picture(tmp_path / "pics" / "1.png")
    (tmp_path / "note.png").write_text("no picture")
    names = ["pics/1.png", "pics/2.png", "note.png", "", None, "x" * 300, str(first)]
    found = table(tmp_path, image=names)
    cells, keys, looks = file_cells(found, "image", "image")
    assert cells[0] == cells[6] == first and cells[3] is None and looks[0].size == (3, 3)
    assert [look.problem for look in looks[1:5]] == [
        "there is no such file",
        looks[2].problem,
        "no file is named",
        "no file is named",
    ]
    assert keys[0] == keys[6] == hashlib.sha256(first.read_bytes()).hexdigest() and keys[1:6] == [""] * 5
    assert modality_of(names[:1], found) == "image" and modality_of(names[1:4], found) == ""


def test_a_file_that_cannot_be_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise OSError("broken")

    picture(tmp_path / "1.png")
    monkeypatch.setattr(places, "digest", broken)
    _, keys, looks = file_cells(table(tmp_path, image=["1.png"]), "image", "image")
    assert keys == [""] and looks[0].problem == "broken"


@pytest.mark.parametrize("name", ["../out.png", "a/../../out.png", ".."])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "out.png")
    found = table(tmp_path / "data", image=[name])
    with pytest.raises(DataError) as caught:
        located(name, found)
    assert caught.value.what == "a table names a file outside the folder of the data" and caught.value.saw == name
    assert caught.value.allowed == f"paths below {tmp_path / 'data'}"
    assert modality_of([name], found) == ""


def test_names_may_lead_up_inside_the_data(tmp_path: Path) -> None:
    place = picture(tmp_path / "pics" / "1.png")
    found = table(tmp_path / "train", tmp_path, image=["../pics/1.png"])
    assert file_cells(found, "image", "image")[1] == [hashlib.sha256(place.read_bytes()).hexdigest()]


def test_pixels_in_memory(tmp_path: Path) -> None:
    raw = picture(tmp_path / "1.png").read_bytes()
    grey = np.zeros((3, 3), np.uint8)
    values: list[Any] = [Image.new("L", (3, 3)), grey, grey.reshape(1, 9), raw, Image.new("L", (3, 3), 9)]
    found = table(image=values)
    cells, keys, _ = file_cells(found, "image", "image")
    assert cells == values and len(set(keys)) == 5 and "" not in keys
    assert keys == file_cells(found, "image", "image")[1]
    assert {modality_of([value], found) for value in values} == {"image"}
    assert modality_of([["a"], {"b": 1}, None, "", "x" * 2000], found) == ""


# ---------------------------------------------------------------- names


def test_columns_are_found_in_any_case() -> None:
    found = table(Text=["a"], TEXT=["b"], label=["c"])
    assert column_called("LABEL", found) == "label" and column_called("TEXT", found) == "TEXT"
    with pytest.raises(UsageError) as caught:
        column_called("lable", found)
    assert caught.value.what == "there is no column of that name" and caught.value.saw == "'lable'"
    assert caught.value.allowed == "TEXT, Text, label" and caught.value.do == "did you mean label?"
    with pytest.raises(UsageError, match="there is no column"):
        column_called("text", found)


# ---------------------------------------------------------------- for a trained model


def test_cells_of_texts_and_pairs(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("b,a,c\n1,x,q\n,y,z\n")
    assert read_cells(tmp_path / "x.csv", ["a"], "text") == ([("x:1", "x"), ("x:2", "y")], [], ())
    pairs = [("x:1", ("x", "1")), ("x:2", ("y", ""))]
    assert read_cells(tmp_path / "x.csv", ["a", "b"], "text") == (pairs, [], ())
    (tmp_path / "x.jsonl").write_text('{"a": "x"}\n{"a": ["y"]}\n{"a": null}\n')
    none = Bad("", "x.jsonl", 2, "its text is something else")
    assert read_cells(tmp_path / "x.jsonl", ["a"], "text") == ([("x:1", "x"), ("x:3", "")], [none], ())
    with pytest.raises(UsageError, match=r"no column of that name · saw: 'text' · allowed: a, b, c"):
        read_cells(tmp_path / "x.csv", ["text"], "text")


def test_broken_rows_do_not_shift_the_others(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"a,b\nx,1\ny\nz,3,4\n,5\ncaf\xe9,6\n")
    good, bad, notes = read_cells(tmp_path / "x.csv", ["a"], "text")
    assert good == [("x:1", "x"), ("x:4", ""), ("x:5", "café")]
    assert [(one.row, one.why) for one in bad] == [
        (2, "it has fewer cells than the header"),
        (3, "it has more cells than the header"),
    ]
    assert notes == (
        "x.csv is not UTF-8: read as cp1252 by the look of its words; save it as UTF-8 if letters are wrong",
    )


def test_cells_without_columns_need_a_single_one(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("anything\nx\n")
    (tmp_path / "two.csv").write_text("a,b\nx,y\n")
    assert read_cells(tmp_path / "one.csv", (), "text")[0] == [("one:1", "x")]
    with pytest.raises(UsageError, match=r"it is not known which column to read · saw: .*two\.csv: a, b"):
        read_cells(tmp_path / "two.csv", (), "text")


def test_cells_of_pictures(tmp_path: Path) -> None:
    place = picture(tmp_path / "pics" / "1.png")
    (tmp_path / "pics" / "cut.png").write_bytes(place.read_bytes()[:40])
    (tmp_path / "x.csv").write_text("image\npics/1.png\npics/2.png\npics/cut.png\npics/1.png\n")
    good, bad, _ = read_cells(tmp_path / "x.csv", ["image"], "image")
    assert good == [("x:1", place), ("x:4", place)]
    assert [one.row for one in bad] == [2, 3] and bad[0].why == "there is no such file"
