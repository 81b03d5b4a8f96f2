"""Opening data: missing splits made, repeats and files left out noted, a fingerprint of content alone."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from regraft.data.open import card, open_data, sentence
from regraft.errors import DataError
from tests import places


def turn_pixel(path: Path) -> None:
    image = Image.open(path)
    image.putpixel((0, 0), (1, 2, 3))
    image.save(path)


# ---------------------------------------------------------------- splits


def test_given_splits_are_kept(tmp_path: Path) -> None:
    data = open_data(places.pictures(tmp_path / "d"))
    assert [len(split) for split in (data.train, data.val, data.test)] == [27, 15, 18]
    assert data.target.labels == places.LABELS and data.target.counts == (9, 9, 9)
    assert data.name == "d" and data.modality == "image" and data.notes == ()


@pytest.mark.parametrize(("val", "test", "made"), [(5, 0, ["test"]), (0, 5, ["val"]), (0, 0, ["test", "val"])])
def test_missing_splits_are_made_and_noted(tmp_path: Path, val: int, test: int, made: list[str]) -> None:
    data = open_data(places.pictures(tmp_path, train=10, val=val, test=test), seed=3)
    assert [note.split()[0] for note in data.notes] == made
    assert data.notes[0] == f"{made[0]} split made: 6 training rows, 20% of each class, seed 3"
    for split in (data.train, data.val, data.test):
        assert set(Counter(row.y for row in split)) == set(places.LABELS)
        assert len(set(Counter(row.y for row in split).values())) == 1
    keys = [{row.key for row in split} for split in (data.train, data.val, data.test)]
    assert not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]


def test_labels_come_from_training_after_the_cut(tmp_path: Path) -> None:
    data = open_data(places.pictures(tmp_path, train=10, val=0, test=0))
    assert data.target.counts == tuple(Counter(row.y for row in data.train)[label] for label in data.target.labels)


def test_the_seed_chooses_the_rows_that_are_cut_off(tmp_path: Path) -> None:
    places.pictures(tmp_path, val=0, test=0)
    chosen = [{row.id for row in open_data(tmp_path, seed).test} for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]


# ---------------------------------------------------------------- notes


def test_files_left_out_are_counted_and_some_named(tmp_path: Path) -> None:
    places.pictures(tmp_path)
    for i in range(5):
        (tmp_path / "train" / "red" / f"z{i}.png").write_text("no picture")
    (note,) = open_data(tmp_path).notes
    assert note == ("5 files left out, not pictures: train/red/z0.png, train/red/z1.png, train/red/z2.png …")


def test_equal_pictures_across_splits_and_labels_are_noted(tmp_path: Path) -> None:
    places.pictures(tmp_path)
    shutil.copy(tmp_path / "train" / "red" / "0.png", tmp_path / "test" / "red" / "copy.png")
    shutil.copy(tmp_path / "train" / "red" / "1.png", tmp_path / "train" / "blue" / "copy.png")
    across, conflict = open_data(tmp_path).notes
    assert across == "1 pictures stand in more than one split, such as train/red/0.png = test/red/copy.png"
    assert conflict.startswith("1 pictures carry different labels, such as train/blue/copy.png = train/red/1.png")


# ---------------------------------------------------------------- the fingerprint


@pytest.mark.parametrize("change", ["pixel", "label", "more", "split"])
def test_content_changes_the_fingerprint(tmp_path: Path, change: str) -> None:
    places.pictures(tmp_path)
    before = open_data(tmp_path).fingerprint
    red = tmp_path / "train" / "red"
    if change == "pixel":
        turn_pixel(red / "0.png")
    elif change == "label":
        (red / "8.png").rename(tmp_path / "train" / "blue" / "8b.png")
    elif change == "more":
        shutil.copy(red / "0.png", red / "9.png")
        turn_pixel(red / "9.png")
    else:
        (red / "8.png").rename(tmp_path / "val" / "red" / "8.png")
    assert open_data(tmp_path).fingerprint != before


def test_place_and_time_leave_the_fingerprint_alone(tmp_path: Path) -> None:
    places.pictures(tmp_path / "a")
    before = open_data(tmp_path / "a")
    os.utime(tmp_path / "a" / "train" / "red" / "0.png", (1, 1))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    after = open_data(tmp_path / "b")
    assert after.fingerprint == before.fingerprint and after.name != before.name


# ---------------------------------------------------------------- cards and refusals


def test_the_card_and_its_sentence(tmp_path: Path) -> None:
    told = card(open_data(places.pictures(tmp_path / "dots")))
    assert told.rows == (("train", 27), ("val", 15), ("test", 18))
    assert sentence(told) == (
        "dots: 60 pictures in 3 classes; 27 train, 15 val, 18 test; training has blue: 9, green: 9, red: 9"
    )


def test_a_missing_folder_gets_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "ants_bees").mkdir()
    with pytest.raises(DataError) as caught:
        open_data(tmp_path / "ants_bee")
    assert caught.value.what == "there is no such folder" and caught.value.saw == str(tmp_path / "ants_bee")
    assert caught.value.do == f"did you mean {tmp_path / 'ants_bees'}?"
    with pytest.raises(DataError, match=r"no such folder .* do: check the path"):
        open_data(tmp_path / "no" / "such" / "place")


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b")
    with pytest.raises(DataError, match=r"the data is not a folder · saw: .*x\.csv"):
        open_data(tmp_path / "x.csv")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"this folder is empty · saw: .*: no files · allowed: pictures, in a folder"):
        open_data(tmp_path)


def test_texts_in_place_of_pictures_are_refused(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.jpg").write_text("not a picture")
    with pytest.raises(DataError, match=r"nothing that regraft reads · saw: .*: 1\.jpg, 1\.jpg · allowed: pictures"):
        open_data(tmp_path)


def test_a_class_of_one_is_refused_where_a_split_must_be_made(tmp_path: Path) -> None:
    places.pictures(tmp_path, train=4, val=0, test=2)
    for i in range(1, 4):
        (tmp_path / "train" / "red" / f"{i}.png").unlink()
    with pytest.raises(DataError, match=r"a val split cannot be made.* saw: red .*a val folder of your own"):
        open_data(tmp_path)
