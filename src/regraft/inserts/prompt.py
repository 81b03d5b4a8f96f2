"""Prompts: trained tokens go through the blocks beside those of the input, shipped beside the weights."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from regraft.backbone.patching import Forward, Surrounded, over
from regraft.backbone.state import leaves
from regraft.backbone.view import View
from regraft.errors import UsageError
from regraft.inserts import _beside, _files
from regraft.inserts._lowrank import changed
from regraft.waist import Insert

CHANGES = True
"""A fresh one changes outputs: every token attends to it."""
NAME = "prompt"
"""What it is called in the blocks that it goes through."""
MASK = 4


class Prompt(nn.Module):
    """P tokens [P, D] that enter before this block's own input, or none where they come with it.

    They leave with its output where `leaves` says so: what follows sees as many tokens as without them.

    Reference: Lester et al., The power of scale for parameter-efficient prompt tuning, 2021; Jia et al., Visual prompt
    tuning, 2022 (shallow: at the first block; deep: anew at each).
    """

    def __init__(self, count: int, width: int, leaves: bool) -> None:
        super().__init__()
        self.count, self.leaves = count, leaves
        self.tokens = nn.Parameter(torch.zeros(count, width)) if width else None

    def before(self, x: Tensor) -> tuple[Tensor, int]:
        """The block's input [n, P + T, D], and T."""
        if self.tokens is None:
            return x, x.shape[1] - self.count
        return torch.cat([self.tokens.to(x.dtype).expand(len(x), -1, -1), x], 1), x.shape[1]

    def seen(self, mask: Any, length: int) -> Any:
        """A mask [n, h, T, T] or [n, h, 1, T] in which all attend to the prompts, and these to what the first does."""
        if not torch.is_tensor(mask) or mask.ndim != MASK or mask.shape[-1] != length:
            return mask
        mask = pad(mask, (self.count, 0), value=mask.dtype == torch.bool)
        if mask.shape[2] == 1:
            return mask
        return torch.cat([mask[:, :, :1].expand(-1, -1, self.count, -1), mask], 2)


class _Prompted(Surrounded):
    """A block that prompts go through."""

    prompt: Prompt

    def around(self, forward: Forward, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        x, length = self.prompt.before(args[0])
        masks = [self.prompt.seen(one, length) for one in args[1:]]
        out = forward(x, *masks, **{name: self.prompt.seen(one, length) for name, one in named.items()})
        if not self.prompt.leaves:
            return out
        kept = self.prompt.count
        return out[:, kept:] if torch.is_tensor(out) else (out[0][:, kept:], *out[1:])


def put(view: View, insert: Insert, seed: int) -> None:
    """Put `size` tokens before the input of the first of the insert's blocks, or with `where` "deep" of each of them.

    They are drawn uniformly with Xavier's bound. Blocks take and give tokens [n, T, D]; stages that do not are left
    out. Prompts leave with the last block, so poolings, heads and what lies above see the input's own tokens.

    Raises: UsageError: there are no such blocks in a row, they look back only, or need to know the tokens' places.
    """
    draw, found = torch.Generator().manual_seed(seed), _blocks(view, insert)
    for i, (path, width) in enumerate(found.items()):
        deep = insert.where == "deep"
        made = Prompt(insert.size, width if deep or not i else 0, deep or i == len(found) - 1)
        if made.tokens is not None:
            bound = math.sqrt(6 / (insert.size + width))
            with torch.no_grad():
                made.tokens.uniform_(-bound, bound, generator=draw)
        _attach(view.module.get_submodule(path), made)


def take_out(view: View) -> None:
    """Take all prompts out again: the network is what it was before, bit for bit."""
    for block in _worn(view).values():
        block.__class__ = type(block).__bases__[1]
        delattr(block, NAME)


def files(view: View, insert: Insert, head: nn.Module, base: str) -> dict[str, bytes]:
    """The prompts with the head and the layers that the checkpoint lacked: insert.json and safetensors."""
    places = {}
    for path, block in _worn(view).items():
        held = block.get_submodule(NAME)
        assert isinstance(held, Prompt)
        places[path] = {"count": held.count, "enters": held.tokens is not None, "leaves": held.leaves}
    return _beside.files(view, insert, head, base, places, [f"{path}.{NAME}" for path in places])


def load(view: View, folder: Path) -> None:
    """Put the prompts of a folder into a network, and what was trained whole beside them in its place.

    The head is then the view's native one.

    Raises: ModelError: the folder holds no prompts, or those of another network.
    """
    found, tensors = _beside.read(view, folder, NAME)
    for name, (block, how) in found.items():
        held = tensors.pop(f"{name}.{NAME}.tokens", torch.zeros(0, 0))
        if isinstance(block, _Prompted) or bool(held.numel()) != bool(how.get("enters")):
            raise _files.other(folder, name)
        made = Prompt(int(how["count"]), held.shape[-1], bool(how["leaves"]))
        if made.tokens is not None:
            _files.fill(folder, name, dict(made.named_parameters()), {"tokens": held})
        _attach(block, made)
    _beside.finish(view, folder, tensors)


LINES = f"""\
import json, torch
from safetensors.torch import load_file
def put_in(network, place):
    with open(place + "/{_beside.CONFIG}", encoding="utf-8") as file:
        places = json.load(file)["places"]
    held = load_file(place + "/{_beside.WEIGHTS}")
    for name, how in places.items():
        block, count = network.get_submodule(name), how["count"]
        def seen(mask, length, count=count):
            if not torch.is_tensor(mask) or mask.ndim != {MASK} or mask.shape[-1] != length:
                return mask
            mask = torch.nn.functional.pad(mask, (count, 0), value=mask.dtype == torch.bool)
            first = mask[:, :, :1].expand(-1, -1, count if mask.shape[2] > 1 else 0, -1)
            return torch.cat([first, mask], 2)
        tokens = held.get(name + ".{NAME}.tokens")
        def forward(x, *args, inner=block.forward, how=how, count=count, tokens=tokens, seen=seen, **named):
            length = x.shape[1] - (0 if how["enters"] else count)
            x = torch.cat([tokens.expand(len(x), -1, -1), x], 1) if how["enters"] else x
            args = [seen(one, length) for one in args]
            out = inner(x, *args, **{{key: seen(one, length) for key, one in named.items()}})
            if not how["leaves"]:
                return out
            return out[:, count:] if torch.is_tensor(out) else (out[0][:, count:], *out[1:])
        block.forward = forward
"""
"""What puts the prompts of a folder into a network with torch and safetensors alone."""


class _Passed(NamedTuple):
    """What one pass showed of a block: its input, what came beside it, its output."""

    taken: Any
    beside: tuple[Any, ...]
    given: Any


def _blocks(view: View, insert: Insert) -> dict[str, int]:
    """Path → width of the blocks of an insert, each of which takes and gives tokens.

    Raises: UsageError: see `put`.
    """
    seen: dict[str, _Passed] = {}

    def noted(path: str, forward: Forward, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        out = forward(*args, **named)
        seen[path] = _Passed(args[0] if args else None, (*args[1:], *named.values()), out)
        return out

    paths = [view.seams.mains[i] for i in insert.stages]
    with torch.no_grad():
        view.called(view.example, {path: over(partial(noted, path)) for path in paths})
    found = {path: one.taken.shape[2] for path, one in seen.items() if _tokens(one)}
    why = "" if found else "no block takes and gives tokens [n, T, D]"
    for path in found:
        block, one = view.module.get_submodule(path), seen[path]
        if isinstance(block, _Prompted):
            why = f"there are prompts in {path} already"
        elif placed := _placed(one):
            why = f"{path} is told the places of its tokens: {placed[0]}"
        elif _looks_back(view, path):
            why = f"in {path} tokens attend to those before them only"
    if why:
        raise UsageError(
            "prompts cannot be put into these blocks",
            saw=why,
            allowed="blocks in which every token attends to every other, wherever it stands",
            do="choose another strategy (prefix, lora), or other blocks (--prompt.last)",
        )
    return found


def _tokens(one: _Passed) -> bool:
    """Whether a block takes tokens [n, T, D] and gives as many."""
    first = one.given if torch.is_tensor(one.given) else next(iter(leaves(one.given)), None)
    return torch.is_tensor(one.taken) and first is not None and one.taken.ndim == 3 and first.shape == one.taken.shape


def _placed(one: _Passed) -> list[tuple[int, ...]]:
    """What comes with a block's input that tells its tokens' places: tensors that are no masks, height and width."""
    count = one.taken.shape[1]
    found = [tuple(t.shape) for t in leaves(one.beside) if count in t.shape and t.ndim != MASK]
    return found + [part for part in one.beside if isinstance(part, tuple) and part and set(map(type, part)) == {int}]


def _looks_back(view: View, path: str) -> bool:
    """Whether another last token of its input leaves what a block gives for the first one as it was."""
    given: list[Tensor] = []

    def twice(forward: Forward, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        out, other = forward(*args, **named), args[0].clone()
        other[:, -1] = -other[:, -1].flip(-1)
        given.extend(next(iter(leaves(one)))[:, 0] for one in (out, forward(other, *args[1:], **named)))
        return out

    with torch.no_grad():
        view.called(view.example, {path: over(twice)})
    return torch.equal(*given)


def _attach(block: nn.Module, prompt: Prompt) -> None:
    block.add_module(NAME, prompt)
    block.__class__ = changed(type(block), _Prompted)


def _worn(view: View) -> dict[str, nn.Module]:
    """Path → block of all that prompts go through."""
    return {path: m for path, m in view.module.named_modules() if isinstance(m, _Prompted)}
