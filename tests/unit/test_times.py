"""Times: numbers or ISO dates, one order, and refusals that name the row."""

from __future__ import annotations

from typing import Any

import pytest

from regraft.data.times import as_times
from regraft.errors import DataError

DAY = 86400.0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "-2.5", "1e3"], [1.0, -2.5, 1000.0]),
        (["1970-01-02", "1970-02"], [DAY, 31 * DAY]),
        (["1970-01-01T01:00+01:00", "1970-01-01 00:00:01", "19700102"], [0.0, 1.0, DAY]),
        (["1969-12-31", " 0001-01-01"], [-DAY, -719162 * DAY]),
    ],
)
def test_times_are_numbers(values: list[str], expected: list[float]) -> None:
    rows = {f"r{i}": value for i, value in enumerate(values)}
    assert list(as_times(rows, "when").values()) == expected


@pytest.mark.parametrize(
    ("values", "saw"),
    [
        (["2024-05-01", "May"], "r1, column when: 'May'"),
        (["1", "2", None], "r2, column when: nothing"),
        (["1", "2", ""], "r2, column when: ''"),
        (["1", "2", "2024-05-01"], "r2, column when: '2024-05-01'"),
        (["2024-05-01", "2024-05-02", "7"], "r2, column when: '7'"),
    ],
)
def test_what_is_no_time_is_named(values: list[Any], saw: str) -> None:
    with pytest.raises(DataError) as caught:
        as_times({f"r{i}": value for i, value in enumerate(values)}, "when")
    assert caught.value.what == "a time cannot be read" and caught.value.saw == saw
    assert caught.value.do == "mend or remove that row, or name another column with --time"
