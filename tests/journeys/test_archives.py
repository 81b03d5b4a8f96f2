"""The journey with an archive: as with the folder it was made of, to the bit."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

import regraft
from regraft.embedded import folder
from tests import places


def zipped(root: Path) -> Path:
    there = root.with_name("photos.zip")
    with zipfile.ZipFile(there, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*.png")):
            archive.write(path, path.relative_to(root))
    return there


def tarred(root: Path) -> Path:
    there = root.with_name("photos.tgz")
    with tarfile.open(there, "w:gz") as archive:
        archive.add(root, "photos")
    return there


def said(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in answer.items() if key != "id"} for answer in answers]


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_archive_and_its_folder_give_the_same(pack: Any, tmp_path: Path) -> None:
    root = places.pictures(tmp_path / "photos", train=6, val=3, test=3)
    archive = pack(root)
    here, there = (
        regraft.adapt(str(data), model=str(folder()), strategies=("probe",), out=str(tmp_path / f"runs-{data.name}"))
        for data in (root, archive)
    )
    assert here.folder.name == there.folder.name, "the same request"
    assert [trial.scores for trial in here.trials] == [trial.scores for trial in there.trials]
    names = [(run.folder / run.winner.predictions).read_bytes() for run in (here, there)]
    assert names[0] == names[1]
    assert (here.folder / "splits.csv").read_bytes() == (there.folder / "splits.csv").read_bytes()
    assert said(here.predict(root)) == said(here.predict(archive))
    assert regraft.evaluate(there.folder, str(archive)).scores == regraft.evaluate(here.folder, str(root)).scores
    again = regraft.adapt(str(archive), model=str(folder()), strategies=("probe",), out=str(there.folder.parent))
    assert again.folder == there.folder, "a finished run is read, not made again"
    assert {path.name for path in tmp_path.iterdir()} == {"photos", archive.name, "runs-photos", f"runs-{archive.name}"}


def test_pictures_with_what_libraries_do_not_see_pass_the_bundle_s_own_test(tmp_path: Path) -> None:
    """Alpha and CMYK: a library that opens such a file as it is sees another picture than a person does."""
    from PIL import Image

    root = places.pictures(tmp_path / "photos", train=6, val=3, test=3)
    for path in sorted(root.rglob("*.png")):
        picture = Image.open(path)
        if path.stem in ("0", "2"):
            picture.putalpha(90)
            picture.save(path)
        else:
            picture.convert("CMYK").save(path, "TIFF")
    run = regraft.adapt(str(root), model=str(folder()), strategies=("probe",), out=str(tmp_path / "runs"))
    assert (run.bundle / "regraft.json").is_file() and not list(run.bundle.glob("given-*"))
