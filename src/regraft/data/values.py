"""Single values of tables as text: numbers as they are written, lists of labels as lists of text."""

from __future__ import annotations

import ast
import datetime
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from regraft.errors import DataError


def _nothing(constant: str) -> str | None:
    return None if constant == "NaN" else constant


DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_nothing)
"""Numbers stay as they are written."""


def texts(values: Iterable[Any]) -> list[Any]:
    """Values as text: numbers and truth values as Python writes them, lists of them as lists of text, gaps as None.

    Bytes, pictures and arrays stay what they are. Whole numbers that a gap has turned into floats are whole again.

    >>> texts([1, True, "001", None, 0.5]), texts([1.0, float("nan")])
    (['1', 'True', '001', None, '0.5'], ['1', None])
    """
    values = list(values)
    if all(type(value) is str for value in values):
        return values
    gaps = [value is None or (isinstance(value, float) and value != value) for value in values]
    whole = any(gaps) and all(g or (isinstance(v, float) and v.is_integer()) for v, g in zip(values, gaps, strict=True))
    return [None if g else str(int(v)) if whole else _text(v) for v, g in zip(values, gaps, strict=True)]


def listed(text: str) -> list[str] | None:
    """The entries of a list that is written as JSON or as Python writes it; None where the text is no such list.

    >>> listed('["a", "b"]'), listed("['a']"), listed("[]"), listed("[a]")
    (['a', 'b'], ['a'], [], None)
    """
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        found = DECODER.decode(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    if not isinstance(found, list) or any(isinstance(entry, (list, dict, tuple, set)) for entry in found):
        return None
    return [str(from_json(entry)) for entry in found if entry is not None]


def from_json(value: Any) -> Any:
    """A decoded value with truth values as JSON writes them, in lists too."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return [from_json(entry) for entry in value] if isinstance(value, list) else value


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8: no half of a surrogate pair stands in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(value: Any) -> Any:
    """One value as text; lists of values as lists of text; what is a picture or an object as it is."""
    kind = type(value)
    if kind is str or isinstance(value, bytes):
        return value
    if kind.__module__ == "numpy" and kind.__name__ != "ndarray":
        return str(value.item())
    if kind.__module__ == "numpy":
        return [_text(entry) for entry in value.tolist()] if value.ndim == 1 else value
    if isinstance(value, (list, tuple, set)):
        return [_text(entry) for entry in (sorted(value) if isinstance(value, set) else value) if entry is not None]
    if isinstance(value, dict):
        return (value.get("bytes") or value.get("path")) if set(value) == {"bytes", "path"} else value
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    return value if isinstance(value, Path) or kind.__module__.startswith("PIL.") else str(value)


def check_names(names: Iterable[str], where: str) -> None:
    """Refuse columns of equal names.

    Raises: DataError: a name stands twice.
    """
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise DataError(
            "a table has two columns of one name",
            saw=f"{where}: {', '.join(twice[:5])}",
            allowed="a name of its own for every column",
            do="rename one of them",
        )
