"""Weights by name: read from a file without running anything in it, put into a network, packed for a bundle."""

from __future__ import annotations

import contextlib
import re
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
CODE = re.compile(r"(^|/)(code/|constants\.pkl$|archive_format$|archive_version$|models/.*\.json$)")
"""Entries of an archive that TorchScript and torch.export write, and torch.save does not."""
HEAD_BYTES = 8_000_000
"""Of a file that is no archive: where its pickle lies."""


def read_state(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state dict in a file, and what was done to it; nothing in the file is run.

    Raises: ModelError: it is no state dict, a program, a pickle that needs code, or claims more than it holds.
        ResourceError: it is larger than memory.
    """
    if path.suffix != ".safetensors":
        _refuse_bombs(path)
    if (size := path.stat().st_size) > hardware.memory_bytes():
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
    _refuse_lies(tensors, path, size)
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


def _refuse_bombs(path: Path) -> None:
    """Look at a file of torch before it is opened: what it holds, and what its pickle would make.

    torch.save compresses nothing and needs no bytearray; either may grow beyond all memory.

    Raises: ModelError: it holds code, compressed entries, or calls that make memory from a number.
    """
    code, packed, calls = False, "", b""
    with contextlib.suppress(zipfile.BadZipFile, OSError, NotImplementedError):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
                code = any(CODE.search(entry.filename) for entry in entries)
                packed = next((e.filename for e in entries if e.compress_type or e.file_size > e.compress_size), "")
                if not packed:
                    calls = b"".join(archive.read(e) for e in entries if e.filename.endswith(".pkl"))
    with path.open("rb") as file:
        grows = b"bytearray" in (calls or file.read(HEAD_BYTES))
    if code or packed or grows:
        raise ModelError(
            "this file is a program, not weights" if code else "these weights would unpack to more than the file holds",
            saw=f"{path}: {'TorchScript or torch.export' if code else packed or 'bytearray in its pickle'}",
            allowed="a state dict as torch.save writes it: names with tensors, nothing compressed",
            do="where you trust its origin, open it there and save network.state_dict() alone",
        )


def _refuse_lies(tensors: Mapping[str, Tensor], path: Path, size: int) -> None:
    """Refuse tensors that claim more than is in the file.

    Raises: ModelError: one is sparse or without data, or its shape is larger than the file; it is named.
    """
    for name, tensor in tensors.items():
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not plain or tensor.numel() * tensor.element_size() > max(size, tensor.untyped_storage().nbytes()):
            raise ModelError(
                "a tensor in this file is not what it says",
                saw=f"{path}: {name}, {tuple(tensor.shape)}, {tensor.layout} on {tensor.device}, in {size:,} bytes",
                allowed="tensors whose numbers are in the file",
                do="where you trust its origin, save network.state_dict() again",
            )


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
