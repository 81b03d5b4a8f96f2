"""Look at the installation and the machine: what works, what is missing for which extra, where room is."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from regraft import __version__
from regraft.deliver.runs import size_of
from regraft.errors import ModelError
from regraft.kit import hardware, optional

CORE = "core"
State = Literal["works", "absent", "broken"]
OTHERWISE = {
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "pyyaml": "yaml",
    "chronos-forecasting": "chronos",
    "mlflow-skinny": "mlflow",
}
"""Packages that are imported under another name than they are installed under."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package that regraft asks for: `needed` are the extras that want it, or "core"; `trouble` is what broke it."""

    name: str
    needed: tuple[str, ...]
    version: str
    state: State
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that regraft uses: what lies in it, and what its disk has free."""

    name: str
    path: str
    there: bool
    bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Health:
    """What a look at everything found; `bf16_gain` is 0 without torch, `cures` are commands or sentences."""

    regraft: str
    python: str
    processor: str
    threads: int
    memory_bytes: int
    bf16_gain: float
    packages: tuple[Package, ...]
    places: tuple[Place, ...]
    cures: tuple[str, ...]

    @property
    def trouble(self) -> ModelError | None:
        """Why the core cannot work; None if it can."""
        gone = [p for p in self.packages if CORE in p.needed and p.state != "works"]
        if not gone:
            return None
        return ModelError(
            "regraft cannot work here",
            saw="; ".join(f"{p.name} is {p.state}{': ' + p.trouble if p.trouble else ''}" for p in gone),
            allowed="every package of the core",
            do="pip install --force-reinstall regraft",
        )


def examine(folder: Path = Path("runs"), requires: Sequence[str] | None = None) -> Health:
    """Look at packages, machine and folders. Takes some seconds, most of them to import what is installed.

    Args:
        folder: Where runs are put.
        requires: Requirements as package metadata writes them, in place of regraft's own.
    """
    packages = look(declared() if requires is None else requires)
    torch = next((p.state == "works" for p in packages if p.name == "torch"), False)
    return Health(
        regraft=__version__,
        python=platform.python_version(),
        processor=hardware.processor() if torch else platform.processor() or platform.machine(),
        threads=hardware.threads(),
        memory_bytes=hardware.memory_bytes(),
        bf16_gain=round(hardware.bf16_gain(), 2) if torch else 0.0,
        packages=packages,
        places=tuple(_place(name, path) for name, path in _places(folder)),
        cures=cures(packages),
    )


def declared() -> list[str]:
    """What regraft's own metadata requires; nothing where it was not installed."""
    try:
        return importlib.metadata.requires("regraft") or []
    except importlib.metadata.PackageNotFoundError:
        return []


def needs(requires: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Package → the extras that want it, or "core". Extras that only put others together are left out.

    >>> needs(["torch>=2.10", "peft>=0.19; extra == 'peft'", "peft>=0.19; extra == 'standard'"])
    {'torch': ('core',), 'peft': ('peft',)}
    """
    wanted: dict[str, dict[str, None]] = {}
    for line in requires:
        name = re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0].lower().replace("_", "-")
        extra = re.search(r"""extra\s*==\s*["']([^"']+)["']""", line)
        if name and name != "regraft":
            wanted.setdefault(extra[1] if extra else CORE, {})[name] = None
    kept: dict[str, set[str]] = {}
    for group, names in sorted(wanted.items(), key=lambda one: (len(one[1]), one[0])):
        whole = set(names)
        within = [other for other in kept.values() if other <= whole]
        if group == CORE or set().union(*within) != whole:
            kept[group] = whole
    order = [CORE, *sorted(set(kept) - {CORE})]
    found: dict[str, list[str]] = {}
    for group in order:
        for name in wanted.get(group, ()):
            found.setdefault(name, []).append(group)
    return {name: tuple(extras) for name, extras in found.items()}


def look(requires: Sequence[str]) -> tuple[Package, ...]:
    """Each required package with its version and whether it imports."""
    return tuple(_look(name, needed) for name, needed in needs(requires).items())


def cures(packages: Sequence[Package]) -> tuple[str, ...]:
    """A line for everything that is missing: one command for each extra that lacks something, and each break told.

    >>> cures([Package("peft", ("peft",), "", "absent"), Package("timm", ("image",), "1.0", "works")])
    ('pip install "regraft[peft]"  (peft)',)
    """
    lacking: dict[str, list[str]] = {}
    for package in packages:
        for extra in package.needed if package.state == "absent" else ():
            lacking.setdefault(extra, []).append(package.name)
    lines = [f"{package.name}: {package.trouble}" for package in packages if package.state == "broken"]
    if CORE in lacking:
        lines.append(f"pip install --force-reinstall regraft  ({', '.join(lacking.pop(CORE))})")
    return (*lines, *(f'pip install "regraft[{extra}]"  ({", ".join(names)})' for extra, names in lacking.items()))


def _look(name: str, needed: tuple[str, ...]) -> Package:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Package(name, needed, "", "absent")
    module = OTHERWISE.get(name, name.replace("-", "_"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trouble = optional.trouble(module) or _nothing(module)
    return Package(name, needed, version, "broken" if trouble else "works", trouble)


def _nothing(module: str) -> str:
    """What is wrong with an installed package that has no module of its name; hidden ones are told by `trouble`."""
    try:
        there = importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        there = False
    return "" if there else f"it is installed, but there is no module {module}: reinstall it"


def _places(folder: Path) -> list[tuple[str, Path]]:
    return [("runs", folder), ("cache", hardware.cache_folder()), *hardware.hub_folders()]


def _place(name: str, path: Path) -> Place:
    return Place(name, str(path), path.is_dir(), size_of(path), hardware.free_bytes(path))
