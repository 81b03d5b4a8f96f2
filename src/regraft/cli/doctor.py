"""`regraft doctor`: whether the installation works, and what this machine offers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.screen import Json, Screen, Verbose, put_error, put_line, put_object, size

if TYPE_CHECKING:
    from regraft.deliver.doctor import Package


def doctor(
    out: Annotated[Path, typer.Option("--out", help="The folder that runs are put into.")] = Path("runs"),
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Look at packages, processor, memory and disk, and say what is missing for what. Takes some seconds.

    regraft doctor

    The exit code is 0 unless a package of the core is absent or broken.
    """
    from regraft.deliver import doctor as room
    from regraft.waist import plain

    found = room.examine(out)
    trouble = found.trouble
    told = plain(found)
    if as_json and trouble is not None:
        put_error("doctor", trouble, told)
        raise typer.Exit(trouble.code)
    if as_json:
        put_object("doctor", told)
        return
    gain = f"bfloat16 {found.bf16_gain:.2f} times as fast as float32" if found.bf16_gain else "bfloat16 not measured"
    put_line(f"regraft {found.regraft}, python {found.python}")
    put_line(f"{found.processor}, threads: {found.threads}, memory: {size(found.memory_bytes)}, {gain}")
    screen = Screen()
    put_line("")
    places = [[p.name, p.path, size(p.bytes) if p.there else "not there", size(p.free_bytes)] for p in found.places]
    screen.table(["folder", "path", "holds", "disk has free"], places)
    put_line("")
    screen.table(["package", "version", "state", "for"], [_package(package) for package in found.packages])
    for line in ["", "missing", *(f"  {cure}" for cure in found.cures)] if found.cures else []:
        put_line(line)
    if trouble is not None:
        raise trouble


def _package(package: Package) -> list[str]:
    return [package.name, package.version, package.state, ", ".join(package.needed)]
