"""Run the lines of a bundle's README with its native library alone, in a process that never sees regraft."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from regraft.backbone import bundle as bundles
from regraft.errors import RegraftError
from regraft.kit import hardware, shelf
from regraft.waist import READY, Insert, Opening

BEGIN = """\
import json, sys, torch
asked = json.loads(sys.stdin.read())
try:
    import torchvision
except Exception:  # absent, or of another build than torch: pictures are then prepared with Pillow
    sys.modules["torchvision"] = None
torch.set_num_threads(asked["threads"])
torch.set_grad_enabled(False)
folder, made, outputs = asked["folder"], None, None
"""
GOLDEN = """\
from safetensors.torch import load_file
batches = [{} for _ in range(asked["sides"])]
for name, tensor in load_file(asked["golden"]).items():
    side, _, entry = name.partition("/")
    batches[int(side)][entry] = tensor
"""
INPUTS = 'inputs = [tuple(x) if isinstance(x, list) else x for x in asked["inputs"]]\n'
PUT = "put_in"
"""The function that an insert's lines define: (network, folder of its files) puts it into a network."""
END = 'print("\\n" + json.dumps({"made": None if made is None else made.float().tolist(), "outputs": outputs}))\n'


def completed(opening: Opening, inserts: Sequence[Insert]) -> Opening:
    """An opening whose lines put these inserts into the network as soon as it is built.

    >>> completed(Opening("x", f"m = build()\\n{READY}m\\nmade = m(inputs)", ""), ()).use
    'm = build()\\nmade = m(inputs)'
    """
    puts = [PUT if not i else f"{PUT}_{i + 1}" for i in range(len(inserts))]
    places = [f'folder + "/{bundles.adapter(i)}"' for i in range(len(inserts))]
    first = [
        line
        for put, insert in zip(puts, inserts, strict=True)
        for line in shelf.find("inserts", insert.kind).LINES.replace(PUT, put).splitlines()
    ]

    def made(source: str) -> str:
        lines = list(first) if source else []
        for line in source.splitlines():
            network = line[len(READY) :]
            calls = [f"{put}({network}, {place})" for put, place in zip(puts, places, strict=True)]
            lines += calls if line.startswith(READY) else [line]
        return "\n".join(lines)

    return replace(opening, use=made(opening.use), check=made(opening.check))


def untried(opening: Opening) -> str:
    """What of an opening cannot be tried on this machine, in a sentence; "" where everything is."""
    if not opening.check:
        return "no other process could build this network: the bundle was read back in this one"
    if importlib.util.find_spec(opening.library) is None:
        return (
            f"{opening.library} is not installed here: the lines of the bundle's README were not run, its weights were"
        )
    return ""


def run(
    opening: Opening, folder: str, golden: str, sides: int, inputs: Sequence[Any], threads: int
) -> tuple[list[Any] | None, list[Any] | None]:
    """What the bundle's own library makes of the golden batches in the file `golden`, and of some inputs.

    Either is None where it cannot be tried: the network's code is the user's, or the library is not installed.

    Raises: RegraftError: the lines do not run; the last thing they said is shown.
    """
    script = [BEGIN]
    if opening.check:
        script += [GOLDEN, opening.check, "\n"]
    if opening.use and inputs and importlib.util.find_spec(opening.library) is not None:
        script += ["kept = made\n", INPUTS, opening.use, "\nmade = kept\n"]
    asked = {"folder": folder, "golden": golden, "sides": sides, "threads": threads}
    asked["inputs"] = [list(x) if isinstance(x, tuple) else str(x) for x in inputs]
    made = subprocess.run(
        [sys.executable, "-I", "-c", "".join([*script, END])],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        env=hardware.child_environment(),
    )
    if made.returncode:
        raise RegraftError(
            "the bundle cannot be opened by its own library",
            saw=made.stderr.strip().splitlines()[-1] if made.stderr.strip() else f"exit {made.returncode}",
            do="report this; the run keeps the trained weights",
        )
    found: dict[str, list[Any] | None] = json.loads(made.stdout.strip().splitlines()[-1])
    return found["made"], found["outputs"]
