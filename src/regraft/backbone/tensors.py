"""Weights by name: read from a file without running anything in it, put into a network, packed for a bundle."""

from __future__ import annotations

import contextlib
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regraft.backbone.pictures import said
from regraft.backbone.view import View
from regraft.errors import ModelError, ResourceError
from regraft.kit import hardware

NESTED = ("state_dict", "model_state", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "model.")


def read_state(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state dict in a file, and what was done to it; nothing in the file is run.

    Raises: ModelError: it is no state dict, or a pickle that needs code. ResourceError: it is larger than memory.
    """
    if (size := _declared(path)) > hardware.memory_bytes():
        raise ResourceError(
            "these weights do not fit into memory",
            saw=f"{path}: {size / 1e9:,.1f} GB",
            allowed=f"{hardware.memory_bytes() / 1e9:,.1f} GB",
            do="choose a smaller model",
        )
    found = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    for _ in NESTED:
        if isinstance(found, Mapping):
            found = next((found[key] for key in NESTED if isinstance(found.get(key), Mapping)), found)
    tensors = {str(k): v for k, v in found.items() if torch.is_tensor(v)} if isinstance(found, Mapping) else {}
    if not tensors:
        raise ModelError(
            "this file holds no state dict",
            saw=f"{path}: {type(found).__name__}",
            allowed="names with tensors, as torch.save(network.state_dict(), path) writes",
            do="save the weights alone",
        )
    notes = []
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
            notes.append(f"the names of the weights began with {prefix}, which was taken off")
    return tensors, tuple(notes)


def fill(module: nn.Module, tensors: Mapping[str, Tensor], head: str) -> None:
    """Put weights into a network; all but the head's must be there, and nothing else.

    Raises: ModelError: weights are missing, or belong to something else; they are counted, the first are named.
    """
    own = module.state_dict()
    spare = {name for name in own if name.startswith(f"{head}.") or name.endswith("num_batches_tracked")}
    found = {
        "missing": [name for name in own if name not in tensors and name not in spare],
        "unexpected": [name for name in tensors if name not in own],
        "of another shape": [name for name in own if name in tensors and own[name].shape != tensors[name].shape],
    }
    if any(found.values()):
        counts = [f"{len(names)} {kind} ({', '.join(names[:3])})" for kind, names in found.items() if names]
        raise ModelError(
            "these weights do not belong to this network",
            saw=", ".join(counts),
            allowed="every weight of the architecture; the head alone may be missing or have other classes",
            do="check the architecture (--arch)",
        )
    module.load_state_dict({**own, **tensors}, strict=True)


def packed(view: View, head: nn.Module) -> bytes:
    """All weights of a network with `head` in its native place, as safetensors."""
    from safetensors.torch import save

    whole = dict(view.module.state_dict()) | {f"{view.head}.{name}": t for name, t in head.state_dict().items()}
    return save({name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in whole.items()})


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw random numbers from `seed` while the block runs; the caller's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _declared(path: Path) -> int:
    """Bytes that a file's tensors take once they are unpacked: an archive may hold more than its own size."""
    size = path.stat().st_size
    with contextlib.suppress(zipfile.BadZipFile):
        if path.suffix != ".safetensors" and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = max(size, sum(entry.file_size for entry in archive.infolist()))
    return size


def _safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # the library's own class, or what the system says
        raise ModelError(
            "these weights cannot be read", saw=f"{path}: {said(error)}", allowed="safetensors", do="copy them again"
        ) from error


def _pickled(path: Path) -> Any:
    """What torch saved, opened without running anything in it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what such a file might be; what it may do is bounded
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken or hostile file leads the unpickler to
        try:
            wants = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        except Exception:  # no archive of torch
            wants = []
        runs = bool(wants) or "Unsupported" in str(error)
        raise ModelError(
            "this file is a pickle that runs code when opened" if runs else "these weights cannot be read",
            saw=f"{path}: {', '.join(wants[:3]) or said(error)}",
            allowed="a state dict: names with tensors, and plain values around it",
            do="where you trust its origin, open it there and save network.state_dict() alone",
        ) from error
