"""The two files of peft: what an insert trained, with the head and what the checkpoint lacked, under peft's names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load as read_tensors
from safetensors.torch import save
from torch import Tensor, nn

from regraft.backbone.view import View
from regraft.errors import ModelError
from regraft.inserts import _files

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ROOT = "base_model.model."
"""What peft puts before the names of a network's modules."""
BITS = "regraft.bits"
"""Where a file of weights says in how many bits layers were held while it was trained; peft reads over it."""


def files(
    view: View,
    head: nn.Module,
    base: str,
    parts: Mapping[str, Mapping[str, Tensor]],
    config: Mapping[str, Any],
    bits: Mapping[str, int] | None = None,
) -> dict[str, bytes]:
    """peft's two files of `parts`, path → what follows it in a name → tensor, and of all that was trained whole.

    `bits` are path → in how many bits the weight beside it was held.

    Under another pooling than the native one names are those of the network without its head, which lies in a file of
    its own, `head.safetensors`: weight and bias.
    """
    prefix, trained = _files.shipped(view), _files.lacked(view)
    kept, made = {path.removeprefix(prefix) for path in trained}, dict[str, bytes]()
    tensors = {f"{ROOT}{path.removeprefix(prefix)}{n}": t for path, part in parts.items() for n, t in part.items()}
    for path in trained:
        part = view.module.get_submodule(path).state_dict()
        tensors |= {f"{ROOT}{path.removeprefix(prefix)}.{n}": t for n, t in part.items()}
    if view.pooling == "native" and view.head:
        kept.add(view.head)
        tensors |= {f"{ROOT}{view.head}.{n}": t for n, t in head.state_dict().items()}
    else:
        made |= _files.head_file(head)
    told = {
        "task_type": None,
        "base_model_name_or_path": base,
        **config,
        "target_modules": sorted(path.removeprefix(prefix) for path in parts),
        "modules_to_save": sorted(kept) or None,
        "inference_mode": True,
    }
    text = json.dumps(told, indent=2, ensure_ascii=False).encode("utf-8", "replace")
    return {
        CONFIG: text,
        WEIGHTS: packed(tensors, {p.removeprefix(prefix): n for p, n in (bits or {}).items()}),
        **made,
    }


def packed(tensors: Mapping[str, Tensor], bits: Mapping[str, int]) -> bytes:
    """A file of weights that says in how many bits layers were held, by their names, where any were."""
    return save(_files.plain(tensors), {BITS: json.dumps(bits)} if bits else None)


def read(
    folder: Path, kind: str, strange: Callable[[Mapping[str, Any]], Sequence[str]]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the tensors in a folder, by their names in the network; `packed`'s bits in `config[BITS]`.

    `strange` names settings under which such an adapter computes otherwise than here.

    Raises: ModelError: it cannot be read, or is of another kind.
    """
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        data = (folder / WEIGHTS).read_bytes()
        tensors = read_tensors(data)
        told = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
        config[BITS] = {str(name): int(bits) for name, bits in json.loads(told.get(BITS, "{}")).items()}
        others = [*strange(config), *([] if config["peft_type"] == kind.upper() else ["peft_type"])]
        others += [BITS] if {*config[BITS].values()} - {4, 8} else []
    except Exception as error:  # what is no folder of peft's, or damaged: the library has classes of its own
        raise ModelError(
            "this adapter cannot be read",
            saw=f"{folder}: {type(error).__name__}: {str(error)[:120]}",
            allowed=f"{CONFIG} and {WEIGHTS}, as peft saves them",
            do="save it again with safetensors",
        ) from error
    if others:
        raise ModelError(
            f"this adapter is no plain {kind}",
            saw=", ".join(f"{name} = {config[name]}" for name in others),
            allowed=f"{kind}, as it is saved here",
            do="merge it with peft and adapt what comes out",
        )
    ordered = sorted(tensors.items())  # a file has no order of its own
    return config, {name.replace(".base_layer.", ".").removeprefix(ROOT): tensor for name, tensor in ordered}


def put_whole(view: View, folder: Path, whole: Mapping[str, Tensor]) -> str:
    """Put what was trained whole in its place: the head is then the view's native one.

    Returns: The pooling that the head takes: "native" where it stands in the network's own place, "mean" where it lies
    beside it, "" where the adapter brings none.
    Raises: ModelError: it belongs to another network.
    """
    at = {name for name in whole if view.head and name.rpartition(".")[0] == view.head}
    _files.put_head(view, folder, {name.rpartition(".")[2]: whole[name] for name in at})
    _files.fill_whole(view, folder, {name: tensor for name, tensor in whole.items() if name not in at})
    return "native" if at else "mean" if (folder / _files.HEAD).is_file() else ""
