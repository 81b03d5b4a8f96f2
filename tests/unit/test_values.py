"""Values of tables as text: numbers, truth values, dates, lists and gaps."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regraft.data.values import DECODER, check_names, from_json, listed, texts
from regraft.errors import DataError


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["NA", "None", "001", "true", ""], ["NA", "None", "001", "true", ""]),
        ([1, -2, 10**20], ["1", "-2", "1" + "0" * 20]),
        ([True, False, None], ["True", "False", None]),
        ([0.5, float("nan"), 2.0], ["0.5", None, "2.0"]),
        ([3.0, None, 7.0], ["3", None, "7"]),
        ([3.0, 7.0], ["3.0", "7.0"]),
        ([np.int64(4), np.float64(0.5), np.bool_(True)], ["4", "0.5", "True"]),
        ([[1, 2], ("a",), {"b", "a"}], [["1", "2"], ["a"], ["a", "b"]]),
        ([np.array(["a", "b"])], [["a", "b"]]),
        ([datetime.date(2024, 5, 1), datetime.datetime(2024, 5, 1, 3)], ["2024-05-01", "2024-05-01T03:00:00"]),
        ([{"bytes": b"x", "path": "p"}, {"bytes": None, "path": "p"}], [b"x", "p"]),
        ([{"a": 1}, b"raw", Path("x")], [{"a": 1}, b"raw", Path("x")]),
    ],
)
def test_values_become_text(values: list[Any], expected: list[Any]) -> None:
    assert texts(values) == expected


def test_pictures_stay_pictures() -> None:
    picture, pixels = Image.new("L", (2, 2)), np.zeros((2, 2), np.uint8)
    found = texts([picture, pixels])
    assert found[0] is picture and found[1] is pixels


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('["a", "b|c"]', ["a", "b|c"]),
        (" [1, 2.50, true] ", ["1", "2.50", "true"]),
        ("['a', 'b']", ["a", "b"]),
        ('["a", null]', ["a"]),
        ("[]", []),
        ("[a, b]", None),
        ("[[1], [2]]", None),
        ("a", None),
        ("[" * 5000 + "]" * 5000, None),
    ],
)
def test_lists_written_as_text(text: str, expected: list[str] | None) -> None:
    assert listed(text) == expected


def test_json_numbers_stay_as_written() -> None:
    found = DECODER.decode('{"a": 1.50, "b": 10, "c": true, "d": NaN, "e": [false, 1e3], "f": Infinity}')
    assert {name: from_json(value) for name, value in found.items()} == {
        "a": "1.50",
        "b": "10",
        "c": "true",
        "d": None,
        "e": ["false", "1e3"],
        "f": "Infinity",
    }


def test_names_that_stand_twice_are_refused() -> None:
    check_names(["a", "A", "b"], "here")
    with pytest.raises(DataError, match=r"two columns of one name · saw: x\.csv: a, b · allowed: a name of its own"):
        check_names(["b", "a", "b", "a"], "x.csv")
