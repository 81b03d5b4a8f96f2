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
from regraft.waist import Opening, Target
from tests import checkpoints, places

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


NAMES = {str(i): name for i, name in enumerate(("ant", "bee", "crane", "crane", "x"))}


def relabelled(folder: Path, **changes: Any) -> View:
    """The model with names for its five classes."""
    edit(folder / CONFIG, id2label=NAMES, label2id={name: int(i) for i, name in NAMES.items()}, **changes)
    return provider.load(str(folder))


def test_the_head_s_labels_are_those_of_the_configuration(folder: Path, view: View) -> None:
    assert relabelled(folder).labels == ("ant", "bee", "crane", "crane", "x")
    assert view.labels == (), "LABEL_0 and so on are no names"


def test_a_head_that_is_not_there_or_gives_a_number_has_no_labels(folder: Path) -> None:
    assert relabelled(folder, problem_type="regression").labels == ()
    edit(folder / CONFIG, problem_type=None)
    tensors = load_file(folder / WEIGHTS)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier")}
    save_file(kept, folder / WEIGHTS, {"format": "pt"})
    assert relabelled(folder).labels == ()


def test_real_labels_stand_in_the_order_of_the_outputs(shared: Path) -> None:
    labels = provider.load(str(shared / "models" / "mobilenet_v2_1.0_224")).labels
    assert len(labels) == 1001 and labels[0] == "background" and labels[310:312] == ("bee", "ant, emmet, pismire")


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


def without_statistics(folder: Path) -> None:
    """Means and variances of batch normalisation are no parameters, and as needful as weights."""
    tensors = load_file(folder / WEIGHTS)
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(("running_mean", "running_var"))}
    save_file(kept, folder / WEIGHTS, {"format": "pt"})


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
        r"do not fill the network · saw: \d tensors missing, such as .*stages\.2.* · allowed: .*config",
    ),
    "missing statistics": (
        without_statistics,
        r"do not fill the network · saw: \d+ tensors missing, such as .*running_mean · allowed: .*config",
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


LABELS = ("blue", "grün", "red")


def export(view: View, place: Path, labels: tuple[str, ...] = LABELS) -> nn.Linear:
    head = nn.Linear(16, len(labels))
    view.export(head, Target("colour", "class", labels), str(place))
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
        view.export(head, Target("y", "class", ("a", "b")), str(tmp_path / name))
    for name in (CONFIG, WEIGHTS, PROCESSOR):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_an_export_says_that_one_class_is_chosen(folder: Path, tmp_path: Path) -> None:
    """The pipeline reads problem_type: with the base model's, its scores would be no probabilities over classes."""
    edit(folder / CONFIG, problem_type="multi_label_classification")
    export(provider.load(str(folder)), tmp_path / "out")
    told = json.loads((tmp_path / "out" / CONFIG).read_text())
    assert told.get("problem_type") in (None, "single_label_classification")


# ---------------------------------------------------------------- texts


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints for texts, by name."""
    root = tmp_path_factory.mktemp("texts")
    for name in ("bert", "distilbert", "gpt2", "bare bert", "bare distilbert", "minilm"):
        checkpoints.ALL[name](root / name)
    return root


def ids(n: int = 3) -> dict[str, torch.Tensor]:
    mask = (torch.arange(12) < 12 - torch.arange(n)[:, None]).long()
    return {"input_ids": torch.arange(5, 5 + 12 * n).reshape(n, 12) * mask, "attention_mask": mask}


def test_what_the_folder_prepares_says_what_it_is_for(texts: Path, made: Path) -> None:
    assert provider.load(str(texts / "bert")).inputs.modality == "text"
    assert provider.load(str(made)).inputs.modality == "image"


@pytest.mark.parametrize(
    ("name", "first"), [("bert", "native"), ("gpt2", "native"), ("bare bert", "mean"), ("bare distilbert", "mean")]
)
def test_a_bare_encoder_is_averaged_first(texts: Path, name: str, first: str) -> None:
    view = provider.load(str(texts / name))
    assert view.pooling == first and sorted(view.calls) == ["mean", "native"]
    assert view.source == str(texts / name)


def test_native_features_and_head_give_the_native_logits_of_a_text(texts: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    for name in ("bert", "distilbert"):
        view = provider.load(str(texts / name))
        whole = AutoModelForSequenceClassification.from_pretrained(str(texts / name), local_files_only=True).eval()
        with torch.no_grad():
            assert torch.equal(view.native(view.run(ids())), whole(**ids()).logits)


def test_a_mean_leaves_padding_out(texts: Path) -> None:
    from transformers import AutoModel

    view = provider.load(str(texts / "bert")).pooled("mean")
    whole = AutoModel.from_pretrained(str(texts / "bert"), local_files_only=True).eval()
    with torch.no_grad():
        hidden = whole(**ids()).last_hidden_state
        wanted = torch.stack([row[:count].mean(0) for row, count in zip(hidden, (12, 11, 10), strict=True)])
        torch.testing.assert_close(view.run(ids()), wanted)


def test_poolings_share_their_weights(texts: Path) -> None:
    view = provider.load(str(texts / "bert"))
    mean = view.pooled("mean")
    assert mean.module is view.module and [s.name for s in view.stages[:-1]] == [s.name for s in mean.stages]


def test_a_head_without_a_bias_is_said(texts: Path) -> None:
    assert not provider.load(str(texts / "gpt2")).biased and provider.load(str(texts / "bert")).biased


def test_a_network_that_fills_nothing_up_is_told_the_padding_id(texts: Path) -> None:
    view = provider.load(str(texts / "gpt2"))
    assert view.module.config.pad_token_id == view.inputs.setting("pad", -1) == 0
    with torch.no_grad():
        batch = {"input_ids": torch.tensor([[5, 6, 7, 0], [5, 6, 0, 0]])}
        batch["attention_mask"] = (batch["input_ids"] != 0).long()
        alone = {k: v[1:, :2] for k, v in batch.items()}
        torch.testing.assert_close(view.run(batch)[1:], view.run(alone))


def test_pictures_are_wanted_of_a_text_model(texts: Path) -> None:
    with pytest.raises(ModelError, match="this model reads texts · saw: data of pictures"):
        provider.load(str(texts / "bert"), "image")
    with pytest.raises(ModelError, match="this model reads pictures · saw: data of texts"):
        provider.load(str(places.model(texts / "resnet")), "text")


TARGETS = {
    "class": (Target("y", "class", LABELS), "single_label_classification", list(LABELS)),
    "multi": (Target("y", "multi", LABELS), "multi_label_classification", list(LABELS)),
    "number": (Target("grams", "number", centre=3.0, spread=2.0), "regression", ["grams"]),
}


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_every_kind_of_target_is_written(texts: Path, tmp_path: Path, name: str, kind: str) -> None:
    from transformers import AutoModelForSequenceClassification

    target, problem, names = TARGETS[kind]
    view = provider.load(str(texts / name))
    head = nn.Linear(view.dim, len(names), bias=view.biased)
    opening = view.export(head, target, str(tmp_path))
    told = json.loads((tmp_path / CONFIG).read_text())
    assert told["problem_type"] == problem and list(told["id2label"].values()) == names
    opened = AutoModelForSequenceClassification.from_pretrained(str(tmp_path), local_files_only=True).eval()
    with torch.no_grad():
        torch.testing.assert_close(opened(**ids()).logits, head(view.run(ids())))
        space: dict[str, Any] = {"folder": str(tmp_path), "batches": [ids()]}
        exec(opening.check, space)
        torch.testing.assert_close(space["made"], head(view.run(ids())))
    assert opening.library == "transformers" and (tmp_path / "tokenizer.json").is_file()


def opened(opening: Opening, folder: Path, inputs: list[Any]) -> list[Any]:
    """What the lines of a README leave for these inputs."""
    space: dict[str, Any] = {"folder": str(folder), "inputs": inputs}
    with torch.no_grad():
        exec(opening.use, space)
    found: list[Any] = space["outputs"]
    return found


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("long", ["cut", "ends", "windows"])
def test_the_lines_give_labels_with_scores_or_numbers(texts: Path, tmp_path: Path, kind: str, long: Any) -> None:
    from regraft.modalities import text
    from regraft.waist import Options

    target, _, names = TARGETS[kind]
    view = provider.load(str(texts / "bert"))
    view.inputs = text.adjust(view.inputs, Options("d", "m", long=long, max_tokens=12))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = nn.Linear(view.dim, len(names))
    opening = view.export(head, target, str(tmp_path))
    said = ["a rose", " ".join(checkpoints.WORDS)]
    rows = []
    encode = text.encoder(view.inputs, False, view.source)
    for row in encode.parts(said):
        with torch.no_grad():
            rows.append(head(view.run(encode.tensors([part for part, _ in row])).mean(0)))
    found = opened(opening, tmp_path, said)
    scores = {"class": lambda x: x.softmax(-1), "multi": lambda x: x.sigmoid()}
    for row, answer in zip(rows, found, strict=True):
        if kind == "number":
            assert answer == pytest.approx(float(row[0]), abs=1e-4)
        else:
            assert answer == pytest.approx(dict(zip(LABELS, scores[kind](row).tolist(), strict=True)), abs=1e-5)


# ---------------------------------------------------------------- names and folders


def test_a_name_is_looked_up_in_the_hubs_cache_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert provider.find("transformers/some/name") and not provider.find("some/name") and not provider.find(3)
    with pytest.raises(ModelError) as caught:
        provider.fingerprint("transformers/some/name")
    assert caught.value.what == "this model is not on this machine, and nothing is fetched"
    assert caught.value.saw == f"transformers/some/name: no models--some--name in {tmp_path}"
    assert caught.value.do == "where there is a network: hf download some/name"
    with pytest.raises(ModelError, match="not on this machine"):
        provider.load("transformers/")
    snapshot = tmp_path / "models--some--name" / "snapshots" / "abc"
    places.model(snapshot)
    assert provider.load("transformers/some/name").name == "some/name"
    assert provider.fingerprint("transformers/some/name") == provider.fingerprint(str(snapshot))


def test_other_providers_folders_are_left_to_them(texts: Path, tmp_path: Path) -> None:
    assert not provider.find(str(texts / "minilm")), "a sentence encoder's"
    (tmp_path / CONFIG).write_text('{"architecture": "resnet18"}')
    assert not provider.find(str(tmp_path)), "timm's"
    (tmp_path / CONFIG).write_text("{")
    assert provider.find(str(tmp_path)), "what cannot be read is taken, to say so"


def test_what_a_checkpoint_lacks_is_random_by_a_seed_of_its_own(texts: Path) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, two = (provider.load(str(texts / "bare distilbert")) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [v.module.pre_classifier.weight for v in (one, two)]
    assert torch.equal(*weights) and float(weights[0].detach().std()) > 0
    assert [p.new for p in (one.pooled("mean").card(), one.pooled("native").card())] == [(), (3,)]
