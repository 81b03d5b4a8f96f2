"""The lines that open a bundle of a network from the user's own code, with torch, Pillow and safetensors alone."""

from __future__ import annotations

from collections.abc import Sequence

from regraft.backbone import pictures
from regraft.waist import READY, InputSpec, TargetKind

FOUND = "# network: your own module, built as it was when it was adapted"


def building(kind: type | None, around: str, layer: str) -> list[str]:
    """`network` with the bundle's weights: an instance of `kind`, or the one that the reader has.

    Args:
        around: What the network becomes before it gets its weights, where a head was put behind it.
        layer: The call that puts a head of the right size into its native place, where there is one.
    """
    made = (
        [f"from {kind.__module__} import {kind.__qualname__}", f"network = {kind.__qualname__}()"] if kind else [FOUND]
    )
    return [
        "from safetensors.torch import load_file",
        "from torch import nn",
        *made,
        f"network = {around}" if around else layer,
        'network.load_state_dict(load_file(folder + "/model.safetensors"))',
        "network.eval()",
        f"{READY}network",
    ]


def check(build: Sequence[str]) -> str:
    """The lines that leave raw outputs for `batches` in `made`."""
    return "\n".join(["import torch", *build, *_running('batches[0]["pixel_values"]')])


def use(build: Sequence[str], inputs: InputSpec, kind: TargetKind) -> str:
    """The lines that leave `outputs` for the pictures `inputs`."""
    lines = [
        "import json, numpy, torch",
        "from pathlib import Path",
        "from PIL import Image, ImageOps",
        *build,
        'labels = json.loads(Path(folder, "config.json").read_text("utf-8"))["labels"]',
        *preparing(inputs),
        *_running("torch.stack([prepare(path) for path in inputs])"),
        pictures.SCORES[kind],
    ]
    return "\n".join(lines)


def preparing(inputs: InputSpec) -> list[str]:
    """A function `prepare` from a path to a tensor, equal to what the modality of pictures does with `inputs`."""
    told = dict(inputs.settings)
    lines = ["def prepare(path):", '    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")']
    if short := told.get("shorter"):
        lines += [
            "    w, h = picture.size",
            f"    size = ({short}, int({short} * h / w)) if w <= h else (int({short} * w / h), {short})",
            f"    picture = picture.resize(size, {told['resample']})",
        ]
    elif tall := told.get("height"):
        lines.append(f"    picture = picture.resize(({told.get('width', tall)}, {tall}), {told['resample']})")
    if tall := told.get("crop_height"):
        wide = told.get("crop_width", tall)
        half = "round(({}) / 2)" if told.get("centre") == "even" else "({}) // 2"
        lines += [
            f"    left, top = {half.format(f'picture.width - {wide}')}, {half.format(f'picture.height - {tall}')}",
            f"    picture = picture.crop((left, top, left + {wide}, top + {tall}))",
        ]
    scaled = f"* {told['scale']!r} + {told['shift']!r}"
    lines.append(f"    pixels = torch.from_numpy(numpy.array(picture)).permute(2, 0, 1) {scaled}")
    if not inputs.mean:
        return [*lines, "    return pixels"]
    mean, std = (f"torch.tensor({list(values)}).view(-1, 1, 1)" for values in (inputs.mean, inputs.std))
    return [*lines, f"    return (pixels - {mean}) / {std}"]


def _running(batch: str) -> list[str]:
    return ["with torch.no_grad():", f"    made = network({batch})", '    made = getattr(made, "logits", made)']
