"""Findings about classes, names, columns, targets, texts that hold their labels, and inputs unfit for a backbone."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regraft.data.open import open_data
from regraft.flags import classes, columns, duplicates, giveaway, names, target, unsuited
from regraft.modalities import image, text
from regraft.waist import Data, Flag, InputSpec, Look, Reading, Row, Seen, Target

MODELS = Path(__file__).resolve().parents[2] / ".." / "shared" / "models"


def seen(
    ys: Sequence[Any],
    texts: Sequence[Any] = (),
    *,
    test: Sequence[str] = (),
    kind: Any = "class",
    inputs: tuple[str, ...] = ("text",),
    table: dict[str, Sequence[Any]] | None = None,
) -> Seen:
    """Training rows with these targets; `test` are the labels of test rows."""
    labels = sorted(set(ys)) if kind == "class" else []
    counts = tuple(list(ys).count(label) for label in labels)
    train = tuple(Row(f"r{i}", texts[i] if texts else f"t {i}", y, "", f"k{i}") for i, y in enumerate(ys))
    tests = tuple(Row(f"e{i}", f"e {i}", y, "", f"e{i}") for i, y in enumerate(test))
    data = Data("d", "text", Target("y", kind, tuple(labels), counts), train, (), tests, "", columns=inputs)
    return Seen(data, "texts", [row.id for row in train], table or {})


def told(flags: Sequence[Flag]) -> list[tuple[str, str]]:
    return [(flag.status, flag.text) for flag in flags]


# ---------------------------------------------------------------- duplicates


def test_equal_rows_within_a_split_are_a_note() -> None:
    train = tuple(Row(f"r{i}", "t", "a", "", "same" if i < 3 else f"k{i}") for i in range(5))
    data = Data("d", "text", Target("y", "class", ("a", "b"), (5, 1)), train, (), (), "")
    (flag,) = duplicates.look(Seen(data, "texts"))
    assert (flag.status, flag.count, flag.of, flag.examples) == ("note", 1, 5, ("r0 = r1",))


# ---------------------------------------------------------------- classes


def test_even_classes_in_every_split_are_no_finding() -> None:
    assert classes.look(seen("aabb", test="ab")) == []


def test_a_class_that_test_lacks_is_told() -> None:
    assert told(classes.look(seen("aabbcc", test="ab"))) == [("note", "1 of 3 classes missing from the test split")]


def test_classes_with_hardly_any_rows_and_the_ratio_are_told() -> None:
    few, ratio = classes.look(seen("a" * 60 + "b" * 60 + "c", test="abc"))
    assert few.text == "1 of 3 classes with hardly any training rows, 1 of them a single one"
    assert few.examples == ("c: 1",)
    assert ratio.text == "the largest class has 60 times the training rows of the smallest"


@pytest.mark.parametrize("name", ["background", "Other", "__ignore__", "Not a Number", "n/a", "No Class"])
def test_a_rest_is_no_class(name: str) -> None:
    found = classes.look(seen(["cat", "dog", name], test=["cat", "dog", name]))
    rest = [flag for flag in found if "background" in flag.text]
    assert [flag.examples for flag in rest] == ([] if name == "Not a Number" else [(name,)])


def test_numbers_have_no_classes() -> None:
    assert classes.look(seen([1.0, 2.0], kind="number")) == []


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "other", ["cat", "Cat", "CAT\u200b", "Ｃat", "c-at"], ids=["same", "case", "invisible", "wide", "dash"]
)
def test_labels_that_look_alike_are_told(other: str) -> None:
    found = names.look(seen(["cat", other, "dog"]))
    wanted = {"cat": 0, "c-at": 0}.get(other, 1)
    assert len(found) == wanted and all(flag.status == "warn" and flag.count == 2 for flag in found)


def test_dashes_blanks_and_underscores_are_one() -> None:
    (flag,) = names.look(seen(["golden_retriever", "golden–retriever", "Golden Retriever", "dog"]))
    assert flag.count == 3 and "punctuation" in flag.text


def test_spellings_that_are_read_as_one_label_are_told() -> None:
    raw = ["café", unicodedata.normalize("NFD", "café"), "dog ", "dog", "dog"]
    (flag,) = names.look(seen(["café", "café", "dog", "dog", "dog"], table={"y": raw}))
    assert (flag.status, flag.count) == ("note", 2) and "'dog ' " in "; ".join(flag.examples) + " "
    assert any("\\u0301" in example for example in flag.examples) and "2 rows" in flag.advice


# ---------------------------------------------------------------- columns

N = 60
YS = ["a" if i % 3 else "b" for i in range(N)]


def of_columns(**table: Sequence[Any]) -> list[Flag]:
    texts = [f"some text {i}" for i in range(N)]
    return columns.look(seen(YS, texts, table={"text": texts, "y": YS, **table}))


def test_ordinary_columns_are_no_finding() -> None:
    draw = np.random.default_rng(0)
    assert (
        of_columns(age=[str(n) for n in draw.integers(0, 90, N)], town=[f"t{n}" for n in draw.integers(0, 5, N)]) == []
    )


def test_constant_and_counting_columns_are_notes() -> None:
    found = of_columns(source=["web"] * N, number=[str(i + 100) for i in reversed(range(N))])
    assert told(found) == [
        ("note", "1 column with one value in every row"),
        ("note", "1 column that count the rows, as ids do"),
    ]
    assert found[0].examples == ("source",) and found[1].examples == ("number",)


def test_an_input_that_counts_is_a_warning() -> None:
    numbers = [str(i) for i in range(N)]
    (flag,) = columns.look(seen(YS, numbers, table={"text": numbers, "y": YS}))
    assert flag.status == "warn"


def test_a_column_that_equals_or_determines_the_target_is_told() -> None:
    found = of_columns(
        copy=YS, code=[{"a": "1", "b": "2"}[y] for y in YS], half=[y if i % 2 else "x" for i, y in enumerate(YS)]
    )
    assert [flag.text.split(":")[0] for flag in found] == [
        "the column copy equals the target",
        "the column code tells the target",
    ]
    assert {flag.status for flag in found} == {"note"}


def test_a_telling_column_that_the_text_holds_is_a_warning() -> None:
    codes = [{"a": "R1", "b": "R2"}[y] for y in YS]
    texts = [f"[{code}] some text {i}" for i, code in enumerate(codes)]
    (flag,) = columns.look(seen(YS, texts, table={"text": texts, "code": codes, "y": YS}))
    assert flag.status == "warn" and "the input text holds its value" in flag.text


# ---------------------------------------------------------------- giveaways, targets


def test_texts_with_their_labels_in_front_are_a_warning() -> None:
    texts = [f"{'Not_Spam' if y == 'a' else 'SPAM!'}: hello {i}" for i, y in enumerate(YS)]
    (flag,) = giveaway.look(seen([{"a": "not spam", "b": "spam"}[y] for y in YS], texts))
    assert flag.status == "warn" and "not spam" in flag.examples[0]


def test_a_class_whose_texts_name_it_by_nature_is_no_finding() -> None:
    ys = ["timer"] * 10 + ["weather"] * 25 + ["music"] * 25
    texts = [f"set a timer for {i}" for i in range(10)] + [f"words of {i}" for i in range(50)]
    assert giveaway.look(seen(ys, texts)) == []


def test_dates_ids_and_single_labels_are_no_targets() -> None:
    assert "are dates" in target.look(seen(["2024-01-05", "2024-02-07", "2024-01-05"]))[0].text
    assert "different labels" in target.look(seen([f"label {i}" for i in range(30)]))[0].text
    assert "looks like an id" in target.look(seen([float(i) for i in range(30)], kind="number"))[0].text
    assert target.look(seen([float(i % 9) for i in range(30)], kind="number")) == []
    assert target.look(seen(["a", "b"] * 20)) == []


# ---------------------------------------------------------------- what a backbone dislikes


def pictures(*sizes: tuple[int, int]) -> Data:
    train = tuple(Row(f"r{i}", None, "a", "", f"k{i}", look=Look("", size)) for i, size in enumerate(sizes))
    return Data("d", "image", Target("y", "class", ("a", "b"), (1, 1)), train, (), (), "")


def test_pictures_smaller_than_the_input_are_told() -> None:
    spec = InputSpec("image", (3, 224, 224))
    (flag,) = unsuited.look(Seen(pictures((32, 32), (64, 48), (40, 300), (640, 480)), "pictures", inputs=spec))
    assert (flag.count, flag.of, flag.examples[0]) == (3, 4, "r0 (32 × 32)")
    assert "the median of these is 40 × 300" in flag.text
    assert image.unsuited(Seen(pictures((224, 300)), "pictures", inputs=spec)) == []
    assert image.unsuited(Seen(pictures((8, 8)), "pictures", inputs=InputSpec("image", (1024,)))) == []


@pytest.mark.parametrize(
    ("said", "how"),
    [
        ("The weather is good and we are going to the park today.", ""),
        ("Das Wetter ist gut und wir gehen heute gemeinsam in den Stadtpark.", "tokens of a word"),
        ("今天天气很好，我们去公园吧", "does not know"),
    ],
)
def test_a_language_that_the_tokenizer_was_not_made_for_is_told(said: str, how: str) -> None:
    folder = MODELS / "all_minilm_l6_v2"
    if not folder.is_dir():
        pytest.skip("the sentence encoder is not here")
    spec = text.described(folder)
    made = Seen(seen("ab" * 10, [said] * 20).data, "texts", inputs=spec, encoder=text.encoder(spec, False, str(folder)))
    assert [how in flag.text for flag in unsuited.look(made)] == ([True] if how else [])


# ---------------------------------------------------------------- through the door


def test_a_table_is_looked_at_with_all_its_columns(tmp_path: Path) -> None:
    lines = ["nr,text,y,copy"] + [f"{i},text number {i} of them,{YS[i]},{YS[i]}" for i in range(N)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    found = {flag.flag: flag for flag in open_data(tmp_path / "t.csv", reading=Reading(target="y")).flags}
    assert "columns" in found
