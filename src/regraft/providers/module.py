"""Any network that reads pictures, as a Python object: a module, or a module with its preparation."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from types import CellType, CodeType, FunctionType
from typing import TYPE_CHECKING, Any

from regraft.backbone import pictures
from regraft.backbone.pictures import Network
from regraft.errors import ModelError
from regraft.kit import durable
from regraft.kit.store import record
from regraft.providers import _lines
from regraft.waist import InputSpec, Opening, Target, plain

if TYPE_CHECKING:
    from torch import Tensor, nn

    from regraft.backbone.view import View

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ASSUMED = InputSpec(
    "image", (3, 224, 224), MEAN, STD, settings=(("crop_height", 224), ("crop_width", 224), ("shorter", 256))
)
OWN = "pytorch"
"""What a bundle says opens it where the network's code is the user's: no module of that name can be imported."""


def find(query: Any) -> bool:
    """Whether `query` is a torch module, a pair of one and an `InputSpec`, or the bundle of one."""
    if isinstance(query, tuple):
        return len(query) == 2 and _is_network(query[0]) and isinstance(query[1], InputSpec)
    return _is_network(query) or "module" in pictures.told(query)


def fingerprint(query: Any) -> str:
    """SHA-256 over classes, plain attributes and tensors of a network, and its preparation; over a bundle's files."""
    if isinstance(query, (str, Path)):
        return pictures.folder_digest(Path(query))
    module, inputs = query if isinstance(query, tuple) else (query, ASSUMED)
    parts = [_structure(module), inputs.fingerprint]
    for name, tensor in module.state_dict().items():
        data = tensor.detach().cpu().contiguous().reshape(-1)
        parts += [name, str(tensor.dtype), str(tuple(tensor.shape)), durable.digest(_bytes(data))]
    return durable.digest("\n".join(parts).encode())


def load(query: Any, modality: str = "", arch: str = "") -> View:
    """A copy of the network as a backbone, its last linear layer taken out; the caller's own is not changed.

    A module alone is given pictures as most ImageNet networks have them, which the notes say; in a pair the `InputSpec`
    says it, and pictures are squeezed to its shape unless its settings say otherwise. Where no linear layer gives the
    output, the output itself are the features.

    Raises: ModelError: it does not read such pictures; the query is a bundle, which lacks the network's code.
    """
    from regraft.backbone import tensors

    pictures.asked(modality, arch)
    if isinstance(query, (str, Path)):
        raise ModelError(
            "this bundle holds a network from your own code, which it does not contain",
            saw=f"{query}: {pictures.told(query).get('module')}",
            allowed="the network, built in Python as it was for the run",
            do=f"regraft.open({str(query)!r}, module=network)",
        )
    module, inputs = query if isinstance(query, tuple) else (query, ASSUMED)
    notes = (
        ()
        if isinstance(query, tuple)
        else (
            "how this network wants its pictures was not said: assumed are 224 × 224 pixels from the centre of 256 "
            "with ImageNet's mean and deviation; give (network, InputSpec(…)) to say otherwise",
        )
    )
    inputs, title = _complete(inputs), _name(module)
    with pictures.explained("torch", title), tensors.seeded(pictures.SEED):
        module = copy.deepcopy(module).cpu().float()
        head, added = _ended(module, inputs)
        module = _with_place(module, added)
    return _viewed(module, head, inputs, (title, added), notes)


def reopen(folder: str | Path, module: nn.Module) -> View:
    """A bundle of a network from the user's own code; `module` is that network, built as it was for the run.

    Raises: ModelError: the folder is no such bundle, or its weights do not belong to this network.
    """
    from torch import nn

    from regraft.backbone import tensors
    from regraft.backbone.view import replace

    told = pictures.told(folder)
    if "module" not in told:
        raise ModelError("this is no bundle of a network from Python", saw=str(folder), do="open it without module=")
    found, notes = tensors.read_state(Path(folder) / pictures.WEIGHTS)
    head, added = str(told["head"]), int(told["added"])
    network = _with_place(copy.deepcopy(module).cpu().float(), added)
    weight = found[f"{head}.weight"]
    replace(network, head, nn.Linear(weight.shape[1], weight.shape[0], bias=f"{head}.bias" in found))
    tensors.fill(network, found, head)
    return _viewed(network, head, record(InputSpec, told["preprocessing"]), (str(told["module"]), added), notes)


def _viewed(module: nn.Module, head: str, inputs: InputSpec, origin: tuple[str, int], notes: tuple[str, ...]) -> View:
    """`origin` is the module's name, and the width of what it gives where a place for a head was added behind it."""
    view = pictures.viewed(
        Network(
            name=origin[0].rpartition(".")[2],
            provider="module",
            module=module,
            head=head,
            inputs=inputs,
            config="",
            build=lambda: _randomised(module),
            write=lambda view, layer, target, folder: _write(view, layer, target, Path(folder), origin),
            notes=notes,
        )
    )
    view.config = _structure(view.module)
    return view


def _ended(module: nn.Module, inputs: InputSpec) -> tuple[str, int]:
    """Path of the linear layer whose output is the network's, or the place behind the network and its features' width.

    Raises: ModelError: the network gives no row of numbers for a picture.
    """
    import torch
    from torch import nn

    from regraft.backbone.stages import outline, removed

    bare, batch = outline(module.eval(), pictures.logits, pictures.example(inputs))
    last: list[tuple[str, Tensor]] = []
    hooks = [
        m.register_forward_hook(lambda _m, _a, out, name=name: last.append((name, out)))
        for name, m in bare.named_modules()
        if name and isinstance(m, nn.Linear)
    ]
    with removed(hooks):
        given = bare(batch["pixel_values"])
    made = given if torch.is_tensor(given) else given.logits
    found = [name for name, out in last if out is made]
    if made.ndim != 2 or (not found and made is not given):
        raise ModelError(
            "this network gives no features for a whole picture",
            saw=f"outputs of shape {tuple(made.shape)} for two pictures",
            allowed="[n, features]",
            do="put nn.AdaptiveAvgPool2d(1) and nn.Flatten() behind it with nn.Sequential",
        )
    return (found[-1], 0) if found else ("1", made.shape[1])


def _with_place(module: nn.Module, added: int) -> nn.Module:
    """The module, or it with a linear layer behind it where it ends in features of that width."""
    from torch import nn

    return nn.Sequential(module, nn.Linear(added, 1)) if added else module


def _complete(inputs: InputSpec) -> InputSpec:
    """The preparation with what it leaves open: pictures are squeezed to the shape, values go from 0 to 1.

    Raises: ModelError: it is for no pictures of three channels.
    """
    if inputs.modality != "image" or len(inputs.shape) != 3 or inputs.shape[0] != 3:
        raise ModelError(
            "networks from Python are given pictures",
            saw=f"{inputs.modality} of shape {inputs.shape}",
            allowed='InputSpec("image", (3, height, width), mean, std)',
            do="save a network for texts in Hugging Face layout, and give its folder",
        )
    given = dict(inputs.settings)
    if not {"shorter", "height", "crop_height"} & set(given):
        given |= {"height": inputs.shape[1], "width": inputs.shape[2]}
    whole = {"resample": 2, "scale": 1 / 255, "shift": 0.0, **given}
    return dataclasses.replace(inputs, settings=tuple(sorted(whole.items())))


def _write(view: View, head: nn.Module, target: Target, folder: Path, origin: tuple[str, int]) -> Opening:
    """Weights, what they are and how pictures are prepared; the lines that open them find the network, or import it.

    They are tried before the bundle ships only where the network is the instance of an installed class that needs no
    argument: elsewhere `check` is empty and `use` finds a variable `network`, for its code is the user's.
    """
    title, added = origin
    config = {
        "module": title,
        "head": view.head,
        "added": added,
        "num_classes": len(target.labels) or 1,
        "labels": list(target.labels) or [target.name],
        "preprocessing": plain(view.inputs),
    }
    pictures.lay(folder, config, view, head)
    kind = type(view.module.get_submodule("0") if added else view.module)
    alone = _stands_alone(view, kind, added)
    layer = f"nn.Linear({view.dim}, {config['num_classes']}, bias={'bias' in head.state_dict()})"
    place = f"nn.Sequential(network, {layer})" if added else ""
    build = _lines.building(kind if alone else None, place, f'network.set_submodule("{view.head}", {layer})')
    library = kind.__module__.partition(".")[0] if alone else OWN
    return Opening(library, _lines.use(build, view.inputs, target.kind), _lines.check(build) if alone else "")


def _stands_alone(view: View, kind: type, added: int) -> bool:
    """Whether a fresh process can build this very network: from an installed class, without any argument."""
    from torch import nn

    from regraft.backbone.tensors import seeded
    from regraft.backbone.view import replace

    file = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
    places = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    if "<" in kind.__qualname__ or not any(Path(file).is_relative_to(place) for place in places):
        return False
    bound = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if any(p.default is p.empty and p.kind not in bound for p in inspect.signature(kind).parameters.values()):
        return False
    try:
        with seeded(pictures.SEED):
            twin = _with_place(kind(), added)
        replace(twin, view.head, nn.Identity())
    except Exception:  # whatever a constructor without its arguments leads to
        return False
    ours, theirs = ([(n, t.shape) for n, t in one.state_dict().items()] for one in (view.module, twin))
    return ours == theirs and _structure(twin) == view.config


# ---------------------------------------------------------------- what a network is


def _randomised(module: nn.Module) -> nn.Module:
    """A copy whose layers drew their weights anew; weights that no layer knows to draw have their values shuffled."""
    import torch

    twin = copy.deepcopy(module)
    for part in twin.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()
            continue
        for parameter in part.parameters(recurse=False):
            with torch.no_grad():
                values = parameter.flatten().sort().values  # the same however often they were shuffled before
                parameter.copy_(values[torch.randperm(len(values))].reshape(parameter.shape))
    return twin


def _structure(module: nn.Module) -> str:
    """What a network is besides its tensors: the class, its code and the plain attributes of each part of it.

    Code of torch itself is left out: its version stands for it.
    """
    parts, written = [], {}
    for path, part in module.named_modules():
        told = {k: v for k, v in vars(part).items() if not k.startswith("_") and k != "training" and _plain_value(v)}
        parts.append([path, _name(part), told])
        if own := {k: v for k, v in vars(part).items() if isinstance(v, FunctionType)}:
            written[path] = own
        for kind in type(part).__mro__[:-1]:
            if not kind.__module__.startswith("torch."):
                written[f"{kind.__module__}.{kind.__qualname__}"] = dict(vars(kind))
    code = {name: durable.digest(repr(_code(held, set())).encode()) for name, held in sorted(written.items())}
    return json.dumps([parts, code], sort_keys=True)


def _code(held: Mapping[str, Any], seen: set[int]) -> list[Any]:
    """What the functions and plain values of a class or a file do, with those of the same file that they call.

    Names of files and numbers of lines are left out, so that a network which moved is the same.
    """
    told: list[Any] = []
    for name, value in sorted(held.items()):
        one = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if not isinstance(one, FunctionType):
            told += [[name, repr(value)]] if _plain_value(value) and not name.startswith("__") else []
        elif id(one) not in seen:
            seen.add(id(one))
            near = {other: one.__globals__.get(other) for other in _names(one.__code__)}
            own = {k: v for k, v in near.items() if getattr(v, "__module__", one.__module__) == one.__module__}
            bound = {k: _content(cell) for k, cell in zip(one.__code__.co_freevars, one.__closure__ or (), strict=True)}
            given = [v for v in one.__defaults__ or () if _plain_value(v)]
            told.append([name, _instructions(one.__code__), given, _code(own, seen), _code(bound, seen)])
    return told


def _instructions(code: CodeType) -> list[Any]:
    """Instructions, names and constants of a function and of those within it."""
    inner = [_instructions(one) if isinstance(one, CodeType) else _constant(one) for one in code.co_consts]
    return [code.co_code.hex(), code.co_names, code.co_varnames, inner]


def _constant(value: Any) -> str:
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)


def _names(code: CodeType) -> list[str]:
    inner = [name for one in code.co_consts if isinstance(one, CodeType) for name in _names(one)]
    return [*code.co_names, *inner]


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing was put in yet
        return None


def _plain_value(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_plain_value(one) for one in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _is_network(query: Any) -> bool:
    """Whether it is a torch module, without importing torch."""
    return any(
        f"{kind.__module__}.{kind.__qualname__}" == "torch.nn.modules.module.Module" for kind in type(query).__mro__
    )


def _bytes(data: Tensor) -> bytes:
    import torch

    raw: bytes = data.view(torch.uint8).numpy().tobytes()
    return raw
