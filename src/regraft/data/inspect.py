"""Look at data before anything is trained on it: the files in flags/ are asked, what cannot be used is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from regraft.data.tables import Table, bad_row
from regraft.errors import DataError
from regraft.kit import shelf
from regraft.waist import Bad, Flag, Seen

SHOWN = 3


def flags_of(seen: Seen, needs: Literal["data", "backbone"]) -> tuple[Flag, ...]:
    """What every file in flags/ that needs no more than `needs` found, warnings first."""
    items = (shelf.find("flags", name) for name in shelf.names("flags"))
    found = [flag for item in items if needs == item.NEEDS for flag in item.look(seen)]
    return tuple(sorted(found, key=lambda flag: flag.status != "warn"))


def in_words(flag: Flag) -> str:
    """A flag in a line: what was found, some examples, what to do."""
    some = f", such as {'; '.join(flag.examples[:SHOWN])}" if flag.examples else ""
    return f"{flag.text}{some}: {flag.advice}"


def counted(bad: Sequence[Bad]) -> list[str]:
    """What was left out, a line for each reason, with its count and the first of its kind."""
    lines = []
    for (split, why), count in Counter((one.split, one.why) for one in bad).items():
        first = next(one for one in bad if (one.split, one.why) == (split, why))
        lines.append(f"{split + ': ' if split else ''}{count:,} left out: {why}, such as {place(first)}")
    return lines


def refuse(bad: Sequence[Bad], rows: int, allowed: float) -> None:
    """Stop where more than a share `allowed` of all files and rows cannot be used.

    Raises: DataError: so many are bad; each reason is told with an example.
    """
    share = len(bad) / max(rows + len(bad), 1)
    if share <= allowed:
        return
    need = min(100, int(share * 100) + 1)
    raise DataError(
        f"{len(bad):,} of {rows + len(bad):,} files and rows cannot be used",
        saw="; ".join(counted(bad)[:SHOWN]),
        allowed=f"{100 * allowed:.3g}% of them",
        do=f"mend or remove them, or go on without them with --allow-bad {need}%",
    )


def without_target(table: Table, split: str, gone: Sequence[tuple[str, str]]) -> list[Bad]:
    """The rows of these ids as bad ones, each with the reason beside it."""
    at = {row: i for i, row in enumerate(table.ids)}
    return [bad_row(table, split, at[row], why) for row, why in gone]


def place(one: Bad) -> str:
    """Where it is: a file, or a row of it."""
    return f"{one.file}, row {one.row}" if one.row else one.file
