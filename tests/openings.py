"""Bundles opened as their README says, in this process: the lines run, and what they leave compared with a view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from regraft.backbone.view import View
from regraft.deliver import native
from regraft.kit import shelf
from regraft.waist import InputSpec, Insert, Opening, Target

LABELS = ("a", "grün", "c")
TARGET = Target("what", "class", LABELS)


def pngs(root: Path, *sizes: tuple[int, int]) -> list[str]:
    """Pictures of noise of these sizes (width, height), as paths."""
    root.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, (width, height) in enumerate(sizes or ((96, 48), (40, 80), (70, 70))):
        pixels = np.random.default_rng(i).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.png")
        paths.append(str(root / f"{i}.png"))
    return paths


def noise(inputs: InputSpec, n: int = 2) -> dict[str, torch.Tensor]:
    """A batch as golden outputs are made from."""
    batch: dict[str, torch.Tensor] = shelf.find("modalities", "image").noise(inputs, n, 3)
    return batch


def ran(source: str, **found: Any) -> dict[str, Any]:
    """The variables after the lines ran with what they find."""
    exec(compile(source, "README.md", "exec"), found)
    return found


def logits(view: View, batch: dict[str, torch.Tensor], head: nn.Module | None = None) -> torch.Tensor:
    """What the view with a head, or with its native one, gives."""
    with torch.no_grad():
        made: torch.Tensor = (head or view.native)(view.run(batch))
    return made


def head_for(view: View, count: int = 3) -> nn.Linear:
    """A head with weights that differ, for as many outputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return nn.Linear(view.dim, count, bias=view.biased)


def exported(view: View, folder: Path, target: Target = TARGET) -> tuple[Opening, nn.Linear]:
    """A bundle's native files, and the head in them."""
    folder.mkdir(parents=True, exist_ok=True)
    head = head_for(view, len(target.labels) or 1)
    return view.export(head, target, str(folder)), head


def checked(view: View, folder: Path, pictures: list[str]) -> Opening:
    """Export for one class of several: `check` gives the view's outputs, `use` its probabilities by label."""
    opening, head = exported(view, folder)
    batch = noise(view.inputs)
    made = ran(opening.check, folder=str(folder), batches=[batch])["made"]
    assert torch.allclose(made, logits(view, batch, head), atol=1e-5)
    outputs = ran(opening.use, folder=str(folder), inputs=pictures)["outputs"]
    assert_scores(view, head, pictures, outputs)
    return opening


def adapted(view: View, folder: Path) -> tuple[Opening, nn.Linear, View]:
    """A bundle whose adapters lie beside the network's own files, its head, and the network with both."""
    item, insert = (
        shelf.find("inserts", "bottleneck"),
        Insert("bottleneck", tuple(range(1, len(view.stages))), 3, "houlsby"),
    )
    whole, draw = view.clone(0), torch.Generator().manual_seed(1)
    item.put(whole, insert, 0)
    with torch.no_grad():
        for name, parameter in whole.module.named_parameters():
            if ".narrow." in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=draw)
    opening, head = exported(view, folder)
    for name, data in item.files(whole, insert, head, "base").items():
        (folder / "adapter").mkdir(exist_ok=True)
        (folder / "adapter" / name).write_bytes(data)
    batch = noise(view.inputs)
    assert not torch.allclose(logits(view, batch, head), logits(whole, batch, head), atol=1e-3)
    return native.completed(opening, (insert,)), head, whole


def opens_adapted(view: View, folder: Path, pictures: list[str]) -> None:
    """`check` and `use` of such a bundle give what the network with its adapters gives."""
    opening, head, whole = adapted(view, folder)
    batch = noise(view.inputs)
    made = ran(opening.check, folder=str(folder), batches=[batch])["made"]
    assert torch.allclose(made, logits(whole, batch, head), atol=1e-5)
    assert_scores(whole, head, pictures, ran(opening.use, folder=str(folder), inputs=pictures)["outputs"])


def assert_scores(view: View, head: nn.Module, pictures: list[str], outputs: list[dict[str, float]]) -> None:
    """Each picture's probabilities by label are ours."""
    encoder = shelf.find("modalities", "image").encoder(view.inputs, False)
    assert [list(one) for one in outputs] == [list(LABELS)] * len(pictures)
    wanted = logits(view, encoder.tensors(pictures), head).softmax(-1)
    assert torch.allclose(torch.tensor([list(one.values()) for one in outputs]), wanted, atol=1e-4)


def crops_to_even() -> bool:
    """Whether the modality of pictures knows the setting `centre`."""
    settings = (("centre", "even"), ("crop_height", 4), ("crop_width", 4))
    row = np.arange(7, dtype=np.uint8)[None, :, None].repeat(4, 0).repeat(3, 2)
    fitted = shelf.find("modalities", "image").fit(
        Image.fromarray(row), InputSpec("image", (3, 4, 4), settings=settings)
    )
    return bool(fitted[0, 0, 0] == 2)
