"""Decode pictures as a person sees them: whole files alone, upright, in sRGB, on white; what is none is named."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import struct
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.errors import DataError
from regraft.kit import places

if TYPE_CHECKING:
    import numpy
    from PIL.Image import Image

MAX_PIXELS = 50_000_000
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
HEAD = 512
CHECKED_BYTES = 64 * 2**20
"""Files up to this size are looked through for broken parts that decoders pass over."""
PROFILE_BYTES = 4 * 2**20
NEAR_SRGB = 8
"""Levels, of 255, by which a profile's colours may differ from sRGB's and still be read as they are."""
SAVE, RAW = "save it as JPEG or PNG", "a camera's raw picture: develop it and save it as JPEG or PNG"
BROKEN = "its data is broken"
THUMBNAIL = 64
"""Pixels that a side of a small picture keeps at least, where it had them."""
MARK = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
BETWEEN = {0xC4, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}
"""A mark in a JPEG, and those that may follow its first pixels."""
KINDS = (
    (re.compile(rb".{4}ftyp(hei|hev|mif1|msf1)", re.DOTALL), f"a HEIC picture: {SAVE}"),
    (re.compile(rb".{4}ftypavi", re.DOTALL), f"an AVIF picture: {SAVE}"),
    (re.compile(rb".{4}ftypcrx|FUJIFILMCCD-RAW|IIR[OS]|IIU\0|FOVb|\0MRM", re.DOTALL), RAW),
    (re.compile(rb".{4}ftyp|.{4}moov|\x1aE\xdf\xa3|RIFF.{4}AVI ", re.DOTALL), "a film: save pictures of it"),
    (re.compile(rb"8BPS|8BIM"), f"a Photoshop file: {SAVE}"),
    (re.compile(rb"%PDF"), "a PDF: save its pages as JPEG or PNG"),
    (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), f"a PostScript drawing: {SAVE}"),
    (re.compile(rb"\0\0\0\x0c(jP  |JXL )|\xff\x4f\xff\x51|\xff\x0a"), f"a JPEG 2000 or JPEG XL picture: {SAVE}"),
    (re.compile(rb"\0\0[\1\2]\0"), f"an icon: {SAVE}"),
    (
        re.compile(rb"gimp xcf|v/1\x01|.{128}DICM|P[1-7][\r\n]|qoif", re.DOTALL),
        f"a picture in a format that is not read: {SAVE}",
    ),
    (re.compile(rb"version https://git-lfs"), "a pointer of Git LFS in place of the file: git lfs pull fetches it"),
    (re.compile(rb"\s*(<\?xml.*?)?(<!--.*?-->\s*)*(<!DOCTYPE svg.*?)?<svg", re.DOTALL), f"an SVG drawing: {SAVE}"),
    (re.compile(rb"\s*<(!doctype html|html|head|body)", re.IGNORECASE), "a web page: the download has failed"),
    (re.compile(rb"PK\x03\x04"), "an archive or a document: unpack it"),
    (re.compile(rb"\0+\Z"), "it is no picture: it begins with zero bytes"),
)
"""What else may be called a picture, by its first bytes, and what to do with it."""


def begins_as_picture(head: bytes) -> bool:
    """Whether a file that begins so is of a format that is read."""
    bitmap = head[:2] == b"BM" and head[6:10] == b"\0\0\0\0"
    return head.startswith(MAGIC) or bitmap or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def decoded(cell: Any, small: bool = False, least: int = 0) -> tuple[Image, tuple[int, int]]:
    """A cell as an upright RGB picture, and its size.

    With `least` a JPEG that is not in memory as a picture is decoded at a half, a quarter or an eighth of its size, as
    small as leaves so many pixels a side. A `small` one is, too; its colours are approximate, and its file is looked
    through for broken parts.
    """
    from PIL import UnidentifiedImageError

    try:
        with _quiet, contextlib.ExitStack() as stack:
            held = places.read_bytes(Path(cell)) if small and _is_held(cell) else cell
            opened = _opened(held, stack)
            if opened.width * opened.height > MAX_PIXELS:
                raise too_large(f"{named(cell)}: it is too large: {opened.width} × {opened.height} pixels")
            if opened is not cell and opened.format == "TIFF" and _is_raw(opened):
                raise UnidentifiedImageError(RAW)
            size, profile = opened.size, opened.info.get("icc_profile")
            if small:
                _check(held, opened.format)
            if (least := THUMBNAIL if small else least) and opened is not cell:  # one in memory stays as large as it is
                opened.draft("RGB", (least, least))
            opened.load()
            upright = _upright(opened)
            turned = (upright.width > upright.height) != (opened.width > opened.height)
            seen = _rgb(upright, b"" if small or not isinstance(profile, bytes) else profile)
            return seen, size[::-1] if turned else size
    except (DataError, MemoryError):
        raise
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise DataError(
            "a picture cannot be read",
            saw=f"{named(cell)}: {_reason(cell, error)}",
            allowed="a whole JPEG, PNG, WebP, GIF, BMP or TIFF file",
            do="replace or remove it",
        ) from error


def _rgb(image: Image, profile: bytes) -> Image:
    """A decoded picture in RGB, as `picture` says; plain RGB and grey ones keep their bits."""
    from PIL import Image as pil

    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return pil.fromarray(_levels(image)).convert("RGB")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        coloured = _rgb(over.convert("RGB"), profile)
        coloured.putalpha(over.getchannel("A"))
        return pil.alpha_composite(pil.new("RGBA", over.size, "white"), coloured).convert("RGB")
    plain = image if image.mode in ("L", "CMYK", "LAB") else image.convert("RGB")
    if (profile or plain.mode == "LAB") and (way := _way(profile, plain.mode)) is not None:
        return way.apply(plain)  # type: ignore[no-any-return,attr-defined]
    return plain.convert("RGB")


def _levels(image: Image) -> numpy.ndarray:
    """Grey numbers of 16 bits, or with a point, as uint8; what is no number counts as 0."""
    import numpy

    values = pixels_of(image)
    if image.mode != "F":
        return (values.clip(0, 65535) // 257).astype(numpy.uint8)
    values = numpy.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0).clip(0)
    most = float(values.max(initial=0.0))
    top = next((top for top in (1.0, 255.0, 65535.0) if most <= top), most)
    levels: numpy.ndarray = (values * (255 / top)).round().astype(numpy.uint8)
    return levels


@functools.lru_cache(16)
def _way(profile: bytes, mode: str) -> object | None:
    """The way from a profile's colours to sRGB; None where they are nearly the same, or the profile is broken."""
    import numpy
    from PIL import Image, ImageCms

    if len(profile) > PROFILE_BYTES:
        return None
    try:
        lab = mode == "LAB"
        source = ImageCms.createProfile("LAB") if lab else ImageCms.ImageCmsProfile(io.BytesIO(profile))
        way = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode in ("CMYK", "LAB"):
            return way
        levels = numpy.arange(0, 256, 51).astype(numpy.uint8)
        cube = numpy.stack(numpy.meshgrid(levels, levels, levels), -1).reshape(6, 36, 3)
        probe = Image.fromarray(cube if mode == "RGB" else numpy.arange(256).astype(numpy.uint8).reshape(1, 256))
        gap = numpy.abs(pixels_of(way.apply(probe)).astype(int) - pixels_of(probe.convert("RGB"))).max()
        return way if gap > NEAR_SRGB else None
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _upright(image: Image) -> Image:
    """A picture turned as its camera says; one whose tags are broken stays as it is."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except (SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, OSError, struct.error):
        return image


def _is_raw(image: Any) -> bool:
    """Whether a TIFF is a camera's raw file, whose first picture is a preview: by its version of DNG or its mark."""
    tags = image.tag_v2
    image.fp.seek(0)
    return 50706 in tags or (tags.get(254) == 1 and 330 in tags) or image.fp.read(10)[8:] == b"CR"


class _Quiet:
    """No warnings of Pillow's, about tags or sizes, while any thread decodes; the last one out puts filters back."""

    def __init__(self) -> None:
        self._lock, self._inside, self._kept = threading.Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._kept = warnings.catch_warnings()
                self._kept.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._kept.__exit__(None, None, None)


_quiet = _Quiet()


def is_jpeg(cell: Any) -> bool:
    """Whether a cell is a file, or the bytes of one, that can be decoded at less than its size."""
    if isinstance(cell, bytes):
        return cell.startswith(MAGIC[0])
    with contextlib.suppress(OSError):
        return isinstance(cell, (str, Path)) and places.head(Path(cell), len(MAGIC[0])) == MAGIC[0]
    return False


def _is_held(cell: Any) -> bool:
    """Whether a file is small enough to be read at once."""
    return isinstance(cell, (str, Path)) and places.size(Path(cell)) <= CHECKED_BYTES


def _check(data: Any, kind: str | None) -> None:
    """Look for broken parts that decoders pass over: sums of a PNG's parts, marks inside a JPEG's pixels.

    Raises: ValueError: there is one.
    """
    if not isinstance(data, bytes):
        return
    if kind == "PNG":
        from PIL import Image

        try:
            Image.open(io.BytesIO(data), formats=("PNG",)).verify()
        except (SyntaxError, ValueError, OSError, EOFError, struct.error) as error:
            raise ValueError(BROKEN if b"IEND\xaeB`\x82" in data[-HEAD:] else "truncated") from error
    elif kind in ("JPEG", "MPO") and not _is_whole(data):
        raise ValueError(BROKEN)


def _is_whole(data: bytes) -> bool:
    """Whether no marks stand in a JPEG's pixels that cannot be there; decoders stop at one and leave the rest grey."""
    at, scan, begun = 2, False, False
    while found := MARK.search(data, at):
        mark, end = found[1][0], found.end()
        if mark == 0xD9:
            return True
        if begun and (mark not in BETWEEN or (not scan and found.start() != at)):
            return False
        at = end + int.from_bytes(data[end : end + 2], "big")
        scan = mark == 0xDA
        begun = begun or scan
    return not begun or at <= len(data)  # without an end: the decoder says whether anything is missing


def _reason(cell: Any, error: Exception) -> str:
    """Why a picture cannot be read, in a few words that are the same for all files of a kind."""
    from PIL import Image, UnidentifiedImageError

    said = str(error)
    if isinstance(error, UnidentifiedImageError):
        return RAW if said == RAW else _kind(cell)
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror or said
    if isinstance(error, Image.DecompressionBombError):
        return f"it claims to be far above {MAX_PIXELS // 10**6} megapixels"
    if isinstance(error, EOFError) or "truncated" in said:
        return "it is cut short"
    return BROKEN if isinstance(cell, (str, Path, bytes)) else said or type(error).__name__


def _kind(cell: Any) -> str:
    """What a file is that is no picture, by its first bytes."""
    try:
        head = cell[:HEAD] if isinstance(cell, bytes) else places.head(Path(cell), HEAD)
    except (OSError, TypeError):
        head = b""
    for pattern, kind in KINDS:
        if pattern.match(head):
            return kind
    if begins_as_picture(head):
        return "it is broken: it begins as a picture and does not go on as one"
    text = head.decode("utf-8", "ignore")
    if text and 2 * len(text) > len(head) and all(c.isprintable() or c.isspace() for c in text):
        return "it is no picture: it begins like text"
    return "it is no picture that can be read"


def named(cell: Any) -> str:
    return places.in_words(cell) if isinstance(cell, (str, Path)) else f"a {type(cell).__name__}"


def _opened(cell: Any, stack: contextlib.ExitStack) -> Image:
    """A cell opened as far as its header; what has to be closed is put on the stack."""
    from PIL import Image

    if isinstance(cell, (str, Path, bytes)):
        file = io.BytesIO(cell) if isinstance(cell, bytes) else stack.enter_context(places.opened(Path(cell)))
        return stack.enter_context(Image.open(file, formats=FORMATS))
    return cell if isinstance(cell, Image.Image) else Image.fromarray(cell)


def too_large(saw: str) -> DataError:
    return DataError(
        "a picture is too large to decode safely",
        saw=saw,
        allowed=f"{MAX_PIXELS // 10**6} megapixels",
        do="shrink or remove it",
    )


def pixels_of(image: Image) -> numpy.ndarray:
    import numpy

    return numpy.asarray(image)
