"""The floor table of src/regraft: who stands on which floor, which folders are shelves, who may name which library.

The house tests hold the sources to it and the map is drawn from it; a new room or shelf is one line here.
"""

from __future__ import annotations

FLOORS = {
    "waist": 0,
    "errors": 0,
    "kit": 1,
    "data": 2,
    "backbone": 2,
    "modalities": 3,
    "providers": 3,
    "tasks": 3,
    "flags": 3,
    "metrics": 3,
    "inserts": 3,
    "regularisers": 3,
    "strategies": 3,
    "engine": 4,
    "planner": 5,
    "audit": 5,
    "checks": 5,
    "deliver": 6,
    "formats": 6,
    "serve": 7,
    "scale": 7,
    "ahead": 7,
    "flow": 7,
    "many": 7,
    "api": 8,
    "cli": 8,
    "__init__": 8,
    "__main__": 8,
}
"""A file at the top of the package or a folder, and its floor: imports go down, or stay in one's own folder."""

TOP_FILES = ("waist", "errors", "ahead", "flow", "many", "api", "__init__", "__main__")

SHELVES = (
    *("modalities", "providers", "tasks", "flags", "metrics", "inserts", "regularisers", "strategies", "checks"),
    "formats",
)
"""Folders of interchangeable files: an item imports floors 0 to SHELF_REACH, and no line imports an item by name."""

SHELF_REACH = 2

EMBEDDED = "embedded"
"""Data that ships with the package, and the script that made it: no floor."""

EMBEDDED_READERS = ("providers", "api", "cli", EMBEDDED)

MODEL_HOMES = ("providers", "modalities", "formats", "embedded")

LIBRARY_HOMES = {
    "transformers": MODEL_HOMES,
    "tokenizers": MODEL_HOMES,
    "timm": MODEL_HOMES,
    "torchvision": MODEL_HOMES,
    "PIL": MODEL_HOMES,
    "soundfile": MODEL_HOMES,
    "soxr": MODEL_HOMES,
    "torchcodec": MODEL_HOMES,
    "onnx": MODEL_HOMES,
    "onnxruntime": MODEL_HOMES,
    "onnxscript": MODEL_HOMES,
    "peft": ("inserts",),
    "accelerate": ("engine/fit.py",),
    "openvino": ("engine/compilers.py",),
}
"""A third-party library, and the folders or files that may name it."""

LATE_TORCH = (
    "planner/request.py",
    "planner/propose.py",
    "planner/families.py",
    "waist.py",
    "errors.py",
    "kit",
    "data",
    "modalities",
    "strategies",
    "engine/blocks.py",
    "flow.py",
    "many.py",
    "deliver/inputs.py",
    "deliver/runs.py",
    "deliver/doctor.py",
    "api.py",
    "cli",
    "__init__.py",
    "__main__.py",
)
"""What is read before torch is needed (help, knobs, what the data is): torch is imported inside functions here."""

ENVIRONMENT_READER = "kit/hardware.py"

IMPORTERS = ("kit/shelf.py", "kit/optional.py", "__init__.py")
"""Where a module may be imported by a name that is only known at run time."""


def lives_in(where: str, homes: tuple[str, ...]) -> bool:
    """Whether the file `where` (relative to src/regraft) is one of `homes` or lies in one of them.

    >>> lives_in("engine/fit.py", ("engine/fit.py",)), lives_in("engine/fit.py", ("engine",)), lives_in("a.py", ())
    (True, True, False)
    """
    return any(where == home or where.startswith(home + "/") for home in homes)


def room(where: str) -> str:
    """The entry of FLOORS that a file belongs to.

    >>> room("kit/store.py"), room("waist.py")
    ('kit', 'waist')
    """
    return where.split("/")[0].removesuffix(".py")
