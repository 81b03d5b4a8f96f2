"""A bundle's record: written beside its files, read back with every file's bytes compared to it; its inserts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.backbone import shared
from regraft.errors import ModelError
from regraft.kit import durable, shelf
from regraft.kit.store import record
from regraft.waist import Bundle, Insert, fingerprint, plain

if TYPE_CHECKING:
    from regraft.backbone.view import View

NAME = "regraft.json"
SCHEMA = 1
ITSELF = "sha256"
"""The entry that vouches for all others; bundles of the first versions have none."""
ADAPTER = "adapter"


def is_bundle(folder: Path) -> bool:
    """Whether a folder claims to be a bundle."""
    return (folder / NAME).is_file()


def write(folder: Path, bundle: Bundle) -> None:
    """Put a bundle's record beside its files; it vouches for them and for itself."""
    told = plain(bundle)
    durable.write_json(folder / NAME, {**told, ITSELF: fingerprint(told)})


def read(folder: Path) -> Bundle:
    """The record of a bundle whose files are all as they were written; of one that shares a base, those it has itself.

    Raises: ModelError: it is unreadable, of a later schema, a file in it was changed, or its base is not there.
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
    if shared.is_shared(folder):
        shared.read(folder)
        return bundle
    if wrong := wrong or durable.changed(folder, bundle.files):
        raise ModelError(
            "this bundle is not what was packed",
            saw=f"{folder}: {wrong}",
            allowed="the files whose sums regraft.json holds",
            do="copy the bundle again, or run the command that made it",
        )
    return bundle


def merges(insert: Insert) -> bool:
    """Whether an insert can be written into the weights beside it; another ships beside them."""
    return "merge" in vars(shelf.find("inserts", insert.kind))


def adapter(number: int) -> str:
    """The folder of an insert's own files in a bundle, the inserts that were not merged being counted first.

    >>> adapter(0), adapter(1)
    ('adapter', 'adapter-2')
    """
    return f"{ADAPTER}-{number + 1}" if number else ADAPTER


def wear(view: View, folder: Path, inserts: tuple[Insert, ...]) -> None:
    """Put the inserts of a bundle that are no part of its weights into its network.

    Raises: ModelError: as the insert; they belong to another network.
    """
    for number, insert in enumerate(inserts):
        shelf.find("inserts", insert.kind).load(view, folder / adapter(number))
    view.worn = inserts
