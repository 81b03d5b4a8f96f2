"""torchvision: names whose weights torch's cache holds, and bundles that torchvision alone opens again."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from regraft.backbone.view import View
from regraft.errors import ModelError, UsageError
from regraft.kit import shelf
from regraft.providers import torchvision as provider
from regraft.waist import Target
from tests import openings

pytestmark = pytest.mark.image
NAME, FILE = "mobilenet_v3_small", "mobilenet_v3_small-047dcff4.pth"


def vgg(classes: int) -> nn.Module:
    from torchvision.models import vgg

    with torch.device("meta"):
        network = vgg.VGG(nn.Sequential(), num_classes=1)
    network.features = vgg.make_layers([4, "M", 8, "M"])
    network.classifier[0], network.classifier[3] = nn.Linear(8 * 49, 16), nn.Linear(16, 16)
    network.classifier[6] = nn.Linear(16, classes)
    return network


def convnext(classes: int) -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 3)], num_classes=classes)


def resnet(classes: int) -> nn.Module:
    from torchvision.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=classes, width_per_group=64)


def densenet(classes: int) -> nn.Module:
    from torchvision.models import DenseNet

    return DenseNet(4, (2, 2, 2), 8, num_classes=classes)


NARROW: dict[str, Callable[[int], nn.Module]] = {
    "vgg11": vgg,
    "convnext_tiny": convnext,
    "resnet18": resnet,
    "densenet121": densenet,
}


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some architectures made small: as sold, the four hold 170 million weights."""
    from torchvision.models._api import BUILTIN_MODELS

    for name, build in NARROW.items():

        @functools.wraps(BUILTIN_MODELS[name])
        def made(*, build: Callable[[int], nn.Module] = build, num_classes: int = 1000, **_: Any) -> nn.Module:
            return build(num_classes)

        monkeypatch.setitem(BUILTIN_MODELS, name, made)


@functools.cache
def state(name: str, classes: int = 1000) -> dict[str, torch.Tensor]:
    """Random weights of an architecture."""
    from torchvision import models

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = models.get_model(name, weights=None, num_classes=classes)
        for parameter in network.parameters():
            if parameter.ndim < 2:
                nn.init.normal_(parameter, mean=0.5, std=0.2)
    return dict(network.state_dict())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "home" / "hub" / "checkpoints"


@pytest.fixture(scope="module")
def view() -> View:
    return provider.built(NAME, state(NAME, 7), "mine", ())


# ---------------------------------------------------------------- opening


def test_names_and_bundles_are_known(tmp_path: Path) -> None:
    assert provider.find("torchvision/resnet18") and not provider.find("resnet18")
    assert not provider.find(tmp_path) and not provider.find(None)
    (tmp_path / "config.json").write_text('{"torchvision": "resnet18"}')
    assert provider.find(str(tmp_path)) and provider.find(tmp_path)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("name", [*NARROW, NAME])
def test_an_architecture_is_opened_and_written_back(name: str, tmp_path: Path) -> None:
    from torchvision import models

    held = state.__wrapped__(name, 7)
    view = provider.built(name, held, "mine", ())
    network = models.get_model(name, weights=None, num_classes=7).eval()
    network.load_state_dict(held)
    batch = openings.noise(view.inputs)
    with torch.no_grad():
        assert torch.allclose(openings.logits(view, batch), network(batch["pixel_values"]), atol=1e-5)
    opening = openings.checked(view, tmp_path / "out", openings.pngs(tmp_path / "pictures", (96, 48), (40, 80)))
    assert opening.library == "torchvision"
    again = provider.load(tmp_path / "out", "image")
    assert (again.config, again.inputs, again.name) == (view.config, view.inputs, "out")
    assert torch.equal(openings.logits(again, batch), openings.logits(view, batch, openings.head_for(view)))


def test_a_view_says_what_torchvision_says_of_the_weights(view: View) -> None:
    assert (view.name, view.provider, view.dim, view.native.out_features) == ("mine", "torchvision", 1024, 7)
    assert view.inputs.shape == (3, 224, 224) and view.inputs.std == (0.229, 0.224, 0.225)
    assert view.inputs.setting("shorter", 0) == 256 and view.inputs.setting("resample", 0) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "vit_b_16",
        "swin_t",
        "efficientnet_b0",
        "shufflenet_v2_x0_5",
        "googlenet",
        "inception_v3",
        "maxvit_t",
        "efficientnet_b1",
    ],
)
def test_architectures_as_they_are_sold(name: str, tmp_path: Path) -> None:
    if name == "efficientnet_b1" and not openings.crops_to_even():
        pytest.skip("the modality of pictures crops down alone")
    from torchvision import models

    options = {"init_weights": False, "aux_logits": True} if name in ("googlenet", "inception_v3") else {}
    view = provider.built(name, models.get_model(name, weights=None, **options).state_dict(), "mine", ())
    openings.checked(view, tmp_path / "out", openings.pngs(tmp_path / "pictures", (96, 48), (40, 80)))


def test_adapters_are_put_in_by_the_lines_of_a_bundle(view: View, tmp_path: Path) -> None:
    openings.opens_adapted(view, tmp_path / "out", openings.pngs(tmp_path / "pictures"))


@pytest.mark.skipif(not openings.crops_to_even(), reason="the modality of pictures crops down alone")
def test_crops_with_an_odd_margin_are_torchvisions(view: View, tmp_path: Path) -> None:
    openings.checked(view, tmp_path / "out", openings.pngs(tmp_path / "pictures", *((64 + i, 97) for i in range(9))))


@pytest.mark.parametrize("name", ["squeezenet1_0", "mnasnet0_5"])
def test_what_has_no_linear_head_or_needs_a_version_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"head of this model was not found|ValueError: version should be"):
        provider.built(name, state(name), "mine", ())


def test_random_starts_follow_the_seed(view: View) -> None:
    twin = view.clone(0)
    found = []
    for seed in (1, 1, 2):
        twin.randomise(seed)
        found.append(torch.cat([p.detach().flatten() for _, _, p in twin.named()]))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_other_data_and_other_flags_are_refused() -> None:
    with pytest.raises(ModelError, match="this model reads pictures"):
        provider.load("torchvision/resnet18", "text")
    with pytest.raises(UsageError, match="says itself which architecture it is"):
        provider.load("torchvision/resnet18", "image", "resnet18")


# ---------------------------------------------------------------- bundles


def test_several_labels_and_numbers_are_written(view: View, tmp_path: Path) -> None:
    paths = openings.pngs(tmp_path / "pictures")
    many, _ = openings.exported(view, tmp_path / "many", Target("tags", "multi", ("x", "y")))
    outputs = openings.ran(many.use, folder=str(tmp_path / "many"), inputs=paths)["outputs"]
    assert [set(one) for one in outputs] == [{"x", "y"}] * 3
    one, _ = openings.exported(view, tmp_path / "one", Target("price", "number"))
    outputs = openings.ran(one.use, folder=str(tmp_path / "one"), inputs=paths)["outputs"]
    assert len(outputs) == 3 and all(isinstance(value, float) for value in outputs)
    told = json.loads((tmp_path / "one" / "config.json").read_text())
    assert told["labels"] == ["price"] and told["num_classes"] == 1 and told["preprocessing"]["crop_size"] == 224


def test_labels_are_those_of_the_bundle_and_none_of_a_file_from_anywhere(view: View, tmp_path: Path) -> None:
    assert view.labels == provider.built(NAME, state(NAME), "mine", ()).labels == ()
    openings.exported(view, tmp_path / "out")
    assert provider.load(tmp_path / "out").labels == openings.LABELS
    openings.exported(view, tmp_path / "one", Target("price", "number"))
    assert provider.load(tmp_path / "one").labels == ()


def test_the_fingerprint_of_a_bundle_sees_every_file(view: View, tmp_path: Path) -> None:
    openings.exported(view, tmp_path)
    seen = {provider.fingerprint(tmp_path)}
    for name in ("config.json", "model.safetensors"):
        with (tmp_path / name).open("ab") as file:
            file.write(b" ")
        seen.add(provider.fingerprint(str(tmp_path)))
    assert len(seen) == 3


def test_a_bundle_whose_parts_do_not_fit_is_refused(view: View, tmp_path: Path) -> None:
    openings.exported(view, tmp_path)
    told = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(told | {"torchvision": "mobilenet_v3_large"}))
    with pytest.raises(ModelError, match=r"these weights do not belong to this network · saw: \d+ missing"):
        provider.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(told | {"preprocessing": {}}))
    with pytest.raises(ModelError, match=r"torchvision could not open this model · saw: .*KeyError"):
        provider.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="there are no weights here"):
        provider.load(tmp_path)


# ---------------------------------------------------------------- torch's cache


def test_a_cached_name_is_opened(cache: Path) -> None:
    torch.save(state(NAME), cache / FILE)
    view = provider.load(f"torchvision/{NAME}", "image")
    assert view.name == f"{NAME}@IMAGENET1K_V1" and view.native.out_features == 1000
    assert len(view.labels) == 1000 and view.labels[309:311] == ("bee", "ant")
    assert provider.fingerprint(f"torchvision/{NAME}") == provider.fingerprint(f"torchvision/{NAME}@IMAGENET1K_V1")


def test_the_usual_weights_come_first_and_a_tag_chooses(cache: Path) -> None:
    for file in ("resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth"):
        (cache / file).write_bytes(file.encode())
    assert provider._cached("torchvision/resnet50")[1:] == ("IMAGENET1K_V2", cache / "resnet50-11ad3fa6.pth")
    assert provider._cached("torchvision/resnet50@IMAGENET1K_V1")[2] == cache / "resnet50-0676ba61.pth"
    (cache / "resnet50-11ad3fa6.pth").unlink()
    assert provider._cached("torchvision/resnet50")[1] == "IMAGENET1K_V1"
    with pytest.raises(ModelError, match=r"weights='IMAGENET1K_V2'"):
        provider.fingerprint("torchvision/resnet50@IMAGENET1K_V2")
    with pytest.raises(
        ModelError, match=r"no such weights of resnet50 · saw: IMAGENET1K_V3 .*mean resnet50@IMAGENET1K"
    ):
        provider.load("torchvision/resnet50@IMAGENET1K_V3")


def test_a_missing_name_says_how_to_get_it_and_imports_nothing_heavy(cache: Path) -> None:
    (cache / "resnet50-0676ba61.pth").write_bytes(b"")
    code = (
        "import sys\nfrom regraft.providers import torchvision as p\n"
        "try: p.fingerprint('torchvision/resnet18')\nexcept Exception as error: print(error)\n"
        "print(sorted({'torch', 'torchvision', 'timm', 'transformers'} & set(sys.modules)))"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "these weights are not on this machine, and nothing is fetched · saw: torchvision/resnet18: " in made
    assert "torchvision.models.get_model('resnet18', weights='DEFAULT')" in made and str(cache) in made
    assert made.endswith("[]\n")


def test_an_unknown_name_is_met_with_the_nearest(cache: Path) -> None:
    (cache / "resnet18-f37072fd.pth").write_bytes(b"")
    with pytest.raises(
        UsageError, match=r"no architecture of that name .* saw: resnet1 .*did you mean torchvision/resnet"
    ):
        provider.load("torchvision/resnet1")


def test_a_library_that_does_not_work_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / FILE).write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert provider.names() == ()
    with pytest.raises(ModelError, match=r"torchvision is needed for this model .*pip install \"regraft\[image\]\""):
        provider.load(f"torchvision/{NAME}")


def test_every_published_file_is_recognised_by_its_name() -> None:
    from torchvision import models

    for name in provider.names():
        for weights in models.get_model_weights(name):
            file = weights.url.rpartition("/")[2]
            assert provider._plain(file).startswith(provider._plain(name).rstrip("0")), (name, file)


def test_the_old_names_of_densenet_are_understood(narrow: None) -> None:
    held = state.__wrapped__("densenet121")
    old = {key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): tensor for key, tensor in held.items()}
    assert any("norm.1." in key for key in old)
    view = provider.built("densenet121", old, "mine", ())
    assert shelf.find("providers", "torchvision") is provider and view.dim > 8
