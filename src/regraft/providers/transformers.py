"""Backbones in Hugging Face layout: a local folder with config.json and safetensors, opened by transformers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.backbone.stages import find_head, outline
from regraft.backbone.view import View, replace
from regraft.errors import ModelError
from regraft.kit import durable, hardware, optional, shelf
from regraft.waist import InputSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

PROCESSOR = "preprocessor_config.json"
LONGEST = 4096
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")


def find(query: str) -> bool:
    """Whether `query` is a folder that transformers could open."""
    return (Path(query) / "config.json").is_file()


def fingerprint(query: str) -> str:
    """SHA-256 over the names and contents of weights, configuration and preprocessing."""
    folder = Path(query)
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")])
    return durable.digest("".join(f"{f.name} {durable.file_digest(f)}\n" for f in files).encode())


def load(query: str) -> View:
    """Open a folder as a backbone with its native head taken out.

    Raises: ModelError: no safetensors, remote code, an architecture or preprocessing that is not understood.
    """
    import torch

    folder = Path(query)
    config = _safe_config(folder)
    hardware.quiet_libraries()
    broken = optional.trouble("torchvision")
    inputs = _inputs(folder)
    with _explained(folder):
        from transformers import AutoModelForImageClassification

        with _quiet():
            module, info = AutoModelForImageClassification.from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
    example = {"pixel_values": torch.linspace(-1, 1, 2 * _size(inputs)).reshape(2, *inputs.shape)}
    module.eval()
    bare, batch = outline(module, _features, example)
    head = find_head(bare, module.config.num_labels, lambda: _features(bare, batch))
    missing = [key for key in info["missing_keys"] if not key.startswith(head)]
    if missing:
        raise ModelError(
            "these weights do not fill the network",
            saw=f"{len(missing)} tensors missing, such as {sorted(missing)[0]}",
            allowed="a checkpoint that holds every weight but the head's",
            do="check that config.json belongs to these weights",
        )
    return View(
        name=folder.resolve().name,
        provider="transformers",
        module=module,
        call=_features,
        inputs=inputs,
        example=example,
        head=head,
        notes=(broken,) if broken else (),
        config=json.dumps({k: v for k, v in config.items() if "label" not in k}, sort_keys=True),
        fresh=lambda seed: _fresh(module, seed),
        write=lambda view, layer, labels, target: _write(view, layer, labels, Path(target), folder),
    )


def _features(module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """What the native head would take: the module's own pooling, [n, dim]."""
    logits: Tensor = module(**batch).logits
    return logits


def _fresh(module: nn.Module, seed: int) -> dict[str, Tensor]:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin = type(module)(module.config)
    wanted = module.state_dict()
    return {name: tensor for name, tensor in twin.state_dict().items() if name in wanted}


def _write(view: View, head: nn.Module, labels: Sequence[str], target: Path, source: Path) -> None:
    """Save the network with its new head and names; the head's place holds the identity again afterwards."""
    from torch import nn

    module: Any = view.module
    config = module.config
    kept = config.id2label
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    problem, config.problem_type = config.problem_type, "single_label_classification"
    replace(view.module, view.head, head)
    try:
        with _quiet():
            module.save_pretrained(str(target), safe_serialization=True)
    finally:
        replace(view.module, view.head, nn.Identity())
        config.id2label, config.label2id = kept, {v: k for k, v in kept.items()}
        config.problem_type = problem
    durable.write(target / PROCESSOR, (source / PROCESSOR).read_bytes())


def _safe_config(folder: Path) -> dict[str, Any]:
    """config.json, refused where it asks for code of its own or where only pickles hold the weights."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError("config.json cannot be read", saw=f"{folder}: {error}", do="check the folder") from error
    if not isinstance(config, dict):
        config = {}
    if _asks_for_code(config):
        raise ModelError(
            "this model wants to run code of its own",
            saw=f"auto_map in {folder / 'config.json'}",
            allowed="architectures that transformers itself holds",
            do="use a checkpoint without auto_map; regraft never runs remote code",
        )
    if not list(folder.glob("*.safetensors")):
        pickles = sorted(p.name for pattern in PICKLES for p in folder.glob(pattern))
        raise ModelError(
            "these weights are pickles, which can run code when opened" if pickles else "there are no weights here",
            saw=", ".join(pickles[:3]) or str(folder),
            allowed="model.safetensors",
            do="convert them where you trust their origin, with save_pretrained(safe_serialization=True)",
        )
    if "model_type" not in config:
        raise ModelError(
            "this folder is not in Hugging Face layout",
            saw=f"config.json without model_type in {folder}",
            allowed="a checkpoint that transformers' Auto classes open",
            do="choose another model",
        )
    return dict(config)


def _asks_for_code(value: Any) -> bool:
    if isinstance(value, dict):
        return "auto_map" in value or any(_asks_for_code(v) for v in value.values())
    return isinstance(value, list) and any(_asks_for_code(v) for v in value)


def _inputs(folder: Path) -> InputSpec:
    """The folder's own image processor as an input specification, compared on a picture of noise.

    Raises: ModelError: there is no processor, or it does what a specification cannot say.
    """
    if not (folder / PROCESSOR).is_file():
        raise ModelError(
            "it is not known how this model wants its pictures",
            saw=f"no {PROCESSOR} in {folder}",
            allowed="an image model with its preprocessor_config.json",
            do="put the file of the original model beside the weights",
        )
    import numpy

    with _explained(folder):
        from transformers import AutoImageProcessor

        processor = AutoImageProcessor.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, backend="pil"
        )
    try:
        inputs = _specification(processor.to_dict())
        if max(inputs.shape) > LONGEST:
            raise ValueError(f"{inputs.shape}, of {LONGEST} a side at most")
        size = (inputs.shape[1] + 41, inputs.shape[2] + 77, 3)
        noise = numpy.random.default_rng(0).integers(0, 256, size, numpy.uint8)
        with numpy.errstate(all="ignore"):
            wanted = numpy.asarray(processor(noise, return_tensors="np")["pixel_values"])
            got = shelf.find("modalities", "image").encoder(inputs, False)([noise])["pixel_values"].numpy()
            same = wanted.shape == got.shape and abs(wanted - got).max() <= 1e-4  # false for what is no number, too
        if not same:
            raise ValueError(f"{wanted.shape} against {got.shape}")
    except (KeyError, TypeError, ValueError) as error:  # settings that are missing, of another kind, or contradictory
        raise ModelError(
            "this model prepares its pictures in a way that is not understood",
            saw=f"{type(processor).__name__}: {error}",
            allowed="resize, centre crop, rescale and normalise",
            do="choose another model, or report this one",
        ) from error
    return inputs


def _specification(given: Mapping[str, Any]) -> InputSpec:
    """An image processor's settings in regraft's terms."""
    size, crop = dict(given.get("size") or {}), dict(given.get("crop_size") or {})
    settings: dict[str, Any] = {"resample": int(given.get("resample", 2))}
    cropped = bool(given.get("do_center_crop"))
    if given.get("crop_pct") and "shortest_edge" in size:
        edge = size["shortest_edge"]
        if edge < 384:
            size, crop, cropped = (
                {"shortest_edge": int(edge / given["crop_pct"])},
                {"height": edge, "width": edge},
                True,
            )
        else:
            size = {"height": edge, "width": edge}
    if given.get("do_resize"):
        names = {"shortest_edge": "shorter", "height": "height", "width": "width"}
        settings |= {names[k]: int(v) for k, v in size.items() if k in names and v}
    if cropped and crop:
        settings |= {"crop_height": int(crop["height"]), "crop_width": int(crop["width"])}
    settings["scale"] = float(given.get("rescale_factor") or 1 / 255) if given.get("do_rescale", True) else 1.0
    height = settings.get("crop_height") or settings.get("height") or settings.get("shorter", 0)
    width = settings.get("crop_width") or settings.get("width") or settings.get("shorter", 0)
    normal = bool(given.get("do_normalize"))
    return InputSpec(
        modality="image",
        shape=(3, height, width),
        mean=tuple(map(float, given["image_mean"])) if normal else (),
        std=tuple(map(float, given["image_std"])) if normal else (),
        settings=tuple(sorted(settings.items())),
    )


def _size(inputs: InputSpec) -> int:
    count = 1
    for side in inputs.shape:
        count *= side
    return count


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of the library's own."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    yield


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn what transformers raises for a folder it cannot open into an error with a way out."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # any class: a library that is broken raises whatever it likes at import
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            "transformers could not open this model for image classification",
            saw=f"{folder}: {type(error).__name__}: {first[:200]}",
            allowed="an image classification architecture of transformers",
            do="check the folder with transformers alone, or choose another model",
        ) from error
