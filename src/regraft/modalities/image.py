"""Pictures: recognised by content, decoded as a person sees them, resized and normalised as the backbone expects."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.errors import DataError, ModelError, UsageError
from regraft.kit import places
from regraft.modalities._decoding import MAX_PIXELS, begins_as_picture, decoded, is_jpeg, named, pixels_of, too_large
from regraft.waist import Encoder, Flag, InputSpec, Look, Options, Row, Seen, Varied

if TYPE_CHECKING:
    import numpy
    from PIL.Image import Image
    from torch import Tensor

NOUN = "pictures"
EXAMPLE = "picture.jpg"
LITERAL = False
TOKENS = False
AUGMENTS = {"flip": 2, "crop": 0}
"""How a picture may be varied → how many variations there are, 0 for any number."""
PLAIN = "pixels"
"""The provider of features that need no network."""
AUTO = "AutoModelForImageClassification"
PIPELINE = "image-classification"
PROCESSOR = "preprocessor_config.json"
FILES = (PROCESSOR,)
POLICY = 2
"""The version of what is made of a file's bytes: part of the trunk cache's address."""
CARE = (
    "These lines open a picture's file as it is. regraft shows transparency on white and converts colour profiles, "
    "CMYK and 16 bits first: save such pictures as plain RGB before."
)
"""What a bundle's card says of cells that its own library reads otherwise than regraft."""
ENOUGH = 2
"""Source pixels that scaled decoding leaves, along each side, for one that is resized to. MobileNetV2's features of
3000 × 2000 photographs then move by 1e-4 in cosine distance, by 7e-3 where these are sharp; with 1 by 1e-3 and 8e-2."""
LONGEST = 4096
SHOWN = 128
"""Pixels of the longer side of a thumbnail."""
COPY, TINT, FLAT = 0.9, 12.0, 60.0
"""From when on pictures are alike: correlation of edges, largest difference of colour (of 255), least edges of all."""
LEAST = 16
TRIES = 10
ENDINGS = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".heif", ".avif"),
    *(".svg", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".jp2", ".jxl"),
)
"""What pictures are called: a file of such a name that cannot be read is missed."""


def sniff(cell: Any) -> bool:
    """Whether a cell is a picture: a file by its first bytes, never by its name; a PIL picture; an H×W×3 array."""
    if isinstance(cell, (str, Path)):
        try:
            head = places.head(Path(cell), 12) if places.is_file(Path(cell)) else b""  # a pipe would be waited for
        except OSError:
            return False
        return begins_as_picture(head)
    kind = type(cell)
    return kind.__module__.startswith("PIL.") or (kind.__module__ == "numpy" and cell.ndim in (2, 3))


def look(cell: Any) -> Look:
    """Decode a picture once, small where its format can: whether it is whole, its size, and a difference hash.

    The hash has a bit per neighbour in 8 rows of 9 grey pixels, set where the left one is brighter.

    >>> import numpy
    >>> seen = look(numpy.tile(numpy.arange(90, dtype=numpy.uint8), (40, 1)))
    >>> seen.problem, seen.size, seen.sketch
    ('', (90, 40), 0)
    """
    import numpy

    try:
        small, size = decoded(cell, small=True)
    except DataError as error:
        return Look(error.saw.removeprefix(f"{named(cell)}: "))
    grey = numpy.asarray(small.convert("L").resize((9, 8), 4), numpy.int16)
    bits = numpy.packbits(grey[:, :-1] > grey[:, 1:]).tobytes()
    return Look("", size, int.from_bytes(bits, "big"))


def alike(cells: Sequence[Any], pairs: Sequence[tuple[int, int]]) -> list[bool]:
    """Which pairs of these pictures are one picture twice: saved, scaled or lightened anew, or with a mark put on it.

    Compared are the edges of 32 × 32 pixels in colour (correlation `COPY`) and the mean colour without brightness
    (`TINT`); flat ones and those below `LEAST` pixels a side are like nothing: of scikit-learn's digits, 8 × 8
    pixels, 155 pairs are above 0.9, none of them equal, 16 of 255 apart on average. Seen on ten sets: difference
    hashes alone find 1,193 pairs in office_caltech at 6 bits, most of them unlike; above 0.9 there are exact repeats,
    one photograph saved twice, and none of the thousands of like chest X-rays, keyboards and bicycles on white, which
    end at 0.88; JPEG at quality 30 and half the size stay above 0.95. One that was cropped or moved by 2 % is mostly
    missed, one that was mirrored always.
    """
    from concurrent.futures import ThreadPoolExecutor

    import numpy

    wanted = sorted({i for pair in pairs for i in pair})
    nothing = numpy.zeros((32, 32, 3), numpy.uint8)

    def small(i: int) -> Any:
        try:
            picture, size = decoded(cells[i], small=True)
            return numpy.asarray(picture.resize((32, 32), 4)) if min(size) >= LEAST else nothing
        except DataError:
            return nothing

    with ThreadPoolExecutor(4) as pool:
        known = list(pool.map(small, wanted))
    edges = numpy.zeros((len(wanted), 2 * 31 * 31 * 3), numpy.float16)
    tints = numpy.zeros((len(wanted), 3), numpy.float32)
    for at, pixels in enumerate(known):
        values = pixels.astype(numpy.float32)
        steps = values[1:, 1:] - values[1:, :-1], values[1:, 1:] - values[:-1, 1:]
        edge = numpy.concatenate([step.ravel() for step in steps])
        size = float(numpy.linalg.norm(edge))
        edges[at] = edge / size if size > FLAT else 0
        tints[at] = (values - values.mean(2, keepdims=True)).mean((0, 1))
    place = {i: at for at, i in enumerate(wanted)}
    found: list[bool] = []
    for begin in range(0, len(pairs), 512):
        one, other = numpy.array([[place[i], place[j]] for i, j in pairs[begin : begin + 512]]).T
        like = (edges[one].astype(numpy.float32) * edges[other].astype(numpy.float32)).sum(1) >= COPY
        found += (like & (abs(tints[one] - tints[other]).max(1) <= TINT)).tolist()
    return found


def unsuited(seen: Seen) -> list[Flag]:
    """A note where at least a tenth of the pictures are smaller than the backbone takes them: these are enlarged."""
    if seen.inputs is None or len(seen.inputs.shape) != 3:
        return []
    train = seen.data.train
    least, sized = min(seen.inputs.shape[1:]), [row for row in train if row.look.size]
    small = sorted((row for row in sized if min(row.look.size) < least), key=lambda row: min(row.look.size))
    if not small or len(small) * 10 < len(sized):
        return []
    width, height = small[len(small) // 2].look.size
    text = f"{len(small):,} of {len(sized):,} training pictures are smaller than the {least} pixels a side that the "
    text += f"backbone takes (the median of these is {width} × {height}): they are enlarged"
    some = tuple(f"{row.id} ({row.look.size[0]} × {row.look.size[1]})" for row in small[:3])
    advice = "use larger originals if there are any, or a backbone made for small pictures"
    return [Flag("small", "note", len(small), len(sized), text, some, advice)]


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


def loosened(spec: InputSpec, rows: Sequence[Row]) -> tuple[InputSpec, str]:
    """The specification for where not all digits count, and what to tell: large JPEGs are decoded at a smaller scale.

    It is the specification itself, and there is nothing to tell, where none of the rows is large enough.
    """
    least = ENOUGH * max(int(spec.setting(name, 0)) for name in ("shorter", "height", "width"))
    if not least or not any(min(row.look.size, default=0) >= 2 * least and is_jpeg(row.cell) for row in rows):
        return spec, ""
    told = f"JPEGs from {2 * least:,} pixels a side on are decoded at a smaller scale for the frozen trunk"
    return replace(spec, settings=tuple(sorted((*spec.settings, ("least", least))))), told


def grain(spec: InputSpec) -> float:
    """How far another library may prepare a pixel from here: by one of 256 levels, which resampling rounds to.

    >>> grain(InputSpec("image", (3, 8, 8), (0.5,) * 3, (0.5,) * 3, settings=(("scale", 1 / 255),))) * 255
    2.0
    """
    if len(spec.shape) != 3:
        return 0.0  # plain features, which regraft alone makes
    return float(spec.setting("scale", 1 / 255)) / min(spec.std, default=1.0)


def noise(spec: InputSpec, rows: int, seed: int) -> dict[str, Tensor]:
    """A batch of normal numbers in place of pictures, [rows, 3, H, W]."""
    import numpy
    import torch

    values = numpy.random.default_rng(seed).standard_normal((rows, *spec.shape), numpy.float32)
    return {"pixel_values": torch.from_numpy(values)}


def encoder(spec: InputSpec, train: bool, source: str = "") -> Encoder:
    """Cells to {"pixel_values": float32 [n, 3, H, W]}, equal for training and use; a `Varied` one as its view shows it.

    Settings of the spec, in the order they are applied: `least` (pixels a side that decoding leaves, varied pictures
    apart); `shorter` (pixels of the shorter side) or `height` and `width`;
    `resample` (Pillow's number); `crop_height`, `crop_width` (centre, padded with black); `centre`
    ("even": half a pixel goes to the even side, as torchvision rounds, otherwise down); `scale`, `shift`; then
    mean and std.
    """
    import numpy
    import torch

    mean = numpy.asarray(spec.mean, numpy.float32).reshape(-1, 1, 1)
    std = numpy.asarray(spec.std, numpy.float32).reshape(-1, 1, 1)
    scale, shift = numpy.float32(spec.setting("scale", 1 / 255)), numpy.float32(spec.setting("shift", 0.0))
    least = int(spec.setting("least", 0))

    def encode(cells: Sequence[Any]) -> dict[str, Tensor]:
        pixels = numpy.empty((len(cells), *spec.shape), numpy.float32)
        for i, cell in enumerate(cells):
            shape = varied(cell, spec) if isinstance(cell, Varied) else fit(decoded(cell, least=least)[0], spec)
            values = shape.transpose(2, 0, 1) * scale + shift
            pixels[i] = (values - mean) / std if spec.mean else values
        return {"pixel_values": torch.from_numpy(pixels)}

    return Encoder(lambda cells: [[(cell, 0)] for cell in cells], encode, lambda cells: ())


def picture(cell: Any) -> Image:
    """A cell as an upright RGB picture, as a person sees it; its size is read before a pixel is decoded.

    Of an animation that is the first picture; what is transparent shows white, as on a page or in most viewers: the
    colours under it are arbitrary and nobody sees them. Colours of another profile than sRGB become sRGB; 16 bits
    become 8 by their high byte; numbers with a point are levels up to 1, 255 or 65535, whichever holds them all.

    Raises: DataError: unreadable, cut short, or above 50 megapixels; the file is named.
    """
    return decoded(cell)[0]


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


def portable(cell: Any) -> bytes:
    """A cell as a file from which every library takes the same pixels: plain RGB as PNG.

    Raises: DataError: as `picture`.
    """
    plain, file = picture(cell), io.BytesIO()
    plain.info.clear()
    plain.save(file, "PNG", compress_level=1)
    return file.getvalue()


def fit(image: Image, spec: InputSpec) -> numpy.ndarray:
    """Resize and crop to the spec's shape: uint8 [H, W, 3]."""
    from PIL import Image as pil

    resample = pil.Resampling(int(spec.setting("resample", 2)))
    shorter = int(spec.setting("shorter", 0))
    if shorter:
        w, h = image.size
        size = (shorter, int(shorter * h / w)) if w <= h else (int(shorter * w / h), shorter)
        if size[0] * size[1] > MAX_PIXELS:
            return _thin(image, size, spec)
        image = image.resize(size, resample)
    elif height := int(spec.setting("height", 0)):
        image = image.resize((int(spec.setting("width", height)), height), resample)
    if crop := int(spec.setting("crop_height", 0)):
        across = int(spec.setting("crop_width", crop))
        left, top = _corner(image.size, spec)
        image = image.crop((left, top, left + across, top + crop))
    return pixels_of(image)


def varied(cell: Varied, spec: InputSpec) -> numpy.ndarray:
    """A picture as one of its views shows it, in the spec's shape: uint8 [H, W, 3].

    "flip": every other view is mirrored. "crop": a part with 8 to 100 % of the area and sides of 3:4 to 4:3, mirrored
    in half of the views: torchvision's RandomResizedCrop and RandomHorizontalFlip (Szegedy et al., Going deeper with
    convolutions, 2015).
    """
    import numpy
    from PIL import Image as pil

    whole = picture(cell.cell)
    if cell.how == "flip":
        return fit(whole.transpose(pil.Transpose.FLIP_LEFT_RIGHT) if cell.view % 2 else whole, spec)
    draw, (w, h) = numpy.random.default_rng(cell.seed), whole.size
    mirrored = draw.random() < 0.5
    box = (0, 0, w, h)
    for _ in range(TRIES):
        area, ratio = w * h * draw.uniform(0.08, 1.0), math.exp(draw.uniform(math.log(3 / 4), math.log(4 / 3)))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= w and 0 < down <= h:
            left, top = int(draw.integers(0, w - across + 1)), int(draw.integers(0, h - down + 1))
            box = (left, top, left + across, top + down)
            break
    else:
        across, down = min(w, round(h * 4 / 3)), min(h, round(w * 4 / 3))
        left, top = (w - across) // 2, (h - down) // 2
        box = (left, top, left + across, top + down)
    part = whole.resize((spec.shape[2], spec.shape[1]), pil.Resampling(int(spec.setting("resample", 2))), box=box)
    return pixels_of(part.transpose(pil.Transpose.FLIP_LEFT_RIGHT) if mirrored else part)


def _corner(size: tuple[int, int], spec: InputSpec) -> tuple[int, int]:
    """Where the centre crop of a picture of this size begins: left, top."""
    crop = int(spec.setting("crop_height", 0))
    across = int(spec.setting("crop_width", crop))
    even = spec.setting("centre", "down") == "even"
    left, top = (round(gap / 2) if even else gap // 2 for gap in (size[0] - across, size[1] - crop))
    return left, top


def _thin(image: Image, size: tuple[int, int], spec: InputSpec) -> numpy.ndarray:
    """A long thin picture, of which only the part that the crop keeps is resized: the whole would take gigabytes.

    Raises: DataError: nothing is cropped.
    """
    from PIL import Image as pil

    if not (crop := int(spec.setting("crop_height", 0))):
        raise too_large(f"{image.width} × {image.height} pixels, {size[0]} × {size[1]} when resized")
    across = int(spec.setting("crop_width", crop))
    left, top = _corner(size, spec)
    x, y, right, low = max(left, 0), max(top, 0), min(left + across, size[0]), min(top + crop, size[1])
    wide, tall = image.width / size[0], image.height / size[1]
    box = (x * wide, y * tall, min(right * wide, image.width), min(low * tall, image.height))
    part = image.resize((right - x, low - y), pil.Resampling(int(spec.setting("resample", 2))), box=box)
    made = pil.new("RGB", (across, crop))
    made.paste(part, (x - left, y - top))
    return pixels_of(made)


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
