"""Read Arrow tables, of Parquet and Arrow files or of a dataset in memory, as columns of text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from regraft.data.decode import bound, kind_of
from regraft.data.values import check_names, texts
from regraft.errors import DataError
from regraft.kit import places

ROWS = 1024
"""So many rows of a Parquet file are unpacked at once."""


def arrow_file(path: Path) -> dict[str, list[Any]]:
    """The columns of a Parquet or Arrow file as text.

    Raises: DataError: the file is broken or cut short, would unpack to too much, or a name stands twice.
    """
    try:
        with places.opened(path) as file:
            table = _whole(path, file)
        check_names(table.column_names, str(path))
        return arrow_columns(table, _classes(table.schema.metadata or {}))
    except (DataError, PermissionError, FileNotFoundError):
        raise
    except Exception as error:  # whatever bytes that are changed or cut short lead the library to
        raise DataError(
            "a table cannot be read to its end",
            saw=f"{path}: {str(error)[:200] or type(error).__name__}",
            allowed="a whole Parquet or Arrow file",
            do="fetch or write it again",
        ) from error


def _whole(path: Path, file: BinaryIO) -> Any:
    """An Arrow table read in pieces, each of them checked; they are counted as they are unpacked."""
    import pyarrow
    import pyarrow.parquet

    limit, held, kept = bound(file.seek(0, 2)), 0, []
    file.seek(0)
    begun = file.read(6)
    file.seek(0)
    if path.suffix.lower() == ".parquet":
        if kind := kind_of(begun) if begun[:4] != b"PAR1" else "":
            raise ValueError(f"it is {kind}")
        opened = pyarrow.parquet.ParquetFile(file)
        schema, pieces = opened.schema_arrow, opened.iter_batches(ROWS)
    elif begun == b"ARROW1":
        opened = pyarrow.ipc.open_file(file)
        schema, pieces = opened.schema, map(opened.get_batch, range(opened.num_record_batches))
    else:
        opened = pyarrow.ipc.open_stream(file)
        schema, pieces = opened.schema, opened
    for piece in pieces:
        piece.validate(full=True)
        held += piece.nbytes + sum(map(_unfolded, piece.columns))
        if held > limit:
            raise DataError(
                "a table unpacks to more than is allowed",
                saw=f"{path}: more than {limit:,} bytes",
                allowed=f"{places.RATIO} times its size, {places.BYTES >> 30} GiB at most",
                do="write it again without what repeats, if you trust it",
            )
        kept.append(piece)
    return pyarrow.Table.from_batches(kept, schema)


def _unfolded(column: Any) -> int:
    """The bytes of the texts that a column of indices stands for; 0 for any other column."""
    import pyarrow
    import pyarrow.compute

    if not pyarrow.types.is_dictionary(column.type):
        return 0
    try:
        lengths = pyarrow.compute.binary_length(column.dictionary)
    except pyarrow.ArrowNotImplementedError:  # numbers
        return 0
    return pyarrow.compute.sum(lengths.take(column.indices)).as_py() or 0


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
