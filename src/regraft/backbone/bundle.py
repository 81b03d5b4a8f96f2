"""Read a bundle's folder back: its record, with every file's bytes compared to the record."""

from __future__ import annotations

import json
from pathlib import Path

from regraft.errors import ModelError
from regraft.kit import durable
from regraft.kit.store import record
from regraft.waist import Bundle

NAME = "regraft.json"
SCHEMA = 1


def is_bundle(folder: Path) -> bool:
    """Whether a folder claims to be a bundle."""
    return (folder / NAME).is_file()


def read(folder: Path) -> Bundle:
    """The record of a bundle whose files are all as they were written.

    Raises: ModelError: it is unreadable, of a later schema, or a file in it was changed.
    """
    try:
        told = json.loads((folder / NAME).read_bytes())
        schema = int(told["schema"])
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
    if wrong := durable.changed(folder, bundle.files):
        raise ModelError(
            "this bundle is not what was packed",
            saw=f"{folder}: {wrong}",
            allowed="the files whose sums regraft.json holds",
            do="copy the bundle again, or run the command that made it",
        )
    return bundle
