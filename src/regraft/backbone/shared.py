"""Bundles of one backbone: what they have in common lies once beside them, and each holds what is its own.

A file of weights is taken apart into its tensors. Those that the base has, bit for bit, are left out; so are those
that an insert's own files make of the base's (`remake` in inserts/), where that gives the same bits. Put together
again it is the same file, and the sums in the bundle's record still hold.
"""

from __future__ import annotations

import atexit
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from regraft.errors import ModelError
from regraft.kit import durable, shelf
from regraft.kit.store import record
from regraft.waist import fingerprint, plain

if TYPE_CHECKING:
    from torch import Tensor

RECORD, BASE = "shared.json", "base.json"
SCHEMA = 1
WEIGHTS, OWN = ".safetensors", ".own"
ITSELF = "sha256"


@dataclass(frozen=True, slots=True)
class Base:
    """A backbone's native files, kept once: which provider opens them, and what they were when they were written.

    `mark` is the fingerprint of the model that they came from, `files` are (name, SHA-256).
    """

    schema: int
    name: str
    provider: str
    modality: str
    mark: str
    files: tuple[tuple[str, str], ...]


class Origin(NamedTuple):
    """Where a tensor's bytes are: at `place` in the base ("file:tensor"), as an `insert` changes it ("kind:folder").

    Without a place they lie in the bundle itself.
    """

    tensor: str
    place: str = ""
    insert: str = ""


@dataclass(frozen=True, slots=True)
class Cut:
    """A file of weights that was taken apart: its name, its first bytes, and where each tensor is, in their order."""

    name: str
    head: str
    tensors: tuple[Origin, ...]


@dataclass(frozen=True, slots=True)
class Shared:
    """What a bundle takes from a base: the way there from its own folder, and the SHA-256 of the base's record.

    `same` are (name, name in the base) of equal files, `files` are (name, SHA-256) of what lies in the bundle.
    """

    schema: int
    base: str
    mark: str
    same: tuple[tuple[str, str], ...]
    cut: tuple[Cut, ...]
    files: tuple[tuple[str, str], ...]


class Piece(NamedTuple):
    """A tensor in a file of weights: its kind, and where its bytes begin and end."""

    name: str
    kind: str
    begin: int
    end: int


def is_shared(folder: Path) -> bool:
    """Whether a bundle takes some of its files from a base."""
    return (folder / RECORD).is_file()


def write_base(folder: Path, base: Base) -> None:
    """Put a base's record beside its files."""
    durable.fill(folder / BASE, json.dumps(plain(base), indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def read_base(folder: Path) -> Base:
    """The record of a base whose files are all as they were written.

    Raises: ModelError: there is none, it cannot be read, or a file was changed.
    """
    try:
        base = record(Base, json.loads((folder / BASE).read_bytes()))
    except (OSError, ValueError) as error:
        raise ModelError(
            "there is no base here", saw=f"{folder}: {type(error).__name__}", allowed=BASE, do="check the path"
        ) from error
    if wrong := durable.changed(folder, base.files):
        raise ModelError(
            "this base is not what was written",
            saw=f"{folder}: {wrong}",
            allowed=f"the files whose sums {BASE} holds",
            do="copy it again, or remove the folder and run the command that made it",
        )
    return base


def share(bundle: Path, base: Path, final: Path, inserts: Sequence[str] = ()) -> Shared:
    """Write a whole bundle once more, into the new folder `final`, without what the base has.

    `inserts` are kinds of inserts, each with the folder of its files in the bundle: "lora:adapter".

    Raises: ModelError: the base cannot be read.
    """
    kept = {digest: name for name, digest in read_base(base).files}
    there = _index(base)
    apart = tuple(f"{insert.partition(':')[2]}/" for insert in inserts)
    same, cut = [], []
    with durable.folder(final) as part:
        for path in sorted(p for p in bundle.rglob("*") if p.is_file()):
            name, data = path.relative_to(bundle).as_posix(), path.read_bytes()
            if name.startswith(apart):
                durable.fill(part / name, data)
            elif found := kept.get(durable.digest(data)):
                same.append((name, found))
            elif path.suffix == WEIGHTS and (some := _cut(name, data, base, there, [(i, bundle) for i in inserts])):
                cut.append(some[0])
                if some[1]:
                    durable.fill(part / f"{name}{OWN}", some[1])
            else:
                durable.fill(part / name, data)
        way = Path(*[".."] * (len(final.resolve().relative_to(base.resolve().parent).parts)), base.name).as_posix()
        mark = durable.file_digest(base / BASE)
        told = Shared(SCHEMA, way, mark, tuple(same), tuple(cut), tuple(durable.sums(part).items()))
        durable.write_json(part / RECORD, {**plain(told), ITSELF: fingerprint(plain(told))})
    return told


def read(folder: Path) -> Shared:
    """What a bundle takes from its base, both of them as they were written.

    Raises: ModelError: the record or a file was changed, the base is not where it was, or is another one.
    """
    try:
        told = json.loads((folder / RECORD).read_bytes())
        known = told.pop(ITSELF, "")
        shared = record(Shared, told)
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            "this bundle cannot be read", saw=f"{folder / RECORD}: {type(error).__name__}", do="copy it again"
        ) from error
    names = [name for name, _ in (*shared.same, *shared.files)] + [there for _, there in shared.same]
    names += [one.name for one in shared.cut]
    origins = [origin for one in shared.cut for origin in one.tensors]
    names += [one.place.partition(":")[0] for one in origins if one.place]
    names += [one.insert.partition(":")[2] for one in origins if one.insert]
    if stray := strays(names):
        raise ModelError(
            "this bundle names files outside of its folder",
            saw=f"{folder / RECORD}: {stray}",
            allowed="names of files in it and in its base",
            do="do not open it: no run writes such a record",
        )
    wrong = "" if known == fingerprint(told) else f"{RECORD} has changed bytes"
    if wrong := wrong or durable.changed(folder, shared.files):
        raise ModelError(
            "this bundle is not what was packed",
            saw=f"{folder}: {wrong}",
            allowed=f"the files whose sums {RECORD} holds",
            do="copy the bundle again, or run the command that made it",
        )
    base = base_of(folder, shared)
    if not (base / BASE).is_file():
        raise ModelError(
            "this bundle was moved away from the base that holds most of its weights",
            saw=f"{folder}: nothing in {base}",
            allowed=f"the base with {BASE} of SHA-256 {shared.mark[:12]}…",
            do="move it back; regraft adapters export FAMILY TASK --out FOLDER makes a bundle that needs none",
        )
    if durable.file_digest(base / BASE) != shared.mark:
        raise ModelError(
            "the base beside this bundle is another one",
            saw=f"{base / BASE}: SHA-256 {durable.file_digest(base / BASE)[:12]}…",
            allowed=f"{shared.mark[:12]}…",
            do="put it beside the base that it was made with",
        )
    return shared


def strays(names: Iterable[str]) -> str:
    """The first of some names that leads out of the folder that it is looked up in, "" for none.

    >>> strays(["model.safetensors", "adapter/head.safetensors"]), strays(["a", "../b"]), strays(["/etc/x"])
    ('', '../b', '/etc/x')
    """

    def leads(name: str) -> bool:
        return not name or "\\" in name or ":" in name or name.startswith("/") or ".." in name.split("/")

    return next((name or "a name without letters" for name in names if leads(name)), "")


def base_of(folder: Path, shared: Shared) -> Path:
    """The folder of a bundle's base."""
    return (folder.resolve() / shared.base).resolve()


def whole(folder: Path) -> Path:
    """The bundle with all of its files, put together in a temporary folder that stays as long as this process does.

    Files that it has in common with the base are links to these: nobody writes there, and whoever opens the bundle
    compares all bytes with its record.

    Raises: as `read`; ModelError: a file of the base was changed.
    """
    shared = read(folder)
    key = f"{folder.resolve()} {durable.file_digest(folder / RECORD)}"
    if key not in _made:
        base = base_of(folder, shared)
        read_base(base)
        place = Path(tempfile.mkdtemp(prefix="regraft-"))
        atexit.register(durable.remove, place)
        for name, there in shared.same:
            durable.mirror(place / name, base / there)
        for name, _ in shared.files:
            if not name.endswith(OWN):
                durable.mirror(place / name, folder.resolve() / name)
        for one in shared.cut:
            durable.fill(place / one.name, b"".join(_joined(folder, base, one)))
        _made[key] = place
    return _made[key]


_made: dict[str, Path] = {}


# ---------------------------------------------------------------- files of weights


def _pieces(data: bytes) -> tuple[bytes, list[Piece]]:
    """The first bytes of a safetensors file, and its tensors in the order of their bytes."""
    begin = 8 + int.from_bytes(data[:8], "little")
    told = {n: one for n, one in json.loads(data[8:begin]).items() if n != "__metadata__"}
    found = [
        Piece(n, f"{one['dtype']} {one['shape']}", *(begin + at for at in one["data_offsets"]))
        for n, one in told.items()
    ]
    return data[8:begin], sorted(found, key=lambda piece: (piece.begin, piece.end))


def _index(base: Path) -> dict[str, str]:
    """Digest of a tensor's kind and bytes → its place in the base."""
    found: dict[str, str] = {}
    for path in sorted(base.rglob(f"*{WEIGHTS}")):
        data = path.read_bytes()
        for piece in _pieces(data)[1]:
            found.setdefault(_digest(piece, data), f"{path.relative_to(base).as_posix()}:{piece.name}")
    return found


def _digest(piece: Piece, data: bytes) -> str:
    return durable.digest(piece.kind.encode() + data[piece.begin : piece.end])


def _cut(
    name: str, data: bytes, base: Path, there: dict[str, str], inserts: Iterable[tuple[str, Path]]
) -> tuple[Cut, bytes] | None:
    """A file of weights taken apart, and the bytes of what is its own; None where all of it is."""
    head, pieces = _pieces(data)
    makers = list(inserts)
    origins, own = [], []
    for piece in pieces:
        origin = Origin(piece.name, there.get(_digest(piece, data), ""))
        if not origin.place:
            origin = _inserted(piece, data, base, there, makers) or origin
        if not origin.place:
            own.append(data[piece.begin : piece.end])
        origins.append(origin)
    return (Cut(name, head.decode(), tuple(origins)), b"".join(own)) if len(own) < len(origins) else None


def _inserted(
    piece: Piece, data: bytes, base: Path, there: dict[str, str], inserts: Sequence[tuple[str, Path]]
) -> Origin | None:
    """The origin of a tensor that an insert makes of the base's tensor of that name, bit for bit; None where none."""
    for place in there.values():
        if not _alike(place.partition(":")[2], piece.name):
            continue
        for insert, bundle in inserts:
            made = _remade(bundle, base, place, insert, piece.name)
            if made is not None and made == data[piece.begin : piece.end]:
                return Origin(piece.name, place, insert)
    return None


def _alike(a: str, b: str) -> bool:
    """Whether two names mean one tensor, of which one may have a prefix more."""
    return a == b or a.endswith("." + b) or b.endswith("." + a)


def _joined(folder: Path, base: Path, cut: Cut) -> Iterator[bytes]:
    """The bytes of a file of weights, put together again."""
    head = cut.head.encode()
    yield len(head).to_bytes(8, "little") + head
    own = (folder / f"{cut.name}{OWN}").read_bytes() if any(not one.place for one in cut.tensors) else b""
    told, at = json.loads(head), 0
    for one in cut.tensors:
        if not one.place:
            begin, end = told[one.tensor]["data_offsets"]
            yield own[at : at + end - begin]
            at += end - begin
        elif one.insert:
            yield _remade(folder, base, one.place, one.insert, one.tensor) or b""
        else:
            yield _bytes(_tensor(base, one.place))


def _remade(bundle: Path, base: Path, place: str, insert: str, name: str) -> bytes | None:
    """The bytes of a base's tensor as an insert changes it; None where it does not."""
    kind, _, folder = insert.partition(":")
    made: Tensor | None = shelf.find("inserts", kind).remake(bundle / folder, name, _tensor(base, place))
    return None if made is None else _bytes(made)


def _tensor(base: Path, place: str) -> Tensor:
    from safetensors import safe_open

    file, _, name = place.partition(":")
    with safe_open(base / file, "pt") as held:
        found: Tensor = held.get_tensor(name)
    return found


def _bytes(tensor: Tensor) -> bytes:
    from safetensors.torch import save

    data = save({"weight": tensor.contiguous()})
    return data[8 + int.from_bytes(data[:8], "little") :]
