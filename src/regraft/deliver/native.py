"""Run the lines of a bundle's README with its native library alone, in a process that never sees regraft."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

from regraft.backbone import bundle as bundles
from regraft.errors import ResourceError, Unproven
from regraft.kit import durable, hardware, shelf
from regraft.waist import READY, Insert, Opening

LIBRARIES = ("torch", "torchvision", "timm", "transformers.modeling_utils")
"""What takes long to import, where a bundle needs it."""
LOOP = """\
import contextlib, importlib, json, os, sys
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print is no answer
for name in sys.argv[1:]:
    with contextlib.suppress(Exception):
        importlib.import_module(name)
for line in sys.stdin:
    asked = json.loads(line)
    names = {"__name__": "__main__", "asked": asked}
    exec(asked["lines"], names)
    made = names["made"]
    told = {"made": None if made is None else made.float().tolist(), "outputs": names["outputs"]}
    print(json.dumps(told), file=answers, flush=True)
    del names, made
"""
BEGIN = """\
import sys, torch
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
ROOMY = 8e9
"""Bytes of memory from which on another process may wait beside training."""
PUT = "put_in"
"""The function that an insert's lines define: (network, folder of its files) puts it into a network."""


class Other:
    """A process that never sees regraft: it runs the lines of one bundle after another, and imports a library once.

    It begins with the first bundle, or earlier, and after one that ends it anew.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._said: BinaryIO | None = None
        self._asked = threading.RLock()

    def ask(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What these lines made of what is asked.

        Raises: Unproven: they do not run; the last thing they said is shown.
        """
        with self._asked:
            return self._answer(asked)

    def begin(self, imports: Sequence[str] = ()) -> None:
        """Begin, where it has not, with these imports; it goes on by itself."""
        if self._process is None or self._process.poll() is not None:
            self._begin(imports)

    def _answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        self.begin()
        assert self._process and self._process.stdin and self._process.stdout and self._said
        self._said.seek(0)  # the process writes where this one points: what was said of the bundle before is gone
        self._said.truncate()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        if answer := self._process.stdout.readline():
            found: dict[str, Any] = json.loads(answer)
            return found
        code = self._process.wait()
        self._said.seek(0)
        said = self._said.read().decode("utf-8", "replace").strip()
        self.close()
        raise Unproven(
            "the bundle cannot be opened by its own library",
            saw=said.splitlines()[-1] if said else f"exit {code}",
            do="report this; the run keeps the trained weights",
        )

    def close(self) -> None:
        """End it, after an answer that another thread waits for; it may be asked again."""
        with self._asked:
            process, self._process = self._process, None
            if process and process.stdin and process.stdout:
                process.terminate()  # it may be importing what nobody will ask for
                for pipe in (process.stdin, process.stdout):
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
                process.wait()
            if self._said:
                self._said.close()

    def _begin(self, imports: Sequence[str]) -> None:
        self.close()
        self._said = durable.scratch(())
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", LOOP, *imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env=hardware.child_environment(),
        )


_held: list[Other] = []


@contextlib.contextmanager
def one_process() -> Iterator[None]:
    """Bundles that are tried in this block are tried in one process, one after the other."""
    other = Other()
    _held.append(other)
    try:
        yield
    finally:
        _held.remove(other)
        other.close()


@contextlib.contextmanager
def ahead() -> Iterator[None]:
    """Bundles of this block are tried in a process that begins now, where a processor and memory are free for it.

    It imports what this one has imported, beside what is computed here: a bundle is then opened seconds sooner.
    """
    if not hardware.spare() or hardware.memory_bytes() < ROOMY:
        yield
        return
    with contextlib.nullcontext() if _held else one_process():
        with contextlib.suppress(OSError, ResourceError):  # it is asked for again when a bundle is there
            _held[-1].begin([name for name in LIBRARIES if name in sys.modules])
        yield


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

    Raises: Unproven: the lines do not run; the last thing they said is shown.
    """
    script = [BEGIN]
    if opening.check:
        script += [GOLDEN, opening.check, "\n"]
    if opening.use and inputs and importlib.util.find_spec(opening.library) is not None:
        script += ["kept = made\n", INPUTS, opening.use, "\nmade = kept\n"]
    asked: dict[str, Any] = {"folder": folder, "golden": golden, "sides": sides, "threads": threads}
    asked["lines"] = "".join(script)
    asked["inputs"] = [list(x) if isinstance(x, tuple) else str(x) for x in inputs]
    other = _held[-1] if _held else Other()
    try:
        found = other.ask(asked)
    finally:
        if not _held:
            other.close()
    return found["made"], found["outputs"]
