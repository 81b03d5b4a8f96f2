"""Adapters of peft as backbones: a folder of LoRA or IA3, merged into the network that it was trained in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.errors import ModelError, UsageError
from regraft.kit import durable, shelf

if TYPE_CHECKING:
    from types import ModuleType

    from regraft.backbone.view import View

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def find(query: Any) -> bool:
    """Whether `query` is a folder that peft saved."""
    return isinstance(query, (str, Path)) and (Path(query) / CONFIG).is_file()


def fingerprint(query: Any) -> str:
    """Of the adapter's files; the network is part of the request where it is named, and otherwise of these files."""
    names = [name for name in (CONFIG, WEIGHTS, "head.safetensors") if (Path(query) / name).is_file()]
    return durable.digest("".join(durable.file_digest(Path(query) / name) for name in names).encode())


def load(query: Any, modality: str = "", arch: str = "") -> View:
    """The network `arch`, or the one that the configuration names, with the matrices merged and the adapter's head.

    Where neither of them has a head, the view's own is none.

    Raises: UsageError: no network is named that is here; ModelError: the adapter is not for it.
    """
    from torch import nn

    folder = Path(query)
    base, provider = _base(folder, arch)
    view: View = provider.load(base, modality)
    item = shelf.find("inserts", _kind(folder))
    pooling = item.load(view, folder)
    item.merge(view)
    view = view.pooled(pooling) if pooling in view.calls else view
    view.name = folder.resolve().name
    if getattr(view.native, "out_features", 0) != len(view.labels):
        if not pooling and not view.labels:
            view.native = nn.Identity()  # neither of them has a head: what stands there is noise
        view.labels = ()
    return view


def _kind(folder: Path) -> str:
    """The file in inserts/ that reads an adapter; one that none can merge is left to LoRA's, which says what it saw."""
    kind = str(json.loads((folder / CONFIG).read_bytes()).get("peft_type")).lower()
    return kind if kind in shelf.names("inserts") and "merge" in vars(shelf.find("inserts", kind)) else "lora"


def _base(folder: Path, arch: str) -> tuple[str, ModuleType]:
    """The network that an adapter is for, and who opens it."""
    try:
        named = str(json.loads((folder / CONFIG).read_bytes()).get("base_model_name_or_path") or "")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            "this adapter cannot be read", saw=f"{folder / CONFIG}: {type(error).__name__}", do="save it again"
        ) from error
    for query in (arch,) if arch else (named, str(folder / named)) if named else ():
        for name in shelf.names("providers"):
            item = shelf.find("providers", name)
            if name != "adapter" and item.find(query):
                return query, item
    raise UsageError(
        "the network that this adapter was trained in is not here",
        saw=f"{folder / CONFIG} names {arch or named or 'none'}",
        allowed="a folder, or provider/NAME from the local caches",
        do="name it: --arch path/to/model",
    )
