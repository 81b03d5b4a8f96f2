"""A bundle's record: written beside its files, read back with every file's bytes compared to it."""

from __future__ import annotations

import json
from pathlib import Path

from regraft.errors import ModelError
from regraft.kit import durable
from regraft.kit.store import record
from regraft.waist import Bundle, fingerprint, plain

NAME = "regraft.json"
SCHEMA = 1
ITSELF = "sha256"
"""The entry that vouches for all others; bundles of the first versions have none."""


def is_bundle(folder: Path) -> bool:
    """Whether a folder claims to be a bundle."""
    return (folder / NAME).is_file()


def write(folder: Path, bundle: Bundle) -> None:
    """Put a bundle's record beside its files; it vouches for them and for itself."""
    told = plain(bundle)
    durable.write_json(folder / NAME, {**told, ITSELF: fingerprint(told)})


def read(folder: Path) -> Bundle:
    """The record of a bundle whose files are all as they were written.

    Raises: ModelError: it is unreadable, of a later schema, or a file in it was changed.
    """
    try:
        told = json.loads((folder / NAME).read_bytes())
        schema, known = int(told["schema"]), told.pop(ITSELF, "")
        if schema <= SCHEMA:
            bundle = record(Bundle, told)
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ModelError(
            "this bundle cannot be read", saw=f"{folder / NAME}: {type(error).__name__}", do="pack it again"
        ) from error
    if schema > SCHEMA:
        raise ModelError(
            "this bundle was made by a later regraft",
            saw=f"schema {schema}",
            allowed=f"schema {SCHEMA} or below",
            do="upgrade regraft",
        )
    wrong = f"{NAME} has changed bytes" if known and known != fingerprint(told) else ""
    if wrong := wrong or durable.changed(folder, bundle.files):
        raise ModelError(
            "this bundle is not what was packed",
            saw=f"{folder}: {wrong}",
            allowed="the files whose sums regraft.json holds",
            do="copy the bundle again, or run the command that made it",
        )
    return bundle
