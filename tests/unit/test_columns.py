"""Choosing columns: given, by name, by what they hold; and the rows that come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from regraft.data.columns import choose, rows
from regraft.data.tables import Table, make_table
from regraft.errors import DataError, UsageError
from regraft.waist import Reading

LONG = ["a long text of words", "another one of these", "and one more of them"]
NUMBERS = ["1", "2", "3"]


def table(columns: str, folder: Path | None = None, **values: list[Any]) -> Table:
    """Columns of these names; short words in each unless `values` says what stands in it."""
    return make_table({n: values.get(n, [f"{n}{i}" for i in range(3)]) for n in columns.split()}, "t", folder, folder)


# ---------------------------------------------------------------- by name and by content


@pytest.mark.parametrize(
    ("columns", "inputs", "target"),
    [
        ("id text label", ("text",), "label"),
        ("Label TEXT", ("TEXT",), "Label"),
        ("review sentence stars", ("sentence",), "stars"),
        ("sentence1 sentence2 score genre", ("sentence1", "sentence2"), "score"),
        ("premise hypothesis y", ("premise", "hypothesis"), "y"),
        ("question1 question2 class", ("question1", "question2"), "class"),
        ("title text label", ("text",), "label"),
        ("title other intent", ("title",), "intent"),
        ("text rating category", ("text",), "category"),
        ("text a b", ("text",), "b"),
    ],
)
def test_columns_known_by_their_names(columns: str, inputs: tuple[str, ...], target: str) -> None:
    found = choose(table(columns), Reading())
    assert (found.modality, found.inputs, found.target) == ("text", inputs, target)


def test_what_was_chosen_is_said() -> None:
    names = ["sentence1", "sentence2", "score", "genre"]
    found = choose(table(" ".join(names)), Reading(text=("sentence1", "sentence2"), target="score"))
    assert found.note(names) == "columns: text = sentence1 + sentence2 (given), target = score (given), left out: genre"
    found = choose(table("a said b c", said=LONG), Reading(group="a", sensitive=("b",)))
    assert found.note(["a", "said", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"]) == (
        "columns: text = said (guessed: the longest texts), target = c (guessed: the last column), group = a (given), "
        "sensitive = b (given), left out: d, e, f, g, h, i, j, k"
    )
    found = choose(table("text label when"), Reading(time="when"))
    assert found.note(["text", "label", "when"]) == (
        "columns: text = text (by its name), target = label (by its name), time = when (given)"
    )


def test_the_longest_texts_are_the_input() -> None:
    found = choose(table("tag said more", said=LONG, more=["to be", "or not", "to be?"]), Reading())
    assert (found.inputs, found.target) == (("said",), "more")


def test_numbers_called_text_are_no_texts() -> None:
    assert choose(table("title said label", title=NUMBERS, said=LONG), Reading()).inputs == ("said",)


def test_given_columns_win() -> None:
    found = choose(table("text label other"), Reading(text=("label",), target="OTHER"))
    assert (found.inputs, found.target) == (("label",), "other")
    assert choose(table("text label other"), Reading(text=("label",))).target == "other"


def test_pictures_are_known_by_what_lies_there(tmp_path: Path) -> None:
    for name in ("a0", "a1", "a2"):
        Image.new("L", (2, 2)).save(tmp_path / f"{name}.png")
    files = ["a0.png", "a1.png", "gone.png"]
    found = choose(table("file_name text label", tmp_path, file_name=files), Reading())
    assert (found.modality, found.inputs) == ("image", ("file_name",))
    assert found.note(["file_name", "label"]).startswith("columns: image = file_name (by its pictures), target = label")
    assert choose(table("file_name text label", tmp_path, file_name=["x", "y", "z"]), Reading()).inputs == ("text",)
    assert choose(table("file_name text label", tmp_path, file_name=files), Reading(text=("text",))).modality == "text"
    assert choose(table("img text label", tmp_path, img=files), Reading(image="img")).inputs == ("img",)
    assert choose(table("img label", img=[b"1", b"2", b"3"]), Reading()).modality == "image"
    assert choose(table("label img", img=[Image.new("L", (2, 2))] * 3), Reading()).inputs == ("img",)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("reading", "saw"),
    [
        (Reading(target="lable"), "'lable'"),
        (Reading(text=("txt",)), "'txt'"),
        (Reading(image="pic"), "'pic'"),
        (Reading(group="g"), "'g'"),
        (Reading(sensitive=("text", "s")), "'s'"),
        (Reading(time="t"), "'t'"),
    ],
)
def test_columns_that_are_not_there(reading: Reading, saw: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose(table("text label"), reading)
    assert caught.value.what == "there is no column of that name" and caught.value.saw == saw
    assert caught.value.allowed == "label, text"


@pytest.mark.parametrize(
    ("reading", "saw"),
    [
        (Reading(target="text", text=("text",)), "--target text and --text text"),
        (Reading(target="label", group="label"), "--target label and --group label"),
        (Reading(text=("text",), sensitive=("other", "text")), "--text text and --sensitive text"),
        (Reading(image="text", time="text"), "--image text and --time text"),
    ],
)
def test_one_column_with_two_uses(reading: Reading, saw: str) -> None:
    with pytest.raises(UsageError, match="one column has two uses") as caught:
        choose(table("text label other"), reading)
    assert caught.value.saw == saw


def test_a_group_may_be_sensitive() -> None:
    found = choose(table("text label other"), Reading(group="other", sensitive=("other",)))
    assert found.group == "other" and found.sensitive == ("other",)


def test_more_than_a_pair_is_refused() -> None:
    with pytest.raises(UsageError, match=r"more than two text columns · saw: text, a, b"):
        choose(table("text label a b"), Reading(text=("text", "a", "b")))
    with pytest.raises(UsageError, match=r"one column is named twice · saw: --text text,text"):
        choose(table("text label"), Reading(text=("text", "text")))
    with pytest.raises(UsageError, match=r"both --text and --image are given · saw: text, a"):
        choose(table("text label a"), Reading(text=("text",), image="a"))


def test_tables_of_numbers_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        choose(table("f1 f2 label", f1=NUMBERS, f2=NUMBERS), Reading())
    assert caught.value.what == "tables of numbers are not read yet" and caught.value.saw == "the columns f1, f2, label"
    assert caught.value.do == "name it with --text COLUMN or --image COLUMN"


@pytest.mark.parametrize(
    "values",
    [["one", "two", "three"], ["2024-05-01 10:00", "2024-05-02 10:00", "2024-05-03 10:00"], [["a b"], ["c"], ["d"]]],
)
def test_words_dates_and_lists_are_no_texts(values: list[Any]) -> None:
    with pytest.raises(DataError, match=r"no column of texts or pictures was found · saw: the columns a, label"):
        choose(table("a label", a=values), Reading())


def test_categories_are_no_texts() -> None:
    few = make_table({"a": ["less than 25", "25 to 40"] * 50, "label": ["x"] * 100}, "t", None, None)
    with pytest.raises(DataError, match="no column of texts"):
        choose(few, Reading())


def test_a_table_of_inputs_alone_is_refused() -> None:
    with pytest.raises(DataError, match=r"no target column was found · saw: the columns text · .* --target"):
        choose(table("text"), Reading())


def test_a_column_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        choose(table("file_name label", tmp_path, file_name=["a.wav", "b.wav", "c.wav"]), Reading(), "file_name")
    assert caught.value.what == "a column names no files that regraft reads"
    assert caught.value.saw == "file_name: a.wav"
    assert "pictures, by their paths" in caught.value.allowed
    with pytest.raises(DataError, match=r"a file outside the folder of the data · saw: \.\./a\.png"):
        choose(table("img label", tmp_path, img=["../a.png"] * 3), Reading(image="img"))


# ---------------------------------------------------------------- rows


def test_rows_have_groups_facets_and_times() -> None:
    found = table("text label who sex when", who=["u1", None, "u2"], text=["x", "y", " "])
    roles = choose(found, Reading(group="who", sensitive=("sex", "who"), time="when"))
    made = rows(found, roles)
    assert [(r.id, r.cell, r.y, r.group, r.facets) for r in made.rows] == [
        ("t:1", "x", "label0", "u1", ("sex0", "u1")),
        ("t:2", "y", "label1", "", ("sex1", "")),
    ]
    assert made.times == {"t:1": "when0", "t:2": "when1", "t:3": "when2"}
    assert made.bad == [(2, "it has no text")]


def test_rows_of_pictures(tmp_path: Path) -> None:
    Image.new("L", (2, 2)).save(tmp_path / "1.png")
    found = table("file_name label", tmp_path, file_name=["1.png", "2.png", ""])
    made = rows(found, choose(found, Reading()))
    assert [(r.id, r.cell) for r in made.rows] == [("t:1", tmp_path / "1.png")]
    assert made.bad == [(1, "there is no such file"), (2, "no file is named")]
