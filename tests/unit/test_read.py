"""Reading class folders: with and without splits, what is skipped, what is refused."""

from __future__ import annotations

import errno
import hashlib
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from regraft.data.cells import EMPTY
from regraft.data.read import class_folders, files, folders
from regraft.errors import DataError
from regraft.waist import Look

ENDINGS = (".yes",)


def see(paths: Sequence[Path]) -> list[tuple[str, Look]]:
    """A modality of tests: files that begin with "yes"."""
    found = []
    for path in paths:
        data = path.read_bytes() if path.is_file() else b""
        good = data.startswith(b"yes")
        found.append((hashlib.sha256(data).hexdigest(), Look()) if good else ("", Look("no" if data else EMPTY)))
    return found


def tree(root: Path, *names: str, text: str = "yes ") -> Path:
    """Files of these names, each with content of its own."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + name)
    return root


def read(root: Path) -> dict[str, list[tuple[str, str]]]:
    """Split → (id, label) of its rows."""
    return {
        split: [(name, label) for name, _, label, _, _ in rows]
        for split, rows in class_folders(root, see, ENDINGS).splits.items()
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
    found = class_folders(tmp_path, see, ENDINGS)
    assert [row[0] for row in found.splits["train"]] == ["a/1", "b/1"] and found.left_out == []


def test_what_the_modality_does_not_know_is_left_out_and_named(tmp_path: Path) -> None:
    tree(tmp_path, "a/1", "b/1")
    tree(tmp_path, "a/notes.txt", text="no ")
    assert class_folders(tmp_path, see, ENDINGS).left_out == [("a/notes.txt", "no")]


def test_folders_beside_the_splits_are_named(tmp_path: Path) -> None:
    tree(tmp_path, "train/a/1", "train/b/1", "unlabelled/1")
    assert class_folders(tmp_path, see, ENDINGS).left_out == [("unlabelled/", "beside the split folders")]


def test_a_file_that_cannot_be_used_is_bad_where_its_name_says_what_it_should_be(tmp_path: Path) -> None:
    tree(tmp_path, "a/1", "b/1")
    tree(tmp_path, "a/2.YES", "a/2.txt", text="no ")
    (tmp_path / "b" / "empty").write_bytes(b"")
    (tmp_path / "b" / "dangling.yes").symlink_to("nowhere")
    os.mkfifo(tmp_path / "b" / "pipe.yes")
    found = class_folders(tmp_path, see, ENDINGS)
    assert [(one.file, one.why) for one in found.bad] == [
        ("a/2.YES", "no"),
        ("b/dangling.yes", EMPTY),
        ("b/empty", EMPTY),
        ("b/pipe.yes", EMPTY),
    ]
    assert found.left_out == [("a/2.txt", "no")] and all(one.split == "train" and not one.row for one in found.bad)


def test_composed_and_decomposed_names_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Käfer") for form in ("NFC", "NFD"))
    assert composed != decomposed
    tree(tmp_path, f"train/{composed}/1", "train/b/1", f"test/{decomposed}/2")
    found = read(tmp_path)
    assert {label for _, label in found["train"] + found["test"]} == {composed, "b"}


def test_the_key_is_the_sum_of_the_content(tmp_path: Path) -> None:
    tree(tmp_path, "a/1", "b/1")
    (row, _) = class_folders(tmp_path, see, ENDINGS).splits["train"]
    assert row[3] == hashlib.sha256(b"yes a/1").hexdigest() and row[1] == tmp_path / "a" / "1"


def test_files_come_in_one_order(tmp_path: Path) -> None:
    tree(tmp_path, "b", "a/2", "a/1", "A")
    assert [p.relative_to(tmp_path).as_posix() for p in files(tmp_path)] == ["A", "b", "a/1", "a/2"]


def test_folders_come_in_one_order_without_litter(tmp_path: Path) -> None:
    tree(tmp_path, "b/1", "a/1", ".git/1", "__MACOSX/1", "file")
    assert [p.name for p in folders(tmp_path)] == ["a", "b"]


def test_links_that_lead_out_are_left_out_and_told(tmp_path: Path) -> None:
    tree(tmp_path, "outside/1", "data/a/1", "data/b/1")
    (tmp_path / "data" / "a" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "data" / "c").symlink_to("../outside")
    (tmp_path / "data" / "a" / "file").symlink_to("../../outside/1")
    found = class_folders(tmp_path / "data", see, ENDINGS)
    assert [row[0] for row in found.splits["train"]] == ["a/1", "b/1"]
    (note,) = found.notes
    assert note.startswith("3 links lead out of the folder and are left out, such as c, a/file, a/link: ")


def test_links_inside_are_followed_once_and_never_in_circles(tmp_path: Path) -> None:
    tree(tmp_path, "a/1", "b/1", ".store/2", ".store/x/3")
    (tmp_path / "a" / "all").symlink_to("..")
    (tmp_path / "a" / "self").symlink_to(".")
    (tmp_path / "b" / "more").symlink_to("../.store")
    (tmp_path / "b" / "once more").symlink_to("../.store")
    (tmp_path / ".store" / "x" / "up").symlink_to("../../b")
    (tmp_path / "b" / "file").symlink_to("../.store/2")
    found = class_folders(tmp_path, see, ENDINGS)
    names = [row[0] for row in found.splits["train"]]
    assert names[:4] == ["a/1", "b/1", "b/file", "b/more/2"] and "b/more/x/3" in names
    assert not any("once more" in name or "all" in name or "self" in name for name in names)
    (note,) = found.notes
    assert "links to folders are left out" in note and "a/all" in note


def test_masks_beside_pictures_are_left_out_and_told(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.yes", "a/1_mask.yes", "a/2_mask.yes", "b/1.yes", "b/1 - mask.yes")
    tree(tmp_path, "c/images/1.yes", "c/images/2.yes", "c/masks/1.png.yes", "c/masks/1.yes", "c/masks/2_mask.yes")
    found = class_folders(tmp_path, see, ENDINGS)
    assert [row[0] for row in found.splits["train"]] == [
        *("a/1.yes", "a/2_mask.yes", "b/1 - mask.yes", "b/1.yes"),
        *("c/images/1.yes", "c/images/2.yes", "c/masks/1.png.yes"),
    ]
    (note,) = found.notes
    assert note.startswith("train: 3 files are taken for masks of other files and left out, such as a/1_mask.yes")


def test_a_class_called_mask_is_a_class(tmp_path: Path) -> None:
    tree(tmp_path, "mask/1", "no_mask/1", "mask/2", "no_mask/2")
    assert {label for _, label in read(tmp_path)["train"]} == {"mask", "no_mask"}


def test_odd_names_become_ids_that_can_be_written_and_differ(tmp_path: Path) -> None:
    names = [
        b"\xff.yes",
        b"\\xff.yes",
        b"a\nb.yes",
        "🐜.yes".encode(),
        b"-rf.yes",
        b" b .yes",
        b"x" * 251 + b".yes",
    ]
    tree(tmp_path, "b/1")
    (tmp_path / "a").mkdir()
    for i, name in enumerate(names):
        with open(os.fsencode(tmp_path / "a") + b"/" + name, "w") as file:
            file.write(f"yes {i}")
    ids = [row[0] for row in class_folders(tmp_path, see, ENDINGS).splits["train"]]
    assert len(set(ids)) == len(names) + 1
    assert {i.encode().decode() for i in ids} >= {
        "a/\\xff.yes",
        "a/\\xff.yes (2)",
        "a/a\nb.yes",
        "a/🐜.yes",
        "a/ b .yes",
    }


def test_class_folders_that_differ_in_case_or_blanks_stay_apart(tmp_path: Path) -> None:
    tree(tmp_path, "cat/1", "Cat/1", "cat /1")
    assert {label for _, label in read(tmp_path)["train"]} == {"cat", "Cat", "cat "}


def test_empty_folders_are_named(tmp_path: Path) -> None:
    tree(tmp_path, "a/1", "b/1")
    (tmp_path / "c").mkdir()
    assert class_folders(tmp_path, see, ENDINGS).left_out == [("c/", "nothing in it")]


# ---------------------------------------------------------------- what is refused


def test_splits_without_training_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, "val/a/1", "test/a/1")
    with pytest.raises(DataError) as caught:
        class_folders(tmp_path, see, ENDINGS)
    assert caught.value.what == "there is no training split" and caught.value.saw == "test, val"
    assert caught.value.do == f"put the training examples into {tmp_path / 'train'}"


def test_loose_files_are_refused_with_one_of_them(tmp_path: Path) -> None:
    tree(tmp_path, "1", "2")
    with pytest.raises(DataError, match=r"no class folders.* with files such as 1 · allowed: <class>/<file>"):
        class_folders(tmp_path, see, ENDINGS)


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
        class_folders(tmp_path, see, ENDINGS)


def test_empty_class_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"no class folders with files that can be read were found .* with no files"):
        class_folders(tmp_path, see, ENDINGS)
