"""Rows without labels beside the training rows: what of them may be used, and what is a labelled row already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from regraft.data.cells import key_of
from regraft.errors import DataError, UsageError
from regraft.waist import Bad, Data, Row, fingerprint

MOST = 2000
"""So many rows without labels are used at most: the first ones by their content's fingerprints."""
SAID = {"test": "that are rows of test", "val": "that are validation rows", "train": "that are training rows"}


def beside(data: Data, cells: Sequence[tuple[str, Any]], path: str, bad: Sequence[Bad] = ()) -> Data:
    """The data with rows that have no label, from (name, cell) pairs of `path`; a note counts what was left out.

    Rows of test, validation and training are left out by their content, as are empty texts, `bad` ones, and all but
    one of equal rows: nothing that is scored may shape a model.

    Raises: DataError: no row is left. UsageError: the target has no classes.

    >>> from regraft.waist import Target
    >>> one = Row("0", "good", "a", "", key_of("good"))
    >>> data = Data("d", "text", Target("y", "class", ("a",), (1,)), (one,), (), (), "f")
    >>> found = beside(data, [("1", "good"), ("2", "fine"), ("3", "fine"), ("4", "")], "x.csv")
    >>> [row.cell for row in found.unlabelled], found.notes[-1]
    (['fine'], '--unlabelled: 1 of 4 rows of x.csv are used, left out are 1 that are training rows, 1 twice, 1 empty')
    """
    if data.target.kind != "class":
        raise UsageError(
            "rows without labels are of no use for this target",
            saw=f"--unlabelled {path} for {data.target.name}, a target of kind {data.target.kind!r}",
            allowed="one class for each row",
            do="leave it away",
        )
    known = {row.key: SAID[name] for name in SAID for row in getattr(data, name)}
    left_out = Counter({"unreadable": len(bad)})
    found: dict[str, Row] = {}
    for name, cell in cells:
        if any(isinstance(side, str) and not side.strip() for side in (cell if isinstance(cell, tuple) else (cell,))):
            left_out["empty"] += 1
            continue
        key = key_of(cell)
        if key in known or key in found:
            left_out[known.get(key, "twice")] += 1
        else:
            found[key] = Row(name, cell, None, "", key)
    used = sorted(found)[:MOST]
    left_out[f"beyond {MOST:,}"] = len(found) - len(used)
    told = ", ".join(f"{count:,} {why}" for why, count in left_out.items() if count)
    if not used:
        raise DataError(
            "there is no row without a label that can be used",
            saw=f"--unlabelled {path}: " + (told or "no rows"),
            allowed="rows of other content than those of training, validation and test",
            do="name other rows, or leave --unlabelled away",
        )
    note = f"--unlabelled: {len(used):,} of {len(cells) + len(bad):,} rows of {path} are used"
    return replace(
        data,
        unlabelled=tuple(found[key] for key in used),
        fingerprint=fingerprint(data.fingerprint, used),
        notes=(*data.notes, note + (f", left out are {told}" if told else "")),
    )
