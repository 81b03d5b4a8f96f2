"""What is imported when: help and the package itself stay quick; every module imports and its examples hold."""

from __future__ import annotations

import doctest
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from floors import LATE_TORCH, lives_in

SOURCE = Path(__file__).resolve().parents[2] / "src" / "regraft"
MODULES = sorted(
    ".".join(("regraft", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
    for path in SOURCE.rglob("*.py")
    if path.relative_to(SOURCE).as_posix() != "embedded/make.py"
)

HEAVY = ("torch", "transformers", "timm", "torchvision", "sklearn", "scipy", "pandas", "pyarrow", "PIL")

IMPORT = "import sys, json; import regraft; code = 0"
COMMAND = """
import sys, json
sys.argv[0] = "regraft"
code = 0
try:
    from regraft.cli import main
    code = main()
except SystemExit as end:
    code = end.code
"""
REPORT = "\nprint('\\n' + json.dumps([code or 0, len(sys.modules), sorted({m.split('.')[0] for m in sys.modules})]))"


def fresh(code: str, *words: str) -> tuple[int, int, set[str], str]:
    """Run code in a fresh interpreter: exit code, how many modules it imported, those at the top, what it printed."""
    command = [sys.executable, "-W", "error", "-c", code + REPORT, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    printed, _, last = done.stdout.rstrip().rpartition("\n")
    status, count, modules = json.loads(last)
    return status, count, set(modules), printed


def test_importing_the_package_imports_next_to_nothing() -> None:
    _, count, modules, _ = fresh(IMPORT)
    assert modules & {*HEAVY, "numpy", "typer", "pydantic"} == set()
    assert count <= 100


HELP = [
    ("--help",),
    ("--version",),
    ("adapt", "--help"),
    ("advise", "--help"),
    ("adapt", "--strategy", "partial", "--help"),
    ("predict", "--help"),
    ("demo", "--help"),
    ("runs", "ls", "--help"),
    ("evaluate", "--help"),
    ("config", "show"),
]


@pytest.mark.parametrize("words", HELP, ids=" ".join)
def test_help_is_quick_and_free_of_torch(words: tuple[str, ...]) -> None:
    status, count, modules, printed = fresh(COMMAND, *words)
    assert status == 0
    assert printed.strip()
    assert modules & set(HEAVY) == set()
    assert count <= 450, "their time is what a user waits for; seconds are the machine's"


def test_what_is_read_before_torch_does_not_import_it() -> None:
    """`import` alone, of every file that must do without: the floor test reads it, this one runs it."""
    early = [name for name in MODULES if lives_in(file_of(name), LATE_TORCH)]
    code = f"import sys, json, importlib\nfor name in {early}: importlib.import_module(name)\ncode = 0"
    assert fresh(code)[2] & {"torch", "transformers", "timm"} == set()


def file_of(module: str) -> str:
    """The file of a module, relative to src/regraft."""
    path = Path(*module.split(".")[1:])
    return (path / "__init__.py" if (SOURCE / path).is_dir() else path.with_suffix(".py")).as_posix()


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports_and_its_examples_hold(name: str) -> None:
    if lives_in(file_of(name), ("providers/timm.py", "providers/torchvision.py")):
        pytest.importorskip(name.rpartition(".")[2], exc_type=Exception)
    module = importlib.import_module(name)
    assert doctest.testmod(module, raise_on_error=False).failed == 0


def test_every_public_name_is_there() -> None:
    package: Any = importlib.import_module("regraft")
    assert [name for name in package.__all__ if getattr(package, name, None) is None] == []
    with pytest.raises(AttributeError, match="module 'regraft' has no attribute 'adpat'; it has Run, "):
        _ = package.adpat
