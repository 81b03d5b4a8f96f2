"""Almost equal inputs: found where they are edited, not where they are merely alike; in splits, labels and bursts."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from regraft.data.open import open_data
from regraft.flags import near
from regraft.modalities import image, text
from regraft.waist import Data, Flag, Row, Seen, Target

SETS = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
LONG = (
    *("the", "river", "rose", "in", "the", "night", "and", "by", "morning", "the", "lower", "town", "stood"),
    *("under", "water", "while", "the", "people", "on", "the", "hill", "watched"),
)
TWO = Target("label", "class", ("a", "b"), (1, 1))


def rows(*texts: str, y: str = "a", begin: int = 0) -> tuple[Row, ...]:
    return tuple(Row(f"r{begin + i}", cell, y, "", f"key {begin + i}") for i, cell in enumerate(texts))


def found(train: tuple[Row, ...], val: tuple[Row, ...] = (), test: tuple[Row, ...] = (), group: str = "") -> list[Flag]:
    return near.look(Seen(Data("d", "text", TWO, train, val, test, ""), "texts", group=group))


def said(at: int, word: str) -> str:
    return " ".join([*LONG[:at], word, *LONG[at + 1 :]])


# ---------------------------------------------------------------- texts


def test_case_blanks_and_punctuation_do_not_tell_texts_apart() -> None:
    (flag,) = found(rows("Where is my card?"), test=rows("where  is my card", begin=1))
    assert (flag.flag, flag.status, flag.count, flag.of, flag.leaks) == ("near", "warn", 1, 2, ("r1",))
    assert flag.examples == ("r0 (train) ~ r1 (test)",) and flag.shown == ("r0", "r1")
    assert flag.text == "1 pair of almost equal texts in different splits" and "--group" in flag.advice


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("how do I freeze my card", "how do I unfreeze my card"),
        ("top up my limit", "top up my card"),
        (":)", ":("),
        ("5 stars", "50 stars"),
        (" ".join(LONG), " ".join(reversed(LONG))),
    ],
)
def test_short_texts_that_a_word_or_a_sign_tells_apart_are_two(one: str, other: str) -> None:
    assert found(rows(one, other)) == []


@pytest.mark.parametrize("at", [0, 10, len(LONG) - 1])
def test_a_long_text_with_a_word_changed_is_the_same(at: int) -> None:
    (flag,) = found(rows(" ".join(LONG), said(at, "changed")))
    assert (flag.status, flag.text) == ("note", "1 pair of almost equal texts within one split")


def test_labels_that_contradict_are_a_warning() -> None:
    flags = found(rows("Where is my card?"), val=rows("where is my card", y="b", begin=1))
    assert [(flag.status, flag.text) for flag in flags] == [
        ("note", "1 pair of almost equal texts in different splits"),
        ("warn", "1 pair of almost equal texts under different labels"),
    ]
    assert flags[1].examples == ("r0 (a) ~ r1 (b)",) and flags[0].leaks == ()


def test_three_of_a_class_are_a_burst_and_a_group_ends_it() -> None:
    train = rows(*(said(5, f"word{i}") for i in range(4)), "quite another text")
    within, burst = found(train)
    assert (within.count, burst.count, burst.of) == (6, 4, 5)
    assert burst.text == "1 burst of 3 or more almost equal texts of one class, 4 in all"
    assert burst.examples == ("4 like r0",) and "--group" in burst.advice
    assert len(found(train, group="user")) == 1


def test_equal_contents_are_counted_elsewhere() -> None:
    same = Row("r9", "Where is my card?", "a", "", "key 0")
    assert found((*rows("Where is my card?"), same)) == []


def test_both_texts_of_a_pair_must_be_alike() -> None:
    one, other = (" ".join(LONG), "a short one"), (" ".join(LONG), "another one")
    assert text.alike([one, other, one], [(0, 1), (0, 2)]) == [False, True]


def test_a_sketch_is_the_same_in_every_process() -> None:
    code = "from regraft.modalities.text import look; print(look('It is fine.').sketch, look('a b ' * 20).sketch)"
    made = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout
        for env in ({"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2"})
    ]
    here = f"{text.look('It is fine.').sketch} {text.look('a b ' * 20).sketch}\n"
    assert made == [here, here]


def test_close_sketches_are_found_among_many() -> None:
    draw = np.random.default_rng(0)
    sketches: list[int | None] = [int(x) for x in draw.integers(1, 1 << 63, 5000)]
    sketches += [None, None, 0, 0, int(sketches[7] or 0) ^ 0b1011 << 20]
    assert (7, 5004) in near.candidates(sketches)
    assert all({one, other}.isdisjoint(range(5000, 5004)) for one, other in near.candidates(sketches))


def test_where_everything_is_alike_the_closest_pairs_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "MOST", 10)
    sketches: list[int | None] = [(1 << 60) + (i % 50 << 3) for i in range(300)]
    pairs = near.candidates(sketches)
    assert len(pairs) == 10 and all(sketches[one] == sketches[other] for one, other in pairs)


# ---------------------------------------------------------------- pictures


def scene(seed: int, size: int = 96) -> Image.Image:
    """Smooth colours, as photographs have them."""
    pixels = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), np.uint8)
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)


def test_a_picture_saved_scaled_or_lightened_anew_is_the_same(tmp_path: Path) -> None:
    scene(0).save(tmp_path / "a.jpg", quality=30)
    edited = [scene(0), tmp_path / "a.jpg", scene(0).resize((48, 48)), ImageEnhance.Brightness(scene(0)).enhance(0.8)]
    assert image.alike([*edited, scene(1)], [(0, 1), (0, 2), (0, 3), (0, 4)]) == [True, True, True, False]
    sketches = [image.look(cell).sketch for cell in edited]
    assert {(0, 1), (0, 2)} <= set(near.candidates(sketches))


def test_another_colour_is_another_picture() -> None:
    red, blue = np.zeros((2, 64, 64, 3), np.uint8)
    red[16:48, 16:48, 0] = blue[16:48, 16:48, 2] = 200
    assert image.alike([red, blue], [(0, 1)]) == [False]


def test_blank_pictures_are_like_nothing() -> None:
    blank = [np.full((40, 40, 3), grey, np.uint8) for grey in (0, 128, 255)]
    assert near.candidates([image.look(cell).sketch for cell in blank]) == []
    assert image.alike(blank, [(0, 1), (1, 2)]) == [False, False]


def test_a_picture_that_is_gone_is_like_nothing(tmp_path: Path) -> None:
    assert image.alike([tmp_path / "gone.png", scene(0)], [(0, 1)]) == [False]


# ---------------------------------------------------------------- real sets


def flags_of(name: str) -> list[Flag]:
    if not (SETS / name).is_dir():
        pytest.skip(f"{name} is not here")
    return list(open_data(SETS / name).flags)


@pytest.mark.parametrize("name", ["ants_bees", "dog_breeds4", "flowers_sharp", "aerial_scenes", "cifar10_small"])
def test_clean_pictures_have_no_warning(name: str) -> None:
    assert [flag for flag in flags_of(name) if flag.status == "warn" or flag.flag == "near"] == []


@pytest.mark.parametrize("name", ["movie_reviews_mr", "product_reviews_cr"])
def test_clean_texts_have_no_warning(name: str) -> None:
    assert [flag.text for flag in flags_of(name) if flag.status == "warn"] == []


def test_the_known_conflicts_are_found() -> None:
    """The set's notes: 113 abstracts stand twice or more with different labels, none of them in test."""
    (conflict,) = (flag for flag in flags_of("medical_abstracts") if flag.status == "warn")
    assert (conflict.flag, conflict.count, conflict.leaks) == ("duplicates", 113, ())


def test_questions_that_leak_but_for_case_and_punctuation_are_found() -> None:
    """The set's notes: 25 train questions equal a test question but for case or punctuation."""
    across = next(flag for flag in flags_of("banking77") if flag.flag == "near")
    place = {}
    for split in ("train", "test"):
        with (SETS / "banking77" / f"{split}.csv").open(encoding="utf-8-sig", newline="") as file:
            for i, row in enumerate(csv.DictReader(file), 1):
                place.setdefault(" ".join(text._words(row["text"])), set()).add((split, f"{split}:{i}"))
    known = {name for at in place.values() if {split for split, _ in at} == {"train", "test"} for _, name in at}
    wanted = {name for name in known if name.startswith("test:")}
    assert len(wanted) >= 20 and wanted <= set(across.leaks) and across.status == "warn"


def test_one_photograph_under_two_names_is_found() -> None:
    across = next(flag for flag in flags_of("flowers5") if flag.flag == "near")
    assert any("7166606598_5d2cd307c3" in example for example in across.examples)
