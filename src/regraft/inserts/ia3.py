"""IA3: vectors rescale keys, values and feed-forward parts, kept in the files that peft reads and writes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regraft.backbone.view import View
from regraft.errors import UsageError
from regraft.inserts import _files, _peft
from regraft.inserts._lowrank import TURNED, changed, grouped, is_read, linear, own, suited
from regraft.waist import Insert

NAME, MARK = "ia3", ".ia3_l"
"""What the vector is called in the layer that has it, and in peft's file."""
FUSED = 3
"""Queries, keys and values in one layer: it gives so many times what it takes."""


class Vector(nn.Module):
    """What a layer's outputs [out], or with `inward` its inputs [in], are multiplied by: ones before it is trained.

    Reference: Liu et al., Few-shot parameter-efficient fine-tuning is better and cheaper than in-context learning,
    2022, section 3.3.
    """

    def __init__(self, layer: nn.Module, inward: bool) -> None:
        super().__init__()
        turned = type(layer).__name__ == TURNED
        self.inward, self.side = inward, int(inward != turned)
        self.scale = nn.Parameter(torch.ones(own(layer).shape[self.side]))

    def inside(self, weight: Tensor) -> Tensor:
        """The weight with this vector in it."""
        return weight * self.scale.view(-1, *(1 for _ in weight.shape[self.side + 1 :]))


class _Called(nn.Module):
    """A linear layer that rescales what it takes or gives."""

    ia3: Vector

    def forward(self, x: Tensor) -> Any:
        return super().forward(x * self.ia3.scale) if self.ia3.inward else super().forward(x) * self.ia3.scale


class _Read(nn.Module):
    """A layer whose weight and bias are rescaled whenever they are read: what its class does with them stays right."""

    ia3: Vector

    @property
    def weight(self) -> Tensor:
        return self.ia3.inside(own(self))

    @property
    def bias(self) -> Tensor | None:
        bias = _bias(self)
        return bias if bias is None or self.ia3.inward else bias * self.ia3.scale


def put(view: View, insert: Insert, seed: int) -> None:
    """Put vectors of ones into layers of the insert's stages; nothing is drawn, and they change no output.

    `where` is "linear": keys, values and the inputs of feed-forward parts; "conv": the outputs of convolutions; "all";
    or "auto": whichever layers hold more weights there, without convolutions in groups.

    Raises: UsageError: there is no such layer in these stages.
    """
    found = list(_targets(view, insert))
    if not found:
        raise UsageError(
            "there is no layer to put IA3 into",
            saw=f"{insert.where} layers in " + ", ".join(view.stages[i].name for i in insert.stages),
            allowed="stages with attention, feed-forward parts or convolutions",
            do="choose more stages (--ia3.last) or other layers (--ia3.targets all)",
        )
    for path, layer, inward in found:
        _dress(layer, inward, is_read(view.module, path))


def take_out(view: View) -> None:
    """Take all vectors out again: the network is what it was before, bit for bit."""
    for layer in _worn(view).values():
        _release(layer)


def merge(view: View) -> None:
    """Write the vectors into the weights and biases of their layers, and take them out."""
    for layer in _worn(view).values():
        vector, bias = _vector(layer), _bias(layer)
        with torch.no_grad():
            own(layer).copy_(vector.inside(own(layer)))
            if bias is not None and not vector.inward:
                bias.mul_(vector.scale)
        _release(layer)


def files(view: View, insert: Insert, head: nn.Module, base: str) -> dict[str, bytes]:
    """The vectors with the head and the layers that the checkpoint lacked, as peft's two files."""
    worn, prefix = _worn(view), _files.shipped(view)
    parts = {}
    for path, layer in worn.items():
        vector, more = _vector(layer), own(layer).ndim - 2
        across = vector.inward or more
        parts[path] = {MARK: vector.scale.view((1, -1, *(1 for _ in range(more))) if across else (-1, 1))}
    config = {
        "peft_type": "IA3",
        "fan_in_fan_out": any(type(layer).__name__ == TURNED for layer in worn.values()),
        "feedforward_modules": sorted(p.removeprefix(prefix) for p, layer in worn.items() if _vector(layer).inward),
    }
    return _peft.files(view, head, base, parts, config)


def load(view: View, folder: Path) -> str:
    """Put the vectors of an adapter's folder into a network, and what was trained whole beside them in its place.

    The head is then the view's native one.

    Returns: As `_peft.put_whole`.
    Raises: ModelError: the folder holds no IA3, or one of another network.
    """
    config, tensors = _peft.read(folder, "IA3", lambda told: [])
    placed, whole = dict(view.module.named_modules()), dict[str, Tensor]()
    for key, tensor in tensors.items():
        name, mark, _ = key.partition(MARK)
        if not mark:
            whole[key] = tensor
            continue
        path = _files.path(placed, name, _files.prefix(view.module))
        layer = placed.get(path)
        inward = _is_inward(config, name)
        if layer is None or not suited(layer) or (inward and grouped(layer)):
            raise _files.other(folder, name)
        _dress(layer, inward, is_read(view.module, path))
        _files.fill(folder, name, {"": _vector(layer).scale}, {"": tensor.flatten()})
    return _peft.put_whole(view, folder, whole)


def _targets(view: View, insert: Insert) -> Iterator[tuple[str, nn.Module, bool]]:
    """Path, layer and whether its inputs are rescaled, of all that an insert enters, each once.

    Keys and values are known by the first letters of names that stand beside one with q, or as one layer that gives
    three times what it takes; the end of a feed-forward part by taking more than it gives, where it is no convolution.
    """
    layers = dict[nn.Module, str]()
    for path in (path for stage in insert.stages for path in view.seams.members[stage]):
        for name, layer in view.module.get_submodule(path).named_modules():
            if suited(layer):
                layers.setdefault(layer, f"{path}.{name}" if name else path)
    sizes = {kind: sum(own(layer).numel() for layer in layers if linear(layer) == kind) for kind in (True, False)}
    wanted = {"linear": (True,), "conv": (False,), "all": (True, False)}.get(insert.where)
    wanted = wanted or (sizes[True] >= sizes[False],)
    lines = {path: _shape(layer) for layer, path in layers.items() if linear(layer)}
    letters = {(path.rpartition(".")[0], path.rpartition(".")[2][:1]) for path in lines}
    ends = {taken for taken, given in lines.values() if taken > given}
    for layer, path in layers.items():
        folder, _, name = path.rpartition(".")
        if not linear(layer) and False in wanted and not (insert.where == "auto" and grouped(layer)):
            yield path, layer, False
        if not linear(layer) or True not in wanted:
            continue
        taken, given = lines[path]
        beside = {(folder, letter) for letter in "qkv"} <= letters
        if (beside and name[:1] in "kv") or (given == FUSED * taken and given not in ends):
            yield path, layer, False
        elif not beside and taken > given:
            yield path, layer, True


def _shape(layer: nn.Module) -> tuple[int, int]:
    """How many numbers a linear layer takes, and how many it gives."""
    given, taken = own(layer).shape[::-1] if type(layer).__name__ == TURNED else own(layer).shape
    return taken, given


def _is_inward(config: Mapping[str, Any], name: str) -> bool:
    """Whether peft rescales a layer's inputs: a pattern, or the ends of names."""
    told = config.get("feedforward_modules") or ()
    return bool(re.fullmatch(told, name)) if isinstance(told, str) else name.endswith(tuple(told))


def _dress(layer: nn.Module, inward: bool, read: bool) -> None:
    layer.add_module(NAME, Vector(layer, inward))
    layer.__class__ = changed(type(layer), _Called if linear(layer) and not read else _Read)


def _release(layer: nn.Module) -> None:
    layer.__class__ = type(layer).__mro__[2]
    delattr(layer, NAME)


def _worn(view: View) -> dict[str, nn.Module]:
    """Path → layer of all that have a vector."""
    return {path: m for path, m in view.module.named_modules() if isinstance(m, (_Called, _Read))}


def _vector(layer: nn.Module) -> Vector:
    found = layer.get_submodule(NAME)
    assert isinstance(found, Vector)
    return found


def _bias(layer: nn.Module) -> nn.Parameter | None:
    """A layer's bias without its vector."""
    return dict(layer.named_parameters(recurse=False)).get("bias")
