"""`regraft cache`: list what is kept of frozen trunks, remove some, compare it to what was written."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.knobs import CacheFolder
from regraft.cli.screen import Json, Screen, Verbose, clean, put_error, put_line, put_object, size
from regraft.errors import Interrupted, ResourceError, UsageError
from regraft.kit import hardware

if TYPE_CHECKING:
    from regraft.engine.blocks import About, Stored

HEAD = ["store", "model", "stage", "rows", "size", "last used", "as"]
PRECISIONS = {"float32": "fp32", "bfloat16": "bf16"}
Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Stores by their first digits, or by their model.")
]


def ls(cache_folder: CacheFolder = "", as_json: Json = False, verbose: Verbose = False) -> None:
    """List what the cache keeps of frozen trunks, what was used last first.

    regraft cache ls

    regraft cache ls --json

    stage 18/18: the states after all 18 stages of the model. as: how they were computed.
    """
    from regraft.engine import blocks
    from regraft.waist import plain

    hardware.choose(cache_folder=cache_folder)
    found, held = blocks.ls(), blocks.root()
    limit, total = hardware.cache_bytes(), sum(one.bytes for one in found)
    if as_json:
        told = {"folder": str(held), "bytes": total, "limit_bytes": limit, "stores": plain(found)}
        put_object("cache ls", told)
        return
    if not found:
        put_line(f"there are no stores in {held}: regraft adapt makes them")
        return
    Screen().table(HEAD, [_cells(one) for one in found])
    put_line("")
    put_line(f"{size(total)} of at most {size(limit)} in {held}")


def rm(
    name: Names = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all stores.")] = False,
    older_than: Annotated[
        str, typer.Option("--older-than", help="Remove what was not used for so long, such as 12h, 30d or 2w.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    cache_folder: CacheFolder = "",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Remove stores from the cache. What a later run needs of them is computed again; results stay the same.

    regraft cache rm 3f09a1c2

    regraft cache rm --older-than 30d --yes

    A run that uses a store at this moment keeps what it has opened, and goes on.
    """
    from regraft.engine import blocks

    hardware.choose(cache_folder=cache_folder)
    if (bool(name) + everything + bool(older_than)) != 1:
        raise UsageError(
            "it is not clear what to remove",
            saw=", ".join([*(name or []), *["--all"] * everything, *["--older-than"] * bool(older_than)]) or "nothing",
            allowed="names, or --all, or --older-than",
            do="regraft cache ls lists what is there",
        )
    if older_than:
        chosen = blocks.unused(blocks.seconds(older_than))
    else:
        chosen = blocks.ls() if everything else blocks.named(name or [])
    if chosen and not yes:
        _ask(chosen, as_json)
    freed = sum(blocks.remove(one) for one in chosen)
    if as_json:
        put_object("cache rm", {"removed": [one.address for one in chosen], "bytes": freed})
    else:
        put_line(f"removed {_several(len(chosen))}: {size(freed)}" if chosen else "there was nothing to remove")


def verify(
    name: Names = None,
    fix: Annotated[bool, typer.Option("--fix", help="Remove blocks whose bytes have changed.")] = False,
    cache_folder: CacheFolder = "",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Read every block of the cache and compare it to its SHA-256, which is its name.

    regraft cache verify

    regraft cache verify --fix

    The exit code is 5 where blocks have changed and stay: a disk that does this is not to be trusted. Runs are not
    harmed: they compare what they read, and compute again what differs.
    """
    from regraft.engine import blocks
    from regraft.waist import plain

    hardware.choose(cache_folder=cache_folder)
    checked = [blocks.verify(one, fix) for one in (blocks.named(name) if name else blocks.ls())]
    left = [f"{one.address[:8]}/{block[:8]}" for one in checked for block in {*one.damaged} - {*one.removed}]
    told = {"stores": plain(checked)}
    trouble = ResourceError(
        "blocks of the cache have changed bytes",
        saw=f"{len(left)}, such as {', '.join(sorted(left)[:3])}",
        allowed="bytes as they were written",
        do="check the permissions" if fix else "regraft cache verify --fix removes them; a run computes them again",
    )
    if as_json and left:
        put_error("cache verify", trouble, told)
        raise typer.Exit(trouble.code)
    if as_json:
        put_object("cache verify", told)
        return
    if left:
        raise trouble
    read, removed = sum(one.blocks for one in checked), sum(len(one.removed) for one in checked)
    gone = f", {removed} with changed bytes removed" if removed else ""
    put_line(f"{read} blocks in {_several(len(checked))} were read: {read - removed} whole{gone}")


def _cells(one: Stored) -> list[str]:
    told = one.about
    model, stage, how = ("?", "?", "?") if told is None else (told.model, _stage(told), _how(told))
    return [one.address[:8], model, stage, f"{one.rows:,}", size(one.bytes), one.used[:10], how]


def _stage(told: About) -> str:
    """The frontier of all stages; the pooling counts where the states are features."""
    pooled = f" {told.pooling}" if told.frontier == told.stages and told.pooling != "native" else ""
    return f"{told.frontier}/{told.stages}{pooled}"


def _how(told: About) -> str:
    """The numbers' precision, and the engine where it is not the network as it stands."""
    return " ".join([PRECISIONS.get(told.dtype, told.dtype), *([told.engine] if told.engine != "eager" else [])])


def _several(count: int) -> str:
    return f"{count} store{'s' * (count != 1)}"


def _ask(chosen: list[Stored], as_json: bool) -> None:
    """Ask whether to remove these stores.

    Raises: UsageError: there is nobody to ask. Interrupted: the answer was no.
    """
    some = ", ".join(one.address[:8] for one in chosen[:4]) + (" …" if len(chosen) > 4 else "")
    named = f"{_several(len(chosen))} ({size(sum(one.bytes for one in chosen))}): {some}"
    if as_json or not sys.stdin.isatty():
        raise UsageError(
            "nobody can be asked whether to remove this", named, "--yes where there is no terminal", "add --yes"
        )
    if not typer.confirm(clean(f"remove {named}?"), err=True):
        raise Interrupted("nothing was removed")
