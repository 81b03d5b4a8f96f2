"""Row weights by class: equal shares, bounded, with mean 1 over the rows."""

from __future__ import annotations

import pytest

from regraft.tasks._labels import HEAVIEST, weights


@pytest.mark.parametrize("counts", [(4, 4), (6, 2), (10, 30, 60)])
def test_every_class_weighs_the_same_and_a_row_1_in_the_mean(counts: tuple[int, ...]) -> None:
    total = [n * weight for n, weight in zip(counts, weights(counts), strict=True)]
    assert total == pytest.approx([sum(counts) / len(counts)] * len(counts))


def test_a_handful_of_rows_does_not_drown_the_others() -> None:
    common, rare = weights((9999, 1))
    raw = 10_000 / (2 * 9999)
    mean = (9999 * raw + HEAVIEST) / 10_000
    assert (common, rare) == pytest.approx((raw / mean, HEAVIEST / mean))


def test_a_class_without_rows_is_no_error() -> None:
    assert weights((5, 0))[0] == pytest.approx(1)
