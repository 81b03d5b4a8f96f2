"""Read Arrow tables, of Parquet and Arrow files or of a dataset in memory, as columns of text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regraft.data.values import check_names, texts
from regraft.errors import DataError


def arrow_file(path: Path) -> dict[str, list[Any]]:
    """The columns of a Parquet or Arrow file as text.

    Raises: DataError: the file is broken or cut short, or a name stands twice.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        if path.suffix.lower() == ".parquet":
            table = pyarrow.parquet.ParquetFile(path).read()
        else:
            with path.open("rb") as file:
                whole = file.read(6) == b"ARROW1"
                file.seek(0)
                opened = pyarrow.ipc.open_file(file) if whole else pyarrow.ipc.open_stream(file)
                table = opened.read_all()
    except (pyarrow.ArrowException, EOFError) as error:
        raise DataError(
            "a table cannot be read to its end",
            saw=f"{path}: {str(error)[:200]}",
            allowed="a whole Parquet or Arrow file",
            do="fetch or write it again",
        ) from error
    check_names(table.column_names, str(path))
    return arrow_columns(table, _classes(table.schema.metadata or {}))


def arrow_columns(table: Any, classes: Mapping[str, Sequence[str]]) -> dict[str, list[Any]]:
    """The columns of an Arrow table as text; those in `classes` are indices, or lists of indices, into these names."""
    import numpy
    import pyarrow

    columns = {}
    for name in table.column_names:
        if name.startswith("__index_level_"):
            continue  # the index of a DataFrame
        column = table.column(name)
        values = column.to_pylist()
        if name in classes:
            values = [_named(value, classes[name]) for value in values]
        elif pyarrow.types.is_float32(column.type) or pyarrow.types.is_float16(column.type):
            kind = numpy.float32 if pyarrow.types.is_float32(column.type) else numpy.float16
            values = [None if v is None else float(str(kind(v))) for v in values]  # 3.8, not 3.799999952316284
        columns[str(name)] = texts(values)
    return columns


def _named(value: Any, names: Sequence[str]) -> Any:
    """The name behind an index, None for -1, which stands for no label."""
    if isinstance(value, list):
        return [found for entry in value if (found := _named(entry, names)) is not None]
    return None if value is None or not 0 <= value < len(names) else names[value]


def _classes(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """The names behind indices, as the datasets library writes them into a file's schema."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    except ValueError:
        return {}
    found = {}
    for name, feature in features.items():
        inner = feature.get("feature", feature) if isinstance(feature, dict) else {}
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel":
            found[name] = list(inner["names"])
    return found
