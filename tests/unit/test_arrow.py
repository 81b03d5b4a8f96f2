"""Arrow tables: Parquet and Arrow files as text, with the names behind a dataset's indices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regraft.data.arrow import arrow_columns, arrow_file
from regraft.errors import DataError

TABLE = {"text": ["a", None], "label": [1, 0], "flag": [True, None], "tags": [["x"], []]}


def test_parquet_as_text(tmp_path: Path) -> None:
    table = pa.table({**TABLE, "score": pa.array([3.8, None], pa.float32()), "__index_level_0__": [5, 6]})
    pq.write_table(table, tmp_path / "x.parquet")
    assert arrow_file(tmp_path / "x.parquet") == {
        "text": ["a", None],
        "label": ["1", "0"],
        "flag": ["True", None],
        "tags": [["x"], []],
        "score": ["3.8", None],
    }


@pytest.mark.parametrize("maker", [pa.ipc.new_stream, pa.ipc.new_file])
def test_arrow_streams_and_files(tmp_path: Path, maker: Any) -> None:
    table = pa.table({"text": ["a"], "label": ["001"]})
    with maker(tmp_path / "x.arrow", table.schema) as sink:
        sink.write_table(table)
    assert arrow_file(tmp_path / "x.arrow") == {"text": ["a"], "label": ["001"]}


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    (tmp_path / "year=2024").mkdir()
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "year=2024" / "x.parquet")
    assert arrow_file(tmp_path / "year=2024" / "x.parquet") == {"text": ["a"]}


def test_files_that_a_dataset_wrote_keep_their_class_names(tmp_path: Path) -> None:
    import datasets

    names = datasets.ClassLabel(names=["neg", "pos"])
    features = datasets.Features(text=datasets.Value("string"), label=names, many=datasets.List(names))
    made = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, -1], "many": [[0, 1], []]}, features=features)
    pq.write_table(made.with_format("arrow")[:], tmp_path / "x.parquet")
    assert arrow_file(tmp_path / "x.parquet") == {
        "text": ["a", "b"],
        "label": ["pos", None],
        "many": [["neg", "pos"], []],
    }


def test_foreign_metadata_is_no_harm(tmp_path: Path) -> None:
    for text in (b"{", b'{"info": {"features": {"text": 3}}}'):
        table = pa.table({"text": ["a"]}).replace_schema_metadata({b"huggingface": text})
        pq.write_table(table, tmp_path / "x.parquet")
        assert arrow_file(tmp_path / "x.parquet") == {"text": ["a"]}


def test_indices_out_of_range_are_no_label() -> None:
    assert arrow_columns(pa.table({"y": [0, 2, -1, None]}), {"y": ["a", "b"]}) == {"y": ["a", None, None, None]}


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow"])
def test_a_broken_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PAR1 and nothing more")
    with pytest.raises(DataError, match=rf"a table cannot be read to its end · saw: .*{name}: "):
        arrow_file(tmp_path / name)


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([[1], [2]], names=["a", "a"]), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"two columns of one name · saw: .*x\.parquet: a"):
        arrow_file(tmp_path / "x.parquet")


def test_a_small_file_that_holds_too_much_is_refused(tmp_path: Path) -> None:
    text = "a" * 1_000_000
    once = pa.array([text] * 40)
    pq.write_table(pa.table({"text": once}), tmp_path / "x.parquet")
    folded = pa.table({"text": once.dictionary_encode()})
    with pa.ipc.new_file(
        tmp_path / "x.arrow", folded.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as file:
        file.write_table(folded)
    for name in ("x.parquet", "x.arrow"):
        assert (tmp_path / name).stat().st_size < 100_000
        with pytest.raises(DataError, match=r"a table unpacks to more than is allowed · .* 200 times its size"):
            arrow_file(tmp_path / name)
