"""Find the blocks of a network's stages, and the layers whose outputs a block adds to what goes through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from regraft.backbone.stages import removed
from regraft.backbone.state import leaves
from regraft.inserts._lowrank import is_read, linear

KEEPS = {
    *("view", "_unsafe_view", "permute", "transpose", "t", "clone", "expand", "alias", "detach", "squeeze"),
    *("unsqueeze", "roll", "slice", "constant_pad_nd", "native_layer_norm", "native_dropout", "_to_copy"),
}
"""Operations after which a tensor is still what a layer gave: arranged, normalised or cut."""
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Block(NamedTuple):
    """A block in one pass: the shapes of its input and output, and path → shape of the layers that write to its sum.

    `part` is the module whose output is what the last of these wrote, with the layers before it: the feed-forward part;
    "" where it is no module of its own, or a chain. Where there is one, the shapes are those of its input and output.
    """

    taken: torch.Size
    given: torch.Size
    writers: dict[str, torch.Size]
    part: str = ""


def blocks_of(root: nn.Module, stage: str) -> list[str]:
    """Paths of the blocks of a stage: the members of the row that it is or holds, otherwise itself; no chains.

    A chain runs whatever is in it, so that nothing can be put there but behind its last member.
    """
    module = root.get_submodule(stage)
    whole = sum(p.numel() for p in module.parameters())
    for name, row in [("", module), *module.named_children()]:
        inside = dict(row.named_children()) if isinstance(row, (nn.Sequential, nn.ModuleList)) else {}
        alike = len({type(m) for m in inside.values()}) == 1
        if alike and 2 * sum(p.numel() for p in row.parameters()) >= whole:
            return [_last(root, ".".join(filter(None, (stage, name, number)))) for number in inside]
    return [_last(root, stage)]


def watched(root: nn.Module, run: Callable[[], Any], paths: Sequence[str]) -> dict[str, Block]:
    """Blocks as one pass shows them; those that gave no tensor are left out.

    In blocks with convolutions no writers are looked for: what they add are maps.
    """
    ways, owner, shapes = _Ways(), dict[str, str](), dict[str, tuple[torch.Size, torch.Size]]()
    parts, written = dict[str, str](), dict[str, str]()
    modules = dict(root.named_modules())
    for block in paths:
        within = {p: m for p, m in modules.items() if p == block or p.startswith(f"{block}.")}
        if not any(isinstance(m, CONVOLUTIONS) for m in within.values()):
            owner |= {
                p: block
                for p, m in within.items()
                if (linear(m) or isinstance(m, nn.MultiheadAttention)) and not is_read(root, p)
            }
            inside = {p: sum(one.startswith(f"{p}.") for one in owner) for p in within if p != block}
            parts |= {p: block for p, n in inside.items() if n > 1 and not isinstance(modules[p], nn.Sequential)}

    def ended(path: str, taken: Any, out: Any) -> None:
        made = out if isinstance(out, Tensor) else out[0] if isinstance(out, (tuple, list)) else None
        if isinstance(made, Tensor):
            shapes[path] = next((t.shape for t in taken if isinstance(t, Tensor)), torch.Size()), made.shape
            if path in owner:
                ways.mark(made, path)
            elif path in parts and (writer := ways.writer(made)):
                written[path] = writer

    hooks = [
        modules[path].register_forward_hook(
            lambda _m, args, named, out, path=path: ended(path, (*args, *named.values()), out), with_kwargs=True
        )
        for path in {*paths, *owner, *parts}
    ]
    with removed(hooks), torch.no_grad(), ways:
        run()
    found = {}
    for block in (block for block in paths if block in shapes):
        writers = {p: shapes[p][1] for p in ways.ran if owner[p] == block and p in ways.writers}
        last = next(reversed(writers), "")
        part = next((p for p, b in parts.items() if b == block and last and written.get(p) == last), "")
        found[block] = Block(*shapes[part or block], writers, part)
    return found


class _Ways(TorchDispatchMode):
    """While it is on: which of the marked tensors are added to others of their shape that do not follow from them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.writers: set[str] = set()
        self.ran: list[str] = []
        self._is: dict[int, str] = {}
        self._from: dict[int, frozenset[str]] = {}
        self._kept: list[Tensor] = []
        """So that no other tensor takes the identity of one that is known."""

    def mark(self, tensor: Tensor, path: str) -> None:
        """This is what the layer at `path` gave."""
        self.ran.append(path)
        self._is[id(tensor)] = path
        self._from[id(tensor)] = self._from.get(id(tensor), frozenset()) | {path}
        self._kept.append(tensor)

    def writer(self, tensor: Tensor) -> str:
        """The layer that gave this, arranged as it may be since; "" for a tensor that something was done to."""
        return self._is.get(id(tensor), "")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.removesuffix("_")
        given = leaves([*args, *(kwargs or {}).values()])
        origin = frozenset[str]().union(*(self._from.get(id(one), ()) for one in given))
        marked = {id(one): self._is[id(one)] for one in given if id(one) in self._is}
        if name == "add" and len(given) == 2 and given[0].shape == given[1].shape:
            for one, other in (given, given[::-1]):
                path = marked.get(id(one), "")
                if path and path not in self._from.get(id(other), ()) and not isinstance(other, nn.Parameter):
                    self.writers.add(path)
            marked = {}
        for made in leaves(out):
            self._from[id(made)] = origin
            self._is.pop(id(made), None)
            self._kept.append(made)
            scaled = name == "mul" and all(id(t) in marked or isinstance(t, nn.Parameter) for t in given)
            if len(marked) == 1 and (name in KEEPS or scaled):
                self._is[id(made)] = next(iter(marked.values()))
        return out


def _last(root: nn.Module, path: str) -> str:
    """The module whose output is that of the one at `path`, but for chains and what gives back what it is given."""
    while isinstance(module := root.get_submodule(path), nn.Sequential):
        inside = [name for name, part in module.named_children() if not isinstance(part, nn.Identity)]
        if not inside:
            break
        path = f"{path}.{inside[-1]}"
    return path
