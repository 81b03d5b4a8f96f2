"""Inserts that no weight can hold: their own two files, insert.json and insert.safetensors, written and read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load as read_tensors
from safetensors.torch import save
from torch import Tensor, nn

from regraft.backbone.view import View
from regraft.errors import ModelError
from regraft.inserts import _files
from regraft.waist import Insert

CONFIG, WEIGHTS = "insert.json", "insert.safetensors"


def files(
    view: View, insert: Insert, head: nn.Module, base: str, places: Mapping[str, Mapping[str, Any]], parts: list[str]
) -> dict[str, bytes]:
    """The modules at `parts`, how they are used at `places`, the head, what the checkpoint lacked."""
    prefix, tensors = _files.shipped(view), dict[str, Tensor]()
    for path in parts + _files.lacked(view):
        part = view.module.get_submodule(path).state_dict()
        tensors |= {f"{path.removeprefix(prefix)}.{name}": t for name, t in part.items()}
    told = {
        "kind": insert.kind,
        "base": base,
        "size": insert.size,
        "where": insert.where,
        "places": {path.removeprefix(prefix): dict(how) for path, how in places.items()},
    }
    text = json.dumps(told, indent=2, ensure_ascii=False).encode("utf-8", "replace")
    return {CONFIG: text, WEIGHTS: save(_files.plain(tensors)), **_files.head_file(head)}


def read(view: View, folder: Path, kind: str) -> tuple[dict[str, tuple[nn.Module, dict[str, Any]]], dict[str, Tensor]]:
    """Name in the files → the module of this network and how the insert is used there; and the tensors by name.

    Raises: ModelError: the folder holds no such insert, or one of another network.
    """
    try:
        told = json.loads((folder / CONFIG).read_bytes())
        tensors = read_tensors((folder / WEIGHTS).read_bytes())
        places = {str(name): dict(how) for name, how in told["places"].items()}
        if told["kind"] != kind:
            raise ValueError(told["kind"])
    except Exception as error:  # damaged, or made by something else: the library has classes of its own
        raise ModelError(
            f"this {kind} cannot be read",
            saw=f"{folder}: {type(error).__name__}: {str(error)[:120]}",
            allowed=f"{CONFIG} and {WEIGHTS} of kind {kind}",
            do="copy the folder again",
        ) from error
    known = dict(view.module.named_modules())
    found = {}
    for name, how in places.items():
        module = known.get(_files.path(known, name, _files.prefix(view.module)))
        if module is None:
            raise _files.other(folder, name)
        found[name] = module, how
    return found, dict(sorted(tensors.items()))


def finish(view: View, folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Put the head and what was trained whole in its place.

    Raises: ModelError: it belongs to another network.
    """
    _files.put_head(view, folder, {})
    _files.fill_whole(view, folder, tensors)
