"""Cutting rows: by class or by time, by seed and content alone, never equal content or a group on both sides."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as some

from regraft.data.split import by_time, cut, lonely, thin
from regraft.errors import DataError, UsageError
from regraft.waist import Row

SHARE = 0.2


def rows(labels: list[str], copies: int = 1) -> list[Row]:
    """A row per label with content of its own, or with `copies` rows in a row of equal content."""
    return [Row(str(i), None, label, "", f"{label}{i // copies}") for i, label in enumerate(labels)]


@some.composite
def drawn(draw: some.DrawFn) -> list[Row]:
    """Rows of two or three classes: some of equal content, some in groups, in any order."""
    made: list[Row] = []
    for label in draw(some.sampled_from(["ab", "abc"])):
        sizes = draw(some.lists(some.integers(1, 4), min_size=2, max_size=12))
        grouped = draw(some.booleans())
        for unit, size in enumerate(sizes):
            for copy in range(size):
                name = f"{label}-{unit}"
                made.append(Row(f"{name}-{copy}", None, label, name if grouped else "", f"{name}-{copy * grouped}"))
    return draw(some.permutations(made))


def unit(row: Row) -> str:
    return row.group or row.key


@given(drawn(), some.integers(0, 5))
def test_the_sides_are_disjoint_and_complete_and_in_order(given_: list[Row], seed: int) -> None:
    stay, off = cut(given_, SHARE, seed, "val")
    for side in (stay, off):
        chosen = {row.id for row in side}
        assert side == [row for row in given_ if row.id in chosen]
    assert Counter(row.id for row in [*stay, *off]) == Counter(row.id for row in given_)
    assert not {unit(row) for row in stay} & {unit(row) for row in off}, "equal content or a group on both sides"


@given(drawn(), some.integers(0, 5))
def test_every_class_is_on_both_sides_within_one_unit_of_its_share(given_: list[Row], seed: int) -> None:
    stay, off = cut(given_, SHARE, seed, "val")
    assert {row.y for row in stay} == {row.y for row in off} == {row.y for row in given_}
    for label, total in Counter(row.y for row in given_).items():
        taken = Counter(unit(row) for row in off if row.y == label)
        largest = max(Counter(unit(row) for row in given_ if row.y == label).values())
        assert round(SHARE * total) - largest < sum(taken.values()) <= max(round(SHARE * total), largest)


@given(drawn(), some.integers(0, 5), some.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(given_: list[Row], seed: int, order: random.Random) -> None:
    shuffled = order.sample(given_, len(given_))
    one, other = cut(given_, SHARE, seed, "val"), cut(shuffled, SHARE, seed, "val")
    assert [{row.id for row in side} for side in one] == [{row.id for row in side} for side in other]


@given(some.lists(some.tuples(some.sampled_from("ab"), some.integers(0, 6)), max_size=12), some.integers(0, 5))
def test_order_does_not_matter_where_equal_content_has_two_labels(pairs: list[tuple[str, int]], seed: int) -> None:
    sure = [Row(f"{label}{i}", None, label, "", f"{label}{i}") for label in "ab" for i in range(4)]
    given_ = sure + [Row(f"x{i}", None, label, "", f"x{key}") for i, (label, key) in enumerate(pairs)]
    one, other = cut(given_, SHARE, seed, "val"), cut(given_[::-1], SHARE, seed, "val")
    assert [{row.id for row in side} for side in one] == [{row.id for row in side} for side in other]


@given(some.integers(5, 60), some.integers(1, 10), some.integers(0, 5))
def test_added_rows_move_few_of_the_others(count: int, added: int, seed: int) -> None:
    before = rows(["a"] * count) + [Row(f"b{i}", None, "b", "", f"b{i}") for i in range(5)]
    more = [Row(f"new{i}", None, "a", "", f"new{i}") for i in range(added)]
    old = {row.id for row in cut(before, SHARE, seed, "val")[1]}
    now = {row.id for row in cut([*more, *before], SHARE, seed, "val")[1]} - {row.id for row in more}
    assert len(old ^ now) <= added


def test_seed_and_split_choose_other_rows() -> None:
    given_ = rows(["a", "b"] * 50)
    chosen = [
        {row.id for row in cut(given_, SHARE, seed, salt)[1]} for seed, salt in ((0, "val"), (1, "val"), (0, "test"))
    ]
    assert chosen[0] != chosen[1] and chosen[0] != chosen[2]
    assert all(len(side) == 20 for side in chosen)


def test_two_rows_of_a_class_are_shared_out() -> None:
    stay, off = cut(rows(["a", "a", "b", "b"]), SHARE, 0, "val")
    assert Counter(row.y for row in stay) == Counter(row.y for row in off) == {"a": 1, "b": 1}


@pytest.mark.parametrize("alone", [["a"], ["a", "a", "a"]], ids=["one row", "equal rows"])
def test_a_class_with_a_single_example_stays(alone: list[str]) -> None:
    given_ = rows(alone, copies=3) + [Row(f"b{i}", None, "b", "", f"b{i}") for i in range(5)]
    stay, off = cut(given_, SHARE, 0, "test")
    assert {row.y for row in off} == {"b"} and Counter(row.y for row in stay)["a"] == len(alone)
    assert lonely(given_) == ["a"]


def test_nothing_to_cut_off_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        cut(rows(["a", "b", "c"]), SHARE, 0, "test")
    assert caught.value.what == "a test split cannot be made: no class has two different examples"
    assert caught.value.saw == "3 rows, 3 that differ or belong to different groups"
    assert caught.value.do == "add examples, or give a test split of your own"
    with pytest.raises(DataError, match=r"a val split .* saw: 4 rows, 1 that differ"):
        cut([Row(str(i), None, "ab"[i % 2], "one", str(i)) for i in range(4)], SHARE, 0, "val")


# ---------------------------------------------------------------- groups, several labels, numbers


@some.composite
def crossed(draw: some.DrawFn) -> list[Row]:
    """Rows whose groups hold several classes, or whose targets are several labels."""
    several = draw(some.booleans())
    pairs = draw(some.lists(some.tuples(some.sets(some.sampled_from("abcd"), max_size=3), some.integers(0, 6))))
    return [
        Row(str(i), None, tuple(sorted(y)) if several else min(y, default="a"), f"g{g}", str(i))
        for i, (y, g) in enumerate(pairs)
    ]


@given(crossed(), some.integers(0, 3))
def test_no_class_leaves_training(given_: list[Row], seed: int) -> None:
    try:
        stay, off = cut(given_, SHARE, seed, "val")
    except DataError:
        return
    assert off and not {row.group for row in stay} & {row.group for row in off}
    assert {label for row in off for label in row.y} <= {label for row in stay for label in row.y}


def test_groups_of_all_classes_are_cut_by_their_size() -> None:
    sizes = {"large": 60, "a": 10, "b": 10, "c": 10, "d": 10}
    given_ = [Row(f"{g}{i}", None, "xy"[i % 2], g, f"{g}{i}") for g, n in sizes.items() for i in range(n)]
    for seed in range(5):
        _, off = cut(given_, SHARE, seed, "test")
        assert len(off) == 20 and "large" not in {row.group for row in off}


def test_numbers_are_cut_by_tenths() -> None:
    given_ = [Row(str(i), None, float(i), "", str(i)) for i in range(200)]
    stay, off = cut(given_, SHARE, 0, "val")
    assert len(off) == 40 and Counter(int(row.y) // 20 for row in off) == dict.fromkeys(range(10), 4)
    assert not {row.id for row in stay} & {row.id for row in off}


def test_rare_labels_are_shared_out() -> None:
    given_ = [Row(str(i), None, ("common", "rare") if i % 10 == 0 else ("common",), "", str(i)) for i in range(100)]
    stay, off = cut(given_, SHARE, 0, "val")
    assert sum("rare" in row.y for row in off) == 2 and len(off) == 20 and len(stay) == 80


@pytest.mark.parametrize("seed", range(10))
def test_a_label_beside_rarer_ones_is_on_both_sides(seed: int) -> None:
    """Every row that carries it is cut by another label, and might stay by chance."""
    given_ = [
        Row(f"{r}{i}", None, (f"r{r}", "x") if i == 0 else (f"r{r}",), "", f"{r}{i}")
        for r in range(5)
        for i in range(5)
    ]
    for side in cut(given_, SHARE, seed, "val"):
        assert "x" in {label for row in side for label in row.y}


# ---------------------------------------------------------------- time


def test_the_latest_rows_are_cut_off() -> None:
    given_ = [Row(str(i), None, "a", "", str(i)) for i in range(10)]
    stay, off = by_time(given_[::-1], {str(i): float(i) for i in range(10)}, SHARE, "test")
    assert [row.id for row in off] == ["9", "8"] and len(stay) == 8


@pytest.mark.parametrize(
    ("times", "off"),
    [([0, 1, 2, 2, 2], "234"), ([0, 0, 0, 0, 1], "4"), ([0, 0, 0, 1, 1], "34"), ([1, 0], "0"), ([0, 1, 2], "2")],
)
def test_equal_times_stay_together(times: list[int], off: str) -> None:
    given_ = [Row(str(i), None, "a", "", str(i)) for i in range(len(times))]
    found = by_time(given_, {str(i): float(t) for i, t in enumerate(times)}, SHARE, "test")[1]
    assert "".join(row.id for row in found) == off


@pytest.mark.parametrize("count", [0, 3])
def test_a_single_time_is_refused(count: int) -> None:
    given_ = rows(["a"] * count)
    with pytest.raises(DataError, match=r"a val split cannot be made by time: there is only one time · saw: . rows at"):
        by_time(given_, dict.fromkeys(map(str, range(count)), 5.0), SHARE, "val")


# ---------------------------------------------------------------- fewer rows


@given(drawn(), some.integers(3, 30), some.integers(0, 3))
def test_thinning_keeps_every_class_and_its_share(given_: list[Row], limit: int, seed: int) -> None:
    kept = thin(given_, limit, seed, cover=True)
    assert len(kept) == min(limit, len(given_)) and {row.y for row in kept} == {row.y for row in given_}
    chosen = {row.id for row in kept}
    assert kept == [row for row in given_ if row.id in chosen]
    assert {row.id for row in thin(given_[::-1], limit, seed, cover=True)} == chosen
    share = len(kept) / len(given_)
    for label, total in Counter(row.y for row in given_).items():
        assert abs(Counter(row.y for row in kept)[label] - share * total) < 2


def test_thinning_depends_on_the_seed() -> None:
    given_ = rows(["a", "b"] * 50)
    assert thin(given_, 10, 0, cover=False) == thin(given_, 10, 0, cover=False) != thin(given_, 10, 1, cover=False)


def test_thinning_keeps_every_label() -> None:
    given_ = [Row(str(i), None, ("a",) if i else ("a", "b"), "", str(i)) for i in range(50)]
    assert all(given_[0] in thin(given_, 2, seed, cover=True) for seed in range(5))


def test_too_few_rows_for_the_classes() -> None:
    with pytest.raises(UsageError) as caught:
        thin(rows(list("abcd") * 2), 3, 0, cover=True)
    assert caught.value.what == "--max-rows is too small to keep every class in training"
    assert (caught.value.saw, caught.value.allowed) == ("3 rows for 4 classes", "4 or more")
    assert caught.value.do == "write --max-rows 40, or leave it away"
