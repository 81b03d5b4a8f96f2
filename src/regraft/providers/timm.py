"""Backbones of timm: a folder in its layout, or `timm/NAME` from the hub's cache on this machine."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.backbone import pictures
from regraft.backbone.names import named
from regraft.backbone.pictures import Network
from regraft.errors import ModelError
from regraft.kit import hardware
from regraft.waist import READY, InputSpec, Opening, Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from regraft.backbone.view import View

PREFIX, HELD = "timm/", "models--timm--"
HERE = ("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load")
LABELS = ("label_names", "label_descriptions", "label_offset", "num_classes")

OPEN = 'model = timm.create_model("local-dir:" + folder, pretrained=True).eval()\n' + READY + "model"
CHECK = f"""\
import timm, torch
{OPEN}
with torch.no_grad():
    made = model(batches[0]["pixel_values"])"""
USE = f"""\
import timm, torch
from PIL import Image, ImageOps
{OPEN}
labels = model.pretrained_cfg["label_names"]
prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
upright = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in inputs]
with torch.no_grad():
    made = model(torch.stack([prepare(picture) for picture in upright]))
"""


def find(query: Any) -> bool:
    """Whether `query` is `timm/NAME`, or a folder whose config.json names an architecture as timm does."""
    if isinstance(query, str) and query.startswith(PREFIX) and not Path(query).exists():
        return True
    told = pictures.told(query)
    return "architecture" in told and "model_type" not in told


def fingerprint(query: Any) -> str:
    """SHA-256 over weights and configuration.

    Raises: ModelError: they are not on this machine.
    """
    return pictures.folder_digest(_located(query))


def load(query: Any, modality: str = "", arch: str = "") -> View:
    """Open a folder in timm's layout, or a cached name, with the native head taken out.

    Raises: ModelError: not on this machine, no safetensors, no picture network that timm builds from them.
    UsageError: --arch.
    """
    from regraft.backbone import tensors

    pictures.asked(modality, arch)
    folder = _located(query)
    pictures.require_weights(folder)
    told = pictures.told(folder)
    timm = _library()
    architecture = str(told.get("architecture"))
    if architecture not in names():
        raise _unknown_here(architecture, folder)
    with pictures.explained("timm", str(folder)), tensors.seeded(pictures.SEED):
        args = {k: v for k, v in dict(told.get("model_args") or {}).items() if k != "num_classes"}
        if any(key.startswith("pretrained") for key in args):
            raise ValueError("model_args that say how weights are read")  # they could let some be missing
        module = timm.create_model(f"local-dir:{folder}", pretrained=True)
        if not module.num_classes:
            module.reset_classifier(1)  # a checkpoint without a head: its place is needed
        classes = module.num_classes
        inputs = _inputs(module.pretrained_cfg)
        head = pictures.head_of(module, classes, inputs)
    name = folder.resolve().name if Path(query).exists() else str(query).removeprefix(PREFIX)
    return _viewed(module, head, inputs, args, name)


def built(name: str, found: Mapping[str, Tensor], title: str, notes: tuple[str, ...]) -> View:
    """The architecture `name` of timm with weights that were read elsewhere.

    Raises: UsageError: timm has none of that name. ModelError: the weights do not belong to it.
    """
    timm = _library()
    if name.partition(".")[0] not in names():
        raise pictures.no_architecture("timm", name, names())
    with pictures.explained("timm", name):
        cfg = timm.models.get_pretrained_cfg(name).to_dict()
        inputs = _inputs(cfg)
        module, head, _ = pictures.filled(
            lambda classes: timm.create_model(name, pretrained=False, num_classes=classes),
            int(cfg.get("num_classes") or 1),
            inputs,
            found,
        )
    return _viewed(module, head, inputs, {}, title, notes)


def names() -> tuple[str, ...]:
    """The architectures of timm; none where timm does not work."""
    try:
        return tuple(_library().list_models())
    except ModelError:
        return ()


def _viewed(
    module: Any, head: str, inputs: InputSpec, args: dict[str, Any], name: str, notes: tuple[str, ...] = ()
) -> View:
    timm = _library()
    cfg = {k: v for k, v in module.pretrained_cfg.items() if k not in (*HERE, *LABELS, "architecture")}
    architecture = module.pretrained_cfg["architecture"]
    told = {"architecture": architecture, "model_args": args, "pretrained_cfg": cfg}
    view = pictures.viewed(
        Network(
            name=name,
            provider="timm",
            module=module,
            head=head,
            inputs=inputs,
            config=json.dumps(told, sort_keys=True),
            build=lambda: timm.create_model(architecture, pretrained=False, pretrained_cfg=dict(cfg), **args),
            write=lambda view, layer, target, folder: _write(view, layer, target, Path(folder), told),
            notes=notes,
        )
    )
    view.labels = named(_labels(module.pretrained_cfg), module.num_classes)
    return view


def _labels(cfg: Mapping[str, Any]) -> list[str]:
    """The labels that a folder names, in words where it describes them.

    >>> _labels({"label_names": ["n02206856", "x"], "label_descriptions": {"n02206856": "bee"}}), _labels({})
    (['bee', 'x'], [])
    """
    words = cfg.get("label_descriptions")
    told = words if isinstance(words, Mapping) else {}
    return [str(told.get(name, name)) for name in cfg.get("label_names") or ()]


def _write(view: View, head: nn.Module, target: Target, folder: Path, told: Mapping[str, Any]) -> Opening:
    """Weights and configuration as timm.models.save_for_hf lays them out."""
    count = len(target.labels) or 1
    pool = getattr(view.module, "global_pool", None)  # a word, or the module that pools
    pool = getattr(pool, "pool_type", pool)
    config = {
        "architecture": told["architecture"],
        "num_classes": count,
        "num_features": view.dim,
        **({"global_pool": pool} if isinstance(pool, str) and pool else {}),
        "label_names": list(target.labels) or [target.name],
        **({"model_args": told["model_args"]} if told["model_args"] else {}),
        "pretrained_cfg": {**told["pretrained_cfg"], "num_classes": count},
    }
    pictures.lay(folder, config, view, head)
    return Opening("timm", USE + pictures.SCORES[target.kind], CHECK)


def _inputs(cfg: Mapping[str, Any]) -> InputSpec:
    """How timm prepares pictures for evaluation, compared with its own transform.

    Raises: ModelError: in a way that a specification cannot say.
    """
    timm = _library()
    told = timm.data.resolve_data_config(pretrained_cfg=dict(cfg))
    (channels, height, width), mode = told["input_size"], told["crop_mode"]
    if channels != 3 or mode not in ("center", "squash") or (mode == "center" and height != width):
        raise ModelError(
            "this model prepares its pictures in a way that is not understood",
            saw=f"{channels} channels of {height} × {width}, crop mode {mode}",
            allowed="three channels; a square from the centre, or the whole picture squashed",
            do="choose another model, or report this one",
        )
    tall, wide = (math.floor(side / told["crop_pct"]) for side in (height, width))
    settings = {"shorter": tall} if mode == "center" else {"height": tall, "width": wide}
    settings |= {"crop_height": height, "crop_width": width, "resample": pictures.RESAMPLE[told["interpolation"]]}
    inputs = pictures.specified(settings, (height, width), told["mean"], told["std"])
    return pictures.compared(inputs, timm.data.create_transform(**told, is_training=False), "timm")


def _located(query: Any) -> Path:
    """The folder of a query: itself, or the snapshot that the hub's cache holds for `timm/NAME`.

    Raises: ModelError: the cache holds none, or several under other tags.
    """
    if Path(query).exists():
        return Path(query)
    hardware.quiet_libraries()
    from huggingface_hub import constants, try_to_load_from_cache

    name = str(query).removeprefix(PREFIX)
    cache = Path(constants.HF_HUB_CACHE)
    held = {}
    for place in sorted(cache.glob(f"{HELD}*")):
        tagged = place.name.removeprefix(HELD)
        if name and (tagged == name or tagged.startswith(f"{name}.")):
            files = [
                try_to_load_from_cache(f"timm/{tagged}", file, cache_dir=cache)
                for file in (pictures.CONFIG, pictures.WEIGHTS)
            ]
            if all(isinstance(file, str) for file in files):
                held[tagged] = Path(str(files[0])).parent
    chosen = name if name in held else next(iter(held)) if len(held) == 1 else _usual(name, tuple(held))
    if chosen not in held:
        raise ModelError(
            "several weights of this model are on this machine"
            if held
            else "this model is not on this machine, and nothing is fetched",
            saw=f"{query}: {', '.join(held) or f'no {pictures.CONFIG} with {pictures.WEIGHTS}'} in {cache}",
            allowed="a name with its tag, as the hub's cache holds it; a folder; a file of weights with --arch",
            do=f"name one: timm/{next(iter(held))}"
            if held
            else f"where there is a network: hf download timm/{name or 'NAME'}{'' if '.' in name else '.TAG'}",
        )
    return held[chosen]


def _usual(name: str, held: tuple[str, ...]) -> str:
    """The one of several weights that timm itself would take."""
    if not held or name not in names():
        return ""
    return f"{name}.{_library().models.get_pretrained_cfg(name).tag}"


def _unknown_here(architecture: str, folder: Path) -> ModelError:
    error = pictures.no_architecture("timm", architecture, names())
    return ModelError(
        error.what,
        saw=f"{architecture[:60]} in {folder / pictures.CONFIG}",
        allowed=error.allowed,
        do="build a network of your own in Python and give it as the model: regraft.adapt(data, model=network)",
    )


def _library() -> Any:
    hardware.quiet_libraries()
    try:
        import timm
    except Exception as error:  # absent, or with a torchvision of another build than torch
        raise pictures.lacking("timm", error) from error
    return timm
