"""Small grey pixels in a backbone's place: 32 × 32 of them a picture, on the scale of the training rows.

A linear head on them is the least that a pretrained network must beat on pictures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.errors import DataError
from regraft.kit import durable, shelf
from regraft.waist import Encoder, InputSpec, Opening, Target

if TYPE_CHECKING:
    import numpy
    from torch import Tensor, nn

    from regraft.backbone.plain import Plain

NAME, TOLD = "pixels", "pixels.json"
SIDE, BILINEAR = 32, 2
LEVEL = 1 / 255
"""The least that a pixel's standard deviation counts for, in a scale from 0 to 1: one grey level."""


def find(query: Any) -> bool:
    """Never: nothing pretrained has this name; what a run shipped is opened through its bundle."""
    return False


def fingerprint(query: Any) -> str:
    """SHA-256 over the settings and the weights of a bundle.

    Raises: ModelError: a file of it is not there.
    """
    from regraft.backbone import plain

    return plain.digest_of(query, (TOLD, plain.WEIGHTS))


def fitted(cells: Sequence[Any]) -> Plain:
    """The pixels of pictures, less their mean over these training cells, over their standard deviation.

    Sums are taken in whole numbers, so that equal cells give equal bits. What was decoded for them is kept, 1 KB a
    picture that a path names.

    Raises: DataError: there is no picture, or one cannot be read.

    >>> import numpy
    >>> view = fitted([numpy.full((9, 9, 3), level, numpy.uint8) for level in (0, 200)])
    >>> made = view.run(view.encoder().tensors([numpy.full((5, 7, 3), 150, numpy.uint8)]))
    >>> made.shape, round(made.mean().item(), 4)
    (torch.Size([1, 1024]), 0.5)
    """
    import numpy

    total, squares = numpy.zeros(SIDE * SIDE, numpy.int64), numpy.zeros(SIDE * SIDE, numpy.int64)
    known: dict[Any, numpy.ndarray] = {}
    for cell in cells:
        row = grey(cell)
        total += row
        squares += row.astype(numpy.int64) ** 2
        if isinstance(cell, (str, Path)):
            known[cell] = row
    if not len(cells):
        raise DataError("there are no pictures to learn from", saw="no training rows", do="look at the data")
    mean = total / len(cells)
    spread = numpy.sqrt((squares / len(cells) - mean**2).clip(0)).clip(255 * LEVEL)
    return _view((mean / 255).astype(numpy.float32), (spread / 255).astype(numpy.float32), known)


def load(query: Any, modality: str = "", arch: str = "") -> Plain:
    """The features and the head of a bundle.

    Raises: ModelError: the data is no pictures, or the files do not fit together. UsageError: an architecture was
        named.
    """
    from regraft.backbone import plain
    from regraft.backbone.tensors import read_state

    plain.asked("image", modality, arch)
    fingerprint(query)
    tensors, _ = read_state(Path(query) / plain.WEIGHTS)
    try:
        mean, std = tensors["mean"].numpy(), tensors["std"].numpy()
        if mean.shape != (SIDE * SIDE,) or std.shape != mean.shape:
            raise ValueError(f"a scale of {mean.shape} and {std.shape} for {SIDE * SIDE} pixels")
        head = plain.linear(tensors["weight"], tensors["bias"], SIDE * SIDE)
        return _view(mean, std, {}, head)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise plain.broken(query, error) from error


def grey(cell: Any) -> numpy.ndarray:
    """A picture's grey levels row by row, uint8 [1024]; its sides are squeezed to equal length.

    Raises: DataError: it cannot be read.
    """
    import numpy

    picture = shelf.find("modalities", "image").picture(cell)
    return numpy.asarray(picture.convert("L").resize((SIDE, SIDE), BILINEAR)).reshape(-1)


def _view(
    mean: numpy.ndarray, std: numpy.ndarray, known: Mapping[Any, numpy.ndarray], native: nn.Linear | None = None
) -> Plain:
    """The view of pixels on this scale; `known` are grey levels by path."""
    from regraft.backbone.plain import Plain, Recipe

    settings = (("features", NAME), ("scale", durable.digest(mean.tobytes() + std.tobytes())), ("side", SIDE))
    recipe = Recipe(
        name=NAME,
        provider=NAME,
        inputs=InputSpec("image", (SIDE * SIDE,), settings=settings),
        encoder=_encoder(mean, std, known),
        noise=_noise,
        write=lambda view, head, target, folder: _write(mean, std, head, target, folder),
        notes=(f"{SIDE} × {SIDE} grey pixels",),
    )
    return Plain(recipe, native)


def _encoder(mean: numpy.ndarray, std: numpy.ndarray, known: Mapping[Any, numpy.ndarray]) -> Encoder:
    """Cells to {"features": float32 [n, 1024]}."""
    import numpy
    import torch

    from regraft.backbone.plain import FEATURES

    def levels(cell: Any) -> numpy.ndarray:
        held = known.get(cell) if isinstance(cell, (str, Path)) else None
        return grey(cell) if held is None else held

    def tensors(cells: Sequence[Any]) -> dict[str, Tensor]:
        rows = numpy.stack([levels(cell) for cell in cells])
        return {FEATURES: torch.from_numpy((rows / numpy.float32(255) - mean) / std)}

    return Encoder(lambda cells: [[(cell, 0)] for cell in cells], tensors, lambda cells: ())


def _noise(rows: int, seed: int) -> dict[str, Tensor]:
    """Normal numbers in place of pixels."""
    import numpy
    import torch

    from regraft.backbone.plain import FEATURES

    draw = numpy.random.default_rng(seed)
    return {FEATURES: torch.from_numpy(draw.standard_normal((rows, SIDE * SIDE), numpy.float32))}


def _write(mean: numpy.ndarray, std: numpy.ndarray, head: Any, target: Target, folder: str) -> Opening:
    """Write the labels and the weights, and the lines that Pillow and numpy open them with."""
    from regraft.backbone import plain

    told = {"side": SIDE, "labels": list(target.labels)}
    durable.fill(Path(folder) / TOLD, json.dumps(told, indent=1).encode())
    durable.fill(Path(folder) / plain.WEIGHTS, plain.weights(head, {"mean": mean, "std": std}))
    lines = [*USE, *(LABELS if target.labels else ()), *plain.SCORES[target.kind]]
    return Opening("PIL", "\n".join(lines), plain.CHECK, NAME)


USE = (
    "import json, numpy",
    "from pathlib import Path",
    "from PIL import Image, ImageOps",
    "from safetensors.numpy import load_file",
    'held = load_file(folder + "/model.safetensors")',
    "def prepare(path):",
    '    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB").convert("L")',
    f"    pixels = numpy.asarray(picture.resize(({SIDE}, {SIDE}), {BILINEAR})).reshape(-1)",
    '    return (pixels / numpy.float32(255) - held["mean"]) / held["std"]',
    'made = numpy.stack([prepare(path) for path in inputs]) @ held["weight"].T + held["bias"]',
)
LABELS = (f'labels = json.loads(Path(folder, "{TOLD}").read_text("utf-8"))["labels"]',)
