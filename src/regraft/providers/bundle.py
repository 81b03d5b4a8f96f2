"""Bundles as backbones: what a run shipped can be predicted with, and adapted further."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.backbone import bundle, shared
from regraft.backbone.names import named
from regraft.kit import durable, shelf

if TYPE_CHECKING:
    from regraft.backbone.view import View


def find(query: Any) -> bool:
    """Whether `query` is a bundle's folder, or a run that has one."""
    return isinstance(query, (str, Path)) and bundle.is_bundle(folder(query))


def folder(query: str | Path) -> Path:
    """The bundle itself, given it or its run."""
    path = Path(query)
    return path / "bundle" if bundle.is_bundle(path / "bundle") else path


def whole(path: Path) -> Path:
    """The bundle with all of its files: itself, or where it shares a base a copy that was put together."""
    return shared.whole(path) if shared.is_shared(path) else path


def fingerprint(query: Any) -> str:
    """As the provider that opens the native files says, and what lies beside them and is put in."""
    path = folder(query)
    told = bundle.read(path)
    found: str = shelf.find("providers", told.provider).fingerprint(str(whole(path)))
    beside = [f"{name} {digest}" for name, digest in told.files if name.startswith(bundle.ADAPTER) and told.inserts]
    return durable.digest("\n".join([found, *beside]).encode()) if beside else found


def load(query: Any, modality: str = "", arch: str = "") -> View:
    """The bundle's network, after its bytes were checked; its labels are the record's, but for a head on pairs.

    Raises: ModelError: a file was changed, or its library cannot open it.
    """
    from torch import nn

    path = whole(folder(query))
    told = bundle.read(path)
    view: View = shelf.find("providers", told.provider).load(str(path), modality or told.modality, arch)
    bundle.wear(view, path, told.inserts)
    if isinstance(view.native, nn.Linear) and view.native.in_features == view.dim:
        view.labels = named(told.target.labels, view.native.out_features)
    return view
