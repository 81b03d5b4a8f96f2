"""The winner against another trial, row by row."""

from __future__ import annotations

import numpy as np
import pytest

from regraft.checks._paired import best, compared, goodness
from regraft.waist import Cost, Evidence, Init, Plan, Score, Trial


def test_goodness_is_a_number_a_row_and_higher_is_better() -> None:
    assert goodness(np.array([0, 2]), np.array([0, 1])).tolist() == [1.0, 0.0]
    assert goodness(np.array([[True, True]]), np.array([[1.0, 0.0]])).tolist() == [0.5]
    assert goodness(np.array([1.5, 1.0]), np.array([1.0, 1.0], np.float32)).tolist() == [-0.5, 0.0]


def trial(init: Init, val: float, whole: bool, better: str = "higher") -> Trial:
    held, score = "w" if whole else "", Score("m", "val", val, val, val, 9, better)  # type: ignore[arg-type]
    return Trial(Plan("p", (), init=init), 0, (score,), (), Cost(1.0, 1), held, held)


@pytest.mark.parametrize(("better", "place"), [("higher", 2), ("lower", 1)])
def test_the_best_of_a_kind_has_answers(better: str, place: int) -> None:
    trials = (
        trial("pretrained", 0.5, True, better),
        trial("plain", 0.1, True, better),
        trial("plain", 0.7, True, better),
        trial("plain", 0.9 if better == "higher" else 0.0, False, better),
    )
    given = Evidence(trials[0], trials, (), {})
    assert best(given, "plain") == place and best(given, "random") is None and best(given, "pretrained") == 0


def test_rows_are_paired_and_equal_seeds_give_equal_intervals() -> None:
    y = np.tile([0, 1], 40)
    arrays = {"y": y, "pred/0": y, "pred/1": 1 - y, "seed": np.array(1), "winner": np.array(1)}
    trials = (trial("pretrained", 0.5, True), trial("plain", 0.5, True))
    found = compared(Evidence(trials[1], trials, (), arrays), 0)
    assert (found.value, found.low, found.high) == (-1.0, -1.0, -1.0)
    assert found == compared(Evidence(trials[1], trials, (), arrays), 0)
    assert found.told("it") == "-1.000 [-1.000, -1.000] right answers against it"
