"""Prefixes: trained keys and values that every token attends to beside its own, shipped beside the weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from regraft.backbone.patching import Forward, Surrounded, over, patched
from regraft.backbone.view import View
from regraft.errors import UsageError
from regraft.inserts import _beside, _files
from regraft.inserts._lowrank import changed
from regraft.waist import Insert

CHANGES = True
"""A fresh one changes outputs: some attention goes to it."""
NAME = "prefix"
"""What it is called in the block that has it."""
STD = 0.02
SHARING = "num_key_value_groups"
"""How transformers says that heads share keys, which it then gives to torch in one form or another."""
TAKES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


class Prefix(nn.Module):
    """Keys [H, P, d] and values [H, P, e] of P positions in H heads, the same for every row.

    Reference: Li & Liang, Prefix-tuning: optimizing continuous prompts for generation, 2021; trained without the
    network that makes them there.
    """

    def __init__(self, keys: torch.Size, values: torch.Size) -> None:
        super().__init__()
        self.keys, self.values = nn.Parameter(torch.zeros(keys)), nn.Parameter(torch.zeros(values))


class _Longer(TorchFunctionMode):
    """While it is on, attention is paid to a prefix, too: by every query, whatever its mask."""

    def __init__(self, prefix: Prefix) -> None:
        super().__init__()
        self.prefix = prefix

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        asked = dict(zip(TAKES, args, strict=False)) | (kwargs or {})
        key, value, mask = asked["key"], asked["value"], asked.get("attn_mask")
        n, count = len(key), self.prefix.keys.shape[1]
        if asked.get("is_causal"):
            mask = torch.ones(asked["query"].shape[-2], key.shape[-2], dtype=torch.bool, device=key.device).tril()
        if mask is not None:
            mask = pad(mask, (count, 0), value=mask.dtype == torch.bool)
        own = [part.to(key.dtype).expand(n, -1, -1, -1) for part in (self.prefix.keys, self.prefix.values)]
        asked |= {"key": torch.cat([own[0], key], 2), "value": torch.cat([own[1], value], 2)}
        return func(**asked | {"attn_mask": mask, "is_causal": False})


class _Prefixed(Surrounded):
    """A block whose attention has a prefix."""

    prefix: Prefix

    def around(self, forward: Forward, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        with _Longer(self.prefix):
            return forward(*args, **named)


def put(view: View, insert: Insert, seed: int) -> None:
    """Put `size` keys and values into the attention of each of the insert's stages, drawn small.

    So at first each of them has about the attention of a token that nothing is asked of, and adds next to nothing.
    Attention is what asks torch for scaled dot-product attention, once a block; stages that never do have none.

    Raises: UsageError: no stage does, one does several times, or its attention has a prefix already.
    """
    draw = torch.Generator().manual_seed(seed)
    for path, shapes in _attention(view, insert).items():
        keys, values = (torch.Size((shape[1], insert.size, shape[3])) for shape in shapes)
        made = Prefix(keys, values)
        with torch.no_grad():
            made.keys.normal_(0, STD, generator=draw)
            made.values.normal_(0, STD, generator=draw)
        _attach(view.module.get_submodule(path), made)


def take_out(view: View) -> None:
    """Take all prefixes out again: the network is what it was before, bit for bit."""
    for block in _worn(view).values():
        block.__class__ = type(block).__bases__[1]
        delattr(block, NAME)


def files(view: View, insert: Insert, head: nn.Module, base: str) -> dict[str, bytes]:
    """The prefixes with the head and the layers that the checkpoint lacked: insert.json and safetensors."""
    places = dict[str, Any]({path: {} for path in _worn(view)})
    return _beside.files(view, insert, head, base, places, [f"{path}.{NAME}" for path in places])


def load(view: View, folder: Path) -> None:
    """Put the prefixes of a folder into a network, and what was trained whole beside them in its place.

    The head is then the view's native one.

    Raises: ModelError: the folder holds no prefixes, or those of another network.
    """
    found, tensors = _beside.read(view, folder, NAME)
    for name, (block, _) in found.items():
        held = {part: tensors.pop(f"{name}.{NAME}.{part}", torch.zeros(0)) for part in ("keys", "values")}
        if isinstance(block, _Prefixed) or any(part.ndim != 3 for part in held.values()):
            raise _files.other(folder, name)
        made = Prefix(held["keys"].shape, held["values"].shape)
        _files.fill(folder, name, dict(made.named_parameters()), held)
        _attach(block, made)
    _beside.finish(view, folder, tensors)


LINES = f"""\
import json, torch
from safetensors.torch import load_file
def put_in(network, place):
    with open(place + "/{_beside.CONFIG}", encoding="utf-8") as file:
        places = json.load(file)["places"]
    held, attend = load_file(place + "/{_beside.WEIGHTS}"), torch.nn.functional.scaled_dot_product_attention
    takes = {TAKES!r}
    class Longer(torch.overrides.TorchFunctionMode):
        def __init__(self, keys, values):
            super().__init__()
            self.keys, self.values = keys, values
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is not attend:
                return func(*args, **(kwargs or {{}}))
            asked = dict(zip(takes, args)) | (kwargs or {{}})
            query, key, mask = asked["query"], asked["key"], asked.get("attn_mask")
            if asked.get("is_causal"):
                mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
            if mask is not None:
                mask = torch.nn.functional.pad(mask, (self.keys.shape[1], 0), value=mask.dtype == torch.bool)
            for name, own in (("key", self.keys), ("value", self.values)):
                asked[name] = torch.cat([own.expand(len(key), -1, -1, -1), asked[name]], 2)
            return func(**asked | {{"attn_mask": mask, "is_causal": False}})
    for name in places:
        block, pair = network.get_submodule(name), [held[name + ".{NAME}." + part] for part in ("keys", "values")]
        def forward(*args, inner=block.forward, pair=pair, **named):
            with Longer(*pair):
                return inner(*args, **named)
        block.forward = forward
"""
"""What puts the prefixes of a folder into a network with torch and safetensors alone."""


class _Asked(TorchFunctionMode):
    """While it is on, the shapes of keys and values are noted."""

    def __init__(self, seen: list[tuple[torch.Size, torch.Size]]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention:
            asked = dict(zip(TAKES, args, strict=False)) | (kwargs or {})
            self.seen.append((asked["key"].shape, asked["value"].shape))
        return func(*args, **(kwargs or {}))


def _attention(view: View, insert: Insert) -> dict[str, tuple[torch.Size, torch.Size]]:
    """Path of each block of the insert's stages → shapes of keys and values [n, H, T, d] in its attention."""
    bare, batch = view.outline()
    seen: dict[str, list[tuple[torch.Size, torch.Size]]] = {view.seams.mains[i]: [] for i in insert.stages}

    def noted(path: str, forward: Forward, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        with _Asked(seen[path]):
            return forward(*args, **named)

    with torch.no_grad(), patched(bare, {path: over(partial(noted, path)) for path in seen}):
        view.call(bare, batch)
    rows, asked = len(next(iter(batch.values()))), {path: found for path, found in seen.items() if found}
    fits = [len(found) == 1 and all(len(s) == 4 and s[0] == rows for s in found[0]) for found in asked.values()]
    shared = [p for p in asked for m in view.module.get_submodule(p).modules() if getattr(m, SHARING, 1) > 1]
    again = [path for path in asked if isinstance(view.module.get_submodule(path), _Prefixed)]
    if not fits or not all(fits) or again or shared:
        times = f"attention in {len(asked)} of {len(seen)} blocks, {sum(map(len, asked.values()))} times"
        raise UsageError(
            "a prefix cannot be put into these blocks",
            saw=f"{again[0]} has one" if again else f"{shared[0]}: heads share keys" if shared else times,
            allowed="blocks that ask torch once for scaled dot-product attention over whole rows",
            do="choose another strategy, or other blocks (--prefix.last)",
        )
    return {path: found[0] for path, found in asked.items()}


def _attach(block: nn.Module, prefix: Prefix) -> None:
    block.add_module(NAME, prefix)
    block.__class__ = changed(type(block), _Prefixed)


def _worn(view: View) -> dict[str, nn.Module]:
    """Path → block of all that have a prefix."""
    return {path: m for path, m in view.module.named_modules() if isinstance(m, _Prefixed)}
