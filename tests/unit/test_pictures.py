"""What providers of picture networks share: heads found, preparation compared, errors with a way out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regraft.backbone import pictures
from regraft.backbone.view import View
from regraft.errors import DataError, ModelError, UsageError
from regraft.kit import shelf
from regraft.waist import InputSpec, Opening, Target
from tests import openings

SMALL = InputSpec("image", (3, 8, 8), settings=(("height", 8), ("width", 8)))


def body(classes: int) -> nn.Sequential:
    def block(wide: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(wide, 6, 3, padding=1), nn.ReLU())

    return nn.Sequential(block(3), block(6), block(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes))


class Halves(nn.Module):
    """Two heads whose mean is the output."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.one, self.two = body(5), nn.Linear(5, 4), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return (self.one(y) + self.two(y)) / 2


def seen(module: nn.Module, head: str = "5", **more: Any) -> View:
    def write(view: View, layer: nn.Module, target: Target, folder: str) -> Opening:
        return Opening("x", folder, target.name)

    return pictures.viewed(
        pictures.Network("small", "tests", module, head, SMALL, "told", lambda: body(4), write, **more)
    )


def test_a_network_becomes_a_view() -> None:
    module = body(4)
    whole = openings.noise(SMALL)
    with torch.no_grad():
        wanted = module(whole["pixel_values"])
    view = seen(module, notes=("a note",))
    assert (view.name, view.provider, view.dim, view.config, view.notes) == ("small", "tests", 6, "told", ("a note",))
    assert torch.equal(openings.logits(view, whole), wanted)
    assert view.export(nn.Linear(6, 2), Target("y", "class"), "place") == Opening("x", "place", "y")
    before = view.module.state_dict()["0.0.weight"].clone()
    view.randomise(1)
    assert not torch.equal(view.module.state_dict()["0.0.weight"], before)


def test_a_network_that_cannot_be_traced_is_refused() -> None:
    with pytest.raises(ModelError, match=r"tests could not open this model · saw: small: RuntimeError: .*linear head"):
        seen(nn.Sequential(*(nn.Linear(5, 5) for _ in range(6))))


def test_the_head_is_the_last_linear_layer_and_its_output_the_networks() -> None:
    assert pictures.head_of(body(4), 4, SMALL) == "5"
    with pytest.raises(ModelError, match=r"head of this model was not found · saw: 5 \(4\)"):
        pictures.head_of(body(4), 3, SMALL)
    for module in (Halves(), nn.Sequential(body(4), nn.Softmax(-1))):
        with pytest.raises(
            ModelError, match=r"puts something behind its linear head, or has several · saw: \w+, whose"
        ):
            pictures.head_of(module, 4, SMALL)


@pytest.mark.parametrize("classes", [4, 9])
def test_a_network_is_filled_and_has_as_many_classes_as_its_weights(classes: int) -> None:
    held = body(classes).state_dict()
    module, head, count = pictures.filled(body, 4, SMALL, held)
    assert (head, count) == ("5", classes)
    assert all(torch.equal(held[name], tensor) for name, tensor in module.state_dict().items())


def test_weights_without_a_head_keep_the_architectures_classes() -> None:
    held = {name: tensor for name, tensor in body(4).state_dict().items() if not name.startswith("5.")}
    assert pictures.filled(body, 7, SMALL, held)[2] == 7


# ---------------------------------------------------------------- asking, telling


def test_what_a_picture_network_cannot_do_is_refused() -> None:
    pictures.asked("")
    pictures.asked("image")
    with pytest.raises(ModelError, match=r"this model reads pictures · saw: data of texts · allowed: pictures"):
        pictures.asked("text")
    with pytest.raises(UsageError, match=r"which architecture it is · saw: --arch x .*leave --arch out"):
        pictures.asked("image", "x")


@pytest.mark.parametrize("text", ["{", "[]", "3", "null", "\xff"])
def test_a_configuration_that_says_nothing_is_empty(text: str, tmp_path: Path) -> None:
    assert pictures.told(tmp_path) == pictures.told(str(tmp_path)) == pictures.told(3) == pictures.told(None) == {}
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    assert pictures.told(tmp_path) == {}
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert pictures.told(tmp_path) == {"a": 1}


def test_weights_that_lack_or_are_pickles_are_refused(tmp_path: Path) -> None:
    for ask in (pictures.folder_digest, pictures.require_weights):
        with pytest.raises(ModelError, match="there are no weights here"):
            ask(tmp_path)
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"pickles, which can run code when opened · saw: a\.bin .*save_file"):
        pictures.folder_digest(tmp_path)


def test_a_preparation_is_compared() -> None:
    encode = shelf.find("modalities", "image").encoder(SMALL, False)
    assert pictures.compared(SMALL, lambda picture: encode.tensors([picture])["pixel_values"][0], "it") == SMALL
    for prepare in (lambda picture: torch.zeros(3, 8, 8), lambda picture: torch.full((3, 8, 8), float("nan"))):
        with pytest.raises(ModelError, match=r"it could not open this model · saw: pictures of \(3, 8, 8\): .* off"):
            pictures.compared(SMALL, prepare, "it")
    with pytest.raises(ModelError, match=r"ValueError: 5000 pixels a side, of 4096 at most"):
        pictures.compared(InputSpec("image", (3, 5000, 8)), lambda picture: torch.zeros(1), "it")


def test_a_librarys_errors_get_a_way_out_and_ours_pass() -> None:
    with pytest.raises(DataError, match="ours"), pictures.explained("it", "x"):
        raise DataError("ours")
    with (
        pytest.raises(
            ModelError, match=r"it could not open this model · saw: x: KeyError: 'a' .*check it with it alone"
        ),
        pictures.explained("it", "x"),
    ):
        raise KeyError("a")
    assert pictures.said(ValueError("one\ntwo")) == "one" and pictures.said(ValueError()) == "ValueError"
    assert "regraft[image]" in pictures.lacking("timm", ImportError("no")).do
    error = pictures.no_architecture("timm", "resnet19", ("resnet18", "vgg11"))
    assert error.do == "did you mean timm/resnet18?" and error.allowed == "one of its 2"
    assert pictures.no_architecture("timm", "qqq", ("resnet18",)).do == "look at what this timm lists"


def test_an_output_object_gives_its_logits() -> None:
    from types import SimpleNamespace

    module = body(4)
    module.forward = lambda x: SimpleNamespace(logits=x[:, :, 0, 0])  # type: ignore[method-assign]
    assert pictures.logits(module, openings.noise(SMALL)).shape == (2, 3)


@pytest.mark.parametrize("name", ["timm", "torchvision", "weights", "module", "minilm"])
def test_providers_are_asked_without_importing_torch(name: str) -> None:
    """A model that is not on this machine must be said to be missing in less time than torch takes to import."""
    code = f"import sys; from regraft.providers import {name} as p; p.find('timm/x'); p.find('minilm'); p.find(3)\n"
    code += "print({'torch', 'timm', 'torchvision', 'transformers'} & set(sys.modules))"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout == "set()\n"
