"""The metric that was asked for comes first."""

from __future__ import annotations

import pytest

from regraft.errors import UsageError
from regraft.metrics.numbers import METRICS
from regraft.tasks._order import first


def test_it_comes_first_and_the_others_keep_their_order() -> None:
    assert [m.name for m in first(METRICS, "r2")] == ["r2", "rmse", "mae", "spearman", "pearson"]


def test_a_name_that_is_none_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        first(METRICS, "spearmann")
    assert caught.value.saw == "'spearmann'" and caught.value.do == "did you mean spearman?"
    assert caught.value.allowed == "mae, pearson, r2, rmse, spearman"
