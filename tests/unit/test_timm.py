"""timm: folders in its layout and names in the hub's cache, opened offline and written back as timm reads them."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from regraft.backbone.view import View
from regraft.errors import ModelError, UsageError
from regraft.providers import timm as provider
from regraft.waist import Target
from tests import openings

pytestmark = pytest.mark.image
CONFIG, WEIGHTS = "config.json", "model.safetensors"
SMALL = {"input_size": (3, 64, 64), "crop_pct": 0.5}
TINY: dict[str, dict[str, Any]] = {
    "resnet18": {"channels": (8, 12, 16, 24)},
    "vit_tiny_patch16_224": {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 3, "num_heads": 2},
    "convnext_atto": {"dims": (8, 12, 16, 24), "depths": (2, 2, 2, 2)},
    "swin_tiny_patch4_window7_224": {
        **{"embed_dim": 8, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 4), "window_size": 4, "img_size": 64}
    },
    "efficientnet_b0": {},
    "mobilenetv3_small_050": {},
}


@functools.cache
def network(name: str, classes: int = 5) -> Any:
    """A network of timm with random weights, made small."""
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = timm.create_model(name, num_classes=classes, pretrained_cfg_overlay=SMALL, **TINY[name])
        for parameter in module.parameters():
            if parameter.ndim < 2:  # norms and layer scales start where they do nothing
                torch.nn.init.normal_(parameter, mean=0.5, std=0.2)
    return module.eval()


def saved(root: Path, name: str = "resnet18", classes: int = 5) -> Path:
    """The network as timm saves it."""
    import timm

    timm.models.save_for_hf(network(name, classes), str(root), safe_serialization=True)
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("made") / "resnet")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of the model that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "resnet"))


@pytest.fixture(scope="module")
def view(made: Path) -> View:
    return provider.load(str(made), "image")


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# ---------------------------------------------------------------- opening


def test_names_and_folders_are_known(made: Path, tmp_path: Path) -> None:
    assert provider.find("timm/resnet18") and provider.find(str(made)) and provider.find(made)
    assert not provider.find("resnet18") and not provider.find(str(tmp_path)) and not provider.find(torch.nn.ReLU())
    (tmp_path / CONFIG).write_text('{"architecture": "x", "model_type": "bert"}')
    assert not provider.find(tmp_path)


def test_a_path_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "timm" / "resnet18").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not provider.find("timm/resnet18")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if TINY[n] else pytest.mark.slow) for n in TINY])
def test_an_architecture_is_opened_and_written_back(name: str, tmp_path: Path) -> None:
    view = provider.load(saved(tmp_path / "in", name), "image")
    batch = openings.noise(view.inputs)
    with torch.no_grad():
        assert torch.allclose(openings.logits(view, batch), network(name)(batch["pixel_values"]), atol=1e-5)
    opening = openings.checked(view, tmp_path / "out", openings.pngs(tmp_path / "pictures"))
    assert opening.library == "timm"
    again = provider.load(tmp_path / "out")
    assert (again.config, again.inputs) == (view.config, view.inputs)
    assert torch.equal(openings.logits(again, batch), openings.logits(view, batch, openings.head_for(view)))


def test_a_folder_becomes_a_view(view: View) -> None:
    assert (view.name, view.provider, view.dim) == ("resnet", "timm", 24)
    assert view.inputs.shape == (3, 64, 64) and view.inputs.mean == (0.485, 0.456, 0.406)
    assert view.inputs.setting("shorter", 0) == 128 and view.inputs.setting("resample", 0) == 3


def test_the_configuration_says_all_but_labels_and_place(view: View, folder: Path) -> None:
    edit(folder / CONFIG, label_names=["a", "b", "c", "d", "e"])
    assert provider.load(folder).config == view.config
    assert str(folder) not in view.config and "channels" in view.config


def test_labels_are_those_that_the_folder_names(view: View, folder: Path, tmp_path: Path) -> None:
    assert view.labels == ()
    names = ["n01", "n02", "c", "d", "e"]
    edit(folder / CONFIG, label_names=names)
    assert provider.load(folder).labels == tuple(names)
    edit(folder / CONFIG, label_descriptions={"n01": "ant, emmet", "n02": "bee"})
    assert provider.load(folder).labels == ("ant, emmet", "bee", "c", "d", "e")
    edit(folder / CONFIG, label_names=names[:3])
    assert provider.load(folder).labels == ()
    openings.exported(view, tmp_path / "out")
    assert provider.load(tmp_path / "out").labels == openings.LABELS
    openings.exported(view, tmp_path / "one", Target("price", "number"))
    assert provider.load(tmp_path / "one").labels == ()


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_the_fingerprint_sees_every_file(folder: Path, made: Path, name: str) -> None:
    assert provider.fingerprint(folder) == provider.fingerprint(str(made))
    with (folder / name).open("ab") as file:
        file.write(b" ")
    assert provider.fingerprint(folder) != provider.fingerprint(made)


def test_adapters_are_put_in_by_the_lines_of_a_bundle(tmp_path: Path) -> None:
    view = provider.load(saved(tmp_path / "in", "convnext_atto"))
    openings.opens_adapted(view, tmp_path / "out", openings.pngs(tmp_path / "pictures"))


def test_a_checkpoint_without_a_head_gets_a_place_for_one(tmp_path: Path) -> None:
    view = provider.load(saved(tmp_path / "in", "vit_tiny_patch16_224", 0))
    assert view.dim == 32
    openings.checked(view, tmp_path / "out", openings.pngs(tmp_path / "pictures"))


def test_random_starts_follow_the_seed_and_leave_the_generator_alone(made: Path) -> None:
    view = provider.load(made)
    state, found = torch.get_rng_state(), []
    for seed in (1, 1, 2):
        view.randomise(seed)
        found.append(torch.cat([p.detach().flatten() for _, _, p in view.named()]))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------- preparation


SQUASHED = {"crop_mode": "squash", "crop_pct": 1.0, "interpolation": "bilinear", "input_size": [3, 64, 48]}


def test_a_squashed_picture_is_said(folder: Path) -> None:
    cfg = json.loads((folder / CONFIG).read_text())["pretrained_cfg"]
    edit(folder / CONFIG, pretrained_cfg=cfg | SQUASHED)
    inputs = provider.load(folder).inputs
    assert inputs.shape == (3, 64, 48)
    assert (inputs.setting("height", 0), inputs.setting("width", 0), inputs.setting("resample", 0)) == (64, 48, 2)


@pytest.mark.skipif(not openings.crops_to_even(), reason="the modality of pictures crops down alone")
@pytest.mark.parametrize("crop_pct", [0.9, 0.95, 0.875])
def test_crops_with_an_odd_margin_are_timms(folder: Path, tmp_path: Path, crop_pct: float) -> None:
    cfg = json.loads((folder / CONFIG).read_text())["pretrained_cfg"]
    edit(folder / CONFIG, pretrained_cfg=cfg | {"crop_pct": crop_pct})
    sizes = [(64 + i, 97) for i in range(9)]
    openings.checked(provider.load(folder), tmp_path / "out", openings.pngs(tmp_path / "pictures", *sizes))


@pytest.mark.parametrize("changes", [{"crop_mode": "border"}, {"input_size": [3, 64, 48]}, {"input_size": [1, 64, 64]}])
def test_a_preparation_that_cannot_be_said_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"not understood · saw: \d channels of \d+ × \d+, crop mode .* another model"):
        provider._inputs({"input_size": (3, 64, 64), "crop_pct": 0.5} | changes)


# ---------------------------------------------------------------- targets


def test_several_labels_and_numbers_are_written(view: View, tmp_path: Path) -> None:
    paths = openings.pngs(tmp_path / "pictures")
    many, _ = openings.exported(view, tmp_path / "many", Target("tags", "multi", ("x", "y")))
    outputs = openings.ran(many.use, folder=str(tmp_path / "many"), inputs=paths)["outputs"]
    assert [set(one) for one in outputs] == [{"x", "y"}] * 3 and all(0 < v < 1 for one in outputs for v in one.values())
    one, head = openings.exported(view, tmp_path / "one", Target("price", "number"))
    outputs = openings.ran(one.use, folder=str(tmp_path / "one"), inputs=paths)["outputs"]
    assert len(outputs) == 3 and all(isinstance(value, float) for value in outputs)
    assert torch.equal(provider.load(tmp_path / "one").native.weight, head.weight)


def test_two_exports_are_equal_bytes_and_leave_the_view_as_it_was(view: View, tmp_path: Path) -> None:
    before = openings.logits(view, openings.noise(view.inputs))
    for name in ("one", "two"):
        openings.exported(view, tmp_path / name)
    assert {path.name for path in (tmp_path / "one").iterdir()} == {CONFIG, WEIGHTS}
    for name in (CONFIG, WEIGHTS):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    told = json.loads((tmp_path / "one" / CONFIG).read_text())
    assert told["label_names"] == ["a", "grün", "c"] and told["num_classes"] == 3 and told["global_pool"] == "avg"
    assert told["pretrained_cfg"]["crop_pct"] == 0.5 and "file" not in told["pretrained_cfg"]
    assert torch.equal(openings.logits(view, openings.noise(view.inputs)), before)


# ---------------------------------------------------------------- refusing


def only_pickles(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")


def lacking(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file(dict(list(tensors.items())[:-3]), folder / WEIGHTS)


REFUSALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickles": (only_pickles, r"pickles, which can run code when opened · saw: pytorch_model\.bin .*safetensors"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), r"there are no weights here · saw: .*resnet"),
    "missing tensors": (lacking, r"timm could not open this model · saw: .*resnet: RuntimeError"),
    "another architecture": (
        lambda f: edit(f / CONFIG, architecture="my own (3 stages)"),
        r"no architecture of that name for pictures · saw: my own \(3 stages\) in .*config\.json .*model=network",
    ),
    "odd arguments": (lambda f: edit(f / CONFIG, model_args={"colour": 3}), r"could not open this model .* TypeError"),
    "gaps allowed": (
        lambda f: edit(f / CONFIG, model_args={"pretrained_strict": False}),
        r"ValueError: model_args that say how weights are read",
    ),
    "no head": (lambda f: edit(f / CONFIG, model_args={"features_only": True}), r"timm could not open this model"),
}


@pytest.mark.parametrize(("spoil", "what"), REFUSALS.values(), ids=REFUSALS)
def test_a_folder_that_cannot_be_a_backbone_is_refused(
    folder: Path, spoil: Callable[[Path], object], what: str
) -> None:
    spoil(folder)
    with pytest.raises(ModelError, match=what):
        provider.load(folder)


def test_other_data_and_other_flags_are_refused(made: Path) -> None:
    with pytest.raises(ModelError, match=r"this model reads pictures · saw: data of texts"):
        provider.load(made, "text")
    with pytest.raises(UsageError, match=r"says itself which architecture it is · saw: --arch resnet18"):
        provider.load(made, "image", "resnet18")


# ---------------------------------------------------------------- the hub's cache


def cached(cache: Path, tag: str, made: Path) -> None:
    """The folder as `hf download timm/TAG` lays it out."""
    place = cache / f"models--timm--{tag}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    shutil.copytree(made, place / "snapshots" / "abc")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("query", ["timm/resnet18", "timm/resnet18.a1_in1k"])
def test_a_cached_name_is_its_snapshot(cache: Path, made: Path, query: str) -> None:
    cached(cache, "resnet18.a1_in1k", made)
    cached(cache, "resnet18d.ra2_in1k", made)
    assert provider.fingerprint(query) == provider.fingerprint(made)
    assert provider.load(query).name == query.removeprefix("timm/")


def test_of_several_weights_the_one_that_timm_would_take_is_opened(cache: Path, made: Path, folder: Path) -> None:
    edit(folder / CONFIG, label_names=["1", "2", "3", "4", "5"])
    cached(cache, "resnet18.a1_in1k", made)
    cached(cache, "resnet18.fb_ssl_yfcc100m_ft_in1k", folder)
    assert provider.fingerprint("timm/resnet18") == provider.fingerprint(made)
    assert provider.fingerprint("timm/resnet18.fb_ssl_yfcc100m_ft_in1k") == provider.fingerprint(folder)


def test_several_weights_that_timm_would_not_take_are_named(cache: Path, made: Path) -> None:
    for tag in ("mine", "yours"):
        cached(cache, f"resnet18.{tag}", made)
    with pytest.raises(
        ModelError, match=r"several weights .* saw: .*resnet18\.mine, resnet18\.yours .*timm/resnet18\."
    ):
        provider.load("timm/resnet18")


@pytest.mark.parametrize("query", ["timm/resnet18.a1_in1k", "timm/resnet18", "timm/", "timm/../x"])
def test_a_missing_name_says_how_to_get_it(cache: Path, query: str) -> None:
    for ask in (provider.fingerprint, provider.load):
        with pytest.raises(ModelError, match=r"not on this machine, and nothing is fetched · saw: timm/.* hf download"):
            ask(query)


def test_a_cache_with_pickles_alone_counts_as_missing(cache: Path, made: Path) -> None:
    cached(cache, "resnet18.a1_in1k", made)
    (cache / "models--timm--resnet18.a1_in1k" / "snapshots" / "abc" / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=r"hf download timm/resnet18\.a1_in1k$"):
        provider.load("timm/resnet18.a1_in1k")


def test_a_library_that_does_not_work_is_named(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "timm", None)
    assert provider.names() == ()
    with pytest.raises(ModelError, match=r"timm is needed for this model .*pip install \"regraft\[image\]\""):
        provider.load(made)
