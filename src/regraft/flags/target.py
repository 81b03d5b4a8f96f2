"""Is the target a date, an id, or nearly unique?"""

from __future__ import annotations

import re
from itertools import pairwise

from regraft.waist import Flag, Seen

NEEDS = "data"
DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}|\d{1,2}:\d\d(:\d\d)?")
SHOWN = 3
ADVICE = "name another column with --target"


def look(seen: Seen) -> list[Flag]:
    """A target whose labels are dates or stand once each, or whose numbers count the rows."""
    target, rows = seen.data.target, seen.data.train
    if target.kind == "number":
        values = sorted(row.y for split in (rows, seen.data.val, seen.data.test) for row in split)
        if len(values) < 10 or any(b - a != 1 for a, b in pairwise(values)):
            return []
        text = f"the target {target.name} counts the rows from {values[0]:g} to {values[-1]:g}: it looks like an id"
        return [Flag("target", "warn", len(values), len(values), text, (), ADVICE)]
    labels, found = target.labels, []
    dates = tuple(label for label in labels if DATE.fullmatch(label.strip()))
    if len(dates) * 10 >= len(labels) * 9:
        text = f"{len(dates):,} of {len(labels):,} labels of the target {target.name} are dates"
        found.append(Flag("target", "warn", len(dates), len(labels), text, dates[:SHOWN], ADVICE))
    if target.kind == "class" and len(labels) > 20 and len(labels) * 2 > len(rows):
        text = f"the target {target.name} has {len(labels):,} different labels in {len(rows):,} training rows"
        advice = f"{ADVICE}, or give more rows of each class"
        found.append(Flag("target", "warn", len(labels), len(rows), text, labels[:SHOWN], advice))
    return found
