"""What the providers of picture networks share: a view of a network, its preparation compared, what may go wrong.

Torch is imported where it is needed: that a model is not on this machine is to be said in no time.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.errors import ModelError, RegraftError, UsageError, near
from regraft.kit import durable, shelf
from regraft.waist import InputSpec, Opening, Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from regraft.backbone.stages import Batch
    from regraft.backbone.view import View

WEIGHTS, CONFIG = "model.safetensors", "config.json"
RESAMPLE = {"nearest": 0, "nearest-exact": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
TOLERANCE = 1e-4
SEED = 0

SCORES = {
    "class": "outputs = [dict(zip(labels, row)) for row in made.softmax(-1).tolist()]",
    "multi": "outputs = [dict(zip(labels, row)) for row in made.sigmoid().tolist()]",
    "number": "outputs = made[:, 0].tolist()",
}
"""The last line of a bundle's lines, by what is predicted: raw outputs `made` and `labels` to `outputs`."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network that a library built, as `viewed` takes it; `build` makes another like it, at random."""

    name: str
    provider: str
    module: nn.Module
    head: str
    inputs: InputSpec
    config: str
    build: Callable[[], nn.Module]
    write: Callable[[View, nn.Module, Target, str], Opening]
    notes: tuple[str, ...] = ()


def viewed(network: Network) -> View:
    """The network as a view.

    Raises: ModelError: it cannot be traced or cut.
    """
    from regraft.backbone.tensors import seeded
    from regraft.backbone.view import View

    def fresh(seed: int) -> dict[str, Tensor]:
        with seeded(seed):
            twin = network.build()
        wanted = network.module.state_dict()
        return {name: tensor for name, tensor in twin.state_dict().items() if name in wanted}

    with explained(network.provider, network.name):
        return View(
            name=network.name,
            provider=network.provider,
            module=network.module,
            call=logits,
            inputs=network.inputs,
            example=example(network.inputs),
            head=network.head,
            notes=network.notes,
            config=network.config,
            fresh=fresh,
            write=network.write,
        )


def logits(module: nn.Module, batch: Batch) -> Tensor:
    """What a network gives for pictures: itself a tensor, or the `logits` of an output object."""
    import torch

    made = module(batch["pixel_values"])
    given: Tensor = made if torch.is_tensor(made) else made.logits
    return given


def example(inputs: InputSpec) -> dict[str, Tensor]:
    """Two pictures of noise to trace a network with."""
    batch: dict[str, Tensor] = shelf.find("modalities", "image").noise(inputs, 2, SEED)
    return batch


def head_of(module: nn.Module, classes: int, inputs: InputSpec) -> str:
    """Path of the native head: a linear layer with `classes` outputs, which are the network's.

    Raises: ModelError: there is none, or something comes behind it.
    """
    from regraft.backbone.stages import find_head, outline, removed

    bare, batch = outline(module.eval(), logits, example(inputs))
    head = find_head(bare, classes, lambda: logits(bare, batch))
    given: list[Tensor] = []
    with removed([bare.get_submodule(head).register_forward_hook(lambda _m, _a, out: given.append(out))]):
        made = logits(bare, batch)
    if given[-1] is not made:
        raise ModelError(
            "this network puts something behind its linear head, or has several",
            saw=f"{type(module).__name__}, whose output is not that of {head}",
            allowed="a linear layer at the end",
            do="choose another model",
        )
    return head


def filled(
    make: Callable[[int], nn.Module], classes: int, inputs: InputSpec, tensors: Mapping[str, Tensor]
) -> tuple[nn.Module, str, int]:
    """The network of `make(classes)` with these weights, its head's path, its classes: as many as the weights have.

    Raises: ModelError: weights are missing, or belong to something else; they are counted, the first are named.
    """
    from regraft.backbone.tensors import fill, seeded

    with seeded(SEED):
        module = make(classes)
        head = head_of(module, classes, inputs)
        held = len(tensors[f"{head}.weight"]) if f"{head}.weight" in tensors else classes
        if held != classes:
            module = make(held)
    fill(module, tensors, head)
    return module, head, held


def asked(modality: str, arch: str = "") -> None:
    """Refuse what a picture network cannot do.

    Raises: ModelError: the data is no pictures. UsageError: an architecture was named for what knows its own.
    """
    if modality not in ("", "image"):
        raise ModelError(
            "this model reads pictures",
            saw=f"data of {shelf.find('modalities', modality).NOUN}",
            allowed="pictures",
            do="choose a model for this kind of data: a folder in Hugging Face layout, or minilm for texts",
        )
    if arch:
        raise UsageError(
            "this model says itself which architecture it is",
            saw=f"--arch {arch}",
            allowed="--arch with a file of weights (.safetensors, .pth)",
            do="leave --arch out",
        )


def told(query: Any) -> dict[str, Any]:
    """What config.json in the folder `query` says; empty where there is none that can be read."""
    try:
        found = json.loads((Path(query) / CONFIG).read_bytes()) if isinstance(query, (str, Path)) else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def folder_digest(folder: Path) -> str:
    """SHA-256 over weights and configuration of a folder.

    Raises: ModelError: there are no safetensors in it.
    """
    require_weights(folder)
    return durable.digest("".join(durable.file_digest(folder / name) for name in (CONFIG, WEIGHTS)).encode())


def require_weights(folder: Path) -> None:
    """Go on only where a folder holds its weights as safetensors.

    Raises: ModelError: it does not.
    """
    if not (folder / WEIGHTS).is_file():
        others = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pth", ".pt", ".npz"))
        raise ModelError(
            "these weights are pickles, which can run code when opened" if others else "there are no weights here",
            saw=", ".join(others[:3]) or str(folder),
            allowed=f"{folder / WEIGHTS}",
            do="convert them with safetensors.torch.save_file where you trust their origin",
        )


def lay(folder: Path, config: Mapping[str, Any], view: View, head: nn.Module) -> None:
    """Put config.json, and the weights with `head` in its native place, into a bundle's folder."""
    from regraft.backbone.tensors import packed

    durable.fill(folder / CONFIG, json.dumps(config, indent=2, ensure_ascii=False).encode())
    durable.fill(folder / WEIGHTS, packed(view, head))


# ---------------------------------------------------------------- preparation, errors


def specified(settings: Mapping[str, Any], shape: tuple[int, int], mean: Any, std: Any) -> InputSpec:
    """Preparation as timm and torchvision do it: values from 0 to 1, crops whose half pixel goes to the even side."""
    told = {"scale": 1 / 255, "centre": "even", **settings}
    return InputSpec("image", (3, *shape), tuple(mean), tuple(std), settings=tuple(sorted(told.items())))


def compared(inputs: InputSpec, prepare: Callable[[Any], Tensor], library: str) -> InputSpec:
    """`inputs`, after pictures of noise came out as the library's own preparation has them.

    Raises: ModelError: they do not; the largest difference is shown.
    """
    import numpy

    image = shelf.find("modalities", "image")
    draw = numpy.random.default_rng(SEED)
    side = max(inputs.shape)
    with explained(library, f"pictures of {inputs.shape}"):
        if side > image.LONGEST:
            raise ValueError(f"{side} pixels a side, of {image.LONGEST} at most")
        for height, width in ((side + 40, 2 * side + 80), (side + 6, side // 2 + 3)):
            noise = draw.integers(0, 256, (height, width, 3), numpy.uint8)
            wanted = prepare(image.picture(noise))
            got = image.encoder(inputs, False).tensors([noise])["pixel_values"][0]
            gap = float((wanted - got).abs().max())
            if not gap <= TOLERANCE:
                raise ValueError(f"the preparation is {gap:g} off")
    return inputs


@contextlib.contextmanager
def explained(library: str, what: str) -> Iterator[None]:
    """Turn what a library raises for a model that it cannot open into an error with a way out."""
    try:
        yield
    except (RegraftError, MemoryError):
        raise
    except Exception as error:  # any class: libraries raise whatever a configuration leads them to
        raise ModelError(
            f"{library} could not open this model",
            saw=f"{what}: {type(error).__name__}: {said(error)}",
            allowed="a network for pictures with a linear head",
            do=f"check it with {library} alone, or choose another model",
        ) from error


def said(error: Exception) -> str:
    """The first line of what a library raised, of a length that can be shown."""
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__)[:200]


def lacking(library: str, error: Exception) -> ModelError:
    """The error for a library that is absent or broken."""
    return ModelError(
        f"{library} is needed for this model and does not work here",
        saw=said(error),
        allowed=f"an installed {library} that fits this torch",
        do='pip install "regraft[image]"',
    )


def no_architecture(library: str, name: str, names: tuple[str, ...]) -> UsageError:
    """The error for an architecture that a library does not know, with the nearest name."""
    guess = near(name, names)
    return UsageError(
        f"{library} has no architecture of that name for pictures",
        saw=name,
        allowed=f"one of its {len(names)}",
        do=f"did you mean {library}/{guess}?" if guess else f"look at what this {library} lists",
    )
