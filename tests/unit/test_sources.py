"""Finding out what a source is: which tables are which split, what is said of it, what is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from regraft.data.sources import find
from regraft.errors import DataError, UsageError
from regraft.waist import Reading

ROWS = "text,label\none two,a\nthree four,b\n"


def put(root: Path, *names: str, text: str = ROWS) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.new("L", (2, 2), len(name)).save(path)
        else:
            path.write_text(text)
    return root


def splits(source: Any, **reading: Any) -> dict[str, str]:
    """Split → the id of its first row."""
    return {name: table.ids[0] for name, table in find(source, Reading(**reading)).tables.items()}


# ---------------------------------------------------------------- one table


def test_a_table_is_read_alone(tmp_path: Path) -> None:
    put(tmp_path, "reviews.csv", "other.csv", "test.jsonl")
    found = find(tmp_path / "reviews.csv", Reading())
    assert list(found.tables) == ["train"] and found.name == "reviews" and found.notes == []
    assert found.modality == "" and found.tables["train"].ids == ["reviews:1", "reviews:2"]


def test_splits_beside_a_table_are_named(tmp_path: Path) -> None:
    put(tmp_path, "reviews.csv", "dev.csv", "test.csv")
    found = find(str(tmp_path / "reviews.csv"), Reading())
    assert list(found.tables) == ["train"]
    assert found.notes == [
        f"not read, though beside reviews.csv: to use them as splits write --test {tmp_path / 'test.csv'} and "
        f"--val {tmp_path / 'dev.csv'}"
    ]


def test_splits_beside_a_training_table_are_taken(tmp_path: Path) -> None:
    put(tmp_path / "set", "train.csv", "validation.csv", "test.csv", "test.jsonl")
    found = find(tmp_path / "set" / "train.csv", Reading())
    assert {s: t.ids[0] for s, t in found.tables.items()} == {
        "train": "train:1",
        "val": "validation:1",
        "test": "test:1",
    }
    assert found.name == "set"
    assert found.notes == ["splits beside train.csv are taken: test.csv (test), validation.csv (val)"]


def test_a_test_table_may_be_read_alone(tmp_path: Path) -> None:
    put(tmp_path, "test.csv")
    assert splits(tmp_path / "test.csv") == {"train": "test:1"}


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize("val", ["val.csv", "dev.tsv", "VALID.jsonl"])
def test_tables_by_split(tmp_path: Path, val: str) -> None:
    put(tmp_path, "training.csv", "notes.csv")
    texts = {".csv": ROWS, ".tsv": ROWS.replace(",", "\t"), ".jsonl": '{"text": "a", "label": "b"}'}
    put(tmp_path, val, text=texts[Path(val).suffix])
    found = find(tmp_path, Reading())
    assert list(found.tables) == ["train", "val"] or list(found.tables) == ["val", "train"]
    assert found.notes == ["tables left out, called like no split: notes.csv"] and found.name == tmp_path.name


def test_the_only_table_of_a_folder(tmp_path: Path) -> None:
    assert splits(put(tmp_path, "reviews.csv", "README.md")) == {"train": "reviews:1"}


def test_a_table_beside_the_pictures_it_names(tmp_path: Path) -> None:
    put(tmp_path, "pics/1.png", "pics/2.png")
    put(tmp_path, "labels.csv", text="image,label\npics/1.png,a\npics/2.png,b\n")
    assert splits(tmp_path) == {"train": "labels:1"}


def test_class_folders_come_before_a_stray_table(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "dog/1.png", "notes.csv")
    found = find(tmp_path, Reading())
    assert found.modality == "image" and found.notes == ["1 files left out, not pictures: notes.csv"]
    assert found.tables["train"].columns["label"] == ["cat", "dog"]


def test_metadata_comes_before_class_folders(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "dog/1.png")
    put(tmp_path, "metadata.csv", text="file_name,label\ncat/1.png,a\ndog/1.png,b\n")
    found = find(tmp_path, Reading())
    assert found.files == "file_name" and found.modality == "" and list(found.tables) == ["train"]


def test_metadata_needs_training(tmp_path: Path) -> None:
    put(tmp_path, "train/1.png", "test/1.png")
    put(tmp_path, "test/metadata.csv", text="file_name,label\n1.png,a\n")
    with pytest.raises(DataError, match=r"there is no training split · saw: metadata for test alone"):
        find(tmp_path, Reading())


def test_class_folders_of_texts(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.txt", "train/b/1.md", "test/a/2.txt", text="\ufeffhello")
    (tmp_path / "train" / "b" / "2.txt").write_bytes(b"x" * 5000 + b"\xff")
    (tmp_path / "train" / "b" / "3.txt").write_bytes(b"\xff")
    found = find(tmp_path, Reading())
    assert found.modality == "text" and found.tables["train"].ids == ["train/a/1.txt", "train/b/1.md"]
    assert found.tables["train"].columns == {"file": ["hello", "hello"], "label": ["a", "b"]}
    assert [(one.split, one.file, one.row) for one in found.bad] == [
        ("train", "train/b/2.txt", 0),
        ("train", "train/b/3.txt", 0),
    ]
    assert all(one.why for one in found.bad) and found.notes == []


# ---------------------------------------------------------------- a column of splits


def test_a_column_of_splits(tmp_path: Path) -> None:
    text = "text,Split,label\na,train,x\nb,test,y\nc,Train,y\nd,dev,x\n"
    found = find(put(tmp_path, "x.csv", text=text) / "x.csv", Reading())
    assert {s: list(t.ids) for s, t in found.tables.items()} == {
        "train": ["x:1", "x:3"],
        "val": ["x:4"],
        "test": ["x:2"],
    }
    assert "Split" not in found.tables["train"].columns
    assert found.notes == ["splits by the column Split: 1 test, 2 train, 1 val"]


@pytest.mark.parametrize("values", ["train,train", "train,left", "test,val", "train,"])
def test_a_column_called_split_may_be_something_else(tmp_path: Path, values: str) -> None:
    first, second = values.split(",")
    found = find(put(tmp_path, "x.csv", text=f"text,split\na,{first}\nb,{second}\n") / "x.csv", Reading())
    assert list(found.tables) == ["train"] and "split" in found.tables["train"].columns and found.notes == []


# ---------------------------------------------------------------- --val and --test


def test_asked_splits_replace_those_beside(tmp_path: Path) -> None:
    put(tmp_path, "train.csv", "val.csv", "test.csv", "more/train.csv", "more/test.csv")
    found = find(tmp_path / "train.csv", Reading(test=str(tmp_path / "more" / "test.csv")))
    assert {s: t.folder for s, t in found.tables.items()} == {
        "train": tmp_path,
        "val": tmp_path,
        "test": tmp_path / "more",
    }
    assert found.asked == ("test",)
    assert splits(tmp_path / "train.csv", test=str(tmp_path / "more"), val=str(tmp_path / "more" / "train.csv")) == {
        "train": "train:1",
        "val": "val/train:1",
        "test": "test:1",
    }


def test_asked_class_folders(tmp_path: Path) -> None:
    put(tmp_path / "one", "cat/1.png", "dog/1.png")
    put(tmp_path / "two", "cat/1.png", "dog/2.png")
    found = find(tmp_path / "one", Reading(test=str(tmp_path / "two")))
    assert found.tables["test"].ids == ["test/cat/1.png", "test/dog/2.png"] and found.notes == []
    put(tmp_path / "two", "cat/x.txt")
    found = find(tmp_path / "one", Reading(test=str(tmp_path / "two")))
    assert found.notes == ["--test: 1 files left out, not pictures: cat/x.txt (it is no picture: it begins like text)"]


def test_asked_splits_that_do_not_fit(tmp_path: Path) -> None:
    put(tmp_path, "x.csv", "set/train.csv", "set/val.csv", "pics/cat/1.png", "pics/dog/1.png")
    with pytest.raises(
        DataError, match=r"there is no such file · saw: --val .*y\.csv: .*y\.csv · .*did you mean .*x\.csv"
    ):
        find(tmp_path / "x.csv", Reading(val=str(tmp_path / "y.csv")))
    with pytest.raises(DataError, match=r"--test holds several splits, none of them test · saw: .*set: train, val"):
        find(tmp_path / "x.csv", Reading(test=str(tmp_path / "set")))
    with pytest.raises(DataError) as caught:
        find(tmp_path / "x.csv", Reading(test=str(tmp_path / "pics")))
    assert caught.value.what == "--test is of another kind than the training data"
    assert caught.value.saw == f"{tmp_path / 'pics'}: class folders" and caught.value.allowed == "a table"
    with pytest.raises(DataError, match=r"saw: .*x\.csv: a table · allowed: class folders of image"):
        find(tmp_path / "pics", Reading(val=str(tmp_path / "x.csv")))


# ---------------------------------------------------------------- in memory


def test_data_in_memory() -> None:
    pair = (["a b", "c d"], ["x", "y"])
    found = find(pair, Reading())
    assert found.name == "arrays" and found.tables["train"].ids == ["arrays:1", "arrays:2"]
    found = find({"train": pair, "dev": pair}, Reading())
    assert found.name == "arrays" and {s: t.ids[0] for s, t in found.tables.items()} == {
        "train": "train:1",
        "val": "dev:1",
    }


def test_other_keys_are_left_out() -> None:
    pair = (["a b", "c d"], ["x", "y"])
    found = find({"train": pair, "unsupervised": pair}, Reading())
    assert list(found.tables) == ["train"] and found.notes == ["left out, called like no split: unsupervised"]


@pytest.mark.parametrize("source", [{}, {"test": (["a"], ["b"])}])
def test_splits_in_memory_need_training(source: Any) -> None:
    with pytest.raises(DataError, match=r"there is no training split · saw: (no splits|test) · .* give a training"):
        find(source, Reading())


def test_an_object_of_another_kind() -> None:
    with pytest.raises(UsageError, match=r"no data that can be read · saw: builtins\.int"):
        find(3, Reading())


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "what", "do"),
    [
        ("x.xlsx", "spreadsheets are not read", "save the sheet as CSV"),
        ("x.zip", "this is no archive, whatever its name says, or it is cut short", "fetch or make it again"),
        ("x.rar", "this is no archive, whatever its name says, or it is cut short", "fetch or make it again"),
        ("x.pdf", "this file is no table that regraft reads", "give a table, or a folder with a folder per class"),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, name: str, what: str, do: str) -> None:
    put(tmp_path, name)
    with pytest.raises(DataError) as caught:
        find(tmp_path / name, Reading())
    assert (caught.value.what, caught.value.do) == (what, do) and caught.value.saw == str(tmp_path / name)
    assert caught.value.allowed == ".csv, .tsv, .jsonl, .ndjson, .json, .parquet, .arrow; zip and tar"


@pytest.mark.parametrize(("begun", "kind"), [(b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!\x1a\x07\1\0", "rar")])
def test_archives_of_other_kinds_are_named_by_their_content(tmp_path: Path, begun: bytes, kind: str) -> None:
    (tmp_path / "x.zip").write_bytes(begun + bytes(99))
    with pytest.raises(DataError) as caught:
        find(tmp_path / "x.zip", Reading())
    assert caught.value.what == f"archives of the kind {kind} are not read"
    assert caught.value.do == "unpack it and give the folder, or make a zip of it"


def test_the_first_part_that_is_not_there_gets_the_guess(tmp_path: Path) -> None:
    put(tmp_path, "photos/cat/1.png")
    with pytest.raises(DataError) as caught:
        find(tmp_path / "fotos" / "deeper" / "still", Reading())
    assert caught.value.saw == str(tmp_path / "fotos") and caught.value.do == f"did you mean {tmp_path / 'photos'}?"
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(DataError, match="there is no such folder"):
            find(name, Reading())


def test_a_folder_of_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    for name in ("cat/1.heic", "dog/1.heic"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    with pytest.raises(DataError, match="a HEIC picture: save it as JPEG or PNG"):
        find(tmp_path, Reading())


# ---------------------------------------------------------------- archives


def packed(root: Path, inside: str = "") -> Path:
    there = root.with_name(root.name + ".zip")
    with zipfile.ZipFile(there, "w") as archive:
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            archive.write(path, inside + path.relative_to(root).as_posix())
    return there


FORMS = {
    "class folders": ("cat/1.png", "dog/1.png", "dog/2.png", "README.txt"),
    "splits": ("train/cat/1.png", "train/dog/1.png", "val/cat/2.png", "test/dog/3.png"),
    "a table": ("reviews.csv",),
    "tables by split": ("train.csv", "dev.csv", "test.csv"),
    "class folders of texts": ("pos/1.txt", "neg/1.txt"),
}


@pytest.mark.parametrize("inside", ["", "photos/", "a/photos/"])
@pytest.mark.parametrize("form", FORMS)
def test_an_archive_is_read_as_its_folder(tmp_path: Path, form: str, inside: str) -> None:
    root = put(tmp_path / "photos", *FORMS[form])
    here, there = (find(path, Reading()) for path in (root, packed(root, inside)))
    assert (here.name, here.modality, here.notes) == (there.name, there.modality, there.notes)
    for split, table in here.tables.items():
        other = there.tables[split]
        assert (table.ids, table.keys, table.file) == (other.ids, other.keys, other.file)
        for name, column in table.columns.items():
            inner = [v.relative_to(root) if isinstance(v, Path) else v for v in column]
            told = [
                Path(*v.parts[-len(i.parts) :]) if isinstance(v, Path) else v
                for v, i in zip(other.columns[name], inner, strict=True)
            ]
            assert told == inner


def test_metadata_beside_pictures_in_an_archive(tmp_path: Path) -> None:
    root = put(tmp_path / "photos", "pics/1.png", "pics/2.png")
    put(root, "metadata.csv", text="file_name,label\npics/1.png,a\npics/2.png,b\n")
    found = find(packed(root, "photos/"), Reading())
    assert found.files == "file_name" and found.tables["train"].folder == tmp_path / "photos.zip" / "photos"


def test_what_an_archive_leaves_out_is_told_first(tmp_path: Path) -> None:
    archive = packed(put(tmp_path / "photos", "cat/1.png", "dog/1.png", "cat/more.zip"))
    with zipfile.ZipFile(archive, "a") as more:
        more.writestr("../out.png", "x")
    assert [note.split(", such as")[0] for note in find(archive, Reading()).notes[:2]] == [
        "photos.zip: 1 left out: a name that leads out of the archive",
        "photos.zip: 1 left out: an archive in the archive, which is not opened",
    ]


def test_an_archive_for_a_split(tmp_path: Path) -> None:
    one = put(tmp_path / "one", "cat/1.png", "dog/1.png")
    two = packed(put(tmp_path / "two", "cat/1.png", "dog/2.png"))
    assert find(one, Reading(test=str(two))).tables["test"].ids == ["test/cat/1.png", "test/dog/2.png"]


@pytest.mark.parametrize(("name", "kind", "guess"), [("trian.csv", "file", "train.csv"), ("stbs", "folder", "stsb")])
def test_what_is_not_there_gets_the_nearest_name(tmp_path: Path, name: str, kind: str, guess: str) -> None:
    put(tmp_path, "train.csv", "stsb/train.csv")
    with pytest.raises(DataError) as caught:
        find(tmp_path / name, Reading())
    assert caught.value.what == f"there is no such {kind}" and caught.value.do == f"did you mean {tmp_path / guess}?"


def test_tables_that_could_all_be_meant(tmp_path: Path) -> None:
    put(tmp_path, "b.csv", "a.csv")
    with pytest.raises(DataError) as caught:
        find(tmp_path, Reading())
    assert caught.value.what == "it is not clear which of these tables to read"
    assert caught.value.saw == f"{tmp_path}: a.csv, b.csv"
    assert caught.value.do.startswith(f"name one, such as {tmp_path / 'a.csv'}")


def test_two_tables_of_one_split(tmp_path: Path) -> None:
    put(tmp_path, "train.csv", "val.csv", "dev.csv")
    with pytest.raises(DataError, match=rf"two tables for the val split · saw: dev\.csv, val\.csv in {tmp_path}"):
        find(tmp_path, Reading())


def test_tables_without_training(tmp_path: Path) -> None:
    put(tmp_path, "test.csv")
    with pytest.raises(DataError, match=r"no training split · saw: test\.csv · .*call the training table train\.csv"):
        find(tmp_path, Reading())


def test_a_folder_of_folders_of_tables(tmp_path: Path) -> None:
    put(tmp_path, "red/train.csv", "white/train.csv")
    with pytest.raises(DataError) as caught:
        find(tmp_path, Reading())
    assert caught.value.what == "this folder holds folders of tables"
    assert caught.value.do == f"give one of them, such as {tmp_path / 'red'}"
