"""Pictures: recognised by content, decoded as a person sees them, resized and normalised as the backbone expects."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.errors import DataError
from regraft.waist import InputSpec

if TYPE_CHECKING:
    import numpy
    from PIL.Image import Image
    from torch import Tensor

NOUN = "pictures"
MAX_PIXELS = 50_000_000
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


def encoder(spec: InputSpec, train: bool) -> Callable[[Sequence[Any]], dict[str, Tensor]]:
    """A function from cells to {"pixel_values": float32 [n, 3, H, W]}, equal for training and use: no augmentation.

    Settings of the spec, in the order they are applied: `shorter` (pixels of the shorter side) or `height` and `width`;
    `resample` (Pillow's number); `crop_height`, `crop_width` (centre, padded with black); `scale`, `shift`; then
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

    return encode


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
        left, top = (image.width - across) // 2, (image.height - crop) // 2
        image = image.crop((left, top, left + across, top + crop))
    return _array(image)


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
