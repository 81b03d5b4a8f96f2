"""What the files of all inserts share: names as in the network that ships, the head, what the checkpoint lacked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save
from torch import Tensor, nn

from regraft.backbone.view import View
from regraft.errors import ModelError

HEAD = "head.safetensors"


def prefix(module: nn.Module) -> str:
    """What stands before the names of the network that the native head is on, where the library keeps it in one."""
    name = str(getattr(module, "base_model_prefix", ""))
    return f"{name}." if name in dict(module.named_children()) else ""


def shipped(view: View) -> str:
    """What is taken off the names: under another pooling than the native one the network ships without its head."""
    return "" if view.pooling == "native" and view.head else prefix(view.module)


def path(known: Mapping[str, Any], name: str, before: str) -> str:
    """The place of a name in a network, which may hold what the name was given in."""
    return name if name in known else before + name


def plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors takes them."""
    return {n: t.detach().cpu().clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}


def lacked(view: View) -> list[str]:
    """Paths of what the checkpoint lacked below the head: it is trained whole."""
    return sorted({path for i in view.card().new for path in view.seams.members[i]})


def head_file(head: nn.Module) -> dict[str, bytes]:
    """The head's own file: weight and bias."""
    return {HEAD: save(plain(head.state_dict()))}


def put_head(view: View, folder: Path, held: Mapping[str, Tensor]) -> None:
    """Make a linear layer of these tensors the view's native head; without any, those of the head's own file, if it is.

    Raises: ModelError: as `fill`.
    """
    if not held and (folder / HEAD).is_file():
        held = read_tensors((folder / HEAD).read_bytes())
    if held:
        out, taken = held["weight"].shape
        view.native = nn.Linear(taken, out, bias="bias" in held)
        fill(folder, view.head, dict(view.native.named_parameters()), held)


def fill(folder: Path, name: str, places: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> None:
    """Copy tensors into the places of the same names.

    Raises: ModelError: these have other names or shapes.
    """
    if {n: p.shape for n, p in places.items()} != {n: t.shape for n, t in held.items()}:
        raise other(folder, name)
    with torch.no_grad():
        for n, place in places.items():
            place.copy_(held[n])


def fill_whole(view: View, folder: Path, whole: Mapping[str, Tensor]) -> None:
    """Copy what was trained whole into a network, by its names there.

    Raises: ModelError: as `fill`.
    """
    known = dict(view.module.named_parameters())
    for name, tensor in whole.items():
        found = path(known, name, prefix(view.module))
        fill(folder, name, {name: known[found]} if found in known else {}, {name: tensor})


def other(folder: Path, name: str) -> ModelError:
    """An adapter of another network."""
    return ModelError(
        "this adapter is not for this network",
        saw=f"{folder}: {name}",
        allowed="the names and shapes of the network that it was trained in",
        do="choose the model that it was trained in",
    )
