"""Metadata beside files: in the folder or in its split folders, with the column that names the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from regraft.data.metadata import described


def put(root: Path, **files: str) -> Path:
    """Files of these contents; a `__` in a name is a folder's end, `_csv` its ending."""
    for name, text in files.items():
        path = root / (name.replace("__", "/").replace("_csv", ".csv").replace("_jsonl", ".jsonl"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_metadata_in_the_folder(tmp_path: Path) -> None:
    found = described(put(tmp_path, metadata_csv="file_name,label\n1.png,a\n2.png,b\n"))
    assert found and found.column == "file_name" and found.notes == ()
    assert found.tables["train"].ids == ["metadata:1", "metadata:2"] and found.tables["train"].folder == tmp_path


def test_metadata_in_split_folders(tmp_path: Path) -> None:
    put(tmp_path, train__metadata_jsonl='{"image_file_name": "1.png"}', dev__metadata_csv="image_file_name\n2.png\n")
    put(tmp_path, test__notes_csv="file_name\n3.png\n", other__metadata_csv="file_name\n4.png\n")
    found = described(tmp_path)
    assert found and found.column == "image_file_name" and set(found.tables) == {"train", "val"}
    assert found.tables["val"].ids == ["dev:1"] and found.tables["val"].folder == tmp_path / "dev"
    assert found.tables["val"].root == tmp_path
    assert found.notes == ("test/ is left out: it has no metadata with a column file_name",)


def test_names_that_begin_with_a_split_tell_it(tmp_path: Path) -> None:
    found = described(put(tmp_path, metadata_csv="file_name,label\ntest/1.png,a\ntrain/1.png,b\ntrain/2.png,a\n"))
    assert found and {s: list(t.ids) for s, t in found.tables.items()} == {
        "test": ["metadata:1"],
        "train": ["metadata:2", "metadata:3"],
    }
    found = described(put(tmp_path, metadata_csv="file_name,label\ntest/1.png,a\npics/1.png,b\ntrain/2.png,a\n"))
    assert found and set(found.tables) == {"train"}


@pytest.mark.parametrize("text", ["name,label\n1.png,a\n", "files\n1.png\n"])
def test_metadata_that_names_no_files_is_none(tmp_path: Path, text: str) -> None:
    assert described(put(tmp_path, metadata_csv=text)) is None
    assert described(put(tmp_path / "other", notes_csv="file_name\n1.png\n")) is None
