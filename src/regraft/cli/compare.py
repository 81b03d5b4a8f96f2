"""`regraft compare`: two finished runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.screen import Json, Screen, Verbose, put_line, put_object


def compare(
    a: Annotated[Path, typer.Argument(help="A finished run.")],
    b: Annotated[Path, typer.Argument(help="Another finished run.")],
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Compare the winners of two finished runs, and show what set the runs apart.

    regraft compare runs/RUN runs/OTHER

    Where both have the same test rows, the winners are compared on these by a paired bootstrap. Otherwise their scores
    stand beside each other, and why they cannot be paired is said.
    """
    from regraft.deliver import compare as room
    from regraft.waist import plain

    found = room.compare(a, b)
    if as_json:
        told = plain(found)
        if found.paired:
            told["paired"]["significant"] = found.paired.significant
        put_object("compare", told)
        return
    put_line(found.sentence)
    for note in found.notes:
        put_line(f"  {note}")
    screen = Screen()
    sides = [f"A {a.name}", f"B {b.name}"]
    rows = [["winner", *found.winners]]
    for name, *both in found.scores:
        rows.append([name, *(f"{s.value:.3f} [{s.low:.3f}, {s.high:.3f}]" if s else "" for s in both)])
    rows += [[name, *(_number(value) for value in both)] for name, *both in found.costs]
    rows += [[f"check {name}" if name != "decision" else name, *both] for name, *both in found.checks]
    for title, told_rows in (("on its own test rows", rows), ("what differs", [list(one) for one in found.settings])):
        if told_rows:
            put_line("")
            screen.table([title, *sides], told_rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"
