"""Small grey pixels: scaled by training pictures alone, decoded as the modality does, shipped for Pillow and numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from regraft.backbone.plain import FEATURES, Plain
from regraft.deliver import native
from regraft.errors import DataError, ModelError, UsageError
from regraft.kit import shelf
from regraft.modalities import image as modality
from regraft.providers import pixels as provider
from regraft.waist import Target
from tests.openings import pngs, ran

LABELS = ("a", "grün", "c")
TARGETS = {
    "class": Target("y", "class", LABELS),
    "multi": Target("y", "multi", LABELS),
    "number": Target("grams", "number", centre=3.0, spread=2.0),
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return pngs(tmp_path_factory.mktemp("pictures"), *[(40 + 7 * i, 90 - 9 * i) for i in range(6)])


@pytest.fixture(scope="module")
def view(paths: list[str]) -> Plain:
    return provider.fitted([Path(path) for path in paths[:4]])


def features(view: Plain, cells: list[Any]) -> Tensor:
    return torch.as_tensor(view.run(view.encoder().tensors(cells)))


def test_it_is_the_plain_features_of_pictures() -> None:
    assert shelf.find("providers", modality.PLAIN) is provider
    assert not provider.find("pixels") and not provider.find(Path("pixels"))


def test_training_pictures_set_the_scale(view: Plain, paths: list[str]) -> None:
    made = features(view, [Path(path) for path in paths[:4]])
    assert made.shape == (4, 1024) and made.dtype == torch.float32
    torch.testing.assert_close(made.mean(0), torch.zeros(1024), atol=1e-5, rtol=0)
    torch.testing.assert_close(made.std(0, correction=0), torch.ones(1024), atol=1e-4, rtol=0)


def test_features_are_grey_levels_on_that_scale(view: Plain, paths: list[str], tmp_path: Path) -> None:
    view.export(nn.Linear(1024, 1), TARGETS["number"], str(tmp_path))
    held = load_file(tmp_path / "model.safetensors")
    with Image.open(paths[5]) as picture:
        levels = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.BILINEAR), np.float64).ravel()
    wanted = (levels / 255 - held["mean"]) / held["std"]
    torch.testing.assert_close(features(view, [paths[5]])[0].double(), torch.from_numpy(wanted), rtol=1e-4, atol=1e-4)


def test_any_form_of_a_picture_gives_the_same(view: Plain, paths: list[str]) -> None:
    encoder = view.encoder(True)
    assert encoder.parts(paths) == [[(path, 0)] for path in paths] and encoder.told(paths) == ()
    with Image.open(paths[0]) as picture:
        found = features(view, [paths[0], Path(paths[0]), picture, np.asarray(picture)])
    assert torch.equal(found, found[:1].expand(4, -1))
    assert torch.equal(features(view, paths)[2], features(view, [paths[2]])[0]), "whatever company it is in"


def test_pixels_that_never_change_are_not_blown_up() -> None:
    flat = [np.full((40, 40, 3), 9, np.uint8)] * 3
    view = provider.fitted(flat)
    assert features(view, flat).abs().max() < 1e-4
    assert features(view, [flat[0] + 1]).max() == pytest.approx(1.0, abs=1e-4), "one level is one unit"


def test_equal_cells_give_equal_bits_and_others_other_inputs(view: Plain, paths: list[str]) -> None:
    again = provider.fitted(paths[:4])
    assert again.inputs == view.inputs and torch.equal(features(again, paths), features(view, paths))
    assert provider.fitted(paths[:3]).inputs != view.inputs


def test_pictures_that_cannot_be_read_are_named(tmp_path: Path, view: Plain) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    for read in (lambda: provider.fitted([tmp_path / "bad.png"]), lambda: features(view, [tmp_path / "bad.png"])):
        with pytest.raises(DataError, match=r"bad\.png"):
            read()
    with pytest.raises(DataError, match="no pictures to learn from"):
        provider.fitted([])


def test_noise_holds_no_picture(view: Plain) -> None:
    batch = view.noise(7, 3)[FEATURES]
    assert batch.shape == (7, 1024) and torch.equal(batch, view.noise(7, 3)[FEATURES])
    assert not torch.equal(batch, view.noise(7, 4)[FEATURES])


# ---------------------------------------------------------------- bundles


def head_of(kind: str) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return nn.Linear(1024, len(TARGETS[kind].labels) or 1)


def scores(kind: str, made: Tensor) -> list[Any]:
    if kind == "number":
        return [pytest.approx(value, abs=1e-4) for value in made[:, 0].tolist()]
    prob = made.softmax(-1) if kind == "class" else made.sigmoid()
    return [pytest.approx(dict(zip(LABELS, row, strict=True)), abs=1e-5) for row in prob.tolist()]


@pytest.mark.parametrize("kind", TARGETS)
def test_a_bundle_is_opened_with_its_head(view: Plain, paths: list[str], tmp_path: Path, kind: str) -> None:
    head = head_of(kind)
    opening = view.export(head, TARGETS[kind], str(tmp_path))
    assert (opening.library, opening.provider) == ("PIL", "pixels")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "pixels.json"]
    again = provider.load(str(tmp_path))
    assert again.inputs == view.inputs and isinstance(again.native, nn.Linear)
    assert torch.equal(again.native.weight, head.weight) and torch.equal(again.native.bias, head.bias)
    assert torch.equal(features(again, paths), features(view, paths))


@pytest.mark.parametrize("kind", TARGETS)
def test_the_lines_give_the_same_answers(view: Plain, paths: list[str], tmp_path: Path, kind: str) -> None:
    head = head_of(kind)
    opening = view.export(head, TARGETS[kind], str(tmp_path))
    batch = view.noise(5, 3)
    with torch.no_grad():
        made = ran(opening.check, folder=str(tmp_path), batches=[batch])["made"]
        torch.testing.assert_close(made, head(batch[FEATURES]))
        outputs = ran(opening.use, folder=str(tmp_path), inputs=paths)["outputs"]
        assert outputs == scores(kind, head(features(view, paths)))
    assert "torch" not in opening.use and "regraft" not in opening.use


def test_the_lines_run_in_a_process_of_their_own(view: Plain, paths: list[str], tmp_path: Path) -> None:
    from safetensors.torch import save_file as save_tensors

    head = head_of("class")
    opening = view.export(head, TARGETS["class"], str(tmp_path))
    batch = view.noise(2, 3)[FEATURES]
    save_tensors({f"0/{FEATURES}": batch}, tmp_path / "golden.safetensors")
    golden = str(tmp_path / "golden.safetensors")
    made, told = native.run(opening, str(tmp_path), golden, 1, [Path(path) for path in paths], 1)
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(made), head(batch))
        assert told == scores("class", head(features(view, paths)))


def test_a_bundles_pictures_are_decoded_anew(view: Plain, paths: list[str], tmp_path: Path) -> None:
    """What was kept of training pictures must not answer for a file that was replaced since."""
    view.export(head_of("number"), TARGETS["number"], str(tmp_path))
    again, place = provider.load(tmp_path), tmp_path / "one.png"
    found = []
    for source in paths[:2]:
        place.write_bytes(Path(source).read_bytes())
        found.append(features(again, [place]))
    assert torch.equal(torch.cat(found), features(view, paths[:2]))


def test_what_does_not_fit_is_refused(view: Plain, tmp_path: Path) -> None:
    view.export(head_of("class"), TARGETS["class"], str(tmp_path))
    with pytest.raises(ModelError, match="reads pictures"):
        provider.load(tmp_path, "text")
    with pytest.raises(UsageError, match="no network"):
        provider.load(tmp_path, "image", "resnet18")
    before, tensors = provider.fingerprint(tmp_path), load_file(tmp_path / "model.safetensors")
    for wrong in ({"mean": tensors["mean"][1:]}, {"std": tensors["std"][None]}, {"weight": tensors["weight"][:, 1:]}):
        save_file(tensors | wrong, tmp_path / "model.safetensors")
        assert provider.fingerprint(str(tmp_path)) != before
        with pytest.raises(ModelError, match="cannot be read"):
            provider.load(tmp_path)
    (tmp_path / "pixels.json").unlink()
    with pytest.raises(ModelError, match=r"without pixels\.json"):
        provider.load(tmp_path)
