"""`regraft adapt` with several data: a task each on one backbone, what came of them, answers of all."""

from __future__ import annotations

from pathlib import Path

import typer

from regraft.cli.adapt import object_of
from regraft.cli.screen import Screen, put, put_object, size
from regraft.errors import GateError, Interrupted, Unproven
from regraft.waist import Options

HEAD = ["task", "decision", "winner", "test", "own"]


def adapt_many(screen: Screen, options: Options, data: list[str], out: Path, fresh: bool, as_json: bool) -> None:
    """Adapt one model to several data, and tell of each.

    Raises: Interrupted: with how to go on.
    """
    from regraft import many
    from regraft.deliver import family

    work = many.steps(options, many.names(data), out, fresh=fresh)
    try:
        made = screen.watch(work)
    except Interrupted as stopped:
        do = "run the same command again: what is finished is read"
        raise Interrupted("stopped; what was done is kept", do=do, code=stopped.code) from stopped
    refused = any(run.verdict.decision == "refuse" for run in made.runs.values())
    listed = {one.task: one for one in family.listed(made.folder)} if family.is_family(made.folder) else {}
    if as_json:
        told = {name: object_of(run, "adapt") for name, run in made.runs.items()}
        failed = {
            name: {"code": error.code, "what": error.what, "saw": error.saw} for name, error in made.failed.items()
        }
        put_object("adapt", {"family": str(made.folder), "tasks": told, "failed": failed})
    else:
        cells = []
        for name, run in made.runs.items():
            own = size(listed[name].bytes) if name in listed else "–"
            score = run.winner.score("test")
            cells.append([name, run.verdict.decision, run.winner.label, f"{score.metric} {score.value:.3f}", own])
        cells += [[name, "failed its test", "–", "–", "–"] for name in made.failed]
        screen.table(HEAD, cells)
        put("")
        if listed:
            put(f"base    {made.folder / family.BASE}, {size(family.size_of(made.folder / family.BASE))}, once for all")
            put("next")
            put(f"  regraft predict {made.folder} FILE")
            put(f"  regraft adapters ls {made.folder}")
    if refused or made.failed:
        raise typer.Exit(Unproven.code if made.failed else GateError.code)
