"""Do columns hold one value, count the rows, or give the target away?"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from regraft.waist import Flag, Seen

NEEDS = "data"
SHOWN = 5
ROWS_A_VALUE = 5
"""So many rows a value of a column needs at least, on average, to tell the target by more than chance."""
PURE = 0.99
"""A column tells the target where this share of its rows have the most frequent target of their value."""


def look(seen: Seen) -> list[Flag]:
    """Constant and counting columns, and left-out ones that determine the target; all of them of training's table."""
    target, table = seen.data.target.name, seen.table
    if target not in table or len(table[target]) < 2:
        return []
    inputs, rows = seen.data.columns, len(table[target])
    texts = {name: [_text(v) for v in values] for name, values in table.items() if name not in (target, seen.group)}
    found = []
    constant = tuple(name for name, values in texts.items() if len(set(values)) == 1)
    if constant:
        used = any(name in inputs for name in constant)
        told = f"{_columns(constant)} with one value in every row"
        advice = "name another input with --text or --image" if used else "nothing: they are not used"
        found.append(
            Flag("columns", "warn" if used else "note", len(constant), len(table), told, constant[:SHOWN], advice)
        )
    ids = tuple(name for name, values in texts.items() if _counts_up(values))
    if ids:
        used = any(name in inputs for name in ids)
        told = f"{_columns(ids)} that count the rows, as ids do"
        advice = "an id says nothing of new rows: name another input" if used else "keep them out of the inputs, as now"
        found.append(Flag("columns", "warn" if used else "note", len(ids), len(table), told, ids[:SHOWN], advice))
    return found + _leaking(seen, {name: values for name, values in texts.items() if name not in inputs}, rows)


def _leaking(seen: Seen, left: dict[str, list[str]], rows: int) -> list[Flag]:
    """Left-out columns that equal the target or determine it; a warning where the input text holds them too."""
    data, found = seen.data, []
    truth = [_text(value) for value in seen.table[data.target.name]]
    if data.target.kind != "class" or len(set(truth)) < 2:
        equal = [name for name, values in left.items() if values == truth]
        telling = {name: "equals the target" for name in equal}
    else:
        telling = {name: how for name, values in left.items() if (how := _tells(values, truth))}
    for name, how in telling.items():
        inside = _inside(left[name], [seen.table[column] for column in data.columns if column in seen.table])
        text = f"the column {name} {how}" + (", and the input text holds its value" if inside else "")
        advice = "keep it out of the inputs, as now"
        if inside:
            advice = "remove it from the texts: new ones will not have it"
        found.append(Flag("columns", "warn" if inside else "note", 1, len(seen.table), text, (), advice))
    return found


def _tells(values: Sequence[str], truth: Sequence[str]) -> str:
    """How a column gives the target away, "" where it does not."""
    if list(values) == list(truth):
        return "equals the target"
    by_value: dict[str, Counter[str]] = defaultdict(Counter)
    for value, y in zip(values, truth, strict=True):
        by_value[value][y] += 1
    if len(by_value) * ROWS_A_VALUE > len(truth) or len(by_value) < 2:
        return ""
    pure = sum(max(ys.values()) for ys in by_value.values()) / len(truth)
    guess = max(Counter(truth).values()) / len(truth)
    if pure < PURE or pure - guess < (1 - guess) / 2:
        return ""
    return f"tells the target: of its {len(by_value):,} values, each stands with one label in {pure:.1%} of the rows"


def _inside(values: Sequence[str], inputs: Sequence[Sequence[Any]]) -> bool:
    """Whether nearly every row's text holds the row's value of a column, as whole words."""
    if not inputs:
        return False
    rows = list(zip(values, *inputs, strict=True))[:2000]
    held = sum(
        bool(value) and any(re.search(rf"(?<!\w){re.escape(value)}(?!\w)", str(cell), re.IGNORECASE) for cell in cells)
        for value, *cells in rows
    )
    return held >= 0.9 * len(rows)


def _counts_up(values: Sequence[str]) -> bool:
    """Whether whole numbers go up by one from row to row, or fill a range without a gap."""
    if len(values) < 10 or not all(value.isascii() and value.isdigit() for value in values):
        return False
    numbers = sorted(map(int, values))
    return numbers[-1] - numbers[0] == len(numbers) - 1 and len(set(numbers)) == len(numbers)


def _columns(names: Sequence[str]) -> str:
    return f"{len(names):,} {'column' if len(names) == 1 else 'columns'}"


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
