"""Pictures: told by content, decoded as a person sees them, prepared exactly as transformers' own processor does."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from regraft.errors import DataError, UsageError
from regraft.modalities import image
from regraft.waist import InputSpec, Options, Row, Varied

HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
ALL = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}

PROCESSORS: dict[str, dict[str, Any]] = {
    "vit": {"image_processor_type": "ViTImageProcessor", "size": 24, "resample": 2, **HALF},
    "vit oblong": {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 20, "width": 31},
        "resample": 3,
        **HALF,
    },
    "convnext": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0.875},
    "convnext large": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 384},
        "crop_pct": 1.0,
    },
    "mobilenet": {
        "image_processor_type": "MobileNetV2ImageProcessor",
        "size": {"shortest_edge": 33},
        "do_center_crop": True,
        "crop_size": {"height": 28, "width": 28},
        **HALF,
    },
    "mobilenet padding": {
        "image_processor_type": "MobileNetV2ImageProcessor",
        "size": {"shortest_edge": 21},
        "do_center_crop": True,
        "crop_size": {"height": 28, "width": 33},
        **HALF,
    },
    "clip": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 24},
        "do_center_crop": True,
        "crop_size": {"height": 24, "width": 24},
        "resample": 3,
        **IMAGENET,
    },
    "bit": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 30},
        "do_center_crop": True,
        "crop_size": {"height": 24, "width": 24},
        "resample": 3,
        **IMAGENET,
    },
    "no scale": {"image_processor_type": "ViTImageProcessor", "size": 16, "do_rescale": False, **HALF},
    "no normalisation": {"image_processor_type": "ViTImageProcessor", "size": 16, "do_normalize": False},
    "no resizing": {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": False,
        "do_center_crop": True,
        "crop_size": {"height": 19, "width": 19},
        **IMAGENET,
    },
}
SIZES = [(61, 40), (40, 61), (33, 33), (9, 14), (150, 17), (1, 1)]
SMALL = InputSpec("image", (3, 8, 8), settings=(("height", 8), ("width", 8)))


def pixels(w: int, h: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(w: int, h: int) -> bytes:
    """A PNG whose header claims w × h pixels: 600 bytes that would become gigabytes."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


# ---------------------------------------------------------------- equal to transformers


@pytest.mark.parametrize("given", PROCESSORS.values(), ids=PROCESSORS)
def test_pictures_are_prepared_as_transformers_does(tmp_path: Path, given: dict[str, Any]) -> None:
    from transformers import AutoImageProcessor

    (tmp_path / "preprocessor_config.json").write_text(json.dumps(ALL | given))
    spec = image.described(tmp_path)
    theirs = AutoImageProcessor.from_pretrained(str(tmp_path), local_files_only=True, backend="pil")
    encode = image.encoder(spec, False).tensors
    for i, size in enumerate(SIZES):
        cell = Image.fromarray(pixels(*size, seed=i))
        wanted = np.asarray(theirs(cell, return_tensors="np")["pixel_values"])
        got = encode([cell])["pixel_values"].numpy()
        assert got.shape == wanted.shape == (1, *spec.shape)
        assert np.abs(got - wanted).max() <= 1e-6 * max(1.0, np.abs(wanted).max())


def test_a_batch_is_its_rows() -> None:
    cells = [pixels(9, 12, seed=i) for i in range(3)]
    encode = image.encoder(SMALL, True).tensors
    made = encode(cells)["pixel_values"]
    assert made.dtype == torch.float32 and made.shape == (3, 3, 8, 8)
    assert torch.equal(made, torch.cat([encode([cell])["pixel_values"] for cell in cells]))


def test_training_and_use_see_the_same() -> None:
    cell = pixels(9, 12)
    made = [image.encoder(SMALL, train).tensors([cell])["pixel_values"] for train in (True, False)]
    assert torch.equal(*made)


def test_scale_and_shift_are_applied() -> None:
    spec = InputSpec("image", (3, 8, 8), settings=(("height", 8), ("scale", 2.0), ("shift", -1.0)))
    made = image.encoder(spec, False).tensors([np.full((8, 8, 3), 7, np.uint8)])["pixel_values"]
    assert made.unique().tolist() == [13.0]


def jpeg(w: int, h: int, fmt: str = "JPEG") -> bytes:
    """A photograph of a kind: smooth, so that it is the same at every scale."""
    y, x = np.mgrid[:h, :w] / max(w, h)
    file, waves = io.BytesIO(), [np.sin(6 * x + 3 * i) + np.cos(7 * y - i) for i in range(3)]
    Image.fromarray(((np.stack(waves, -1) + 2) * 63).astype(np.uint8)).save(file, fmt)
    return file.getvalue()


SHORTER = InputSpec("image", (3, 8, 8), settings=(("crop_height", 8), ("shorter", 10)))


@pytest.mark.parametrize(
    ("spec", "cell", "least"),
    [
        (SMALL, jpeg(32, 32), 16),
        (SMALL, jpeg(31, 90), 0),
        (SHORTER, jpeg(40, 70), 20),
        (SHORTER, jpeg(39, 70), 0),
        (InputSpec("image", (3, 8, 16), settings=(("height", 8), ("width", 16))), jpeg(64, 64), 32),
        (InputSpec("image", (3, 8, 8), settings=(("crop_height", 8),)), jpeg(900, 900), 0),
        (InputSpec("image", (64,), settings=(("side", 8),)), jpeg(900, 900), 0),
        (SMALL, jpeg(90, 90, "PNG"), 0),
        (SMALL, pixels(90, 90), 0),
    ],
)
def test_only_large_jpegs_loosen_a_specification(spec: InputSpec, cell: Any, least: int) -> None:
    """Twice the pixels that are resized to have to be left by a half of the picture's size."""
    rows = [Row(str(i), some, "a", "", str(i), look=image.look(some)) for i, some in enumerate((pixels(9, 9), cell))]
    loose, told = image.loosened(spec, rows)
    if not least:
        assert loose is spec and told == ""
        return
    assert set(loose.settings) - set(spec.settings) == {("least", least)} and loose.fingerprint != spec.fingerprint
    assert told == f"JPEGs from {2 * least} pixels a side on are decoded at a smaller scale for the frozen trunk"


@pytest.mark.parametrize("spec", [SMALL, SHORTER])
def test_a_loose_specification_moves_large_jpegs_alone(spec: InputSpec) -> None:
    loose = dataclasses.replace(spec, settings=(*spec.settings, ("least", 20)))
    large = jpeg(160, 90)
    cells = [large, jpeg(39, 90), jpeg(160, 90, "PNG"), pixels(160, 90), Varied(large, "crop", 1, 3)]
    cells += [Varied(large, "flip", 1, 3)]
    exact, moved = (image.encoder(one, False).tensors(cells)["pixel_values"] for one in (spec, loose))
    assert [torch.equal(a, b) for a, b in zip(exact, moved, strict=True)] == [False, True, True, True, True, True]
    assert float((exact[0] - moved[0]).abs().max()) < 0.03


def test_every_picture_is_one_part_of_one_size_and_there_is_nothing_to_tell() -> None:
    cells = [pixels(9, 12), "a/path.png", Path("another.png")]
    encode = image.encoder(SMALL, True)
    found = encode.parts(cells)
    assert [[size for _, size in row] for row in found] == [[0], [0], [0]]
    assert all(part is cell for cell, ((part, _),) in zip(cells, found, strict=True))
    assert encode.told(cells) == () and encode.parts([]) == []


# ---------------------------------------------------------------- what the shelf asks of a modality


def test_noise_is_a_batch_that_follows_the_seed() -> None:
    one, same, other = (image.noise(SMALL, 3, seed)["pixel_values"] for seed in (1, 1, 2))
    assert one.shape == (3, 3, 8, 8) and one.dtype == torch.float32
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("given", [{"long": "ends"}, {"long": "windows"}, {"max_tokens": 64}], ids=str)
def test_options_for_texts_are_refused_with_pictures(given: dict[str, Any]) -> None:
    assert image.adjust(SMALL, Options("d", "m")) is SMALL
    with pytest.raises(UsageError, match=r"this option is for texts · saw: --long or --max-tokens with pictures"):
        image.adjust(SMALL, Options("d", "m", **given))


def test_a_bundle_carries_the_processor_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_bytes(b'{"size":  24 }')
    assert image.carried(tmp_path, SMALL) == {"preprocessor_config.json": b'{"size":  24 }'}


# ---------------------------------------------------------------- modes


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    source = Image.fromarray(pixels(12, 9)).convert(mode)
    made = image.picture(source)
    assert made.mode == "RGB" and made.size == (12, 9)
    assert np.array_equal(np.asarray(made), np.asarray(source.convert("RGB")))


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_every_format_is_known_and_read(tmp_path: Path, fmt: str) -> None:
    Image.fromarray(pixels(12, 9)).save(tmp_path / "no_ending", fmt)
    assert image.sniff(tmp_path / "no_ending")
    assert image.picture(tmp_path / "no_ending").size == (12, 9)


def test_an_animation_gives_its_first_picture(tmp_path: Path) -> None:
    first, second = (Image.fromarray(np.full((6, 5), v, np.uint8)) for v in (200, 10))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert np.asarray(image.picture(tmp_path / "a.gif")).min() >= 190


@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_brightness(tmp_path: Path, fmt: str) -> None:
    grey = np.linspace(0, 65535, 12 * 9).reshape(9, 12).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "x", fmt)
    made = np.asarray(image.picture(tmp_path / "x"))
    assert np.abs(made.astype(int) - (grey // 257)[..., None]).max() <= 1


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("turn", [3, 6, 8])
def test_turned_pictures_are_set_upright(tmp_path: Path, fmt: str, turn: int) -> None:
    upright = np.zeros((8, 16, 3), np.uint8)
    upright[:, :8] = 255
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[turn]
    stored = Image.fromarray(upright).transpose(back)
    exif = Image.Exif()
    exif[0x0112] = turn
    stored.save(tmp_path / "x", fmt, exif=exif)
    made = np.asarray(image.picture(tmp_path / "x"))
    assert made.shape == upright.shape and made[:, :7].min() > 200 and made[:, 9:].max() < 55


def test_sixteen_bits_are_set_upright_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((8, 16), np.uint16)).save(tmp_path / "x.png", exif=exif)
    assert image.picture(tmp_path / "x.png").size == (8, 16)


@pytest.mark.parametrize("shape", [(9, 12), (9, 12, 3), (9, 12, 4)])
def test_arrays_are_pictures(shape: tuple[int, ...]) -> None:
    assert image.sniff(np.zeros(shape, np.uint8))
    assert image.picture(np.zeros(shape, np.uint8)).size == (12, 9)


def test_bytes_are_decoded() -> None:
    file = io.BytesIO()
    Image.fromarray(pixels(5, 4)).save(file, "PNG")
    assert np.array_equal(np.asarray(image.picture(file.getvalue())), pixels(5, 4))


def test_what_is_no_picture_is_told_by_content(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("text")
    assert not image.sniff(tmp_path / "x.png")
    assert not image.sniff(tmp_path / "none.png") and not image.sniff(tmp_path)
    assert not image.sniff(5) and not image.sniff(np.zeros(3))
    assert image.sniff(Image.new("RGB", (2, 2)))


# ---------------------------------------------------------------- refusals


def test_a_truncated_picture_is_refused_by_name(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    Image.fromarray(pixels(60, 50)).save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:-700])
    with pytest.raises(
        DataError, match=r"cannot be read · saw: .*cut\.jpg: it is cut short .*a whole JPEG.*replace or remove"
    ):
        image.picture(tmp_path / "cut.jpg")


def test_a_text_called_png_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("a text")
    with pytest.raises(DataError, match=r"cannot be read · saw: .*notes\.png: it is no picture: it begins like text"):
        image.picture(str(tmp_path / "notes.png"))


@pytest.mark.parametrize("side", [60_000, 12_000, 8_000])
def test_a_header_that_claims_too_much_is_refused_at_once(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(side, side))
    began = time.perf_counter()
    with pytest.raises(DataError) as caught:
        image.picture(tmp_path / "bomb.png")
    assert time.perf_counter() - began < 1
    assert "bomb.png" in caught.value.saw
    assert caught.value.what in ("a picture is too large to decode safely", "a picture cannot be read")


def test_a_large_picture_is_refused_with_its_size() -> None:
    with pytest.raises(DataError, match=r"too large to decode safely · saw: .*: 8000 × 8000 pixels · allowed: 50 mega"):
        image.picture(Image.new("1", (8000, 8000)))


CROPS = [(("crop_height", 20), ("crop_width", 24)), (("centre", "even"), ("crop_height", 37), ("crop_width", 21))]


@pytest.mark.parametrize("crop", CROPS, ids=str)
@pytest.mark.parametrize("size", [(900, 7), (7, 900), (640, 31)])
def test_of_a_long_thin_picture_the_crop_alone_is_resized(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], crop: Any
) -> None:
    """Its shorter side resized to 224 pixels, 60000 × 1 would take 9 GB; the crop is what it would have been."""
    from regraft.modalities import _decoding

    spec = InputSpec("image", (3, 20, 24), settings=(*crop, ("shorter", 30)))
    cell = Image.fromarray(pixels(*size))
    whole = image.fit(cell, spec)
    for module in (image, _decoding):
        monkeypatch.setattr(module, "MAX_PIXELS", 1)
    part = image.fit(cell, spec)
    assert part.shape == whole.shape and np.abs(part.astype(int) - whole).max() <= 1


def test_a_very_long_picture_is_encoded() -> None:
    spec = InputSpec("image", (3, 224, 224), settings=(("crop_height", 224), ("crop_width", 224), ("shorter", 224)))
    assert image.encoder(spec, False).tensors([Image.new("RGB", (60_000, 10))])["pixel_values"].shape == (
        1,
        3,
        224,
        224,
    )
    with pytest.raises(DataError, match="60000 × 10"):
        image.fit(Image.new("RGB", (60_000, 10)), InputSpec("image", (3, 224, 224), settings=(("shorter", 224),)))


@pytest.mark.timeout(10)
def test_a_pipe_is_no_picture_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert not image.sniff(tmp_path / "pipe.png")


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png: .*No such file"):
        image.picture(tmp_path / "none.png")


STRANGE = {"floats": np.zeros((4, 4, 3)), "4-D": np.zeros((4, 4, 3, 2), np.uint8), "int": 5, "None": None}


@pytest.mark.parametrize("cell", STRANGE.values(), ids=STRANGE)
def test_a_value_that_is_no_picture_is_refused(cell: Any) -> None:
    with pytest.raises(DataError, match=f"cannot be read · saw: a {type(cell).__name__}: "):
        image.picture(cell)


def test_lying_tags_are_refused_or_passed_over() -> None:
    """Numbers of a TIFF declared as texts or fractions: Pillow raises TypeError."""
    file = io.BytesIO()
    Image.fromarray(pixels(5, 4)).convert("L").save(file, "TIFF")
    data = bytearray(file.getvalue())
    for tag in (0x0101, 0x0100, 0x0102, 0x0103, 0x0106, 0x0111, 0x0115, 0x0116, 0x0117):
        at = data.find(struct.pack("<H", tag), struct.unpack_from("<I", data, 4)[0])
        for kind in (2, 5, 7, 11):
            lying = bytearray(data)
            lying[at + 2] = kind
            with contextlib.suppress(DataError):
                image.picture(bytes(lying))


def test_formats_that_start_programs_are_not_opened(tmp_path: Path) -> None:
    """Pillow hands PostScript to Ghostscript."""
    (tmp_path / "x.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(DataError, match="a PostScript drawing: save it as JPEG or PNG"):
        image.picture(tmp_path / "x.eps")
