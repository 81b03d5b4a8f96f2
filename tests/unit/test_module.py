"""Networks as Python objects: copied, cut, written with their preparation, and opened again with their own code."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from regraft.backbone.view import View
from regraft.errors import ModelError, UsageError
from regraft.kit import shelf
from regraft.providers import module as provider
from regraft.waist import InputSpec, Target
from tests import openings

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = InputSpec("image", (3, 32, 32), MEAN, STD)


class Block(nn.Module):
    """A block of ResNet-20: its shortcut has no weights."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.stride, self.extra = stride, (cout - cin) // 2
        self.conv1, self.bn1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        skip = x[:, :, :: self.stride, :: self.stride]
        return functional.relu(y + functional.pad(skip, (0, 0, 0, 0, self.extra, self.extra)))


def resnet20(classes: int = 10) -> nn.Sequential:
    """The network that ../shared/models/resnet20_cifar10 holds the weights of."""

    def stage(a: int, b: int, s: int) -> nn.Sequential:
        return nn.Sequential(Block(a, b, s), Block(b, b, 1), Block(b, b, 1))

    parts = {
        "conv1": nn.Conv2d(3, 16, 3, 1, 1, bias=False),
        "bn1": nn.BatchNorm2d(16),
        "relu": nn.ReLU(),
        "layer1": stage(16, 16, 1),
        "layer2": stage(16, 32, 2),
        "layer3": stage(32, 64, 2),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flat": nn.Flatten(),
        "linear": nn.Linear(64, classes),
    }
    return nn.Sequential(OrderedDict(parts))


def network(seed: int = 0) -> nn.Sequential:
    """ResNet-20 with random weights, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return resnet20().eval()


class Wrapped(nn.Module):
    """A network that gives an object with `logits`, and has a parameter that no layer draws."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.shift = network(), nn.Parameter(torch.linspace(0, 1, 10))
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Any:
        return SimpleNamespace(logits=self.head(self.body(x) + self.shift))


@pytest.fixture(scope="module")
def view() -> View:
    return provider.load((network(), SMALL), "image")


# ---------------------------------------------------------------- opening


def test_modules_pairs_and_bundles_are_known(tmp_path: Path) -> None:
    assert provider.find(network()) and provider.find((network(), SMALL))
    for query in ("module", (network(), 3), (SMALL, network()), (network(),), None, tmp_path):
        assert not provider.find(query)
    (tmp_path / "config.json").write_text('{"module": "x"}')
    assert provider.find(tmp_path) and provider.find(str(tmp_path))


def test_a_network_becomes_a_view_and_is_left_alone() -> None:
    whole = network()
    before = {k: v.clone() for k, v in whole.state_dict().items()}
    view = provider.load((whole, SMALL), "image")
    assert (view.name, view.provider, view.dim, view.head) == ("Sequential", "module", 64, "linear")
    assert len(view.stages) >= 9 and view.notes == ()
    batch = openings.noise(view.inputs)
    with torch.no_grad():
        assert torch.equal(openings.logits(view, batch), whole(batch["pixel_values"]))
    view.randomise(1)
    assert isinstance(whole.linear, nn.Linear) and not whole.training
    assert all(torch.equal(before[k], v) for k, v in whole.state_dict().items())


def test_a_preparation_that_was_not_said_is_assumed_aloud() -> None:
    view = provider.load(network())
    assert view.inputs.shape == (3, 224, 224) and view.inputs.setting("shorter", 0) == 256
    assert "assumed are 224 × 224 pixels" in view.notes[0] and "InputSpec" in view.notes[0]


def test_what_a_preparation_leaves_open_is_filled() -> None:
    view = provider.load((network(), SMALL))
    assert dict(view.inputs.settings) == {"height": 32, "width": 32, "resample": 2, "scale": 1 / 255, "shift": 0.0}
    own = InputSpec("image", (3, 32, 32), settings=(("crop_height", 32), ("shorter", 40), ("resample", 3)))
    assert dict(provider.load((network(), own)).inputs.settings)["resample"] == 3


def test_an_output_object_is_understood(tmp_path: Path) -> None:
    view = provider.load((Wrapped(), SMALL))
    assert (view.dim, view.head) == (10, "head")
    opening, head = openings.exported(view, tmp_path)
    batch = openings.noise(view.inputs)
    found = openings.ran(opening.use, folder=str(tmp_path), inputs=openings.pngs(tmp_path / "p"), network=Wrapped())
    openings.assert_scores(view, head, openings.pngs(tmp_path / "p"), found["outputs"])
    assert torch.allclose(found["network"](batch["pixel_values"]).logits, openings.logits(view, batch, head), atol=1e-5)


def test_adapters_are_put_in_by_the_lines_of_a_bundle(tmp_path: Path) -> None:
    opening, head, whole = openings.adapted(provider.load((Wrapped(), SMALL)), tmp_path)
    paths = openings.pngs(tmp_path / "p")
    found = openings.ran(opening.use, folder=str(tmp_path), inputs=paths, network=Wrapped())
    openings.assert_scores(whole, head, paths, found["outputs"])


def test_a_network_without_a_head_gets_a_place_for_one(tmp_path: Path) -> None:
    body = network()[:-1]
    view = provider.load((body, SMALL))
    assert (view.dim, view.head) == (64, "1")
    opening, head = openings.exported(view, tmp_path)
    paths = openings.pngs(tmp_path / "p")
    found = openings.ran(opening.use, folder=str(tmp_path), inputs=paths, network=network(3)[:-1])
    openings.assert_scores(view, head, paths, found["outputs"])
    again = provider.reopen(tmp_path, network(3)[:-1])
    batch = openings.noise(view.inputs)
    assert torch.equal(openings.logits(again, batch), openings.logits(view, batch, head))


def test_scores_behind_a_linear_layer_are_taken_as_features() -> None:
    view = provider.load((nn.Sequential(network(), nn.Softmax(-1)), SMALL))
    assert (view.dim, view.head) == (10, "1")


def test_the_fingerprint_sees_weights_structure_and_preparation() -> None:
    one = provider.fingerprint((network(), SMALL))
    assert one == provider.fingerprint((network(), SMALL))
    other = network()
    other.layer2[0].stride = 1
    seen = {one, provider.fingerprint(network()), provider.fingerprint((network(1), SMALL))}
    seen |= {provider.fingerprint((other, SMALL)), provider.fingerprint((network().half(), SMALL))}
    assert len(seen) == 5


def coded(body: str, helper: str = "x", scale: str = "2.0") -> nn.Module:
    """A network whose class was just now written, as a user edits it between two runs."""
    space: dict[str, Any] = {"nn": nn, "torch": torch, "__name__": "edited"}
    text = (
        f"SCALE = {scale}\n\n\ndef helped(x):\n    return {helper}\n\n\n"
        "class Edited(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.body, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)\n\n"
        f"    def forward(self, x):\n        return self.fc(helped(self.body(x)).mean((2, 3)){body})\n"
    )
    functions = compile(text, "edited.py", "exec")
    FunctionType(functions, space)()
    torch.manual_seed(0)
    made: nn.Module = space["Edited"]()
    return made


def test_the_fingerprint_sees_code_that_was_edited() -> None:
    seen = [coded(""), coded(" * SCALE"), coded(" * SCALE", scale="3.0"), coded("", "torch.relu(x)"), coded(" * 3.0")]
    marks = [provider.fingerprint((one, SMALL)) for one in seen]
    assert len(set(marks)) == len(marks)
    assert provider.fingerprint((coded(" * SCALE"), SMALL)) == marks[1]
    patched = coded("")
    patched.forward = lambda x: patched.fc(x.mean((2, 3)).repeat(1, 2)[:, :4])  # type: ignore[method-assign]
    assert provider.fingerprint((patched, SMALL)) not in marks


def test_the_configuration_covers_structure_but_no_labels() -> None:
    texts = [provider.load((resnet20(n), SMALL)).config for n in (10, 3)]
    other = resnet20()
    other.layer2[1].extra = 0
    other.layer2[1].mark = "x"
    assert texts[0] == texts[1] != provider.load((other, SMALL)).config


def test_random_starts_follow_the_seed_and_leave_the_generator_alone() -> None:
    view = provider.load((Wrapped(), SMALL))
    state, found = torch.get_rng_state(), []
    for seed in (1, 1, 2):
        view.randomise(seed)
        found.append({name: p.detach().clone() for name, _, p in view.named()})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert all(not torch.equal(p, found[2][name]) for name, p in found[0].items() if p.ndim > 1)
    shift = found[0]["glue/shift"]
    assert torch.equal(shift.sort()[0], torch.linspace(0, 1, 10)) and not torch.equal(shift, torch.linspace(0, 1, 10))
    assert torch.equal(torch.get_rng_state(), state)


def test_half_precision_is_computed_in_full() -> None:
    view = provider.load((network().half(), SMALL))
    assert {p.dtype for p in view.module.parameters()} == {torch.float32}


# ---------------------------------------------------------------- refusing


REFUSALS: list[tuple[Any, str]] = [
    ((network(), InputSpec("text", (32,))), r"networks from Python are given pictures · saw: text of shape \(32,\)"),
    (
        (network(), InputSpec("image", (1, 32, 32))),
        r"networks from Python are given pictures · saw: image of shape \(1,",
    ),
    (
        (network()[:6], SMALL),
        r"no features for a whole picture · saw: outputs of shape \(2, 64, 8, 8\) .*AdaptiveAvgPool",
    ),
    (
        (nn.Linear(5, 2), SMALL),
        r"torch could not open this model · saw: torch\.nn\.modules\.linear\.Linear: RuntimeError",
    ),
    ((nn.Embedding(5, 2), SMALL), r"torch could not open this model"),
]


@pytest.mark.parametrize(("query", "what"), REFUSALS)
def test_what_reads_no_pictures_is_refused(query: Any, what: str) -> None:
    with pytest.raises(ModelError, match=what):
        provider.load(query)


def test_other_data_and_other_flags_are_refused() -> None:
    with pytest.raises(ModelError, match=r"this model reads pictures · saw: data of texts"):
        provider.load(network(), "text")
    with pytest.raises(UsageError, match="says itself which architecture it is"):
        provider.load(network(), "image", "resnet20")


# ---------------------------------------------------------------- bundles


@pytest.mark.parametrize(
    "settings",
    [
        (),
        (("crop_height", 32), ("crop_width", 32), ("resample", 3), ("shorter", 41)),
        (("crop_height", 32), ("crop_width", 32), ("height", 40), ("width", 36), ("scale", 1.0), ("shift", -3.0)),
    ],
)
def test_a_bundles_lines_give_what_the_view_gives(settings: Any, tmp_path: Path) -> None:
    view = provider.load((network(), InputSpec("image", (3, 32, 32), MEAN, STD, settings=settings)))
    opening, head = openings.exported(view, tmp_path / "out")
    assert opening.check == "" and opening.library == "pytorch"
    assert "# network: your own module" in opening.use and "regraft" not in opening.use
    paths = openings.pngs(tmp_path / "p", (97, 48), (41, 80), (33, 33))
    found = openings.ran(opening.use, folder=str(tmp_path / "out"), inputs=paths, network=resnet20())
    openings.assert_scores(view, head, paths, found["outputs"])


@pytest.mark.skipif(not openings.crops_to_even(), reason="the modality of pictures crops down alone")
def test_crops_to_the_even_side_are_written(tmp_path: Path) -> None:
    settings = (("centre", "even"), ("crop_height", 32), ("crop_width", 32), ("shorter", 35))
    view = provider.load((network(), InputSpec("image", (3, 32, 32), settings=settings)))
    opening, head = openings.exported(view, tmp_path)
    paths = openings.pngs(tmp_path / "p", *((60 + i, 40) for i in range(5)))
    found = openings.ran(opening.use, folder=str(tmp_path), inputs=paths, network=resnet20())
    openings.assert_scores(view, head, paths, found["outputs"])


def test_several_labels_and_numbers_are_written(view: View, tmp_path: Path) -> None:
    paths = openings.pngs(tmp_path / "p")
    many, _ = openings.exported(view, tmp_path / "many", Target("tags", "multi", ("x", "y")))
    found = openings.ran(many.use, folder=str(tmp_path / "many"), inputs=paths, network=resnet20())
    assert [set(one) for one in found["outputs"]] == [{"x", "y"}] * 3
    one, _ = openings.exported(view, tmp_path / "one", Target("price", "number"))
    found = openings.ran(one.use, folder=str(tmp_path / "one"), inputs=paths, network=resnet20())
    assert all(isinstance(value, float) for value in found["outputs"])


def test_a_bundle_is_opened_again_with_the_network(view: View, tmp_path: Path) -> None:
    _, head = openings.exported(view, tmp_path)
    again = provider.reopen(tmp_path, resnet20())
    batch = openings.noise(view.inputs)
    assert torch.equal(openings.logits(again, batch), openings.logits(view, batch, head))
    assert (again.config, again.inputs, again.name, again.provider) == (view.config, view.inputs, view.name, "module")


def test_a_bundle_without_the_network_or_with_another_is_refused(view: View, tmp_path: Path) -> None:
    openings.exported(view, tmp_path)
    assert provider.fingerprint(tmp_path) == provider.fingerprint(str(tmp_path))
    with pytest.raises(
        ModelError, match=r"from your own code, .* saw: .*torch\.nn\.modules\.container\.Sequential .*module=network\)"
    ):
        provider.load(str(tmp_path))
    with pytest.raises(ModelError, match=r"do not belong to this network · saw: \d+ missing"):
        provider.reopen(tmp_path, nn.Sequential(OrderedDict(linear=nn.Linear(3, 2), more=nn.Linear(2, 2))))
    with pytest.raises(ModelError, match=r"no bundle of a network from Python · saw: .*nowhere"):
        provider.reopen(tmp_path / "nowhere", resnet20())


@pytest.mark.image
def test_an_installed_class_that_needs_no_argument_is_imported_by_the_lines(tmp_path: Path) -> None:
    from torchvision.models import MobileNetV2

    view = provider.load(MobileNetV2())
    opening = openings.checked(view, tmp_path / "out", openings.pngs(tmp_path / "p"))
    assert opening.library == "torchvision"
    assert "from torchvision.models.mobilenetv2 import MobileNetV2\nnetwork = MobileNetV2()" in opening.check
    other = provider.load(MobileNetV2(width_mult=0.5))
    assert openings.exported(other, tmp_path / "other")[0].check == ""
    assert json.loads((tmp_path / "other" / "config.json").read_text())["module"].endswith("mobilenetv2.MobileNetV2")


@pytest.mark.shared
def test_resnet20_with_its_real_weights_tells_its_training_classes(shared: Path) -> None:
    whole = resnet20().eval()
    whole.load_state_dict(load_file(shared / "models" / "resnet20_cifar10" / "model.safetensors"))
    view = provider.load((whole, SMALL), "image")
    names = json.loads((shared / "models" / "resnet20_cifar10" / "config.json").read_text())["classes"]
    root = shared / "data" / "cifar10_small" / "test"
    encoder = shelf.find("modalities", "image").encoder(view.inputs, False)
    right = []
    for i, name in enumerate(names):
        cells = sorted((root / name).iterdir())[:12]
        right += (openings.logits(view, encoder.tensors(cells)).argmax(-1) == i).tolist()
    assert sum(right) / len(right) > 0.75
