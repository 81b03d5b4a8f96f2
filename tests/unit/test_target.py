"""Targets: classes, several labels, numbers; labels stay what is written; every refusal shows what was seen."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from regraft.data.target import Meaning, as_number, gaps, meaning, read_as, target_of, valued
from regraft.errors import DataError, UsageError
from regraft.waist import Reading, Row


def rows(*ys: Any) -> list[Row]:
    return [Row(f"r{i}", None, y, "", str(i)) for i, y in enumerate(ys, 1)]


def read(ys: list[Any], task: str = "", positive: str = "", order: tuple[str, ...] = ()) -> Any:
    """The target of a training split with these values."""
    meant = meaning("y", ys, task)
    reading = Reading(task=task, positive=positive, order=order)
    return target_of({"train": valued(rows(*ys), meant)[0], "val": [], "test": []}, meant, reading)


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5.0), ("-0.50", -0.5), (".5", 0.5), ("3.", 3.0), ("1e-3", 0.001), (" 7 ", 7.0), ("+2", 2.0), ("0", 0.0)],
)
def test_what_is_a_number(text: str, value: float) -> None:
    assert as_number(text) == value


@pytest.mark.parametrize(
    "text", ["001", "00.5", "", ".", "true", "nan", "inf", "1e999", "1_000", "1,5", "٣", "0x1", "e"]
)
def test_what_is_no_number(text: str) -> None:
    assert as_number(text) is None


@given(some.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_number_is_one(value: float) -> None:
    assert as_number(repr(value)) == value


# ---------------------------------------------------------------- kinds


def test_more_than_twenty_numbers_are_a_regression() -> None:
    found = meaning("score", [str(i / 2) for i in range(21)] + ["0", "", None], "")
    assert found.kind == "number"
    assert found.note == "target score has 21 distinct numbers: a regression (--task classify makes classes of them)"
    found = meaning("score", [str(i) for i in range(20)] * 2, "")
    assert found.kind == "class"
    assert found.note == "target score has 20 distinct numbers: classes (--task regress takes them as numbers)"


@pytest.mark.parametrize("odd", ["x", "001", "nan", "true"])
def test_one_word_makes_classes(odd: str) -> None:
    assert meaning("y", [*map(str, range(50)), odd] * 2, "") == Meaning("y", "class")


@pytest.mark.parametrize(
    "values",
    [
        [["a"], ["a", "b"], []],
        ['["a", "b"]', "[]", '["c"]'],
        ["['a', 'b']", "['c']"],
        ["a|b", "a|c", "b|c", "a|b|c", "b"],
    ],
)
def test_several_labels(values: list[Any]) -> None:
    found = meaning("y", values, "")
    assert found.kind == "multi"
    assert found.note == "target y has several labels in a row (--task classify makes classes of it)"


@pytest.mark.parametrize("values", [["a|b", "c|d"], ["a|", "|b", "||"], ["[a]", "[b]"], ['["a"]', "b"]])
def test_a_bar_or_a_bracket_alone_makes_no_labels(values: list[str]) -> None:
    assert meaning("y", values, "").kind == "class"


@pytest.mark.parametrize(
    ("task", "kind"), [("classify", "class"), ("ordinal", "class"), ("regress", "number"), ("multilabel", "multi")]
)
def test_a_task_decides(task: str, kind: str) -> None:
    assert meaning("y", ["1", "2"], task) == Meaning("y", kind)  # type: ignore[arg-type]


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        meaning("y", ["a"], "classfy")
    assert caught.value.what == "there is no task of that name" and caught.value.do == "did you mean classify?"
    assert caught.value.allowed.startswith("classify, multilabel, ordinal, regress")


@pytest.mark.parametrize("values", [[], ["", " "], [None, None]])
def test_a_target_missing_everywhere_is_refused(values: list[Any]) -> None:
    with pytest.raises(DataError, match=r"the target is missing everywhere · saw: column y · .* --target"):
        meaning("y", values, "")


def test_objects_are_no_targets() -> None:
    with pytest.raises(DataError) as caught:
        meaning("objects", ["a", {"bbox": []}], "classify")
    assert caught.value.what == "a target column holds neither labels nor numbers"
    assert caught.value.saw == "objects: {'bbox': []}"


def test_free_text_is_no_target() -> None:
    values = [f"answer {i}" for i in range(21)]
    with pytest.raises(DataError) as caught:
        meaning("answer", values, "")
    assert caught.value.what == "a target column looks like free text"
    assert caught.value.saw == "answer: 21 different values in 21 rows"
    assert meaning("answer", values, "classify").kind == meaning("answer", values * 2, "").kind == "class"
    assert meaning("answer", values[:20], "").kind == "class"


# ---------------------------------------------------------------- values


def test_labels_are_stripped_and_composed() -> None:
    decomposed = unicodedata.normalize("NFD", "Käfer")
    kept, gone = valued(rows(" a ", decomposed, "", None, "NA", "None", "001", "true"), Meaning("y", "class"))
    assert [row.y for row in kept] == ["a", "Käfer", "NA", "None", "001", "true"]
    assert gone == [("r3", "it has no y"), ("r4", "it has no y")]


def test_labels_of_a_row_are_a_sorted_set() -> None:
    given_ = rows("b|a|b", " c ", "", None, ["b", "a"], [], '["x|y"]')
    kept, gone = valued(given_, Meaning("y", "multi"))
    assert [row.y for row in kept] == [("a", "b"), ("c",), (), ("a", "b"), (), ("x|y",)] and gone == [
        ("r4", "it has no y")
    ]


def test_a_split_without_any_label_has_no_targets() -> None:
    kept, gone = valued(rows("", [], None), Meaning("y", "multi"))
    assert not kept and gone == [(name, "it has no y") for name in ("r3", "r1", "r2")]


def test_numbers_are_floats() -> None:
    kept, gone = valued(rows("1", " 0.5", "", "05"), Meaning("y", "number"))
    assert [row.y for row in kept] == [1.0, 0.5, 5.0] and gone == [("r3", "it has no y")]


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        ("number", "many", "its y is no number"),
        ("number", "inf", "its y is no number"),
        ("number", "nan", "its y is no number"),
        ("number", "1_000", "its y is no number"),
        ("number", ["1"], "its y is no number"),
        ("class", ["a"], "its y is no label"),
        ("class", {"a": 1}, "its y is no label"),
        ("multi", "['a', 'b", "its y is no list of labels"),
    ],
)
def test_a_value_of_another_kind_costs_its_row(kind: Any, value: Any, why: str) -> None:
    kept, gone = valued(rows("1", value, "2"), Meaning("y", kind))
    assert [row.id for row in kept] == ["r1", "r3"] and gone == [("r2", why)]


@pytest.mark.parametrize(
    ("kind", "value", "what", "do"),
    [
        ("number", "red", "a target is no number", "use --task classify"),
        ("class", ["a"], "a class is wanted and something else stands there", "use --task multilabel"),
        ("multi", "[a", "a target is no list of labels", "use --task classify"),
    ],
)
def test_values_that_are_all_of_another_kind_are_refused(kind: Any, value: Any, what: str, do: str) -> None:
    with pytest.raises(DataError) as caught:
        valued(rows(None, value, value), Meaning("score", kind))
    assert caught.value.what == what and caught.value.saw == f"r2, column score: {str(value)!r}"
    assert caught.value.do.startswith(do)


def test_a_few_odd_values_leave_a_column_of_numbers_one() -> None:
    values = [f"{i / 7:.3f}" for i in range(200)]
    assert meaning("y", [*values, "n/a", "inf"], "").kind == "number"
    with pytest.raises(DataError, match="looks like free text"):
        meaning("y", [*values, "a", "b", "c", "d"], "")


def test_a_few_broken_lists_leave_a_column_of_lists_one() -> None:
    values = ['["a", "b"]', '["b"]'] * 60
    found = meaning("y", [*values, '["a", "b'], "")
    assert found.kind == "multi"
    kept, gone = valued(rows(*values, '["a", "b'), found)
    assert len(kept) == 120 and gone == [("r121", "its y is no list of labels")]


# ---------------------------------------------------------------- decimal commas, dates, gaps


def test_decimal_commas_are_read_and_said() -> None:
    values = [f"{i / 4:.2f}".replace(".", ",") for i in range(40)] + ["7"]
    for task in ("", "regress"):
        found = meaning("price", values, task)
        assert found.kind == "number" and found.comma and "decimal commas, 0,00 is 0.00" in found.note
        kept, gone = valued(rows("3,5", "-0,25", "7", "1.5.2"), found)
        assert [row.y for row in kept] == [3.5, -0.25, 7.0] and gone == [("r4", "its price is no number")]


@pytest.mark.parametrize("values", [["1,234", "12", "3,000"], ["1.5", "2,5"], ["1,2,3", "2"], ["a,5", "b"], ["1", "2"]])
def test_commas_that_may_stand_for_thousands_are_not_guessed(values: list[str]) -> None:
    assert not read_as("y", "number", values).comma


@pytest.mark.parametrize("day", ["2024-03-{:02}", "{}.3.2024", "3/{}/24 10:00", "2024-03-{:02}T10:00:00Z"])
def test_dates_are_no_target(day: str) -> None:
    values = [day.format(i) for i in range(1, 26)]
    with pytest.raises(DataError, match=r"a target column holds dates · saw: when: 25 different .* --time"):
        meaning("when", values, "")
    assert meaning("when", values[:3] * 9, "").kind == "class"


def test_labels_like_gaps_are_classes_and_said() -> None:
    splits = {"train": valued(rows("NA", "x", "NA", "nan"), Meaning("y", "class"))[0], "val": [], "test": []}
    target = target_of(splits, Meaning("y", "class"), Reading())
    assert target.labels == ("NA", "nan", "x")
    assert gaps(target, splits) == [
        "label 'NA' stands in 2 rows and is taken as a class",
        "label 'nan' stands in 1 rows and is taken as a class",
    ]
    assert not gaps(read(["a", "b"]), splits)


# ---------------------------------------------------------------- the target


def test_classes_and_their_counts() -> None:
    found = read(["b", "a", "b"])
    assert (found.name, found.kind, found.labels, found.counts) == ("y", "class", ("a", "b"), (1, 2))


@pytest.mark.parametrize(
    ("values", "task", "labels"),
    [
        (["10", "9", "-1"], "", ("-1", "9", "10")),
        (["10", "9", "x"], "", ("10", "9", "x")),
        (["1", "001", "2"], "", ("001", "1", "2")),
        (["1.5", "10", "9"], "", ("1.5", "10", "9")),
        (["1.5", "10", "9"], "ordinal", ("1.5", "9", "10")),
        (["low", "high"], "ordinal", ("high", "low")),
    ],
)
def test_the_order_of_labels(values: list[str], task: str, labels: tuple[str, ...]) -> None:
    assert read(values, task).labels == labels


def test_several_labels_are_counted_by_row() -> None:
    found = read(["a|b", "a", "b|c", ""], "multilabel")
    assert (found.kind, found.labels, found.counts) == ("multi", ("a", "b", "c"), (2, 2, 1))


def test_numbers_have_a_centre_and_a_spread() -> None:
    found = read(["1", "2", "3", "6"], "regress")
    assert (found.kind, found.labels, found.centre, found.spread) == ("number", (), 3.0, 3.5**0.5)


@pytest.mark.parametrize("ys", [["2", "2.0"], ["1e9", "1e9"], ["0", "0"]])
def test_a_constant_number_is_refused(ys: list[str]) -> None:
    with pytest.raises(DataError, match=r"the target is the same number everywhere · saw: y = .* in 2 training rows"):
        read(ys, "regress")


def test_numbers_that_overflow_are_refused() -> None:
    with pytest.raises(DataError, match=r"the target's numbers are too large"):
        read(["1e308", "-1e308"], "regress")


def test_one_class_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"only one class · saw: 'ant' · allowed: two classes or more · do: add examples"
    ):
        read(["ant", "ant"])
    assert read(["ant", "ant"], "multilabel").labels == ("ant",)


def test_no_label_at_all_is_refused() -> None:
    with pytest.raises(DataError, match=r"no row carries a label · saw: column y"):
        target_of({"train": [], "val": [], "test": []}, Meaning("y", "multi"), Reading())


@pytest.mark.parametrize("kind", ["class", "multi"])
@pytest.mark.parametrize("split", ["val", "test"])
def test_a_label_that_training_never_sees_is_refused(kind: Any, split: str) -> None:
    def side(*labels: str) -> list[Row]:
        return rows(*(labels if kind == "class" else [(label,) for label in labels]))

    splits = {"train": side("ant", "bee"), "val": [], "test": []} | {split: side("ant", "cat", "d" * 50)}
    with pytest.raises(DataError) as caught:
        target_of(splits, Meaning("y", kind), Reading())
    assert caught.value.what == f"the {split} split has classes that training never sees"
    assert caught.value.saw == f"cat, {'d' * 39}…" and caught.value.allowed == "ant, bee"


# ---------------------------------------------------------------- the positive class


def test_the_positive_class_comes_last() -> None:
    assert read(["no", "yes"], positive="no").labels == ("yes", "no")
    assert read(["no", "yes"], positive=" yes ").labels == ("no", "yes")


def test_a_positive_class_that_is_not_there() -> None:
    with pytest.raises(
        UsageError, match=r"no class of that name · saw: 'yess' · allowed: no, yes · do: did you mean yes"
    ):
        read(["no", "yes"], positive="yess")


@pytest.mark.parametrize(
    ("values", "task", "saw"),
    [
        (["a", "b", "c"], "", "'a' and 3 classes"),
        (["a", "b"], "multilabel", "'a' and 2 labels"),
        (["1", "2"], "regress", "'a' and a regression of y"),
    ],
)
def test_a_positive_class_needs_two_classes(values: list[str], task: str, saw: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(values, task, positive="a")
    assert caught.value.what.startswith("--positive needs a target of") and caught.value.saw == saw


def test_an_order_is_taken_as_it_is_given() -> None:
    target = read(["good", "poor", "fair", "poor"], "ordinal", order=("poor", "fair", "good"))
    assert target.labels == ("poor", "fair", "good") and target.counts == (2, 1, 1) and target.ordered


def test_numbers_have_an_order_and_words_have_none() -> None:
    assert read(["10", "9", "9.5"], "ordinal").labels == ("9", "9.5", "10")
    assert read(["10", "9"], "ordinal").ordered and not read(["a", "b"]).ordered


@pytest.mark.parametrize(
    ("order", "saw"), [(("a", "b"), "c"), (("a", "b", "c", "d"), "d"), (("a", "a", "b", "c"), "a, a, b, c")]
)
def test_an_order_names_every_label_once(order: tuple[str, ...], saw: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(["a", "b", "c"], "ordinal", order=order)
    assert caught.value.what == "--order does not name every label of training once" and caught.value.saw == saw


def test_numbers_take_no_order() -> None:
    with pytest.raises(UsageError, match="--order needs a target of classes"):
        read(["1", "2"], "regress", order=("1", "2"))
