"""Imports go down: the floor table of tools/floors.py held against every source file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from floors import (
    EMBEDDED,
    EMBEDDED_READERS,
    ENVIRONMENT_READER,
    FLOORS,
    IMPORTERS,
    LATE_TORCH,
    LIBRARY_HOMES,
    SHELF_REACH,
    SHELVES,
    TOP_FILES,
    lives_in,
    room,
)

SOURCE = Path(__file__).resolve().parents[2] / "src" / "regraft"
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))

Found = Iterator[tuple[int, str]]


def violations(source: str, where: str) -> list[str]:
    """What is wrong with the imports of the file `where` (relative to src/regraft), each as `file:line: reason`."""
    tree = ast.parse(source)
    found = [*own(tree, where), *libraries(tree, where), *late(tree, where), *environment(tree, where)]
    return [f"{where}:{line}: {reason}" for line, reason in sorted(set(found))]


def own(tree: ast.AST, where: str) -> Found:
    """Imports of our own modules, against the floor table."""
    here = room(where)
    if here not in (*FLOORS, EMBEDDED):
        yield 1, f"{here} has no floor in tools/floors.py"
        return
    for line, target in ours(tree, where):
        there, item = target[0], ".".join(target)
        if there == EMBEDDED:
            if here not in EMBEDDED_READERS:
                yield line, f"imports {item}: only {', '.join(EMBEDDED_READERS)} may"
            continue
        if there not in FLOORS:
            yield line, f"imports {item}, which has no floor in tools/floors.py"
            continue
        if there in SHELVES and len(target) > 1 and not target[1].startswith("_"):
            yield line, f"names the shelf item {item}: ask kit.shelf for it"
        if here in (EMBEDDED, there):
            continue
        if there in SHELVES and len(target) > 1 and target[1].startswith("_"):
            yield line, f"imports {item}, which is private to its shelf"
            continue
        low, high = FLOORS[here], FLOORS[there]
        if here in SHELVES and high > SHELF_REACH:
            yield line, f"imports {item} from floor {high}: a shelf item reaches floor {SHELF_REACH} at most"
        elif low == 0:
            yield line, f"imports {item}: floor 0 imports nothing of ours"
        elif high > low:
            yield line, f"imports {item} from floor {high}, above its own floor {low}"
        elif high == low and not (here in TOP_FILES and there in TOP_FILES):
            yield line, f"imports {item}, another room of its own floor {low}"


def ours(tree: ast.AST, where: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Every module of ours that the file imports, as its path below the package: ("kit", "store")."""
    package = ["regraft", *Path(where).parent.parts]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = base + (node.module.split(".") if node.module else [])
            names = [[*module, alias.name] for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == "regraft" and not name[-1].startswith("__version"):
                yield node.lineno, tuple(name[1:]) or ("__init__",)


def libraries(tree: ast.AST, where: str) -> Found:
    """Third-party libraries that are named away from their homes, imported or asked for by a string."""
    for line, name, _ in third_party(tree):
        homes = LIBRARY_HOMES.get(name)
        if homes and not lives_in(where, homes):
            yield line, f"names {name}: only {', '.join(homes)} may"
    for node in ast.walk(tree):
        if called(node) in ("import_module", "__import__") and not lives_in(where, IMPORTERS):
            yield node.lineno, f"imports by a name of run time: only {', '.join(IMPORTERS)} may"


def third_party(tree: ast.AST) -> Iterator[tuple[int, str, ast.AST]]:
    """Top-level names of absolute imports, and of literal strings given to `need` and `import_module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.split(".")[0], node
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module.split(".")[0], node
        elif isinstance(node, ast.Call) and called(node) in ("need", "import_module", "__import__"):
            names = [value.value for value in node.args[:1] if isinstance(value, ast.Constant)]
            yield from ((node.lineno, str(name).split(".")[0], node) for name in names)


def late(tree: ast.Module, where: str) -> Found:
    """Imports of torch that run when the module is imported, in files that are read before torch is needed."""
    if lives_in(where, LATE_TORCH):
        for statement in at_import(tree.body):
            for line, name, node in third_party(statement):
                if name == "torch" and not isinstance(node, ast.Call):
                    yield line, "imports torch at the top: import it inside the function that needs it"


def at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The import statements that run on import: not inside functions, not under `if TYPE_CHECKING`."""
    for statement in body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            yield statement
        elif isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            yield from at_import(statement.orelse)
        elif not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for name in ("body", "orelse", "finalbody"):
                yield from at_import(getattr(statement, name, []))
            for handler in getattr(statement, "handlers", []):
                yield from at_import(handler.body)


def environment(tree: ast.AST, where: str) -> Found:
    """Readers of the environment other than the one."""
    words = ("environ", "environb", "getenv", "putenv", "unsetenv")
    for node in ast.walk(tree):
        reads = isinstance(node, ast.Attribute) and node.attr in words and ast.unparse(node.value) == "os"
        takes = isinstance(node, ast.ImportFrom) and node.module == "os" and any(a.name in words for a in node.names)
        if (reads or takes) and where != ENVIRONMENT_READER:
            yield node.lineno, f"touches the environment: only {ENVIRONMENT_READER} does"


def called(node: ast.AST) -> str:
    """The last word of what is called; empty where the node is no call, or no name is called."""
    function = node.func if isinstance(node, ast.Call) else None
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


@pytest.mark.parametrize("where", FILES)
def test_imports_go_down(where: str) -> None:
    found = violations((SOURCE / where).read_text("utf-8"), where)
    assert not found, "\n" + "\n".join(found)


def test_the_table_is_whole() -> None:
    """Every shelf has a floor, and every home of a library stands in the table."""
    assert set(SHELVES) <= set(FLOORS)
    named = [home for homes in LIBRARY_HOMES.values() for home in homes]
    assert {room(home) for home in (*named, *LATE_TORCH, *IMPORTERS)} <= {*FLOORS, EMBEDDED}


BREACHES = [
    ("waist.py", "import regraft.errors", "1: imports errors: floor 0 imports nothing of ours"),
    ("errors.py", "from regraft.waist import Plan", "floor 0 imports nothing of ours"),
    ("kit/store.py", "from regraft.data import open", "imports data.open from floor 2, above its own floor 1"),
    ("kit/store.py", "def f():\n    from regraft.api import adapt", "2: imports api.adapt from floor 8"),
    ("data/open.py", "from regraft.backbone.view import View", "another room of its own floor 2"),
    ("audit/gate.py", "from regraft.planner import race", "another room of its own floor 5"),
    ("engine/fit.py", "import regraft", "imports __init__ from floor 8, above its own floor 4"),
    ("engine/fit.py", "from regraft import api", "imports api from floor 8, above its own floor 4"),
    ("engine/fit.py", "from ..planner import race", "imports planner.race from floor 5, above its own floor 4"),
    ("engine/fit.py", "from regraft.strategies import probe", "names the shelf item strategies.probe"),
    ("api.py", "import regraft.tasks.classify", "names the shelf item tasks.classify"),
    ("strategies/lora.py", "from .probe import Knobs", "names the shelf item strategies.probe.Knobs"),
    ("strategies/lora.py", "from regraft.tasks import _x", "imports tasks._x, which is private to its shelf"),
    ("engine/fit.py", "from regraft.tasks import _labels", "imports tasks._labels, which is private to its shelf"),
    ("strategies/lora.py", "import regraft.tasks", "a shelf item reaches floor 2 at most"),
    ("deliver/native.py", "import transformers", "names transformers: only providers"),
    ("checks/gap.py", "from regraft.engine import predict", "a shelf item reaches floor 2 at most"),
    ("formats/onnx.py", "from regraft.deliver.pack import pack", "a shelf item reaches floor 2 at most"),
    ("engine/fit.py", "from regraft.embedded import make", "imports embedded.make: only providers"),
    ("engine/fit.py", "from regraft.attic import x", "imports attic.x, which has no floor"),
    ("attic/x.py", "", "1: attic has no floor"),
    ("engine/fit.py", "import transformers", "names transformers: only providers"),
    ("data/read.py", "def f():\n    from PIL import Image", "2: names PIL"),
    ("api.py", "from regraft.kit.optional import need\nneed('timm', extra='image')", "2: names timm"),
    ("engine/predict.py", "import accelerate.utils", "names accelerate: only engine/fit.py may"),
    ("strategies/lora.py", "from peft import LoraConfig", "names peft: only inserts may"),
    ("engine/fit.py", "import importlib\nimportlib.import_module(name)", "2: imports by a name of run time"),
    ("kit/meter.py", "import torch.nn", "imports torch at the top"),
    (
        "cli/screen.py",
        "try:\n    from torch import Tensor\nexcept ImportError:\n    pass",
        "2: imports torch at the top",
    ),
    ("data/read.py", "class A:\n    import torch", "2: imports torch at the top"),
    ("strategies/probe.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import torch", "4: imports torch at the top"),
    ("engine/fit.py", "import os\nos.environ['A'] = 'b'", "2: touches the environment"),
    ("engine/fit.py", "import os\nos.getenv('A')", "2: touches the environment"),
    ("cli/doctor.py", "from os import environ", "touches the environment"),
]


@pytest.mark.parametrize(("where", "source", "reason"), BREACHES)
def test_a_breach_is_found(where: str, source: str, reason: str) -> None:
    found = violations(source, where)
    assert len(found) == 1
    assert found[0].startswith(f"{where}:")
    assert reason in found[0]


ALLOWED = [
    ("waist.py", "import json\nif TYPE_CHECKING:\n    from torch import Tensor"),
    (
        "kit/store.py",
        "from regraft import __version__\nfrom regraft.errors import DataError\nfrom regraft.kit import durable",
    ),
    ("kit/hardware.py", "import os\nos.environ\ndef f():\n    import torch"),
    ("kit/shelf.py", "import importlib\nimportlib.import_module(name)"),
    ("engine/fit.py", "import torch\nfrom regraft.backbone.view import View\nfrom . import cache\nimport accelerate"),
    ("planner/race.py", "from regraft.engine.fit import fit\nfrom regraft.kit.shelf import find"),
    ("strategies/lora.py", "from regraft.waist import Plan\nfrom regraft.strategies import _blocks"),
    ("checks/gap.py", "import numpy\nfrom regraft.data import split"),
    ("providers/transformers.py", "import torch\nimport transformers\nfrom regraft.backbone.view import View"),
    ("modalities/image.py", "from PIL import Image\ndef f():\n    import torch"),
    ("inserts/lora.py", "import peft"),
    ("cli/adapt.py", "from regraft import flow\nfrom regraft.embedded import strokes"),
    ("__init__.py", "def __getattr__(name):\n    from regraft import api"),
    ("embedded/make.py", "import torch\nimport transformers\nfrom regraft.engine import fit"),
]


@pytest.mark.parametrize(("where", "source"), ALLOWED)
def test_what_the_table_allows_passes(where: str, source: str) -> None:
    assert violations(source, where) == []
