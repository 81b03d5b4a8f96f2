"""Bottleneck adapters: small networks behind the parts of a block, or beside the block, shipped beside the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save
from torch import Tensor, nn

from regraft.backbone.patching import Followed
from regraft.backbone.view import View
from regraft.errors import ModelError, UsageError
from regraft.inserts import _files, _writers
from regraft.inserts._lowrank import changed
from regraft.waist import Insert

NAME = "narrow"
"""What the adapter is called in the module that has it."""
CONFIG, WEIGHTS = "insert.json", "insert.safetensors"
INSIDE = f".{NAME}."
KIND = "bottleneck"
STD = 0.01


class Place(NamedTuple):
    """Where an adapter goes: a module, and how what it takes becomes what is added to the module's output.

    `beside` takes the module's input, otherwise its output; `kernel` is 1 for maps [n, c, h, w], 0 for features in the
    last dimension; `stride` is how much smaller a map leaves the module.
    """

    beside: bool
    kernel: int
    taken: int
    given: int
    stride: int = 1


class _Behind(Followed):
    """A module whose output goes through an adapter, to which it is added."""

    narrow: nn.Sequential

    def after(self, taken: Any, out: Any) -> Any:
        return _added(out, self.narrow, None)


class _Beside(Followed):
    """A module to whose output comes what an adapter makes of its input."""

    narrow: nn.Sequential

    def after(self, taken: Any, out: Any) -> Any:
        return _added(out, self.narrow, taken)


def put(view: View, insert: Insert, seed: int) -> None:
    """Put adapters of width `size` into the insert's stages: x + up(relu(down(x))), `up` zero, so that nothing changes.

    `where` is "houlsby", behind each layer whose output a transformer block adds to what goes through it (its attention
    and its feed-forward part), or "parallel", beside the feed-forward part, or the whole block where that is no module
    of its own. Behind blocks of maps, and beside them, they are 1 × 1 convolutions. Adapters that are there stay.

    Reference: Houlsby et al., Parameter-efficient transfer learning for NLP, 2019; He et al., Towards a unified view of
    parameter-efficient transfer learning, 2022.
    Raises: UsageError: there is no place in these stages.
    """
    found = _places(view, insert)
    if not found:
        raise UsageError(
            "there is no place for an adapter",
            saw=f"{insert.where} in " + ", ".join(view.stages[i].name for i in insert.stages),
            allowed="blocks whose outputs are features or maps",
            do="choose more blocks (--bottleneck.last)",
        )
    draw = torch.Generator().manual_seed(seed)
    for path in (path for path in found if path not in _held(view)):
        narrow = _adapter(found[path], insert.size)
        down, *zeros = narrow.parameters()
        with torch.no_grad():
            down.normal_(0, STD, generator=draw)
            for zero in zeros:
                zero.zero_()
        _attach(view.module.get_submodule(path), narrow, found[path].beside)


def take_out(view: View) -> None:
    """Take all adapters out again: the network is what it was before, bit for bit."""
    for module in _held(view).values():
        module.__class__ = type(module).__bases__[1]
        delattr(module, NAME)


def files(view: View, insert: Insert, head: nn.Module, base: str) -> dict[str, bytes]:
    """The adapters with the head and the layers that the checkpoint lacked: insert.json and safetensors."""
    prefix, held = _files.shipped(view), _held(view)
    tensors: dict[str, Tensor] = {}
    for path in [f"{path}.{NAME}" for path in held] + _files.lacked(view):
        part = view.module.get_submodule(path).state_dict()
        tensors |= {f"{path.removeprefix(prefix)}.{name}": t for name, t in part.items()}
    told = {
        "kind": KIND,
        "base": base,
        "size": insert.size,
        "where": insert.where,
        "places": {path.removeprefix(prefix): _told(module) for path, module in held.items()},
    }
    text = json.dumps(told, indent=2, ensure_ascii=False).encode("utf-8", "replace")
    return {CONFIG: text, WEIGHTS: save(_files.plain(tensors)), **_files.head_file(head)}


def load(view: View, folder: Path) -> None:
    """Put the adapters of a folder into a network, and what was trained whole beside them in its place.

    The head is then the view's native one.

    Raises: ModelError: the folder holds no adapters, or those of another network.
    """
    try:
        told = json.loads((folder / CONFIG).read_bytes())
        tensors = read_tensors((folder / WEIGHTS).read_bytes())
        places = {str(name): (bool(how["beside"]), int(how["stride"])) for name, how in told["places"].items()}
        shapes = {name: [tensors[f"{name}.{NAME}.{i}.weight"].shape for i in (0, 2)] for name in places}
        if told["kind"] != KIND:
            raise ValueError(told["kind"])
    except Exception as error:  # damaged, or made by something else: the library has classes of its own
        raise ModelError(
            "this adapter cannot be read",
            saw=f"{folder}: {type(error).__name__}: {str(error)[:120]}",
            allowed=f"{CONFIG} and {WEIGHTS} of bottleneck adapters",
            do="copy the folder again",
        ) from error
    known = dict(view.module.named_modules())
    for name, (beside, stride) in places.items():
        (size, taken, *kernel), (given, *_) = shapes[name]
        module = known.get(_files.path(known, name, _files.prefix(view.module)))
        if module is None or isinstance(module, (_Behind, _Beside)):
            raise _files.other(folder, name)
        narrow = _adapter(Place(beside, int(bool(kernel)), taken, given, stride), size)
        start = f"{name}.{NAME}."
        held = {key.removeprefix(start): tensors.pop(key) for key in sorted(tensors) if key.startswith(start)}
        _files.fill(folder, name, dict(narrow.named_parameters()), held)
        _attach(module, narrow, beside)
    _files.put_head(view, folder, {})
    _files.fill_whole(view, folder, tensors)


LINES = f"""\
import json, torch
from safetensors.torch import load_file
def put_in(network, place):
    with open(place + "/{CONFIG}", encoding="utf-8") as file:
        places = json.load(file)["places"]
    held = load_file(place + "/{WEIGHTS}")
    for name, how in places.items():
        layer = network.get_submodule(name)
        w = [held[name + ".{NAME}." + part] for part in ("0.weight", "0.bias", "2.weight", "2.bias")]
        def add(layer, args, named, out, w=w, how=how):
            first = out if torch.is_tensor(out) else out[0]
            x = next(iter((*args, *named.values()))) if how["beside"] else first
            if w[0].ndim == 4:
                x = torch.conv2d(torch.conv2d(x, *w[:2], stride=how["stride"]).relu(), *w[2:])
            else:
                x = torch.nn.functional.linear(torch.nn.functional.linear(x, *w[:2]).relu(), *w[2:])
            return first + x if torch.is_tensor(out) else (first + x, *out[1:])
        layer.register_forward_hook(add, with_kwargs=True)
"""
"""What puts the adapters of a folder into a network with torch and safetensors alone."""


def _places(view: View, insert: Insert) -> dict[str, Place]:
    """Path → place of the adapters of an insert, in the network's order."""
    bare, batch = view.outline()
    paths = [path for i in insert.stages for path in _writers.blocks_of(bare, view.seams.mains[i])]
    paths = [path for path in paths if not view.head.startswith(f"{path}.")]  # what holds the head gives outputs
    found: dict[str, Place | None] = {}
    for path, block in _writers.watched(bare, lambda: view.call(bare, batch), paths).items():
        if insert.where == "parallel":
            found[block.part or path] = _beside(block.taken, block.given)
        elif block.writers:
            found |= {inner: _behind(shape, True) for inner, shape in block.writers.items() if INSIDE not in inner}
        else:
            found[path] = _behind(block.given, False)
    return {path: place for path, place in found.items() if place}


def _behind(shape: torch.Size, features: bool) -> Place | None:
    """The place behind a module that gives such a tensor."""
    if features or len(shape) in (2, 3):
        return Place(False, 0, shape[-1], shape[-1])
    return Place(False, 1, shape[1], shape[1]) if len(shape) == 4 else None


def _beside(taken: torch.Size, given: torch.Size) -> Place | None:
    """The place beside a module that makes the second of the first; None where no step of pixels fits them."""
    if len(taken) == len(given) in (2, 3):
        return Place(True, 0, taken[-1], given[-1]) if taken[:-1] == given[:-1] else None
    if not len(taken) == len(given) == 4:
        return None
    stride = -(-taken[2] // given[2])
    fits = all(-(-a // stride) == b for a, b in zip(taken[2:], given[2:], strict=True))
    return Place(True, 1, taken[1], given[1], stride) if fits else None


def _adapter(place: Place, size: int) -> nn.Sequential:
    """An adapter for a place; its weights hold nothing yet."""
    taken, given = place.taken, place.given
    bare: Callable[..., nn.Module] = nn.utils.skip_init
    if place.kernel:
        down, up = bare(nn.Conv2d, taken, size, 1, stride=place.stride), bare(nn.Conv2d, size, given, 1)
    else:
        down, up = bare(nn.Linear, taken, size), bare(nn.Linear, size, given)
    return nn.Sequential(down, nn.ReLU(), up)


def _attach(module: nn.Module, narrow: nn.Sequential, beside: bool) -> None:
    module.add_module(NAME, narrow)
    module.__class__ = changed(type(module), _Beside if beside else _Behind)


def _held(view: View) -> dict[str, nn.Module]:
    """Path → module of all that have an adapter."""
    return {path: m for path, m in view.module.named_modules() if isinstance(m, (_Behind, _Beside))}


def _told(module: nn.Module) -> dict[str, Any]:
    """How an adapter's module uses it; the rest is in the shapes of its weights."""
    first = module.get_submodule(f"{NAME}.0")
    return {"beside": isinstance(module, _Beside), "stride": first.stride[0] if isinstance(first, nn.Conv2d) else 1}


def _added(out: Any, narrow: nn.Module, taken: Any) -> Any:
    """An output with what the adapter makes of it, or of `taken`; of several tensors the first."""
    first = out if torch.is_tensor(out) else out[0]
    made = first + narrow(first if taken is None else taken)
    return made if torch.is_tensor(out) else (made, *out[1:])
