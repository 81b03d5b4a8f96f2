"""`regraft adapters`: what hangs on one backbone: list it, take some in, remove, merge, export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.screen import Json, Screen, Verbose, clean, put_line, put_object, size
from regraft.errors import Interrupted, UsageError

HEAD = ["task", "kind", "own", "test", "when (UTC)", "folder"]
Family = Annotated[Path, typer.Argument(help="A family of tasks, as regraft adapt A B --model MODEL makes it.")]
Task = Annotated[str, typer.Argument(help="A task of the family.")]
Out = Annotated[Path, typer.Option("--out", help="The folder to write, which is not there yet.")]


def ls(family: Family, as_json: Json = False, verbose: Verbose = False) -> None:
    """List the tasks of a family: what each ships beside the base, what it scored, when it was packed.

    regraft adapters ls runs/FAMILY
    """
    from regraft.deliver import family as room
    from regraft.deliver.report import told
    from regraft.waist import plain

    found, base = room.listed(family), room.size_of(family / room.BASE)
    if as_json:
        put_object("adapters ls", {"folder": str(family), "base_bytes": base, "tasks": plain(found)})
        return
    cells = [
        [t.task, t.kind, size(t.bytes), told(t.score) if t.score else "", t.when[:16].replace("T", " "), t.place]
        for t in found
    ]
    Screen().table(HEAD, cells)
    put_line("")
    put_line(f"base: {room.read(family).model}, {size(base)}, once for all")


def add(
    family: Family,
    source: Annotated[Path, typer.Argument(help="A run, a bundle, or a folder of peft with its head.")],
    task: Annotated[str, typer.Option("--task", help="What to call it; the source's name if left out.")] = "",
    labels: Annotated[str, typer.Option("--labels", help="What the outputs of peft's head mean, with commas.")] = "",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Take a run, a bundle or an adapter that peft saved into a family.

    regraft adapters add runs/FAMILY runs/RUN --task reviews

    regraft adapters add runs/FAMILY path/to/adapter --task tone --labels cold,warm
    """
    from regraft.deliver import adapters
    from regraft.kit import store

    name = task or store.slug(source.name)
    adapters.add(family, source, name, adapters.labels_of(labels))
    if as_json:
        put_object("adapters add", {"folder": str(family), "task": name})
    else:
        put_line(f"{name} is a task of {family}")


def rm(
    family: Family,
    task: Task,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Remove a task from a family, with its run and its bundle; the base stays.

    regraft adapters rm runs/FAMILY reviews
    """
    from regraft.deliver import adapters
    from regraft.deliver import family as room

    place = family / room.read(family).member(task).place
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise UsageError(
                "nobody can be asked whether to remove this",
                str(place),
                "--yes where there is no terminal",
                "add --yes",
            )
        if not typer.confirm(clean(f"remove {place}?"), err=True):
            raise Interrupted("nothing was removed")
    freed = adapters.remove(family, task)
    if as_json:
        put_object("adapters rm", {"removed": task, "bytes": freed})
    else:
        put_line(f"removed {task}: {size(freed)}")


def merge(
    source: Annotated[list[Path], typer.Argument(help="Folders of peft, or runs and bundles with an adapter.")],
    out: Out,
    weight: Annotated[
        list[float] | None, typer.Option("--weight", help="The weight of each, in their order; equal if left out.")
    ] = None,
    rank: Annotated[int, typer.Option("--rank", min=0, help="Cut the sum to this rank; 0 keeps it exact.")] = 0,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Merge LoRA adapters of one network into one, as peft has it: the weighted sum of their products B A.

    regraft adapters merge one/adapter other/adapter --weight 0.7 --weight 0.3 --out both

    A head is the first one's.
    """
    from regraft.deliver import adapters

    adapters.merged(source, weight or [], rank, out)
    if as_json:
        put_object("adapters merge", {"folder": str(out)})
    else:
        put_line(f"merged {len(source)} adapters: {out}")


def export(family: Family, task: Task, out: Out, as_json: Json = False, verbose: Verbose = False) -> None:
    """Write a task's bundle whole, merged into the base's weights: it needs no base from then on.

    regraft adapters export runs/FAMILY reviews --out reviews-bundle
    """
    from regraft.deliver import adapters

    adapters.export(family, task, out)
    if as_json:
        put_object("adapters export", {"folder": str(out), "task": task})
    else:
        put_line(f"bundle  {out}")
