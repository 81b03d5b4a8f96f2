"""Hugging Face folders: opened without code of theirs, refused with a cure, written back in their own layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from regraft.backbone.view import View
from regraft.errors import ModelError
from regraft.providers import transformers as provider
from tests import places

CONFIG, WEIGHTS, PROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return places.model(tmp_path_factory.mktemp("made") / "resnet")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of the model that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "resnet"))


@pytest.fixture(scope="module")
def view(made: Path) -> View:
    return provider.load(str(made))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def pictures(view: View, n: int = 3) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.linspace(-1, 1, n * 3 * 16 * 16).reshape(n, *view.inputs.shape)}


# ---------------------------------------------------------------- opening


def test_a_folder_is_known_by_its_config(made: Path, tmp_path: Path) -> None:
    assert provider.find(str(made)) and not provider.find(str(tmp_path))


def test_a_folder_becomes_a_view(view: View) -> None:
    assert view.name == "resnet" and view.provider == "transformers"
    assert view.dim == 16 and len(view.stages) == 4
    assert view.inputs.shape == (3, 16, 16) and view.inputs.mean == (0.5, 0.5, 0.5)
    assert isinstance(view.native, nn.Linear) and not view.module.training


def test_features_and_the_native_head_give_the_native_logits(made: Path, view: View) -> None:
    from transformers import AutoModelForImageClassification

    whole = AutoModelForImageClassification.from_pretrained(str(made), local_files_only=True).eval()
    batch = pictures(view)
    with torch.no_grad():
        assert torch.equal(view.native(view.run(batch)), whole(**batch).logits)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, PROCESSOR])
def test_the_fingerprint_sees_every_file(folder: Path, made: Path, name: str) -> None:
    assert provider.fingerprint(str(folder)) == provider.fingerprint(str(made))
    with (folder / name).open("ab") as file:
        file.write(b" ")
    assert provider.fingerprint(str(folder)) != provider.fingerprint(str(made))


def test_a_checkpoint_without_a_head_opens(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier")}
    assert len(kept) < len(tensors)
    save_file(kept, folder / WEIGHTS, {"format": "pt"})
    assert provider.load(str(folder)).dim == 16


def test_random_starts_follow_the_seed_and_leave_the_generator_alone(made: Path) -> None:
    view = provider.load(str(made))
    pretrained = {name: p.detach().clone() for name, _, p in view.named()}
    state = torch.get_rng_state()
    found = []
    for seed in (1, 1, 2):
        view.randomise(seed)
        found.append(torch.cat([p.detach().flatten() for _, _, p in view.named()]))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert any(not torch.equal(pretrained[name], p) for name, _, p in view.named())
    assert torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------- refusing


def only_pickles(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")


def lacking(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file(dict(list(tensors.items())[2:][:-3]), folder / WEIGHTS, {"format": "pt"})


def truncated(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


REFUSALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickles": (
        only_pickles,
        r"pickles, which can run code when opened · saw: pytorch_model\.bin .*safe_serialization",
    ),
    "no weights": (
        lambda f: (f / WEIGHTS).unlink(),
        r"there are no weights here · saw: .*resnet · allowed: model\.safe",
    ),
    "auto_map": (
        lambda f: edit(f / CONFIG, auto_map={"AutoModel": "m.M"}),
        r"wants to run code of its own · saw: auto_map in .*config\.json · allowed: .* never runs remote code",
    ),
    "nested auto_map": (lambda f: edit(f / CONFIG, text={"a": [{"auto_map": {}}]}), r"wants to run code of its own"),
    "no processor": (
        lambda f: (f / PROCESSOR).unlink(),
        r"how this model wants its pictures · saw: no preprocessor_con",
    ),
    "missing tensors": (
        lacking,
        r"do not fill the network · saw: \d tensors missing, such as resnet\..* · allowed: .*config",
    ),
    "truncated weights": (
        truncated,
        r"transformers could not open this model .* saw: .*resnet: .*choose another model",
    ),
    "garbage config": (
        lambda f: (f / CONFIG).write_text("{"),
        r"config\.json cannot be read · saw: .*resnet: Expecting",
    ),
    "another layout": (
        lambda f: (f / CONFIG).write_text('{"layers": 3}'),
        r"not in Hugging Face layout · saw: config\.json without model_type in .*resnet",
    ),
    "a list": (lambda f: (f / CONFIG).write_text("[]"), r"not in Hugging Face layout"),
    "a number": (lambda f: (f / CONFIG).write_text("3"), r"not in Hugging Face layout"),
    "null": (lambda f: (f / CONFIG).write_text("null"), r"not in Hugging Face layout"),
    "unknown type": (
        lambda f: edit(f / CONFIG, model_type="nothing"),
        r"could not open this model .*ValueError: .*nothing",
    ),
    "a text model": (lambda f: edit(f / CONFIG, model_type="bert"), r"could not open this model for image classific"),
    "other sizes": (lambda f: edit(f / CONFIG, hidden_sizes=[8, 12, 24]), r"could not open this model"),
}


@pytest.mark.parametrize(("spoil", "what"), REFUSALS.values(), ids=REFUSALS)
def test_a_folder_that_cannot_be_a_backbone_is_refused(
    folder: Path, spoil: Callable[[Path], object], what: str
) -> None:
    spoil(folder)
    with pytest.raises(ModelError, match=what):
        provider.load(str(folder))


CLIP = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 16}}
PREPARATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "flipped channels": (
        {"image_processor_type": "MobileViTImageProcessor", "size": {"shortest_edge": 16}, "do_center_crop": True}
        | {"crop_size": {"height": 16, "width": 16}, "do_flip_channel_order": True, "do_normalize": True},
        r"prepares its pictures in a way that is not understood · saw: MobileViTImageProcessor\w*: \(1, 3, 16, 16\) ag",
    ),
    "no size": ({"do_resize": False}, "not understood"),
    "shorter side without a crop": (
        {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 16}, "do_center_crop": False},
        "not understood",
    ),
    "longest side": (
        {"image_processor_type": "DetrImageProcessor", "size": {"shortest_edge": 16, "longest_edge": 20}},
        "not understood|could not open",
    ),
    "a crop without sides": (CLIP | {"do_center_crop": True, "crop_size": {"shortest_edge": 16}}, "not understood"),
    "no crop size": (CLIP | {"do_center_crop": True, "crop_size": None}, "not understood"),
    "no mean": ({"image_mean": None}, "not understood"),
    "one mean": ({"image_mean": [0.5]}, "not understood"),
    "no spread": ({"image_std": [0, 0, 0]}, "not understood"),
    "no resampling": ({"resample": None}, "not understood"),
    "a size in words": ({"size": {"height": "tall", "width": 16}}, "not understood"),
    "more than fits in memory": ({"size": {"height": 10**9, "width": 10**9}}, "not understood"),
    "no such class": ({"image_processor_type": "NoImageProcessor"}, "could not open this model"),
    "code of its own": (
        {"image_processor_type": "Own", "auto_map": {"AutoImageProcessor": "own.Own"}},
        "could not open this model|code of its own",
    ),
}


@pytest.mark.parametrize(("given", "what"), PREPARATIONS.values(), ids=PREPARATIONS)
def test_a_preparation_that_is_not_understood_is_refused(folder: Path, given: dict[str, Any], what: str) -> None:
    (folder / "own.py").write_text("raise SystemExit('code of the folder ran')")
    edit(folder / PROCESSOR, **given)
    with pytest.raises(ModelError, match=what):
        provider.load(str(folder))


# ---------------------------------------------------------------- writing


def export(view: View, target: Path) -> nn.Linear:
    head = nn.Linear(16, 3)
    view.export(head, ("blue", "grün", "red"), str(target))
    return head


def test_an_export_opens_with_transformers_alone_and_predicts_the_same(view: View, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    head = export(view, tmp_path)
    opened = AutoModelForImageClassification.from_pretrained(str(tmp_path), local_files_only=True).eval()
    assert opened.config.id2label == {0: "blue", 1: "grün", 2: "red"}
    assert opened.config.label2id == {"blue": 0, "grün": 1, "red": 2} and opened.config.num_labels == 3
    with torch.no_grad():
        assert torch.equal(opened(**pictures(view)).logits, head(view.run(pictures(view))))
    assert AutoImageProcessor.from_pretrained(str(tmp_path), local_files_only=True).size["height"] == 16
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG, WEIGHTS, PROCESSOR}


def test_an_export_leaves_the_view_as_it_was(view: View, tmp_path: Path) -> None:
    before = view.run(pictures(view))
    labels = dict(view.module.config.id2label)
    export(view, tmp_path)
    assert torch.equal(view.run(pictures(view)), before)
    assert view.module.config.id2label == labels and view.module.config.num_labels == 5
    assert isinstance(view.module.get_submodule(view.head), nn.Identity)


def test_two_exports_are_equal_bytes(view: View, tmp_path: Path) -> None:
    head = nn.Linear(16, 2)
    for name in ("one", "two"):
        view.export(head, ("a", "b"), str(tmp_path / name))
    for name in (CONFIG, WEIGHTS, PROCESSOR):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_an_export_says_that_one_class_is_chosen(folder: Path, tmp_path: Path) -> None:
    """The pipeline reads problem_type: with the base model's, its scores would be no probabilities over classes."""
    edit(folder / CONFIG, problem_type="multi_label_classification")
    export(provider.load(str(folder)), tmp_path / "out")
    told = json.loads((tmp_path / "out" / CONFIG).read_text())
    assert told.get("problem_type") in (None, "single_label_classification")
