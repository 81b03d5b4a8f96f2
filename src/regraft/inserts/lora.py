"""LoRA: low-rank matrices in linear layers and convolutions, kept in the files that peft reads and writes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regraft.backbone.view import View
from regraft.errors import UsageError
from regraft.inserts import _files, _peft
from regraft.inserts._bits import Bits
from regraft.inserts._lowrank import (
    TURNED,
    Form,
    adapt,
    adapted,
    adapter,
    grouped,
    held,
    holdable,
    is_read,
    linear,
    own,
    release,
    settle,
    suited,
    summed,
)
from regraft.inserts._peft import BITS, CONFIG, ROOT, WEIGHTS
from regraft.waist import Insert

DRAWN = 0
FOREIGN = (
    *("lora_bias", "layer_replication", "target_parameters", "trainable_token_indices", "megatron_config"),
    *("use_qalora", "use_bdlora", "velora_config", "kasa_config", "monteclora_config", "arrow_config"),
    *("alora_invocation_tokens",),
)
"""Settings of peft under which its matrices do something else."""
INITS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Starts of matrices that leave the network's own weights as they are."""


def put(view: View, insert: Insert, seed: int) -> None:
    """Put matrices of rank `size` into layers of the insert's stages; they change no output before they are trained.

    `where` is "linear", "conv", "all", or "auto": whichever of the two holds more weights there, without convolutions
    in groups: their kernels are about as small as the matrices would be, and peft has no such form for them. With the
    setting `bits` weights of linear layers are held in so many; those of the view are left as they are.

    Raises: UsageError: there is no such layer in these stages.
    """
    told = dict(insert.settings)
    root = math.sqrt(insert.size) if told.get("rs") else insert.size
    form = Form(insert.size, float(told["alpha"]) / root, bool(told.get("dora")))
    draw, found = torch.Generator().manual_seed(seed), _targets(view, insert)
    if not found:
        names = ", ".join(view.stages[i].name for i in insert.stages)
        raise UsageError(
            "there is no layer to put LoRA into",
            saw=f"{insert.where} layers in {names}",
            allowed="stages with linear layers or convolutions",
            do="choose more stages (--lora.last) or other layers (--lora.targets all)",
        )
    few = _held(view, insert)
    for path, layer in found:
        adapt(layer, form, draw, is_read(view.module, path), few.get(path, 0))


def kept(view: View, insert: Insert) -> list[nn.Parameter]:
    """Weights that nothing is written to, ever: a copy that the insert is put into may share them with the network."""
    return [own(view.module.get_submodule(path)) for path in _held(view, insert)]  # type: ignore[misc]


def take_out(view: View) -> None:
    """Take all matrices out again: the network is what it was before, bit for bit."""
    for layer in adapted(view.module).values():
        release(layer)


def merge(view: View) -> None:
    """Write the matrices into the weights of their layers, and take them out."""
    for layer in adapted(view.module).values():
        settle(layer)


def remake(folder: Path, name: str, weight: Tensor) -> Tensor | None:
    """The weight of that name in a network's files with an adapter's matrices merged, by the same bits as `merge`.

    None where the adapter has none for it, or keeps norms (DoRA): their last bits depend on the machine.
    """
    config, tensors = _read(folder)
    paths = {key.partition(".lora_")[0] for key in tensors if ".lora_A" in key}
    alike = (p for p in sorted(paths) if f".{name}".endswith(f".{p}.weight") or f".{p}.weight".endswith(f".{name}"))
    path = next(alike, None)
    if path is None or any(key.startswith(f"{path}.lora_magnitude") for key in tensors):
        return None
    A, B = (tensors[f"{path}.lora_{kind}.weight"] for kind in "AB")
    rank, turned = A.shape[0], bool(config.get("fan_in_fan_out"))
    scale = _alpha(config, path) / (math.sqrt(rank) if config.get("use_rslora") else rank)
    if path in config[BITS]:
        weight = Bits(nn.Parameter(weight, False), config[BITS][path], turned).whole()
    return summed(weight, A, B, scale, turned)


def files(view: View, insert: Insert, head: nn.Module, base: str) -> dict[str, bytes]:
    """The matrices with the head and the layers that the checkpoint lacked, as peft's two files; see `_peft.files`."""
    told, layers = dict(insert.settings), adapted(view.module)
    parts: dict[str, dict[str, Tensor]] = {}
    for path, layer in layers.items():
        one = adapter(layer)
        parts[path] = {".lora_A.weight": one.A, ".lora_B.weight": one.B}
        if one.magnitude is not None:
            wide = (1, -1, *(1 for _ in one.A.shape[2:])) if one.A.ndim > 2 else (-1,)
            parts[path][".lora_magnitude_vector"] = one.magnitude.view(wide)
    config = {
        "peft_type": "LORA",
        "r": insert.size,
        "lora_alpha": told["alpha"],
        "use_rslora": bool(told.get("rs")),
        "use_dora": bool(told.get("dora")),
        "fan_in_fan_out": any(type(layer).__name__ == TURNED for layer in layers.values()),
        "bias": "none",
        "lora_dropout": 0.0,
    }
    return _peft.files(view, head, base, parts, config, {path: held(m) for path, m in layers.items() if held(m)})


def load(view: View, folder: Path) -> str:
    """Put the matrices of an adapter's folder into a network, and what was trained whole beside them in its place.

    The head is then the view's native one.

    Returns: The pooling that the head takes: "native" where it stands in the network's own place, "mean" where it lies
    beside it, "" where the adapter brings none.
    Raises: ModelError: the folder holds no LoRA, one that computes otherwise, or one of another network.
    """
    config, tensors = _read(folder)
    placed = dict(view.module.named_modules())
    parts: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name, mark, kind = key.partition(".lora_")
        if mark:
            kind = kind.removesuffix(".weight")
            dora = kind.startswith("magnitude_vector")
            parts.setdefault(name, {})["magnitude" if dora else kind] = tensor.flatten() if dora else tensor
        else:
            whole[name] = tensor
    for name, given in parts.items():
        path = _files.path(placed, name, _files.prefix(view.module))
        layer = placed.get(path)
        if layer is None or not suited(layer) or not {"A", "B"} <= given.keys():
            raise _files.other(folder, name)
        rank = given["A"].shape[0]
        root = math.sqrt(rank) if config.get("use_rslora") else rank
        form = Form(rank, _alpha(config, name) / root, "magnitude" in given)
        few = config[BITS].get(name, 0)
        if few and (form.dora or not linear(layer) or not holdable(view.module, path)):
            raise _files.other(folder, f"{name}: {BITS} {few}")
        adapt(layer, form, torch.Generator().manual_seed(DRAWN), is_read(view.module, path), few)
        _files.fill(folder, name, dict(adapter(layer).named_parameters()), given)
    return _peft.put_whole(view, folder, whole)


def _targets(view: View, insert: Insert) -> list[tuple[str, nn.Module]]:
    """Path and layer of all that an insert enters, each once, in the network's order."""
    found: dict[nn.Module, str] = {}
    for path in (path for stage in insert.stages for path in view.seams.members[stage]):
        for name, layer in view.module.get_submodule(path).named_modules():
            if suited(layer):
                found.setdefault(layer, f"{path}.{name}" if name else path)
    sizes = {True: 0, False: 0}
    for layer in found:
        sizes[linear(layer)] += own(layer).numel()
    wanted = {"linear": (True,), "conv": (False,), "all": (True, False)}.get(insert.where)
    wanted = wanted or (sizes[True] >= sizes[False],)
    return [
        (path, layer)
        for layer, path in found.items()
        if linear(layer) in wanted and not (insert.where == "auto" and grouped(layer))
    ]


def _held(view: View, insert: Insert) -> dict[str, int]:
    """Path → bits of the layers whose weights an insert holds in few.

    Raises: UsageError: it holds weights in few bits, and there is none that can be.
    """
    bits = int(dict(insert.settings).get("bits", 0))
    found = {path: bits for path, layer in _targets(view, insert) if linear(layer) and holdable(view.module, path)}
    if bits and not found:
        raise UsageError(
            f"there is no weight to hold in {bits} bits",
            saw=f"{insert.where} layers in " + ", ".join(view.stages[i].name for i in insert.stages),
            allowed="linear layers that are called for their outputs, of which nothing else reads the weight",
            do="leave out --lora.bits, or choose more stages (--lora.last) or layers (--lora.targets)",
        )
    return found if bits else {}


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the tensors in a folder, by their names in the network."""

    def strange(config: Mapping[str, Any]) -> list[str]:
        start = [] if config.get("init_lora_weights", True) in INITS else ["init_lora_weights"]
        return [*(name for name in FOREIGN if config.get(name)), *start]

    return _peft.read(folder, "LoRA", strange)


def _alpha(config: Mapping[str, Any], name: str) -> float:
    """The alpha of a layer: patterns are those of peft, which match the end of a name."""
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return float(value)
    return float(config["lora_alpha"])


def combined(folders: Sequence[Path], weights: Sequence[float], rank: int) -> dict[str, bytes]:
    """The weighted sum of the matrices in several adapters' folders, as peft's two files.

    Exact by concatenation: A has all rows one after the other, B all columns, each scaled and weighted; rows that an
    adapter lacks for a layer are zero. With a `rank` the sum is cut to the nearest of that rank by its singular values.
    What was trained whole beside the matrices is the first adapter's.

    Raises: ModelError: a folder holds no LoRA or norms (DoRA), or the adapters are of different networks.
    """
    read = [_read(folder) for folder in folders]
    first, kept = read[0]
    parts: dict[str, list[tuple[Tensor, Tensor] | None]] = {}
    for number, (folder, (config, tensors)) in enumerate(zip(folders, read, strict=True)):
        unlike = [name for name in ("fan_in_fan_out", BITS) if (config.get(name) or 0) != (first.get(name) or 0)]
        if wrong := [*(["use_dora"] if config.get("use_dora") else []), *unlike]:
            raise _files.other(folder, wrong[0])
        for key in tensors:
            name, mark, _ = key.partition(".lora_A")
            if mark:
                A, B = tensors[key], tensors[f"{name}.lora_B.weight"]
                root = math.sqrt(len(A)) if config.get("use_rslora") else len(A)
                scale = weights[number] * _alpha(config, name) / root
                parts.setdefault(name, [None] * len(read))[number] = A, B * scale
    ranks = [max((len(one[n][0]) for one in parts.values() if one[n]), default=0) for n in range(len(read))]  # type: ignore[index]
    found = {key: tensor for key, tensor in kept.items() if ".lora_" not in key}
    for name, some in parts.items():
        shapes = {(one[0].shape[1:], len(one[1])) for one in some if one}
        if len(shapes) > 1:
            raise _files.other(folders[-1], name)
        (taken, out), tail = shapes.pop(), next(one[1].shape[2:] for one in some if one)
        a, b = [], []
        for size, one in zip(ranks, some, strict=True):
            A, B = one or (torch.zeros(0, *taken), torch.zeros(out, 0, *tail))
            a += [A, torch.zeros(size - len(A), *taken)]
            b += [B, torch.zeros(out, size - len(A), *tail)]
        A, B = torch.cat(a), torch.cat(b, 1)
        if rank:
            U, S, V = torch.linalg.svd(B.flatten(1).double() @ A.flatten(1).double(), full_matrices=False)
            most = min(rank, len(S))
            A, B = torch.zeros(rank, *taken), torch.zeros(out, rank, *tail)
            A[:most] = V[:most].reshape(most, *taken).float()
            B[:, :most] = (U[:, :most] * S[:most]).reshape(out, most, *tail).float()
        found |= {f"{name}.lora_A.weight": A, f"{name}.lora_B.weight": B}
    size = rank or sum(ranks)
    targets = sorted(parts)
    told = {"r": size, "lora_alpha": size, "use_rslora": False, "target_modules": targets}
    config = {**first, **told, "rank_pattern": {}, "alpha_pattern": {}}
    bits = config.pop(BITS)
    files = {CONFIG: json.dumps(config, indent=2, ensure_ascii=False).encode("utf-8", "replace")}
    if (folders[0] / _files.HEAD).is_file():
        files[_files.HEAD] = (folders[0] / _files.HEAD).read_bytes()
    return files | {WEIGHTS: _peft.packed({ROOT + name: tensor for name, tensor in found.items()}, bits)}
