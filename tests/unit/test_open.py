"""Opening data: missing splits made, repeats and files left out noted, a fingerprint of content alone."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.data.open import card, open_data, sentence
from regraft.errors import DataError, UsageError
from regraft.waist import Data, Flag, Reading, Target
from tests import places

ANY = Reading(allow_bad=1.0)


def flagged(data: Data, *texts: str) -> list[Flag]:
    """The one flag with each of these texts."""
    found = [[flag for flag in data.flags if text in flag.text and flag.flag == "duplicates"] for text in texts]
    assert [len(flags) for flags in found] == [1] * len(texts)
    return [flag for (flag,) in found]


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
        (tmp_path / "train" / "red" / f"z{i}.txt").write_text("a text")
    data = open_data(tmp_path, reading=ANY)
    assert any(note.startswith("5 files left out, not pictures: train/red/z0.txt") for note in data.notes)
    assert [(bad.split, bad.file, bad.row) for bad in data.bad] == [
        ("train", f"train/red/z{i}.png", 0) for i in range(5)
    ]
    with pytest.raises(DataError) as caught:
        open_data(tmp_path)
    assert caught.value.what == "5 of 65 files and rows cannot be used" and caught.value.code == 3
    assert "train: 5 left out: " in caught.value.saw and "such as train/red/z0.png" in caught.value.saw
    assert caught.value.do.endswith("--allow-bad 8%")


def test_equal_pictures_across_splits_and_labels_are_noted(tmp_path: Path) -> None:
    places.pictures(tmp_path)
    shutil.copy(tmp_path / "train" / "red" / "0.png", tmp_path / "test" / "red" / "copy.png")
    shutil.copy(tmp_path / "train" / "red" / "1.png", tmp_path / "train" / "blue" / "copy.png")
    across, conflict = flagged(open_data(tmp_path), "more than one split", "with different labels")
    assert across.text == "pictures in more than one split: 1"
    assert across.examples == ("train/red/0.png = test/red/copy.png",) and across.leaks == ("test/red/copy.png",)
    assert conflict.text == "pictures with different labels: 1"
    assert conflict.examples == ("train/blue/copy.png = train/red/1.png",)


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


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(
        DataError, match=r"this folder is empty · saw: .*: no files · allowed: .*pictures.*, in a folder"
    ):
        open_data(tmp_path)


def test_texts_in_place_of_pictures_are_refused(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.jpg").write_text("not a picture")
    with pytest.raises(
        DataError, match=r"no class folders with files that can be read .* saw: .*a/1\.jpg.* is no picture"
    ):
        open_data(tmp_path)


def test_a_class_of_one_stays_in_training(tmp_path: Path) -> None:
    places.pictures(tmp_path, train=4, val=0, test=2)
    for i in range(1, 4):
        (tmp_path / "train" / "red" / f"{i}.png").unlink()
    data = open_data(tmp_path)
    assert data.notes[-1] == "1 classes have a single example to share out, which stays in training: red"
    assert dict(zip(data.target.labels, data.target.counts, strict=True)) == {"blue": 3, "green": 3, "red": 1}
    assert {row.y for row in data.val} == {"blue", "green"}


def test_columns_of_a_folder_of_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        open_data(places.pictures(tmp_path), reading=Reading(target="label", text=("a", "b")))
    assert caught.value.what == "a folder of files has no columns"
    assert caught.value.saw == "--target label, --text a,b"


# ---------------------------------------------------------------- tables


def table(path: Path, rows: list[tuple[str, ...]], header: str = "text,label") -> Path:
    """A CSV file; cells hold no commas."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


def reviews(count: int = 20, start: int = 0) -> list[tuple[str, ...]]:
    return [(f"review number {i}", "good" if i % 2 else "bad") for i in range(start, start + count)]


def test_a_table_with_no_splits(tmp_path: Path) -> None:
    data = open_data(table(tmp_path / "r.csv", [*reviews(50), ("", "good"), ("no label", "")]), reading=ANY)
    assert (data.name, data.modality, data.columns, data.sensitive) == ("r", "text", ("text",), ())
    assert [len(s) for s in (data.train, data.val, data.test)] == [32, 8, 10]
    assert data.target == Target("label", "class", ("bad", "good"), (16, 16))
    assert data.notes == (
        "columns: text = text (by its name), target = label (by its name)",
        "train: 1 left out: it has no text, such as r.csv, row 51",
        "train: 1 left out: it has no label, such as r.csv, row 52",
        "test split made: 10 training rows, 20% of each class, seed 0",
        "val split made: 8 training rows, 20% of each class, seed 0",
    )
    assert card(data).columns == ("text",)


def test_given_tables_are_kept(tmp_path: Path) -> None:
    for name, start in (("train", 0), ("validation", 20), ("test", 40)):
        table(tmp_path / f"{name}.csv", reviews(start=start))
    for source in (tmp_path, tmp_path / "train.csv"):
        data = open_data(source)
        assert [s[0].id for s in (data.train, data.val, data.test)] == ["train:1", "validation:1", "test:1"]
        assert {len(s) for s in (data.train, data.val, data.test)} == {20}


def test_a_regression(tmp_path: Path) -> None:
    data = open_data(table(tmp_path / "r.csv", [(f"text {i}", str(i / 10)) for i in range(200)], "text,score"))
    assert data.target.kind == "number" and data.target.labels == () and data.target.name == "score"
    ys = [row.y for row in data.train]
    assert data.target.centre == pytest.approx(np.mean(ys)) and data.target.spread == pytest.approx(np.std(ys))
    assert "target score has 200 distinct numbers: a regression (--task classify makes classes of them)" in data.notes
    assert "test split made: 40 training rows, 20% of each tenth of score, seed 0" in data.notes
    told = sentence(card(data))
    assert told.startswith("r: 200 texts with a number, score; 130 train, 30 val, 40 test; in training its mean is ")
    assert told.endswith(f"{data.target.centre:.4g}, its spread {data.target.spread:.4g}")


def test_several_labels(tmp_path: Path) -> None:
    labels = ["red|big", "red", "", "big", "big|old", "red|old"]
    data = open_data(table(tmp_path / "r.csv", [(f"text {i}", labels[i % 6]) for i in range(120)]))
    assert data.target.kind == "multi" and data.target.labels == ("big", "old", "red")
    assert {row.y for row in data.train} == {("big", "red"), ("red",), (), ("big",), ("big", "old"), ("old", "red")}
    assert data.target.counts == tuple(sum(label in row.y for row in data.train) for label in data.target.labels)
    assert sentence(card(data)).startswith("r: 120 texts that carry any of 3 labels; ")
    assert any("20% of each label" in note for note in data.notes)


def test_tasks_and_the_positive_class(tmp_path: Path) -> None:
    path = table(tmp_path / "r.csv", [(f"text {i}", str(i % 3 + 9)) for i in range(60)])
    assert open_data(path).target.labels == ("9", "10", "11")
    assert open_data(path, reading=Reading(task="regress")).target.kind == "number"
    assert open_data(path, reading=Reading(task="multilabel")).target.kind == "multi"
    path = table(tmp_path / "b.csv", reviews())
    assert open_data(path, reading=Reading(positive="bad")).target.labels == ("good", "bad")


def test_groups_stay_whole(tmp_path: Path) -> None:
    rows = [(f"text {i}", "ab"[i % 2], f"u{i % 10}", "fm"[i % 2]) for i in range(100)]
    path = table(tmp_path / "r.csv", rows, "text,label,user,sex")
    data = open_data(path, reading=Reading(group="user", sensitive=("sex",)))
    groups = [{row.group for row in split} for split in (data.train, data.val, data.test)]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert all(groups) and data.sensitive == ("sex",)
    assert all(row.facets == ("f" if row.y == "a" else "m",) for row in data.train)
    assert any(note.endswith("of each class, groups of user whole, seed 0") for note in data.notes)


def test_groups_across_given_splits_are_counted(tmp_path: Path) -> None:
    for name, user in (("train", "u1"), ("val", "u2"), ("test", "u1")):
        table(tmp_path / f"{name}.csv", [(f"{name} {i}", "ab"[i % 2], user) for i in range(4)], "text,label,user")
    flags = open_data(tmp_path, reading=Reading(group="user")).flags
    (torn,) = (flag for flag in flags if flag.flag == "groups")
    assert torn.text == "groups of user in more than one split: 1 of 2" and torn.examples == ("u1",)


def test_the_latest_rows_are_the_test_split(tmp_path: Path) -> None:
    rows = [(f"text {i}", "ab"[i % 2], f"2024-01-{i // 10 + 1:02}") for i in range(100)]
    path = table(tmp_path / "r.csv", rows[::-1], "text,label,day")
    data = open_data(path, reading=Reading(time="day"))
    assert [len(s) for s in (data.train, data.val, data.test)] == [60, 20, 20]
    assert {row.cell for row in data.test} == {f"text {i}" for i in range(80, 100)}
    assert "test split made: 20 training rows, the latest 20% by day" in data.notes
    with pytest.raises(DataError, match=r"a time cannot be read · saw: r:1, column label: 'b'"):
        open_data(path, reading=Reading(time="label", target="day"))
    with pytest.raises(UsageError, match=r"keep the groups of --group whole · saw: --time day --group user"):
        more = [(*row, "u1") for row in rows]
        open_data(table(tmp_path / "g.csv", more, "text,label,day,user"), reading=Reading(time="day", group="user"))


def test_a_time_without_need_is_said(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        table(tmp_path / f"{name}.csv", [(f"{name} {i}", "ab"[i % 2], "now") for i in range(4)], "text,label,day")
    assert "--time day is not used: every split is given" in open_data(tmp_path, reading=Reading(time="day")).notes


def test_fewer_rows(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", [*reviews(1000), ("the only one", "odd")])
    table(tmp_path / "test.csv", reviews(300, 5000))
    data = open_data(tmp_path, reading=Reading(max_rows=100))
    assert [len(s) for s in (data.train, data.val, data.test)] == [80, 20, 100]
    assert data.target.labels == ("bad", "good", "odd")
    assert "train: 100 of 1,001 rows kept, --max-rows" in data.notes
    assert "test: 100 of 300 rows kept, --max-rows" in data.notes
    again = open_data(tmp_path, reading=Reading(max_rows=100))
    assert again.fingerprint == data.fingerprint != open_data(tmp_path, 1, Reading(max_rows=100)).fingerprint
    with pytest.raises(UsageError, match=r"--max-rows is below 0 · saw: -1"):
        open_data(tmp_path, reading=Reading(max_rows=-1))


def test_repeated_texts_are_noted(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", [*reviews(), ("review number 1", "bad"), ("review number 3", "good")])
    table(tmp_path / "test.csv", [*reviews(4, 50), ("review number 2", "bad")])
    across, conflict = flagged(open_data(tmp_path), "more than one split", "with different labels")
    assert across.text.startswith("texts in more than one split: ") and "train:3 = test:5" in across.examples
    assert conflict.text == "texts with different labels: 1" and conflict.examples == ("train:2 = train:21",)


def test_numbers_carry_no_conflict(tmp_path: Path) -> None:
    rows = [(f"text {i // 2}", str(i)) for i in range(100)]
    assert not any("different labels" in flag.text for flag in open_data(table(tmp_path / "r.csv", rows)).flags)


@pytest.mark.parametrize("column", ["text", "label", "user", "sex"])
def test_every_part_of_a_row_changes_the_fingerprint(tmp_path: Path, column: str) -> None:
    rows = [[f"text {i}", "ab"[i % 2], f"u{i}", "fm"[i % 2]] for i in range(20)]
    reading = Reading(group="user", sensitive=("sex",))

    def mark() -> str:
        return open_data(
            table(tmp_path / "r.csv", [tuple(r) for r in rows], "text,label,user,sex"), 0, reading
        ).fingerprint

    before = mark()
    assert mark() == before
    rows[5][["text", "label", "user", "sex"].index(column)] = "a"
    assert mark() != before


# ---------------------------------------------------------------- splits of other forms


def test_a_split_without_targets_is_left_out(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", reviews(50))
    table(tmp_path / "test.csv", [("a text",)], "text")
    data = open_data(tmp_path)
    assert len(data.test) == 10
    assert "the test split is left out: it has no column label to be scored by" in data.notes
    table(tmp_path / "test.csv", [("a text", ""), ("another", "")])
    data = open_data(tmp_path)
    assert "the test split is left out: none of its 2 rows has a label" in data.notes and not data.bad
    with pytest.raises(DataError, match=r"no row of --test has a target · saw: column label, 2 rows"):
        open_data(tmp_path / "train.csv", reading=Reading(test=str(tmp_path / "test.csv")))
    table(tmp_path / "test.csv", [("x", "y")], "words,label")
    with pytest.raises(DataError, match=r"the test split lacks columns of training · saw: no text in words, label"):
        open_data(tmp_path)


def test_an_asked_split_may_have_other_columns(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", reviews(50))
    other = table(tmp_path / "b.csv", reviews(10, 90), "review,sentiment")
    data = open_data(path, reading=Reading(test=str(other)))
    assert data.columns == ("text",) and data.test[0].cell == "review number 90" and len(data.test) == 10
    assert (
        "--test has other columns, read anew: columns: text = review (by its name), target = sentiment (by its name)"
        in data.notes
    )
    pair = table(tmp_path / "c.csv", [("a b", "c d", "good")], "sentence1,sentence2,label")
    with pytest.raises(DataError, match=r"the test split lacks .* saw: no text in sentence1, sentence2, label"):
        open_data(path, reading=Reading(test=str(pair)))
    with pytest.raises(DataError, match=r"the val split lacks .* saw: no text, label, tag in review, sentiment"):
        open_data(
            table(tmp_path / "d.csv", [(*r, "x") for r in reviews()], "text,label,tag"),
            reading=Reading(val=str(other), group="tag"),
        )


def test_labels_that_training_never_sees(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", reviews())
    table(tmp_path / "test.csv", [("x", "good"), ("y", "ugly")])
    with pytest.raises(
        DataError, match=r"the test split has classes that training never sees · saw: ugly · allowed: bad"
    ):
        open_data(tmp_path)


def test_pictures_with_metadata(tmp_path: Path) -> None:
    places.pictures(tmp_path / "d")
    for split in ("train", "val", "test"):
        names = sorted(p.relative_to(tmp_path / "d" / split) for p in (tmp_path / "d" / split).rglob("*.png"))
        rows = [(str(name), f"is {name.parts[0]}") for name in names]
        table(tmp_path / "d" / split / "metadata.csv", [*rows, ("gone.png", "is red")], "file_name,label")
    data = open_data(tmp_path / "d", reading=ANY)
    assert (data.modality, data.columns) == ("image", ("file_name",))
    assert [len(s) for s in (data.train, data.val, data.test)] == [27, 15, 18]
    assert data.target.labels == ("is blue", "is green", "is red")
    assert data.train[0].cell == tmp_path / "d" / "train" / "blue" / "0.png"
    assert "train: 1 left out: there is no such file, such as train/metadata.csv, row 28" in data.notes
    assert [(bad.split, bad.row) for bad in data.bad] == [("train", 28), ("val", 16), ("test", 19)]
    folders = open_data(places.pictures(tmp_path / "e"))
    assert {row.key for row in data.train} == {row.key for row in folders.train}


def test_no_row_that_can_be_used(tmp_path: Path) -> None:
    path = table(tmp_path / "r.csv", [(" ", "a"), ("", "b")])
    with pytest.raises(
        DataError,
        match=r"no row of training can be used · saw: train: 2 left out: it has no text, such as r\.csv, row 1",
    ):
        open_data(path, reading=ANY)


def test_class_folders_of_texts(tmp_path: Path) -> None:
    for label in "ab":
        for i in range(10):
            path = tmp_path / label / f"{i}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"\ufeff{label} number {i}\n")
    (tmp_path / "a" / "empty.txt").write_text("\n")
    data = open_data(tmp_path, reading=ANY)
    assert (data.modality, data.columns, data.target.labels) == ("text", (), ("a", "b"))
    assert {row.cell for row in data.train} <= {f"{label} number {i}\n" for label in "ab" for i in range(10)}
    assert data.notes[0] == "train: 1 left out: it has no text, such as a/empty.txt"


# ---------------------------------------------------------------- in memory


def test_the_same_data_from_a_file_and_from_memory(tmp_path: Path) -> None:
    import pandas

    rows = reviews(50)
    frame = pandas.DataFrame(rows, columns=["text", "label"])
    told = [
        open_data(source)
        for source in (table(tmp_path / "r.csv", rows), frame, ([r[0] for r in rows], [r[1] for r in rows]))
    ]
    assert [data.name for data in told] == ["r", "frame", "arrays"]
    for data in told[1:]:
        assert [row.key for row in data.test] == [row.key for row in told[0].test]
        assert data.target == told[0].target


def test_splits_in_memory() -> None:
    sides = {name: ([f"{name} {i}" for i in range(6)], [0, 1] * 3) for name in ("train", "validation", "test")}
    data = open_data(sides)
    assert [len(s) for s in (data.train, data.val, data.test)] == [6, 6, 6] and data.val[0].id == "validation:1"


def test_pixels_in_memory() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 5, 5, 3), np.uint8)
    data = open_data((pixels, [i % 2 for i in range(20)]))
    assert data.modality == "image" and data.train[0].cell.shape == (5, 5, 3)
    assert sum(len(s) for s in (data.train, data.val, data.test)) == 20


# ---------------------------------------------------------------- real data


def test_real_reviews(shared: Path) -> None:
    data = open_data(shared / "data" / "movie_reviews_mr")
    assert [len(s) for s in (data.train, data.val, data.test)] == [7676, 1920, 1066]
    assert data.target == Target("label", "class", ("negative", "positive"), (3838, 3838))


def test_real_pairs_with_scores(shared: Path) -> None:
    reading = Reading(target="score", text=("sentence1", "sentence2"))
    data = open_data(shared / "data" / "stsb" / "train.csv", reading=reading)
    assert [len(s) for s in (data.train, data.val, data.test)] == [5749, 1500, 1379]
    assert data.train[0].cell == ("A plane is taking off.", "An air plane is taking off.") and data.train[0].y == 5.0
    assert "columns: text = sentence1 + sentence2 (given), target = score (given), left out: genre" in data.notes


@pytest.mark.parametrize(
    ("name", "target", "classes", "rows"),
    [
        ("banking77", "", 77, [8005, 1998, 3080]),
        ("trec_questions", "", 6, [4362, 1090, 500]),
        ("trec_questions", "fine_label", 50, [4362, 1090, 500]),
        ("medical_abstracts", "", 5, [1780, 444, 664]),
    ],
)
def test_real_classes(shared: Path, name: str, target: str, classes: int, rows: list[int]) -> None:
    data = open_data(shared / "data" / name, reading=Reading(target=target))
    assert len(data.target.labels) == classes
    assert [len(s) for s in (data.train, data.val, data.test)] == pytest.approx(rows, abs=30)


def test_real_conflicts_are_found(shared: Path) -> None:
    flags = open_data(shared / "data" / "medical_abstracts").flags
    assert any(flag.flag == "duplicates" and flag.text == "texts with different labels: 113" for flag in flags)


def test_real_sounds_are_refused(shared: Path) -> None:
    with pytest.raises(DataError, match=r"names no files that regraft reads · saw: file_name: 0_george_10\.wav"):
        open_data(shared / "data" / "fsdd_digits")
