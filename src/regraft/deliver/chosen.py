"""How one of several models was chosen: all of them side by side, and in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from regraft.deliver.grids import Grid

if TYPE_CHECKING:
    from regraft.planner.choose import Choice


def models(choice: Choice) -> Grid:
    """Models with their scores, the best first."""
    names = list(dict.fromkeys(name for one in choice.candidates for name, _ in one.scores))
    names += ["as is"] if any(one.asis is not None for one in choice.candidates) else []
    short, rows = shorter(choice), []
    for one in choice.candidates:
        told = {**dict(one.scores), "as is": one.asis}
        cells = ["–" if (value := told.get(name)) is None else f"{value:.3f}" for name in names]
        sized = short[one.name], f"{one.params:,}", f"{one.size:g}"
        rows.append((*sized, *cells, f"{one.rank:g}", f"{one.seconds:.1f}"))
    return Grid(
        caption=f"Features of the same {choice.rows:,} rows, judged by how they set labels apart. In scores higher is "
        "better, in ranks lower.",
        head=("model", "weights", "by size", *names, "rank", "seconds"),
        rows=tuple(rows),
        right=tuple(range(1, len(names) + 5)),
        marked=(0,),
    )


def shorter(choice: Choice) -> dict[str, str]:
    """Models by the names of their folders, as far as these differ."""
    names = [one.name for one in choice.candidates] + [one.name for one in choice.left_out]
    last = {name: Path(name).name if Path(name).is_dir() else name for name in names}
    return {name: short if list(last.values()).count(short) == 1 else name for name, short in last.items()}


def choosing(choice: Choice) -> list[str]:
    """How one of several models was chosen, in words."""
    short = shorter(choice)
    best, scored = short[choice.best.name], choice.by != "size"
    by = f"by {choice.by}" if scored else "by size: no score knows such targets"
    told = [f"{best} is taken, the first of {len(choice.candidates)} {by}, on the same {choice.rows:,} rows"]
    if choice.error is not None:
        within = f"; within it of the best: {', '.join(short[name] for name in choice.close)}" if choice.close else ""
        told[0] += f" (an accuracy there has a standard error of {100 * choice.error:.1f} points{within})"
    if choice.split:
        firsts = ", ".join(f"{score} puts {short[name]} first" for score, name in choice.split)
        told.append(f"scores do not agree: {firsts}")
    if scored and choice.largest != choice.best.name:
        told.append(f"by size alone it would be {short[choice.largest]}")
    shared = [one for one in choice.candidates if one.same]
    told += [f"{short[one.name]} has the same trunk as {short[one.same]}: it was run once" for one in shared]
    for what in dict.fromkeys(one.what for one in choice.left_out):
        told.append(f"left out: {', '.join(short[one.name] for one in choice.left_out if one.what == what)}: {what}")
    return told
