"""Take data that is in memory already as tables: a DataFrame, a Dataset, arrays with labels, or splits of these.

Nothing is imported to recognise them: what a caller hands over, the caller has imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from regraft.data.arrow import arrow_columns
from regraft.data.read import SPLITS
from regraft.data.tables import Table, make_table
from regraft.data.values import check_names, texts
from regraft.errors import DataError, UsageError

KINDS = "a path, a DataFrame, a Dataset or DatasetDict, (X, y), or a dictionary of splits"


def kind(source: Any) -> str:
    """What a source in memory is called: "frame", "dataset", "arrays"; "" for anything else."""
    if _is(source, "pandas", "DataFrame"):
        return "frame"
    if _is(source, "datasets", "Dataset"):
        return "dataset"
    return "arrays" if isinstance(source, tuple) and len(source) == 2 else ""


def is_splits(source: Any) -> bool:
    """Whether a source is a dictionary of splits (a DatasetDict is one)."""
    return isinstance(source, Mapping)


def split_names(source: Mapping[Any, Any]) -> dict[str, str]:
    """Split → the key that stands for it; keys that are no names of splits are passed over beside a training split.

    Raises: UsageError: no key is a training split's and one is no split's name, or two are names of one split.
    """
    found: dict[str, str] = {}
    for key in source:
        split = SPLITS.get(str(key).lower(), "")
        if split in found:
            raise UsageError(
                "two keys are names of one split",
                saw=f"{found[split]}, {key}",
                allowed="one key for each split",
                do="leave one of them away",
            )
        if split:
            found[split] = key
    if strange := [key for key in source if key not in found.values() and "train" not in found]:
        raise UsageError(
            "a key is no name of a split", saw=repr(strange[0]), allowed=", ".join(SPLITS), do=f"give {KINDS}"
        )
    return found


def as_table(source: Any, name: str) -> Table:
    """A source in memory as a table whose ids begin with `name`.

    Raises: UsageError: it is nothing that can be read. DataError: it has no rows, or X and y do not fit.
    """
    found = kind(source)
    if not found:
        made = type(source)
        raise UsageError(
            "this is no data that can be read",
            saw=f"{made.__module__}.{made.__qualname__}",
            allowed=KINDS,
            do="convert it to one of these",
        )
    columns = _frame(source) if found == "frame" else _dataset(source) if found == "dataset" else _arrays(source)
    table = make_table(columns, name, None, None)
    if not table.ids:
        raise DataError("a table has no rows", saw=f"{name} ({found})", allowed="rows", do="check how it was made")
    return table


def _frame(frame: Any) -> Mapping[str, Sequence[Any]]:
    names = [str(name) for name in frame.columns]
    check_names(names, "a DataFrame")
    columns: dict[str, list[Any]] = {}
    for i, name in enumerate(names):
        values = frame.iloc[:, i]
        gaps = values.isna().tolist()
        if not any(gaps) and values.dtype.kind == "f" and values.dtype.itemsize < 8:
            values = values.astype(str)  # 3.8, not 3.799999952316284
        columns[name] = texts(None if gap else value for value, gap in zip(values.tolist(), gaps, strict=True))
    return columns


def _dataset(dataset: Any) -> Mapping[str, Sequence[Any]]:
    """Pictures stay bytes or paths: Arrow hands over what is stored, not what is decoded."""
    features = {n: vars(f).get("feature", f) for n, f in dataset.features.items() if not isinstance(f, (dict, list))}
    classes = {n: f.names for n, f in features.items() if type(f).__name__ == "ClassLabel"}
    return arrow_columns(dataset.with_format("arrow")[:], classes)


def _arrays(pair: tuple[Any, Any]) -> Mapping[str, Sequence[Any]]:
    x, y = (_entries(side) for side in pair)
    if len(x) != len(y):
        raise DataError(
            "X and y are of different lengths",
            saw=f"{len(x)} and {len(y)}",
            allowed="an entry of y for each of X",
            do="check how they were made",
        )
    strange = next((v for v in y if _is(v, "numpy", "ndarray")), None)
    if strange is not None:
        raise DataError(
            "y is a table",
            saw=f"rows of shape {strange.shape}",
            allowed="a label, a list of labels or a number for each entry of X",
            do="turn its rows into lists of labels",
        )
    first: Any = x[0] if x else ""
    if isinstance(first, (int, float)) or (_is(first, "numpy", "ndarray") and first.ndim < 2):
        raise DataError(
            "tables of numbers are not read yet",
            saw=f"X with entries such as {str(first)[:40]}",
            allowed="texts, pictures, or arrays [N, H, W] and [N, H, W, 3] of pixels",
            do="give texts or pictures",
        )
    if isinstance(first, (tuple, list)):
        if wrong := next((entry for entry in x if len(entry) != 2), None):
            raise DataError("an entry of X is no pair", saw=repr(wrong)[:80], allowed="two texts", do="mend that entry")
        return {"text1": [left for left, _ in x], "text2": [right for _, right in x], "label": texts(y)}
    return {"text" if isinstance(first, str) else "image": x, "label": texts(y)}


def _entries(side: Any) -> list[Any]:
    if isinstance(side, (list, tuple)):
        return list(side)
    if _is(side, "numpy", "ndarray"):
        return side.tolist() if side.ndim == 1 else list(side)
    if _is(side, "pandas", "Series"):
        gaps = side.isna().tolist()
        return [None if gap else value for value, gap in zip(side.tolist(), gaps, strict=True)]
    made = type(side)
    raise UsageError(
        "X and y are no arrays",
        saw=f"{made.__module__}.{made.__qualname__}",
        allowed="lists, numpy arrays or Series",
        do="convert them",
    )


def _is(value: Any, library: str, name: str) -> bool:
    """Whether a value is an instance of a library's class, or of one derived from it."""
    return any(kind.__name__ == name and kind.__module__.split(".")[0] == library for kind in type(value).__mro__)
