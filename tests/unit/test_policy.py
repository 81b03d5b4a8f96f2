"""What the cache keeps: the choice that costs the least, whatever the rates, the bound and the passes are."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from regraft.engine.policy import MOST, Frontier, Rates, keep, measured, seconds

RATES = Rates(write=4e8, read=2e9)


def frontiers(*given: tuple[float, float, float]) -> list[Frontier]:
    """(bytes, seconds from the input, passes) of each, in the order of the network."""
    return [Frontier(k, *one) for k, one in enumerate(given, 1)]


def test_one_pass_is_never_worth_a_place() -> None:
    assert keep(frontiers((1e5, 0.01, 1), (1e3, 0.02, 1)), RATES, 1e9) in ((), (1,)), "kept only to go on from it"
    assert keep(frontiers((1e5, 0.01, 1)), RATES, 1e9) == ()


def test_reading_that_is_slower_than_computing_is_left_out() -> None:
    assert keep(frontiers((1e8, 0.001, 50)), RATES, 1e9) == ()


def test_a_bound_takes_the_place_that_saves_most() -> None:
    both = frontiers((4e5, 0.01, 20), (1e5, 0.03, 20))
    assert keep(both, RATES, 1e6) == (1, 2)
    assert keep(both, RATES, 4.5e5) == (2,)
    assert keep(both, RATES, 5e4) == ()


def test_what_is_not_kept_begins_at_the_nearest_kept_one() -> None:
    low, high = frontiers((1e5, 0.01, 10), (9e9, 0.03, 2))
    assert seconds([low, high], [low], RATES) == pytest.approx(
        0.01 + 1e5 / 4e8 + 10 * 1e5 / 2e9 + 2 * (1e5 / 2e9 + 0.02)
    )
    assert seconds([low, high], [], RATES) == pytest.approx(10 * 0.01 + 2 * 0.03)


@given(
    some.lists(
        some.tuples(some.floats(1e3, 1e7), some.floats(1e-4, 0.1), some.sampled_from([1, 2, 5, 50])), max_size=5
    ),
    some.floats(1e3, 2e7),
)
def test_no_other_choice_is_cheaper(drawn: list[tuple[float, float, float]], room: float) -> None:
    found, reached = [], 0.0
    for k, (size, more, passes) in enumerate(drawn, 1):
        reached += more
        found.append(Frontier(k, size, reached, passes))
    kept = [one for one in found if one.k in keep(found, RATES, room)]
    assert sum(one.bytes for one in kept) <= room
    choices = itertools.chain.from_iterable(itertools.combinations(found, n) for n in range(len(found) + 1))
    least = min(seconds(found, c, RATES) for c in choices if sum(one.bytes for one in c) <= room)
    assert seconds(found, kept, RATES) == least


def test_of_many_those_read_most_are_looked_at() -> None:
    many = [Frontier(k, 1e3, 0.01 * k, 50 if k % 2 else 1) for k in range(1, 2 * MOST + 1)]
    assert keep(many, RATES, 1e9) == tuple(range(1, 2 * MOST, 2))


def test_rates_are_measured_and_leave_nothing(tmp_path: Path) -> None:
    rates = measured(tmp_path / "cache")
    assert rates and rates.write > 1e6 and rates.read > 1e6
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    (tmp_path / "file").write_text("")
    assert measured(tmp_path / "file" / "cache") is None
