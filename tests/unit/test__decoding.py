"""Decoding: what a person sees in every mode and format, what is found broken, what is named that is no picture."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from regraft.errors import DataError
from regraft.modalities import image
from regraft.modalities._decoding import decoded, is_jpeg

RED, WHITE = [255, 0, 0], [255, 255, 255]


def encoded(picture: Image.Image, fmt: str = "PNG", **more: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, fmt, **more)
    return file.getvalue()


def photograph(side: int = 240) -> Image.Image:
    """Something with structure of every size, that JPEG keeps well."""
    y, x = np.mgrid[:side, : side + 80] / side
    waves = [np.sin(9 * x + 5 * y * i) + np.cos(23 * y - 7 * x * i) for i in (1, 2, 3)]
    return Image.fromarray(((np.stack(waves, -1) + 2) * 63).astype(np.uint8))


def mean(data: Any) -> list[int]:
    return [round(v) for v in np.asarray(image.picture(data)).reshape(-1, 3).mean(0)]


# ---------------------------------------------------------------- what a person sees

clear = Image.new("RGBA", (8, 6), (255, 0, 0, 0))
palette = Image.new("P", (8, 6), 1)
palette.putpalette([0, 0, 255, 255, 0, 0])

SEEN: dict[str, tuple[bytes, list[int]]] = {
    "transparent red": (encoded(clear), WHITE),
    "half transparent red": (encoded(Image.new("RGBA", (8, 6), (255, 0, 0, 128))), [255, 127, 127]),
    "opaque red with alpha": (encoded(Image.new("RGBA", (8, 6), (255, 0, 0, 255))), RED),
    "transparent black, grey": (encoded(Image.new("LA", (8, 6), (0, 0))), WHITE),
    "palette": (encoded(palette), RED),
    "transparent palette": (encoded(palette, transparency=1), WHITE),
    "palette, another transparent": (encoded(palette, transparency=0), RED),
    "RGB with a transparent colour": (encoded(Image.new("RGB", (8, 6), "red"), transparency=(255, 0, 0)), WHITE),
    "grey with a transparent level": (encoded(Image.new("L", (8, 6), 9), transparency=9), WHITE),
    "transparent WebP": (encoded(clear, "WEBP", lossless=True, exact=True), WHITE),
    "transparent GIF": (encoded(palette, "GIF", transparency=1), WHITE),
    "1 bit": (encoded(Image.new("1", (8, 6), 1)), WHITE),
    "CMYK TIFF": (encoded(Image.new("CMYK", (8, 6), (0, 255, 255, 0)), "TIFF"), RED),
    "CMYK JPEG, inverted as Adobe does": (
        encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100),
        RED,
    ),
    "float TIFF up to 1": (encoded(Image.fromarray(np.ones((6, 8), np.float32)), "TIFF"), WHITE),
    "float TIFF up to 255": (encoded(Image.fromarray(np.full((6, 8), 200.0, np.float32)), "TIFF"), [200] * 3),
    "float TIFF up to 65535": (encoded(Image.fromarray(np.full((6, 8), 65535.0, np.float32)), "TIFF"), WHITE),
    "no numbers": (encoded(Image.fromarray(np.full((6, 8), np.nan, np.float32)), "TIFF"), [0, 0, 0]),
    "1 × 1": (encoded(Image.new("RGB", (1, 1), "red")), RED),
}


@pytest.mark.parametrize("case", SEEN)
def test_a_picture_is_what_a_person_sees(case: str) -> None:
    data, wanted = SEEN[case]
    assert np.abs(np.subtract(mean(data), wanted)).max() <= 1
    assert image.look(data).problem == "" and image.picture(data).mode == "RGB"


def test_lab_is_converted() -> None:
    assert np.abs(np.subtract(mean(encoded(Image.new("LAB", (8, 6), (255, 128, 128)), "TIFF")), WHITE)).max() <= 40


def rgb16_png(value: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + struct.pack(">3H", value, 0, 65535) * 4) * 3
    head = struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_colours_of_sixteen_bits_keep_their_high_byte() -> None:
    assert mean(rgb16_png(0x8033)) == [0x80, 0, 255]


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG"])
def test_an_animation_shows_its_first_frame(fmt: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    data = encoded(
        frames[0], fmt, save_all=True, append_images=frames[1:], **({"lossless": True} if fmt == "WEBP" else {})
    )
    assert mean(data) == RED


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "BMP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_plain_pictures_keep_their_bits(mode: str, fmt: str) -> None:
    data = encoded(photograph(60).convert(mode), fmt)
    assert np.array_equal(np.asarray(image.picture(data)), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def profile(gamma: float) -> bytes:
    """sRGB's profile with its curves made linear, steep, or left: read back by lcms as any other."""
    raw = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for at in [i for i in range(len(raw)) if raw[i : i + 8] == b"para\0\0\0\0"]:
        raw[at : at + 16] = b"para\0\0\0\0\0\0\0\0" + struct.pack(">I", round(gamma * 65536))
    return bytes(raw)


def test_colours_of_another_profile_become_srgb_and_those_of_srgb_stay() -> None:
    grey = Image.new("RGB", (8, 6), (128, 128, 128))
    usual = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert mean(encoded(grey, icc_profile=usual)) == mean(encoded(grey, icc_profile=b"no profile")) == [128] * 3
    linear = mean(encoded(grey, icc_profile=profile(1.0)))
    assert min(linear) >= 185 and max(linear) - min(linear) <= 1
    over = Image.new("RGBA", (8, 6), (128, 128, 128, 255))
    assert mean(encoded(over, icc_profile=profile(1.0))) == linear


def test_a_broken_turn_leaves_the_picture() -> None:
    data = encoded(Image.new("RGB", (20, 10), "red"), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\1\x12\0\7broken")
    assert image.picture(data).size == (20, 10) and image.look(data).size == (20, 10)


def test_a_look_does_not_shrink_a_picture_in_memory() -> None:
    data = encoded(photograph(), "JPEG")
    lazy = Image.open(io.BytesIO(data))
    assert image.look(lazy).size == lazy.size == (320, 240) == image.picture(lazy).size


# ---------------------------------------------------------------- at a smaller scale


def turned(picture: Image.Image, turn: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    return encoded(picture, "JPEG", quality=95, exif=exif)


JPEGS: dict[str, bytes] = {
    "plain": encoded(photograph(), "JPEG", quality=95),
    "progressive": encoded(photograph(), "JPEG", quality=95, progressive=True),
    "grey": encoded(photograph().convert("L"), "JPEG", quality=95),
    "CMYK": encoded(photograph().convert("CMYK"), "JPEG", quality=95),
    "turned": turned(photograph(), 6),
    "with a profile": encoded(photograph(), "JPEG", quality=95, icc_profile=profile(1.0)),
    "MPO": encoded(photograph(), "MPO", save_all=True, append_images=[photograph()], quality=95),
}


@pytest.mark.parametrize("kind", JPEGS)
def test_a_scaled_picture_is_the_whole_one_smaller(kind: str) -> None:
    whole, size = decoded(JPEGS[kind])
    assert size == whole.size and sorted(size) == [240, 320]
    for least, share in ((121, 1), (120, 2), (61, 2), (60, 4), (30, 8), (1, 8)):
        scaled, said = decoded(JPEGS[kind], least=least)
        assert said == size and scaled.size == tuple(side // share for side in size), least
        if share <= 4:
            wanted = np.asarray(whole.resize(scaled.size, Image.Resampling.BOX), int)
            assert np.abs(np.asarray(scaled, int) - wanted).mean() < 3
        if share == 1:
            assert np.array_equal(np.asarray(scaled), np.asarray(whole))


@pytest.mark.parametrize("kind", ["PNG", "WebP", "TIFF", "BMP"])
def test_other_formats_and_pictures_in_memory_keep_their_scale(kind: str) -> None:
    lazy = Image.open(io.BytesIO(WHOLE["JPEG"]))
    for cell in (WHOLE[kind], np.asarray(photograph()), lazy):
        assert decoded(cell, least=30)[0].size == (320, 240) and not is_jpeg(cell)
    assert is_jpeg(WHOLE["JPEG"])


def test_a_jpeg_is_told_by_its_bytes(tmp_path: Path) -> None:
    for name, kind in (("a.png", "JPEG"), ("b.jpg", "PNG")):
        (tmp_path / name).write_bytes(WHOLE[kind])
    assert [is_jpeg(tmp_path / name) for name in ("a.png", "b.jpg", "absent.jpg")] == [True, False, False]


def test_a_broken_file_is_refused_in_the_same_words_at_any_scale(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(WHOLE["JPEG"][: len(WHOLE["JPEG"]) // 2])
    said = []
    for least in (0, 30):
        with pytest.raises(DataError, match=r"x\.jpg: it is cut short") as refused:
            decoded(tmp_path / "x.jpg", least=least)
        said.append(str(refused.value))
    assert said[0] == said[1]


# ---------------------------------------------------------------- one look


@pytest.mark.parametrize("size", [240, 700])
def test_a_picture_looks_the_same_in_every_format(size: int) -> None:
    whole = photograph(size)
    looks = [
        image.look(encoded(whole, *form[:1], **form[1]))
        for form in (
            ("PNG", {}),
            ("JPEG", {"quality": 95}),
            ("JPEG", {"quality": 90, "progressive": True}),
            ("WEBP", {}),
            ("TIFF", {}),
        )
    ]
    assert {seen.size for seen in looks} == {whole.size} and not any(seen.problem for seen in looks)
    first = looks[0].sketch
    assert first is not None
    assert all(bin(first ^ (seen.sketch or 0)).count("1") <= 4 for seen in looks)
    other = image.look(encoded(whole.transpose(Image.Transpose.FLIP_LEFT_RIGHT))).sketch
    assert bin(first ^ (other or 0)).count("1") > 12


WHOLE: dict[str, bytes] = {
    "JPEG": encoded(photograph(), "JPEG", quality=90),
    "progressive JPEG": encoded(photograph(), "JPEG", quality=90, progressive=True),
    "PNG": encoded(photograph()),
    "WebP": encoded(photograph(), "WEBP"),
    "GIF": encoded(photograph(), "GIF"),
    "TIFF": encoded(photograph(), "TIFF"),
    "packed TIFF": encoded(photograph(), "TIFF", compression="tiff_deflate"),
    "BMP": encoded(photograph(), "BMP"),
}
HEADS = {"JPEG": 900, "progressive JPEG": 900}


@pytest.mark.parametrize("kind", WHOLE)
def test_what_is_cut_short_is_found(kind: str) -> None:
    whole = WHOLE[kind]
    assert image.look(whole).problem == ""
    for end in (len(whole) - 12, len(whole) // 2, 300):
        problem = image.look(whole[:end]).problem
        assert problem and ": " not in problem.removeprefix("it is broken: "), f"{end} bytes: {problem}"


@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG", "PNG", "GIF", "packed TIFF"])
def test_garbage_behind_a_header_is_found(kind: str) -> None:
    """Pixels of the other formats have no form that could be wrong; a JPEG may end early by chance, 1 in 250."""
    whole, at = WHOLE[kind], HEADS.get(kind, 80)
    found = [image.look(whole[:at] + random.Random(seed).randbytes(len(whole) - at)).problem for seed in range(40)]
    assert sum(map(bool, found)) >= 38


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_a_tail_of_zeros_is_found(kind: str) -> None:
    whole = WHOLE[kind]
    assert image.look(whole[: len(whole) // 2] + bytes(len(whole) // 2)).problem in (
        "it is cut short",
        "its data is broken",
    )


def test_a_wrong_sum_in_a_png_is_found() -> None:
    broken = bytearray(WHOLE["PNG"])
    broken[broken.find(b"IEND") - 6] ^= 1  # in the sum of the last pixels
    assert image.look(bytes(broken)).problem == "its data is broken"


def test_what_follows_a_jpeg_is_its_own_matter() -> None:
    assert image.look(WHOLE["JPEG"] + b"a camera's notes \xff\xd8\xff").problem == ""


# ---------------------------------------------------------------- what is no picture

NAMED: dict[str, tuple[bytes, str]] = {
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC picture: save it as JPEG or PNG"),
    "AVIF": (b"\0\0\0\x1cftypavif\0\0\0\0", "an AVIF picture: save it as JPEG or PNG"),
    "SVG": (b'<?xml version="1.0"?>\n<!-- x -->\n<svg xmlns="">', "an SVG drawing: save it as JPEG or PNG"),
    "bare SVG": (b"<svg>", "an SVG drawing: save it as JPEG or PNG"),
    "PSD": (b"8BPS\0\1", "a Photoshop file: save it as JPEG or PNG"),
    "PDF": (b"%PDF-1.7", "a PDF: save its pages as JPEG or PNG"),
    "CR3": (b"\0\0\0\x18ftypcrx ", "a camera's raw picture: develop it and save it as JPEG or PNG"),
    "RAF": (b"FUJIFILMCCD-RAW 0201", "a camera's raw picture: develop it and save it as JPEG or PNG"),
    "MP4": (b"\0\0\0\x18ftypisom", "a film: save pictures of it"),
    "a web page": (b"\n<!DOCTYPE HTML><html>", "a web page: the download has failed"),
    "Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid",
        "a pointer of Git LFS in place of the file: git lfs",
    ),
    "a text": ("Über alles: a text\n".encode(), "it is no picture: it begins like text"),
    "zeros": (bytes(900), "it is no picture: it begins with zero bytes"),
    "bytes": (b"\x93\xf0\x81\x99" * 9, "it is no picture that can be read"),
    "a broken header": (b"\x89PNG\r\n\x1a\n" + b"x" * 99, "its data is broken"),
}


@pytest.mark.parametrize("kind", NAMED)
def test_what_is_no_picture_is_named(kind: str, tmp_path: Path) -> None:
    data, wanted = NAMED[kind]
    (tmp_path / "x.jpg").write_bytes(data)
    assert image.look(tmp_path / "x.jpg").problem.startswith(wanted)
    assert image.sniff(tmp_path / "x.jpg") == (kind == "a broken header")


@pytest.mark.parametrize("tags", [{50706: b"\1\4\0\0"}, {254: 1, 330: 8}])
def test_a_raw_picture_in_a_tiff_is_no_preview(tags: dict[int, Any]) -> None:
    """Pillow would read the small preview that stands first in the file."""
    assert image.look(encoded(Image.new("RGB", (8, 6)), "TIFF", tiffinfo=tags)).problem.startswith("a camera's raw")


def test_a_text_that_begins_like_a_bitmap_is_a_text(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("BMW is a maker of cars")
    assert not image.sniff(tmp_path / "x")


def test_a_bomb_is_refused_by_its_header() -> None:
    claimed = bytearray(encoded(Image.new("1", (8, 8))))
    claimed[16:24] = struct.pack(">II", 9000, 9000)
    claimed[29:33] = struct.pack(">I", zlib.crc32(bytes(claimed[12:29])))
    assert image.look(bytes(claimed)).problem == "it is too large: 9000 × 9000 pixels"
    claimed[16:24] = struct.pack(">II", 90000, 90000)
    claimed[29:33] = struct.pack(">I", zlib.crc32(bytes(claimed[12:29])))
    assert image.look(bytes(claimed)).problem == "it claims to be far above 50 megapixels"


def test_threads_leave_the_filters_of_warnings_as_they_were() -> None:
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(image.look, [WHOLE["JPEG"], WHOLE["PNG"], b"x"] * 40))
    assert warnings.filters == before


@pytest.mark.parametrize("case", ["transparent red", "CMYK TIFF", "palette", "1 × 1"])
def test_a_portable_file_is_read_alike_by_all(case: str) -> None:
    data = SEEN[case][0]
    theirs = Image.open(io.BytesIO(image.portable(data)))
    assert theirs.mode == "RGB" and np.array_equal(np.asarray(theirs), np.asarray(image.picture(data)))
