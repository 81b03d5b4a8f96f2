"""Reading class folders: with and without splits, what is skipped, what is refused."""

from __future__ import annotations

import errno
import hashlib
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from regraft.data.read import class_folders, files, folders
from regraft.errors import DataError


def sniff(path: Path) -> bool:
    """A modality of tests: files that begin with "yes"."""
    return path.read_bytes().startswith(b"yes")


def tree(root: Path, *names: str, text: str = "yes ") -> Path:
    """Files of these names, each with content of its own."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + name)
    return root


def read(root: Path) -> dict[str, list[tuple[str, str]]]:
    """Split → (id, label) of its rows."""
    return {
        split: [(name, label) for name, _, label, _ in rows]
        for split, rows in class_folders(root, sniff).splits.items()
    }


# ---------------------------------------------------------------- what is read


def test_class_folders_without_splits_are_training(tmp_path: Path) -> None:
    tree(tmp_path, "b/1", "a/deep/2", "a/1")
    assert read(tmp_path) == {"train": [("a/1", "a"), ("a/deep/2", "a"), ("b/1", "b")]}


@pytest.mark.parametrize("name", ["val", "validation", "valid", "dev", "VAL", "Validation"])
def test_validation_has_many_names(tmp_path: Path, name: str) -> None:
    tree(tmp_path, "train/a/1", "train/b/1", f"{name}/a/2")
    assert read(tmp_path)["val"] == [(f"{name}/a/2", "a")]


@pytest.mark.parametrize("name", ["test", "testing", "eval", "evaluation", "Test"])
def test_the_test_split_has_many_names(tmp_path: Path, name: str) -> None:
    tree(tmp_path, "training/a/1", "training/b/1", f"{name}/b/2")
    assert read(tmp_path) == {"train": [("training/a/1", "a"), ("training/b/1", "b")], "test": [(f"{name}/b/2", "b")]}


def test_train_alone_is_enough(tmp_path: Path) -> None:
    tree(tmp_path, "train/a/1", "train/b/1")
    assert list(read(tmp_path)) == ["train"]


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    tree(tmp_path, "test/1", "exam/1")
    assert {label for _, label in read(tmp_path)["train"]} == {"test", "exam"}


def test_hidden_files_and_litter_are_skipped(tmp_path: Path) -> None:
    tree(tmp_path, "a/1", "b/1", "a/.hidden", "a/.cache/1", ".git/1", "a/Thumbs.db", "b/desktop.ini", "__MACOSX/a/1")
    tree(tmp_path, "a/__MACOSX/1", "a/.DS_Store")
    found = class_folders(tmp_path, sniff)
    assert [row[0] for row in found.splits["train"]] == ["a/1", "b/1"] and found.left_out == []


def test_what_the_modality_does_not_know_is_left_out_and_named(tmp_path: Path) -> None:
    tree(tmp_path, "a/1", "b/1")
    tree(tmp_path, "a/notes.txt", text="no ")
    assert class_folders(tmp_path, sniff).left_out == ["a/notes.txt"]


def test_folders_beside_the_splits_are_named(tmp_path: Path) -> None:
    tree(tmp_path, "train/a/1", "train/b/1", "unlabelled/1")
    assert class_folders(tmp_path, sniff).left_out == ["unlabelled/ (beside the split folders)"]


def test_a_file_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    tree(tmp_path, "a/1", "b/1")
    (tmp_path / "a" / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "a" / "pipe")

    def careful(path: Path) -> bool:
        if path.name == "2":
            raise OSError("broken")
        return sniff(path)

    tree(tmp_path, "b/2")
    assert class_folders(tmp_path, careful).left_out == ["a/dangling", "a/pipe", "b/2"]


def test_composed_and_decomposed_names_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Käfer") for form in ("NFC", "NFD"))
    assert composed != decomposed
    tree(tmp_path, f"train/{composed}/1", "train/b/1", f"test/{decomposed}/2")
    found = read(tmp_path)
    assert {label for _, label in found["train"] + found["test"]} == {composed, "b"}


def test_the_key_is_the_sum_of_the_content(tmp_path: Path) -> None:
    tree(tmp_path, "a/1", "b/1")
    (row, _) = class_folders(tmp_path, sniff).splits["train"]
    assert row[3] == hashlib.sha256(b"yes a/1").hexdigest() and row[1] == tmp_path / "a" / "1"


def test_files_come_in_one_order(tmp_path: Path) -> None:
    tree(tmp_path, "b", "a/2", "a/1", "A")
    assert [p.relative_to(tmp_path).as_posix() for p in files(tmp_path)] == ["A", "b", "a/1", "a/2"]


def test_folders_come_in_one_order_without_litter(tmp_path: Path) -> None:
    tree(tmp_path, "b/1", "a/1", ".git/1", "__MACOSX/1", "file")
    assert [p.name for p in folders(tmp_path)] == ["a", "b"]


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    tree(tmp_path, "outside/1", "data/a/1", "data/b/1")
    (tmp_path / "data" / "a" / "link").symlink_to(tmp_path / "outside")
    assert read(tmp_path / "data")["train"] == [("a/1", "a"), ("b/1", "b")]


# ---------------------------------------------------------------- what is refused


def test_splits_without_training_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, "val/a/1", "test/a/1")
    with pytest.raises(DataError) as caught:
        class_folders(tmp_path, sniff)
    assert caught.value.what == "there is no training split" and caught.value.saw == "test, val"
    assert caught.value.do == f"put the training examples into {tmp_path / 'train'}"


def test_loose_files_are_refused_with_one_of_them(tmp_path: Path) -> None:
    tree(tmp_path, "1", "2")
    with pytest.raises(DataError, match=r"no class folders.* with files such as 1 · allowed: <class>/<file>"):
        class_folders(tmp_path, sniff)


def test_a_folder_that_may_not_be_read_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """os.walk passes over such folders: a class would be gone without a word."""
    tree(tmp_path, "a/1", "b/1", "c/1")
    original = os.scandir

    def denied(path: Any = ".") -> Any:
        if Path(path).name == "c":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(DataError, match=f"{tmp_path / 'c'}"):
        class_folders(tmp_path, sniff)


def test_empty_class_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"no class folders with files that can be read were found .* with no files"):
        class_folders(tmp_path, sniff)
