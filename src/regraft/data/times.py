"""Read a column of times: numbers, or dates as ISO 8601 writes them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any

from regraft.data.target import as_number
from regraft.errors import DataError

_MONTH = re.compile(r"\d{4}-\d{2}")


def as_times(values: Mapping[str, Any], column: str) -> dict[str, float]:
    """Row id → time, comparable within the column; a date without a zone is taken as UTC.

    Raises: DataError: a value is missing or is no time, or numbers and dates are mixed; the row is named.

    >>> as_times({"a": "1970-01-02", "b": "1970-01-01T00:00:05Z"}, "when")
    {'a': 86400.0, 'b': 5.0}
    """
    numbers = sum(as_number(str(value)) is not None for value in values.values()) * 2 > len(values)
    times = {}
    for row, value in values.items():
        time = as_number(str(value)) if numbers else _moment(str(value).strip())
        if value is None or time is None:
            raise DataError(
                "a time cannot be read",
                saw=f"{row}, column {column}: {'nothing' if value is None else repr(str(value)[:40])}",
                allowed="numbers alone, or dates such as 2024-05-01, 2024-05 and 2024-05-01T12:30",
                do="mend or remove that row, or name another column with --time",
            )
        times[row] = time
    return times


def _moment(text: str) -> float | None:
    try:
        moment = datetime.datetime.fromisoformat(f"{text}-01" if _MONTH.fullmatch(text) else text)
    except ValueError:
        return None
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)  # noqa: UP017
    return (zoned - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)).total_seconds()  # noqa: UP017
