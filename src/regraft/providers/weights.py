"""A file of weights whose architecture the user names: `.safetensors`, or `.pth` opened without running it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.backbone import pictures
from regraft.errors import UsageError, near, unknown
from regraft.kit import durable, shelf

if TYPE_CHECKING:
    from regraft.backbone.view import View

ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
LIBRARIES = ("timm", "torchvision")


def find(query: Any) -> bool:
    """Whether `query` is a file that ends as weights do."""
    return isinstance(query, (str, Path)) and Path(query).suffix in ENDINGS and Path(query).is_file()


def fingerprint(query: Any) -> str:
    """SHA-256 of the file; the architecture is part of the request."""
    return durable.file_digest(Path(query))


def load(query: Any, modality: str = "", arch: str = "") -> View:
    """The architecture `arch` with these weights: `timm/NAME`, `torchvision/NAME`, or a name that one of the two knows.

    Bundles of it are those of the architecture's library.

    Raises: UsageError: no architecture, an unknown one, or one that both know. ModelError: a pickle that runs code; the
    weights do not belong to the architecture. ResourceError: they do not fit into memory.
    """
    pictures.asked(modality)
    if not arch:
        raise UsageError(
            "a file of weights does not say which network it belongs to",
            saw=f"{query} without --arch",
            allowed="--arch timm/NAME or --arch torchvision/NAME",
            do="name the architecture that these weights were saved from",
        )
    from regraft.backbone import tensors

    library, name = _of(arch)
    found, notes = tensors.read_state(Path(query))
    view: View = shelf.find("providers", library).built(name, found, Path(query).stem, notes)
    return view


def _of(arch: str) -> tuple[str, str]:
    """The library of an architecture, and its name there.

    Raises: UsageError: neither library knows it, or both do.
    """
    library, _, name = arch.rpartition("/")
    if library:
        if library not in LIBRARIES:
            raise unknown("library of architectures", library, LIBRARIES)
        return library, name
    known = {library: shelf.find("providers", library).names() for library in LIBRARIES}
    if not any(known.values()):
        return LIBRARIES[0], name  # which then says that it is not installed
    fitting = [library for library, names in known.items() if name.partition(".")[0] in names]
    if len(fitting) > 1:
        raise UsageError(
            "both libraries have an architecture of that name",
            saw=f"--arch {name}",
            allowed=" or ".join(f"--arch {library}/{name}" for library in fitting),
            do="name the library that the weights are from",
        )
    if not fitting:
        homes = {one: library for library, names in known.items() for one in names}
        guess = near(name, homes)
        raise UsageError(
            "there is no architecture of that name",
            saw=f"--arch {name}",
            allowed=" or ".join(f"one of {len(names)} of {library}" for library, names in known.items()),
            do=f"did you mean --arch {homes[guess]}/{guess}?" if guess else "look at what these libraries list",
        )
    return fitting[0], name
