"""Files of weights: the architecture that the user names, filled without running anything in the file."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from regraft.errors import ModelError, UsageError
from regraft.kit import shelf
from regraft.providers import weights as provider
from tests import openings

ARCHES = {"timm/mobilenetv3_small_050": "timm", "torchvision/mobilenet_v3_small": "torchvision"}


@functools.cache
def state(arch: str, classes: int = 6) -> dict[str, torch.Tensor]:
    """Random weights of an architecture."""
    library, name = arch.split("/")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if library == "timm":
            import timm

            return dict(timm.create_model(name, num_classes=classes).state_dict())
        from torchvision import models

        return dict(models.get_model(name, weights=None, num_classes=classes).state_dict())


def test_files_are_known_by_their_ending(tmp_path: Path) -> None:
    for name in ("a.safetensors", "a.pth", "a.pt", "a.bin", "a.npz"):
        assert not provider.find(tmp_path / name)
        (tmp_path / name).write_bytes(b"")
    assert [provider.find(str(tmp_path / f"a{e}")) for e in (*provider.ENDINGS, ".npz")] == [True] * 4 + [False]
    assert not provider.find(tmp_path) and not provider.find(torch.nn.ReLU())


def test_the_fingerprint_is_the_files(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"a")
    one = provider.fingerprint(tmp_path / "a.pth")
    (tmp_path / "a.pth").write_bytes(b"b")
    assert provider.fingerprint(str(tmp_path / "a.pth")) != one


@pytest.mark.image
@pytest.mark.parametrize(("arch", "ending"), list(zip(ARCHES, (".safetensors", ".pth"), strict=True)))
def test_weights_become_a_backbone_and_a_bundle_of_the_library(arch: str, ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"mine{ending}"
    if ending == ".pth":
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state(arch).items()}}, file)
    else:
        save_file(state(arch), file)
    view = provider.load(file, "image", arch)
    assert (view.name, view.provider, view.native.out_features) == ("mine", ARCHES[arch], 6)
    assert view.notes == (
        () if ending == ".safetensors" else ("the names of the weights began with module., which was taken off",)
    )
    opening = openings.checked(view, tmp_path / "out", openings.pngs(tmp_path / "pictures"))
    again = shelf.find("providers", ARCHES[arch]).load(str(tmp_path / "out"))
    assert opening.library == ARCHES[arch] and again.config == view.config and again.inputs == view.inputs


@pytest.mark.image
def test_a_file_without_a_head_is_enough(tmp_path: Path) -> None:
    arch = "torchvision/mobilenet_v3_small"
    save_file({k: v for k, v in state(arch).items() if "classifier.3" not in k}, tmp_path / "a.safetensors")
    assert provider.load(tmp_path / "a.safetensors", "", arch).dim == 1024


@pytest.mark.image
def test_weights_of_another_architecture_are_counted_and_named(tmp_path: Path) -> None:
    save_file(state("torchvision/mobilenet_v3_small"), tmp_path / "a.safetensors")
    with pytest.raises(
        ModelError,
        match=r"do not belong to this network · saw: \d+ missing \(conv_stem\.weight, .*, \d+ unexpected \(.*--arch",
    ):
        provider.load(tmp_path / "a.safetensors", "", "timm/mobilenetv3_small_050")


@pytest.mark.image
def test_a_bare_name_is_the_librarys_that_knows_it(tmp_path: Path) -> None:
    assert provider._of("mobilenetv3_small_050") == ("timm", "mobilenetv3_small_050")
    assert provider._of("mobilenetv3_small_050.lamb_in1k") == ("timm", "mobilenetv3_small_050.lamb_in1k")
    assert provider._of("mobilenet_v3_small") == ("torchvision", "mobilenet_v3_small")
    with pytest.raises(
        UsageError, match=r"both libraries .* allowed: --arch timm/resnet18 or --arch torchvision/resnet18"
    ):
        provider._of("resnet18")
    with pytest.raises(
        UsageError,
        match=r"no architecture of that name · saw: --arch mobilenet_v3_smal .*torchvision/mobilenet_v3_small\?",
    ):
        provider._of("mobilenet_v3_smal")
    with pytest.raises(UsageError, match=r"no architecture of that name .* libraries list"):
        provider._of("qqqqqqqqqq")


@pytest.mark.image
@pytest.mark.parametrize("arch", ["timm/resnet19", "torchvision/resnet19"])
def test_an_unknown_name_of_a_library_is_met_with_the_nearest(arch: str, tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(
        UsageError, match=r"no architecture of that name for pictures · saw: resnet19 .*did you mean \w+/resn"
    ):
        provider.load(tmp_path / "a.safetensors", "", arch)


def test_without_an_architecture_the_flag_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"which network it belongs to · saw: .*a\.pth without --arch .*timm/NAME"):
        provider.load(tmp_path / "a.pth", "image")
    with pytest.raises(UsageError, match=r"no library of architectures of that name · saw: 'keras'"):
        provider.load(tmp_path / "a.pth", "image", "keras/resnet50")
    with pytest.raises(ModelError, match="this model reads pictures · saw: data of texts"):
        provider.load(tmp_path / "a.pth", "text", "timm/resnet18")


def test_where_no_library_works_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    for name in ("timm", "torchvision"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModelError, match=r"timm is needed .*regraft\[image\]"):
        provider.load(tmp_path / "a.safetensors", "", "resnet18")
