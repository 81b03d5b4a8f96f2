"""Data in memory: frames, datasets, arrays and splits of these, recognised without importing a library."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from regraft.data.memory import as_table, is_splits, kind, split_names
from regraft.errors import DataError, UsageError


def columns(source: Any) -> dict[str, list[Any]]:
    return {name: list(values) for name, values in as_table(source, "t").columns.items()}


# ---------------------------------------------------------------- frames


def test_a_frame_as_text() -> None:
    frame = pd.DataFrame(
        {
            "text": ["a", None, "NA"],
            "n": [1, 2, 3],
            "gap": [1, None, 3],
            "flag": [True, False, True],
            "kind": pd.Categorical(["x", "y", None]),
            "short": np.array([3.8, 0.5, 1.0], np.float32),
            "tags": [["a"], [], ["b", "c"]],
            5: pd.to_datetime(["2024-05-01"] * 3),
        },
        index=[7, 7, 7],
    )
    assert kind(frame) == "frame" and as_table(frame, "t").ids == ["t:1", "t:2", "t:3"]
    assert columns(frame) == {
        "text": ["a", None, "NA"],
        "n": ["1", "2", "3"],
        "gap": ["1", None, "3"],
        "flag": ["True", "False", "True"],
        "kind": ["x", "y", None],
        "short": ["3.8", "0.5", "1.0"],
        "tags": [["a"], [], ["b", "c"]],
        "5": ["2024-05-01T00:00:00"] * 3,
    }


def test_a_frame_without_rows_or_with_a_name_twice() -> None:
    with pytest.raises(DataError, match=r"a table has no rows · saw: t \(frame\)"):
        as_table(pd.DataFrame({"a": []}), "t")
    with pytest.raises(DataError, match=r"two columns of one name · saw: a DataFrame: a"):
        as_table(pd.DataFrame([[1, 2]], columns=["a", "a"]), "t")


# ---------------------------------------------------------------- datasets


def test_a_dataset_with_class_names_and_pictures() -> None:
    import datasets

    names = datasets.ClassLabel(names=["neg", "pos"])
    features = datasets.Features(
        text=datasets.Value("string"), label=names, many=datasets.List(names), image=datasets.Image()
    )
    rows = {"text": ["a", "b", "c"], "label": [1, 0, -1], "many": [[0, 1], [], [1]]}
    pictures = [Image.new("L", (2, 2), shade) for shade in (0, 1, 2)]
    made = datasets.Dataset.from_dict(rows | {"image": pictures}, features=features)
    assert kind(made) == "dataset"
    found = columns(made)
    assert found["label"] == ["pos", "neg", None] and found["many"] == [["neg", "pos"], [], ["pos"]]
    assert all(isinstance(cell, bytes) and cell.startswith(b"\x89PNG") for cell in found["image"])
    assert columns(made.select([2, 0]))["text"] == ["c", "a"]


def test_a_dictionary_of_datasets_is_splits() -> None:
    import datasets

    made = datasets.DatasetDict(train=datasets.Dataset.from_dict({"text": ["a"]}))
    assert is_splits(made) and split_names(made) == {"train": "train"}


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (["a", "b"], [1, "001"], {"text": ["a", "b"], "label": ["1", "001"]}),
        (np.array(["a", "b"]), np.array([True, False]), {"text": ["a", "b"], "label": ["True", "False"]}),
        (pd.Series(["a", "b"]), pd.Series([1.5, None]), {"text": ["a", "b"], "label": ["1.5", None]}),
        ([("a", "b"), ["c", "d"]], [["x"], []], {"text1": ["a", "c"], "text2": ["b", "d"], "label": [["x"], []]}),
    ],
)
def test_texts_with_labels(x: Any, y: Any, expected: dict[str, list[Any]]) -> None:
    assert kind((x, y)) == "arrays" and columns((x, y)) == expected


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 3)])
def test_arrays_of_pixels(shape: tuple[int, ...]) -> None:
    found = columns((np.zeros(shape, np.uint8), [0, 1, 2]))
    assert [cell.shape for cell in found["image"]] == [shape[1:]] * 3 and found["label"] == ["0", "1", "2"]


def test_pictures_with_labels() -> None:
    pictures = [Image.new("L", (2, 2)), Image.new("L", (2, 2))]
    assert columns((pictures, ["a", "b"]))["image"] == pictures


@pytest.mark.parametrize(
    ("x", "y", "what", "saw"),
    [
        (["a"], ["b", "c"], "X and y are of different lengths", "1 and 2"),
        (np.zeros((2, 3)), [0, 1], "tables of numbers are not read yet", r"X with entries such as \[0\. 0\. 0\.\]"),
        (np.zeros(2), [0, 1], "tables of numbers are not read yet", "X with entries such as 0.0"),
        (["a", "b"], np.eye(2), "y is a table", r"rows of shape \(2,\)"),
        ([("a", "b"), ("c",)], [0, 1], "an entry of X is no pair", r"\('c',\)"),
        ([], [], "a table has no rows", r"t \(arrays\)"),
    ],
)
def test_arrays_that_do_not_fit(x: Any, y: Any, what: str, saw: str) -> None:
    with pytest.raises(DataError, match=f"{what} · saw: {saw}"):
        as_table((x, y), "t")


def test_objects_of_other_kinds_are_refused() -> None:
    with pytest.raises(UsageError, match=r"X and y are no arrays · saw: builtins\.str · allowed: lists, numpy arrays"):
        as_table(("train.csv", "test.csv"), "t")
    with pytest.raises(UsageError) as caught:
        as_table(3, "t")
    assert caught.value.what == "this is no data that can be read" and caught.value.saw == "builtins.int"
    assert kind(3) == kind("train.csv") == kind([1, 2]) == "" and not is_splits([])


# ---------------------------------------------------------------- splits


def test_names_of_splits() -> None:
    assert split_names({"Training": 1, "dev": 2, "eval": 3}) == {"train": "Training", "val": "dev", "test": "eval"}
    assert split_names({"train": 1, "unsupervised": 2}) == {"train": "train"}
    with pytest.raises(UsageError, match=r"a key is no name of a split · saw: 'text' · allowed: train, training, val"):
        split_names({"text": []})
    with pytest.raises(UsageError, match=r"two keys are names of one split · saw: val, dev"):
        split_names({"train": 1, "val": 2, "dev": 3})


def test_no_library_is_imported_to_recognise_anything() -> None:
    code = (
        "import sys; from regraft.data.open import open_data; print({'pandas', 'datasets', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr
