"""`regraft runs`: list the runs in a folder, show a finished one, remove some."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.adapt import finale, object_of
from regraft.cli.screen import Json, Screen, Verbose, clean, put_line, put_object, size
from regraft.errors import Interrupted, UsageError

HEAD = ["run", "data", "model", "when (UTC)", "state", "decision", "winner", "test", "size"]
HOME = Path("runs")


def ls(
    folder: Annotated[Path, typer.Argument(help="The folder that runs were put into.")] = HOME,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """List the runs in a folder, the newest first.

    regraft runs ls

    regraft runs ls elsewhere --json

    finished: it has a verdict. begun: regraft adapt --resume RUN goes on with it. in use: a process works on it.
    unreadable: it was changed, or made by another version.
    """
    from regraft.deliver import runs
    from regraft.deliver.report import told
    from regraft.waist import plain

    found = [] if folder == HOME and not folder.exists() else runs.ls(folder)
    if as_json:
        put_object("runs ls", {"folder": str(folder), "runs": plain(found)})
        return
    if not found:
        put_line(f"there are no runs in {folder}: regraft adapt DATA --model MODEL starts one")
        return
    cells = []
    for one in found:
        when, score = one.when[:16].replace("T", " "), told(one.score) if one.score else ""
        cells.append([one.run, one.data, one.model, when, one.state, one.decision, one.winner, score, size(one.bytes)])
    Screen().table(HEAD, cells)


def show(
    run: Annotated[Path, typer.Argument(help="A finished run.")], as_json: Json = False, verbose: Verbose = False
) -> None:
    """Show a finished run as regraft adapt does at its end.

    regraft runs show runs/RUN
    """
    from regraft import flow
    from regraft.kit import store

    made = flow.read_run(store.existing(run))
    if as_json:
        put_object("runs show", object_of(made, "runs show"))
    else:
        finale(Screen(), made)


def rm(
    run: Annotated[list[Path], typer.Argument(help="The runs to remove, with their bundles.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Remove runs with all that is in them, bundles too. Nothing is removed unless all of them can be.

    regraft runs rm runs/RUN

    regraft runs rm runs/RUN runs/OTHER --yes
    """
    from regraft.deliver import runs

    several = list(dict.fromkeys(run))
    for one in several:
        runs.removable(one)
    if not yes:
        _ask(several, as_json)
    freed = sum(runs.remove(one) for one in several)
    if as_json:
        put_object("runs rm", {"removed": [str(one) for one in several], "bytes": freed})
    else:
        put_line(f"removed {', '.join(map(str, several))}: {size(freed)}")


def _ask(several: list[Path], as_json: bool) -> None:
    """Ask whether to remove these runs.

    Raises: UsageError: there is nobody to ask. Interrupted: the answer was no.
    """
    from regraft.deliver.runs import size_of

    named = ", ".join(f"{one} ({size(size_of(one))})" for one in several)
    if as_json or not sys.stdin.isatty():
        raise UsageError(
            "nobody can be asked whether to remove this", named, "--yes where there is no terminal", "add --yes"
        )
    if not typer.confirm(clean(f"remove {named}?"), err=True):
        raise Interrupted("nothing was removed")
