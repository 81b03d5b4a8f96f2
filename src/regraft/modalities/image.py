"""Pictures: recognised by content, decoded as a person sees them, resized and normalised as the backbone expects."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.errors import DataError, ModelError, UsageError
from regraft.waist import Encoder, InputSpec, Options

if TYPE_CHECKING:
    import numpy
    from PIL.Image import Image
    from torch import Tensor

NOUN = "pictures"
EXAMPLE = "picture.jpg"
LITERAL = False
TOKENS = False
PLAIN = "pixels"
"""The provider of features that need no network."""
AUTO = "AutoModelForImageClassification"
PIPELINE = "image-classification"
PROCESSOR = "preprocessor_config.json"
FILES = (PROCESSOR,)
LONGEST = 4096
MAX_PIXELS = 50_000_000
SHOWN = 128
"""Pixels of the longer side of a thumbnail."""
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")


def sniff(cell: Any) -> bool:
    """Whether a cell is a picture: a file by its first bytes, never by its name; a PIL picture; an H×W×3 array."""
    if isinstance(cell, (str, Path)):
        try:
            if not Path(cell).is_file():
                return False  # a pipe would be waited for
            with Path(cell).open("rb") as file:
                head = file.read(12)
        except OSError:
            return False
        return head.startswith(MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
    kind = type(cell)
    return kind.__module__.startswith("PIL.") or (kind.__module__ == "numpy" and cell.ndim in (2, 3))


def described(folder: Path) -> InputSpec:
    """The image processor of a folder in Hugging Face layout as an input specification, compared on a noise picture.

    Raises: ModelError: there is no processor, or it does what a specification cannot say.
    """
    if not (folder / PROCESSOR).is_file():
        raise ModelError(
            "it is not known how this model wants its pictures",
            saw=f"no {PROCESSOR} in {folder}",
            allowed="an image model with its preprocessor_config.json",
            do="put the file of the original model beside the weights; if it is no image model, choose one",
        )
    import numpy
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=False, backend="pil"
    )
    try:
        inputs = _specification(processor.to_dict())
        if max(inputs.shape) > LONGEST:
            raise ValueError(f"{inputs.shape}, of {LONGEST} a side at most")
        size = (inputs.shape[1] + 41, inputs.shape[2] + 77, 3)
        picture = numpy.random.default_rng(0).integers(0, 256, size, numpy.uint8)
        with numpy.errstate(all="ignore"):
            wanted = numpy.asarray(processor(picture, return_tensors="np")["pixel_values"])
            got = encoder(inputs, False).tensors([picture])["pixel_values"].numpy()
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


def carried(folder: Path, spec: InputSpec) -> dict[str, bytes]:
    """What a bundle needs of a folder in Hugging Face layout besides the network: the processor's settings."""
    return {PROCESSOR: (folder / PROCESSOR).read_bytes()}


def adjust(spec: InputSpec, options: Options) -> InputSpec:
    """The specification itself: nothing of it can be asked for otherwise.

    Raises: UsageError: an option for texts.
    """
    if options.long != "cut" or options.max_tokens:
        raise UsageError(
            "this option is for texts",
            saw="--long or --max-tokens with pictures",
            allowed="texts",
            do="leave it out",
        )
    return spec


def noise(spec: InputSpec, rows: int, seed: int) -> dict[str, Tensor]:
    """A batch of normal numbers in place of pictures, [rows, 3, H, W]."""
    import numpy
    import torch

    values = numpy.random.default_rng(seed).standard_normal((rows, *spec.shape), numpy.float32)
    return {"pixel_values": torch.from_numpy(values)}


def encoder(spec: InputSpec, train: bool, source: str = "") -> Encoder:
    """Cells to {"pixel_values": float32 [n, 3, H, W]}, equal for training and use: no augmentation, one size.

    Settings of the spec, in the order they are applied: `shorter` (pixels of the shorter side) or `height` and `width`;
    `resample` (Pillow's number); `crop_height`, `crop_width` (centre, padded with black); `centre`
    ("even": half a pixel goes to the even side, as torchvision rounds, otherwise down); `scale`, `shift`; then
    mean and std.
    """
    import numpy
    import torch

    mean = numpy.asarray(spec.mean, numpy.float32).reshape(-1, 1, 1)
    std = numpy.asarray(spec.std, numpy.float32).reshape(-1, 1, 1)
    scale, shift = numpy.float32(spec.setting("scale", 1 / 255)), numpy.float32(spec.setting("shift", 0.0))

    def encode(cells: Sequence[Any]) -> dict[str, Tensor]:
        pixels = numpy.empty((len(cells), *spec.shape), numpy.float32)
        for i, cell in enumerate(cells):
            values = fit(picture(cell), spec).transpose(2, 0, 1) * scale + shift
            pixels[i] = (values - mean) / std if spec.mean else values
        return {"pixel_values": torch.from_numpy(pixels)}

    return Encoder(lambda cells: [[(cell, 0)] for cell in cells], encode, lambda cells: ())


def picture(cell: Any) -> Image:
    """A cell as an upright RGB picture; its size is read from the header before a pixel is decoded.

    Raises: DataError: unreadable, cut short, or above 50 megapixels; the file is named.
    """
    from PIL import Image, ImageOps

    named = str(cell) if isinstance(cell, (str, Path)) else f"a {type(cell).__name__}"
    try:
        with warnings.catch_warnings(), contextlib.ExitStack() as stack:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound below is tighter
            opened = _opened(cell)
            if opened is not cell:
                stack.enter_context(opened)
            if opened.width * opened.height > MAX_PIXELS:
                raise _too_large(f"{named}: {opened.width} × {opened.height} pixels")
            upright = ImageOps.exif_transpose(opened)
            if upright.mode in ("I;16", "I;16B", "I;16L", "I"):
                upright = Image.fromarray((_array(upright).clip(0, 65535) // 257).astype("uint8"))
            return upright.convert("RGB")
    except (DataError, MemoryError):
        raise
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise DataError(
            "a picture cannot be read",
            saw=f"{named}: {error}",
            allowed="a whole JPEG, PNG, WebP, GIF, BMP or TIFF file",
            do="replace or remove it",
        ) from error


def shown(cell: Any) -> tuple[str, bytes]:
    """A cell as a reader of a report sees it: no text, and a JPEG of at most 128 pixels a side without metadata.

    Raises: DataError: as `picture`.

    >>> import numpy
    >>> text, small = shown(numpy.zeros((300, 600, 3), numpy.uint8))
    >>> text, picture(small).size
    ('', (128, 64))
    """
    small, file = picture(cell), io.BytesIO()
    small.thumbnail((SHOWN, SHOWN))
    small.info.clear()  # a comment would be written into the file
    small.save(file, "JPEG", quality=80)
    return "", file.getvalue()


def fit(image: Image, spec: InputSpec) -> numpy.ndarray:
    """Resize and crop to the spec's shape: uint8 [H, W, 3]."""
    from PIL import Image as pil

    resample = pil.Resampling(int(spec.setting("resample", 2)))
    shorter = int(spec.setting("shorter", 0))
    if shorter:
        w, h = image.size
        size = (shorter, int(shorter * h / w)) if w <= h else (int(shorter * w / h), shorter)
        if size[0] * size[1] > MAX_PIXELS:
            raise _too_large(f"{w} × {h} pixels, {size[0]} × {size[1]} when its shorter side is {shorter}")
        image = image.resize(size, resample)
    elif height := int(spec.setting("height", 0)):
        image = image.resize((int(spec.setting("width", height)), height), resample)
    if crop := int(spec.setting("crop_height", 0)):
        across = int(spec.setting("crop_width", crop))
        even = spec.setting("centre", "down") == "even"
        left, top = (round(gap / 2) if even else gap // 2 for gap in (image.width - across, image.height - crop))
        image = image.crop((left, top, left + across, top + crop))
    return _array(image)


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


def _opened(cell: Any) -> Image:
    from PIL import Image

    if isinstance(cell, (str, Path, bytes)):
        return Image.open(io.BytesIO(cell) if isinstance(cell, bytes) else cell, formats=FORMATS)
    return cell if isinstance(cell, Image.Image) else Image.fromarray(cell)


def _too_large(saw: str) -> DataError:
    return DataError(
        "a picture is too large to decode safely",
        saw=saw,
        allowed=f"{MAX_PIXELS // 10**6} megapixels",
        do="shrink or remove it",
    )


def _array(image: Image) -> numpy.ndarray:
    import numpy

    return numpy.asarray(image)
