"""Side networks: a small network beside a frozen one reads it at several depths and adds to its features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm

from regraft.backbone.view import View
from regraft.errors import UsageError
from regraft.inserts import _beside, _files
from regraft.waist import Insert

NAME = "side"
"""What it is called in the network's root."""
KIND = "side"
WIDER = 2
"""How many times as wide as the side network a rung is inside."""


class Rung(nn.Module):
    """A step of the ladder: its state h [n, r] becomes h + g · (d(x) - h), g in (0, 1), and goes through a block.

    x [n, d] is what is read at this depth, normalised; d projects it down; the block is
    h + outer(gelu(inner(norm(h)))). The first one has no state below it, and no gate g.
    """

    def __init__(self, taken: int, width: int, first: bool) -> None:
        super().__init__()
        self.down = nn.utils.skip_init(nn.Linear, taken, width)
        self.norm = nn.LayerNorm(width)
        self.inner = nn.utils.skip_init(nn.Linear, width, WIDER * width)
        self.outer = nn.utils.skip_init(nn.Linear, WIDER * width, width)
        self.gate = None if first else nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, below: Tensor | None) -> Tensor:
        h: Tensor = self.down(layer_norm(x, x.shape[1:]))
        if below is not None and self.gate is not None:
            h = below + self.gate.sigmoid() * (h - below)
        made: Tensor = h + self.outer(gelu(self.inner(self.norm(h))))
        return made


class Ladder(nn.Module):
    """Features [n, D] and what was read below them, [n, d] each, as features: up(the last rung's state) is added."""

    def __init__(self, taken: Sequence[int], width: int, given: int) -> None:
        super().__init__()
        self.rungs = nn.ModuleList(Rung(d, width, not i) for i, d in enumerate(taken))
        self.up = nn.utils.skip_init(nn.Linear, width, given)

    def forward(self, features: Tensor, *read: Tensor) -> Tensor:
        h: Tensor | None = None
        for rung, x in zip(self.rungs, read, strict=True):
            h = rung(x, h)
        made: Tensor = features + self.up(h)
        return made


def put(view: View, insert: Insert, seed: int) -> None:
    """Put a side network of width `size` beside the network, which reads the stages `reads`; fresh it changes nothing.

    What it reads is a vector a row: the mean over a text's tokens, or over a picture's places. Nothing of the network
    runs for its gradients. One that is there stays.

    Reference: Sung et al., LST: Ladder side-tuning, 2022; Zhang et al., Side-tuning, 2020. There it goes on token by
    token and is cut out of the network's own weights; here it is drawn by the seed.
    Raises: UsageError: it is to read no stage.
    """
    if view.side:
        return
    if not insert.reads:
        raise UsageError(
            "a side network has nothing to read",
            saw="no stage",
            allowed="stages of " + ", ".join(stage.name for stage in view.stages),
            do="choose at least one depth (--side.taps)",
        )
    if view.taps != insert.reads:
        view.tap(insert.reads)
    bare, batch = view.outline()
    with torch.no_grad():
        features, *read = view.over(bare).read(batch, insert.reads)
    ladder = Ladder([one.shape[-1] for one in read], insert.size, features.shape[-1])
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in ladder.named_parameters():
            if parameter.ndim > 1 and not name.startswith("up."):
                parameter.normal_(0, parameter.shape[1] ** -0.5, generator=draw)
            elif ".norm." not in name:
                parameter.zero_()
    _attach(view, ladder)


def take_out(view: View) -> None:
    """Take the side network away: the network is what it was before, bit for bit."""
    if view.side:
        delattr(view.module, view.side)
        view.side = ""
        view.tap(())


def files(view: View, insert: Insert, head: nn.Module, base: str) -> dict[str, bytes]:
    """The side network with the head and the layers that the checkpoint lacked: insert.json and safetensors.

    Its output is added to what the head takes; where that is a mean over tokens, to each token of the last stage.
    """
    places: dict[str, dict[str, Any]] = {view.paths[k]: {"reads": True, "adds": ""} for k in view.taps}
    native = view.pooling == "native" and bool(view.head)
    end = view.head if native else view.paths[-1]
    places[end] = {"reads": end in places, "adds": "input" if native else "output"}
    return _beside.files(view, insert, head, base, places, [NAME])


def load(view: View, folder: Path) -> None:
    """Put the side network of a folder beside a network, and what was trained whole in its place.

    The head is then the view's native one, and its pooling the only one that the network is read with.

    Raises: ModelError: the folder holds no side network, or that of another network.
    """
    found, tensors = _beside.read(view, folder, KIND)
    stage = {id(view.module.get_submodule(path)): k for k, path in enumerate(view.paths)}
    read = {name: stage.get(id(module), -1) for name, (module, how) in found.items() if how.get("reads")}
    own = {name.removeprefix(f"{NAME}."): tensors.pop(name) for name in list(tensors) if name.startswith(f"{NAME}.")}
    down = [own.get(f"rungs.{i}.down.weight", torch.zeros(0)) for i in range(len(read))]
    taps, up = tuple(read.values()), own.get("up.weight", torch.zeros(0))
    if view.side or not down or {t.ndim for t in (*down, up)} != {2} or -1 in taps or taps != tuple(sorted(taps)):
        raise _files.other(folder, next((name for name, k in read.items() if k < 0), NAME))
    ladder = Ladder([t.shape[1] for t in down], down[0].shape[0], up.shape[0])
    _files.fill(folder, NAME, dict(ladder.named_parameters()), own)
    view.tap(taps)
    _attach(view, ladder)
    view.calls = {view.pooling: view.call}
    _beside.finish(view, folder, tensors)


LINES = f"""\
import functools, json, torch
from safetensors.torch import load_file
def put_in(network, place):
    with open(place + "/{_beside.CONFIG}", encoding="utf-8") as file:
        places = json.load(file)["places"]
    held, seen = load_file(place + "/{_beside.WEIGHTS}"), {{}}
    def linear(x, name):
        return torch.nn.functional.linear(x, held["{NAME}." + name + ".weight"], held["{NAME}." + name + ".bias"])
    def norm(x, *weights):
        return torch.nn.functional.layer_norm(x, x.shape[1:], *weights)
    def vector(x, mask):
        if x.ndim == 4:
            return x.mean((1, 2) if x.shape[1] == x.shape[2] != x.shape[3] else (2, 3))
        if x.ndim == 3 and mask is not None and mask.shape == x.shape[:2]:
            return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return x.mean(1) if x.ndim == 3 else x.flatten(1)
    forward = network.forward  # not a hook: some libraries call it directly
    @functools.wraps(forward)
    def begin(*args, **named):
        seen["mask"] = named.get("attention_mask")
        return forward(*args, **named)
    network.forward = begin
    def read(name):
        def note(layer, args, out):
            seen[name] = vector(out if torch.is_tensor(out) else out[0], seen["mask"])
        return note
    def added(x):
        for i, name in enumerate(name for name, how in places.items() if how["reads"]):
            rung = "rungs." + str(i) + "."
            y = linear(norm(seen[name]), rung + "down")
            if i:
                y = h + torch.sigmoid(held["{NAME}." + rung + "gate"]) * (y - h)
            z = norm(y, *(held["{NAME}." + rung + "norm." + part] for part in ("weight", "bias")))
            h = y + linear(torch.nn.functional.gelu(linear(z, rung + "inner")), rung + "outer")
        h = linear(h, "up")
        return x + h.view(len(h), *[1] * (x.ndim - 2), -1)
    for name, how in places.items():
        layer = network.get_submodule(name)
        if how["reads"]:
            layer.register_forward_hook(read(name))
        if how["adds"] == "input":
            layer.register_forward_pre_hook(lambda layer, args: (added(args[0]), *args[1:]))
        if how["adds"] == "output":
            layer.register_forward_hook(
                lambda layer, args, out: added(out) if torch.is_tensor(out) else (added(out[0]), *out[1:])
            )
"""
"""What puts the side network of a folder beside a network with torch and safetensors alone."""


def _attach(view: View, ladder: Ladder) -> None:
    view.module.add_module(NAME, ladder)
    view.side = NAME
