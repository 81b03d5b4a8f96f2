"""Backbones of torchvision: `torchvision/NAME` with weights that torch's cache holds, or a bundle built from one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.backbone import pictures
from regraft.backbone.names import named
from regraft.backbone.pictures import Network
from regraft.errors import ModelError, near
from regraft.kit import durable, hardware
from regraft.waist import READY, InputSpec, Opening, Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from regraft.backbone.view import View

PREFIX = "torchvision/"
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
OLD_NAMES = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")

OPEN = f"""\
import json, torch
from pathlib import Path
from safetensors.torch import load_file
from torchvision import models, transforms
told = json.loads(Path(folder, "config.json").read_text("utf-8"))
model = models.get_model(told["torchvision"], weights=None, num_classes=told["num_classes"], **told["options"])
model.load_state_dict(load_file(folder + "/model.safetensors"))
model.eval()
{READY}model
"""
CHECK = f"""\
{OPEN}with torch.no_grad():
    made = model(batches[0]["pixel_values"])"""
USE = f"""\
{OPEN}from PIL import Image, ImageOps
labels, how = told["labels"], told["preprocessing"]
prepare = transforms.Compose([
    transforms.Resize(how["resize_size"], transforms.InterpolationMode(how["interpolation"])),
    transforms.CenterCrop(how["crop_size"]),
    transforms.ToTensor(),
    transforms.Normalize(how["mean"], how["std"]),
])
upright = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in inputs]
with torch.no_grad():
    made = model(torch.stack([prepare(picture) for picture in upright]))
"""


def find(query: Any) -> bool:
    """Whether `query` is `torchvision/NAME`, or a folder that a bundle of such a network fills."""
    if isinstance(query, str) and query.startswith(PREFIX) and not Path(query).exists():
        return True
    return "torchvision" in pictures.told(query)


def fingerprint(query: Any) -> str:
    """SHA-256 over the weights and what says how they are used.

    Raises: ModelError: they are not on this machine.
    """
    if Path(query).exists():
        return pictures.folder_digest(Path(query))
    name, tag, file = _cached(query)
    return durable.digest(f"{name} {tag} {durable.file_digest(file)}".encode())


def load(query: Any, modality: str = "", arch: str = "") -> View:
    """Open `torchvision/NAME`, `torchvision/NAME@WEIGHTS` or a bundle's folder, with the native head taken out.

    Raises: ModelError: not on this machine, or no picture network with a linear head. UsageError: --arch.
    """
    from regraft.backbone import tensors

    pictures.asked(modality, arch)
    if Path(query).exists():
        folder = Path(query)
        pictures.require_weights(folder)
        told = pictures.told(folder)
        with pictures.explained("torchvision", str(folder)):
            found, notes = tensors.read_state(folder / pictures.WEIGHTS)
            view = _filled(told, int(told["num_classes"]), found, folder.resolve().name, notes)
            view.labels = named([str(label) for label in told.get("labels") or ()], _outputs(view))
            return view
    name, tag, file = _cached(query)
    found, notes = tensors.read_state(file)
    view = _viewed_as(name, tag, found, f"{name}@{tag}", notes)
    view.labels = named(_library().models.get_model_weights(name)[tag].meta.get("categories") or (), _outputs(view))
    return view


def built(name: str, found: Mapping[str, Tensor], title: str, notes: tuple[str, ...]) -> View:
    """The architecture `name` of torchvision with weights that were read elsewhere.

    Raises: UsageError: torchvision has none of that name. ModelError: the weights do not belong to it.
    """
    _library()
    if name not in names():
        raise pictures.no_architecture("torchvision", name, names())
    return _viewed_as(name, "DEFAULT", found, title, notes)


def names() -> tuple[str, ...]:
    """The architectures for classification of torchvision; none where torchvision does not work."""
    try:
        models = _library().models
    except ModelError:
        return ()
    return tuple(models.list_models(module=models))


def _viewed_as(name: str, tag: str, found: Mapping[str, Tensor], title: str, notes: tuple[str, ...]) -> View:
    """The architecture as `tag` of its published weights uses it: preparation, options, names of weights."""
    with pictures.explained("torchvision", name):
        weights = _library().models.get_model_weights(name)
        preset = weights[tag].transforms()
        how = {
            "resize_size": preset.resize_size[0],
            "crop_size": preset.crop_size[0],
            "mean": list(preset.mean),
            "std": list(preset.std),
            "interpolation": preset.interpolation.value,
        }
        options: dict[str, Any] = {"image_size": how["crop_size"]} if name.startswith("vit_") else {}
        if name in ("googlenet", "inception_v3"):
            options = {"transform_input": True, "aux_logits": False, "init_weights": True}
            found = {key: tensor for key, tensor in found.items() if not key.startswith(AUXILIARY)}
        found = {OLD_NAMES.sub(r"\1\2", key): tensor for key, tensor in found.items()}
        told = {"torchvision": name, "options": options, "preprocessing": how}
        return _filled(told, 1000, found, title, notes)


def _filled(
    told: Mapping[str, Any], classes: int, found: Mapping[str, Tensor], title: str, notes: tuple[str, ...]
) -> View:
    """A view of the network that `told` describes, as config.json does."""
    models = _library().models
    name, options = told["torchvision"], dict(told["options"])
    told = {"torchvision": name, "options": options, "preprocessing": dict(told["preprocessing"])}
    inputs = _inputs(told["preprocessing"])

    def make(count: int) -> nn.Module:
        network: nn.Module = models.get_model(name, weights=None, num_classes=count, **options)
        return network

    module, head, held = pictures.filled(make, classes, inputs, found)
    return pictures.viewed(
        Network(
            name=title,
            provider="torchvision",
            module=module,
            head=head,
            inputs=inputs,
            config=json.dumps(told, sort_keys=True),
            build=lambda: make(held),
            write=lambda view, layer, target, folder: _write(view, layer, target, Path(folder), told),
            notes=notes,
        )
    )


def _outputs(view: View) -> int:
    """How many classes the native head tells apart."""
    return len(view.native.get_parameter("weight"))


def _write(view: View, head: nn.Module, target: Target, folder: Path, told: Mapping[str, Any]) -> Opening:
    config = {
        "torchvision": told["torchvision"],
        "num_classes": len(target.labels) or 1,
        "labels": list(target.labels) or [target.name],
        "options": told["options"],
        "preprocessing": told["preprocessing"],
    }
    pictures.lay(folder, config, view, head)
    return Opening("torchvision", USE + pictures.SCORES[target.kind], CHECK)


def _inputs(how: Mapping[str, Any]) -> InputSpec:
    """The settings of torchvision's preset for classification, compared with its transforms."""
    from torchvision import transforms

    side = int(how["crop_size"])
    settings = {"shorter": int(how["resize_size"]), "crop_height": side, "crop_width": side}
    settings["resample"] = pictures.RESAMPLE[how["interpolation"]]
    steps = [
        transforms.Resize(how["resize_size"], transforms.InterpolationMode(how["interpolation"])),
        transforms.CenterCrop(side),
        transforms.ToTensor(),
        transforms.Normalize(how["mean"], how["std"]),
    ]
    inputs = pictures.specified(settings, (side, side), how["mean"], how["std"])
    return pictures.compared(inputs, transforms.Compose(steps), "torchvision")


# ---------------------------------------------------------------- torch's cache


def _cached(query: str) -> tuple[str, str, Path]:
    """Architecture, name of its weights and their file on this machine: those that were asked for, else the usual ones.

    Raises: ModelError: there are none; without importing torchvision where no file could be meant.
    """
    name, _, tag = str(query).removeprefix(PREFIX).partition("@")
    cache = _cache()
    files = {path.name: path for path in cache.glob("*.pth")}
    if not any(_plain(file).startswith(_plain(name).rstrip("0")) for file in files) or not name:
        raise _missing(query, name, tag, cache)
    models = _library().models
    if name not in names():
        raise pictures.no_architecture("torchvision", name, names())
    known = {entry.name: entry.url.rpartition("/")[2] for entry in models.get_model_weights(name)}
    usual = models.get_model_weights(name).DEFAULT.name
    if tag and tag != "DEFAULT" and tag not in known:
        raise ModelError(
            f"torchvision knows no such weights of {name}",
            saw=tag,
            allowed=", ".join(known),
            do=f"did you mean {name}@{near(tag, known) or usual}?",
        )
    wanted = [tag] if tag in known else [usual, *(known if not tag else ())]
    chosen = next((one for one in wanted if known[one] in files), "")
    if not chosen:
        raise _missing(query, name, wanted[0], cache)
    return name, chosen, files[known[chosen]]


def _cache() -> Path:
    """Where torch keeps what it once downloaded; asked of the environment, for importing torch takes seconds."""
    environment = hardware.child_environment()
    home = environment.get("TORCH_HOME") or Path(environment.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(home, "hub", "checkpoints").expanduser()


def _missing(query: str, name: str, tag: str, cache: Path) -> ModelError:
    fetch = f"import torchvision; torchvision.models.get_model('{name or 'NAME'}', weights='{tag or 'DEFAULT'}')"
    return ModelError(
        "these weights are not on this machine, and nothing is fetched",
        saw=f"{query}: no file of theirs in {cache}",
        allowed="weights that torch's cache holds; a file of weights with --arch",
        do=f'where there is a network: python -c "{fetch}", then copy its hub/checkpoints file to {cache}',
    )


def _plain(name: str) -> str:
    """Letters and digits alone, for files are not named quite as their networks are.

    >>> _plain("shufflenetv2_x0.5-f707e7126e.pth").startswith(_plain("shufflenet_v2_x0_5"))
    True
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _library() -> Any:
    try:
        import torchvision
    except Exception as error:  # absent, or of another build than torch
        raise pictures.lacking("torchvision", error) from error
    return torchvision
