"""Find a shelf item: a file in the shelf's folder, or any dotted module path."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType

from regraft.errors import UsageError, unknown


@cache
def names(shelf: str) -> tuple[str, ...]:
    """The names on a shelf, sorted: its file names.

    >>> "probe" in names("strategies")
    True
    """
    folder = importlib.import_module(f"regraft.{shelf}")
    return tuple(sorted(m.name for m in pkgutil.iter_modules(folder.__path__) if not m.name.startswith("_")))


def find(shelf: str, name: str) -> ModuleType:
    """The item called `name`: `probe` is a file of ours, `mypackage.zip` a module of any package.

    Raises: UsageError: there is no such item (the nearest name is shown), or its module does not import.
    """
    if name in names(shelf):
        return importlib.import_module(f"regraft.{shelf}.{name}")
    if "." not in name:
        raise unknown(SINGULAR.get(shelf, shelf), name, names(shelf))
    kind = SINGULAR.get(shelf, shelf)
    try:
        found = importlib.import_module(name)
    except Exception as error:  # a module of someone else's raises whatever it likes
        raise UsageError(
            f"the {kind} module does not import",
            saw=f"{name}: {error}",
            allowed="an importable module path, or " + ", ".join(names(shelf)),
            do="install its package in this environment",
        ) from error
    if missing := [part for part in PARTS.get(shelf, ()) if part not in vars(found)]:
        raise UsageError(
            f"this module is no {kind}",
            saw=f"{name} without {', '.join(missing)}",
            allowed=f"a module with {', '.join(PARTS[shelf])}",
            do=f"choose one of {', '.join(names(shelf))}, or complete the module",
        )
    return found


PARTS = {
    "strategies": ("Knobs", "propose"),
    "tasks": ("KIND", "fits", "make"),
    "modalities": (
        *("NOUN", "EXAMPLE", "LITERAL", "TOKENS", "AUGMENTS", "AUTO", "PIPELINE", "FILES"),
        *("ENDINGS", "POLICY", "CARE", "sniff", "look", "alike", "unsuited", "described", "adjust", "noise", "encoder"),
        *("loosened", "grain", "carried", "portable"),
    ),
    "providers": ("find", "fingerprint", "load"),
    "checks": ("NEEDS", "check"),
    "flags": ("NEEDS", "look"),
    "metrics": ("METRICS",),
    "inserts": ("put", "take_out", "files", "load"),
    "regularisers": ("ACTS_ON", "act"),
}
"""What an item of each shelf defines."""

SINGULAR = {"strategies": "strategy", "modalities": "modality", "tasks": "task", "providers": "provider"}
SINGULAR |= {
    "checks": "check",
    "flags": "flag",
    "metrics": "metric",
    "inserts": "insert",
    "regularisers": "regulariser",
}
