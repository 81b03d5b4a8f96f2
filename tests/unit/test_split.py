"""Cutting rows: by class, by seed and content alone, never equal content or a group on both sides."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as some

from regraft.data.split import cut
from regraft.errors import DataError
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


@pytest.mark.parametrize("lonely", [["a"], ["a", "a", "a"]], ids=["one row", "equal rows"])
def test_a_class_with_a_single_example_is_refused(lonely: list[str]) -> None:
    given_ = rows(lonely, copies=3) + [Row(f"b{i}", None, "b", "", f"b{i}") for i in range(5)]
    with pytest.raises(DataError) as caught:
        cut(given_, SHARE, 0, "test")
    assert caught.value.what == "a test split cannot be made: a class has a single example"
    assert caught.value.saw == "a"
    assert caught.value.do == "add examples, or give a test folder of your own"
