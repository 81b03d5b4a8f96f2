"""Hostile and awkward folders and archives of pictures, each with its right answer."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.data.open import open_data
from regraft.errors import DataError
from regraft.waist import Data, Reading
from tests import calls, places

Made = Callable[[Path], Path]
PER_CLASS = 40


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 pictures in three class folders."""
    root = tmp_path_factory.mktemp("clean")
    places.pictures(root / "all", train=PER_CLASS, val=0, test=0)
    return root / "all" / "train"


@pytest.fixture
def photos(clean: Path, tmp_path: Path) -> Path:
    """A copy of the clean folder that a case may spoil."""
    root = tmp_path / "photos"
    for path in sorted(clean.rglob("*.png")):
        there = root / path.relative_to(clean)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(path.read_bytes())
    return root


def told(data: Data) -> list[tuple[str, str, str]]:
    """What the rows are, apart from their names."""
    return sorted((name, str(row.y), row.key) for name in ("train", "val", "test") for row in getattr(data, name))


def zipped(root: Path, there: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(there, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            archive.write(path, inside + path.relative_to(root).as_posix())
    return there


def tarred(root: Path, there: Path, mode: str = "w") -> Path:
    with tarfile.open(there, mode) as archive:  # type: ignore[call-overload]
        archive.add(root, arcname="photos")
    return there


# ---------------------------------------------------------------- works as the clean form would


def litter(root: Path) -> Path:
    for name in (".DS_Store", "._0.png", "Thumbs.db", "desktop.ini"):
        (root / "red" / name).write_bytes(b"\0\5litter")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "x.png").write_bytes((root / "red" / "0.png").read_bytes())
    return root


def odd_names(root: Path) -> Path:
    names = ["a\nb.png", "🐜 ant.png", "-rf.png", " blank .png", "x" * 250 + ".png", "=1+1.png"]
    for name, path in zip(names, sorted((root / "red").iterdir()), strict=False):
        path.rename(path.with_name(name))
    raw = os.fsencode(root / "blue") + b"/\xff\xfe.png"
    os.rename(os.fsencode(sorted((root / "blue").iterdir())[0]), raw)
    return root


def loops(root: Path) -> Path:
    (root / "red" / "again").symlink_to(root, target_is_directory=True)
    return root


def wrong_endings(root: Path) -> Path:
    for path in sorted((root / "green").iterdir()):
        path.rename(path.with_suffix(".jpg"))
    for path in sorted((root / "blue").iterdir()):
        path.rename(path.with_suffix(""))
    return root


SAME: dict[str, Made] = {
    "zip": lambda root: zipped(root, root.parent / "photos.zip"),
    "zip with one folder around all": lambda root: zipped(root, root.parent / "photos.zip", "photos/"),
    "zip without its ending": lambda root: zipped(root, root.parent / "photos.data"),
    "tar": lambda root: tarred(root, root.parent / "photos.tar"),
    "tar.gz": lambda root: tarred(root, root.parent / "photos.tar.gz", "w:gz"),
    "tar.xz": lambda root: tarred(root, root.parent / "photos.tar.xz", "w:xz"),
    "litter": litter,
    "odd names": odd_names,
    "a link to its own folder": loops,
    "wrong endings": wrong_endings,
}


@pytest.mark.parametrize("case", SAME)
def test_it_is_read_as_the_clean_form(case: str, clean: Path, photos: Path) -> None:
    data = open_data(str(SAME[case](photos)))
    assert told(data) == told(open_data(str(clean)))
    assert not data.bad
    for row in (*data.train, *data.val, *data.test):
        row.id.encode()  # fit for any file


# ---------------------------------------------------------------- a picture as a person sees it


def red(mode: str, **more: object) -> bytes:
    """A red picture in some mode."""
    made = {
        "CMYK": Image.new("CMYK", (20, 30), (0, 255, 255, 0)),
        "P": Image.new("RGB", (20, 30), (255, 0, 0)).quantize(4),
        "RGBA": Image.new("RGBA", (20, 30), (255, 0, 0, 255)),
    }[mode]
    file = io.BytesIO()
    made.save(file, "TIFF" if mode == "CMYK" else "PNG")
    return file.getvalue()


@pytest.mark.parametrize("mode", ["CMYK", "P", "RGBA"])
def test_red_is_red_in_any_mode(mode: str) -> None:
    from regraft.modalities import image

    seen = np.asarray(image.picture(red(mode))).reshape(-1, 3).mean(0)
    assert seen[0] > 200 and seen[1] < 60 and seen[2] < 60


def test_what_is_transparent_is_not_seen() -> None:
    from regraft.modalities import image

    file = io.BytesIO()
    Image.new("RGBA", (20, 30), (255, 0, 0, 0)).save(file, "PNG")
    seen = np.asarray(image.picture(file.getvalue())).reshape(-1, 3)
    assert (seen[:, 0] == seen[:, 1]).all() and (seen[:, 1] == seen[:, 2]).all(), "no red where nothing is"


def test_a_turned_picture_stands_upright_and_a_moving_one_shows_its_first_frame() -> None:
    from regraft.modalities import image

    file, exif = io.BytesIO(), Image.Exif()
    exif[274] = 6
    Image.new("RGB", (40, 20)).save(file, "JPEG", exif=exif)
    assert image.picture(file.getvalue()).size == (20, 40) and image.look(file.getvalue()).size == (20, 40)
    moving = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    assert np.asarray(image.picture(moving.getvalue()))[0, 0].tolist() == [255, 0, 0]


# ---------------------------------------------------------------- left out, counted, named


def cut(root: Path) -> Path:
    path = root / "red" / "7.png"
    path.write_bytes(path.read_bytes()[:-300])
    return path


def empty(root: Path) -> Path:
    path = root / "red" / "7.png"
    path.write_bytes(b"")
    return path


def words(root: Path) -> Path:
    path = root / "red" / "7.jpg"
    (root / "red" / "7.png").rename(path)
    path.write_bytes(b"this is no picture at all\n" * 9)
    return path


def bomb(root: Path) -> Path:
    path = root / "red" / "7.png"
    Image.new("1", (30_000, 30_000)).save(path)
    return path


@pytest.mark.parametrize("spoil", [cut, empty, words, bomb])
def test_one_bad_picture_of_many_is_left_out_and_named(spoil: Made, photos: Path) -> None:
    path = spoil(photos)
    data = open_data(str(photos))
    (bad,) = data.bad
    assert bad.file == f"red/{path.name}" and bad.row == 0 and bad.why
    assert sum(len(rows) for rows in (data.train, data.val, data.test)) == 3 * PER_CLASS - 1
    assert any("1 left out" in note and path.name in note for note in data.notes)


def test_two_of_many_are_too_many_unless_they_are_allowed(photos: Path) -> None:
    cut(photos)
    (photos / "blue" / "3.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 120 .* cannot be used .* --allow-bad 2%"):
        open_data(str(photos))
    assert len(open_data(str(photos), 0, Reading(allow_bad=0.02)).bad) == 2


def test_a_link_that_leaves_the_folder_is_told(photos: Path, clean: Path) -> None:
    (photos / "red" / "out.png").symlink_to(clean / "red" / "0.png")
    (photos / "outside").symlink_to(clean, target_is_directory=True)
    data = open_data(str(photos))
    assert sum(len(rows) for rows in (data.train, data.val, data.test)) == 3 * PER_CLASS
    assert any("link" in note and "out.png" in note for note in data.notes)


# ---------------------------------------------------------------- refused


def climbing(root: Path) -> Path:
    there = root.parent / "evil.zip"
    with zipfile.ZipFile(there, "w") as archive:
        archive.writestr("../../outside.png", b"x")
    return there


def truncated(root: Path) -> Path:
    there = zipped(root, root.parent / "photos.zip")
    there.write_bytes(there.read_bytes()[:-2000])
    return there


def inflating(root: Path) -> Path:
    there = root.parent / "bomb.zip"
    with zipfile.ZipFile(there, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("red/0.png", b"\0" * 300_000_000)
    return there


def spared(root: Path) -> Path:
    for label in ("blue", "green"):
        for path in (root / label).iterdir():
            path.unlink()
        (root / label).rmdir()
    return root


def bare(root: Path) -> Path:
    (root.parent / "nothing").mkdir()
    return root.parent / "nothing"


REFUSED: dict[str, tuple[Made, str]] = {
    "a wrong path": (lambda root: root.parent / "fotos", "did you mean"),
    "an empty folder": (bare, "empty"),
    "one class": (spared, "only one class"),
    "a zip that climbs out": (climbing, r"\.\./\.\./outside\.png"),
    "a zip that was cut short": (truncated, "zip"),
    "a zip that inflates": (inflating, "bomb.zip"),
    "a file for which there is no reader": (lambda root: root / "red" / "0.png", "0.png"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_clearly(case: str, photos: Path, tmp_path: Path, capsys: calls.Captured) -> None:
    make, said = REFUSED[case]
    out = tmp_path / "runs"
    source = make(photos)
    code, printed, err = calls.call(["adapt", source, "--model", places.model(tmp_path / "m"), "--out", out], capsys)
    assert code == 3 and not printed and "Traceback" not in err and len(err) < 1500
    import re

    assert re.search(said, err) and "do: " in err
    assert not out.exists() and not (tmp_path / "outside.png").exists()
