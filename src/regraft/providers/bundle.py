"""Bundles as backbones: what a run shipped can be predicted with, and adapted further."""

from __future__ import annotations

from pathlib import Path

from regraft.backbone import bundle
from regraft.backbone.view import View
from regraft.kit import shelf


def find(query: str) -> bool:
    """Whether `query` is a bundle's folder, or a run that has one."""
    return bundle.is_bundle(folder(query))


def folder(query: str) -> Path:
    """The bundle itself, given it or its run."""
    path = Path(query)
    return path / "bundle" if bundle.is_bundle(path / "bundle") else path


def fingerprint(query: str) -> str:
    """As the provider that opens the native files says."""
    found: str = shelf.find("providers", "transformers").fingerprint(str(folder(query)))
    return found


def load(query: str) -> View:
    """The bundle's network, after its bytes were checked.

    Raises: ModelError: a file was changed, or its library cannot open it.
    """
    path = folder(query)
    bundle.read(path)
    view: View = shelf.find("providers", "transformers").load(str(path))
    return view
