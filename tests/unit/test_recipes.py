"""The commands of docs/recipes, read from the pages: they train what the articles train, at the articles' rates."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from regraft import flow
from regraft.backbone.view import View
from regraft.data.open import card, open_data
from regraft.engine import fit, freeze
from regraft.errors import ModelError
from regraft.planner import survey
from regraft.planner.propose import propose
from regraft.providers import torchvision, transformers
from regraft.waist import DataCard, Facts, MachineCard, Options, Plan, Target
from tests import places
from tests.calls import call

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "recipes"
MACHINE = MachineCard("cpu", 1, 10**9, "cpu", "float32", "exact", 8)
ANTS = DataCard(
    "ants_bees",
    "image",
    "f",
    Target("label", "class", ("ants", "bees"), (98, 97)),
    (("train", 195), ("val", 48), ("test", 153)),
)
RECIPES = {  # rates of the body, of the last block and of the head
    "head only": (0.0, 0.0, 1e-3),
    "all layers": (1e-4, 1e-4, 1e-4),
    "last block and head": (0.0, 1e-4, 1e-4),
    "two rates": (0.0, 1e-5, 1e-3),
}


def bench() -> Any:
    """bench/recipes.py as a module: the bench runs the commands that its `commands` reads."""
    spec = importlib.util.spec_from_file_location("recipes", ROOT / "bench" / "recipes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


COMMANDS = bench().commands()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], Options]:
    """What a command line asks for, as the command line itself understands it; nothing is run."""
    seen: list[Options] = []

    def steps(options: Options, out: Path, **_: Any) -> Generator[Any, None, None]:
        seen.append(options)
        raise ModelError("enough")
        yield

    def understood(args: list[str]) -> Options:
        code, _, err = call(args, capsys)
        assert code == ModelError.code, err
        return seen.pop()

    monkeypatch.setattr(flow, "steps", steps)
    return understood


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> View:
    """MobileNetV2 1.0 as ../shared has it, with random weights."""
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification, MobileNetV2ImageProcessor

    place = tmp_path_factory.mktemp("mobilenet")
    MobileNetV2ForImageClassification(MobileNetV2Config(num_labels=2)).save_pretrained(place)
    MobileNetV2ImageProcessor().save_pretrained(place)
    return transformers.load(place, "image")


@pytest.fixture(scope="module")
def resnet() -> View:
    """ResNet-18 as torchvision sells it, with random weights."""
    from torchvision import models

    return torchvision.built("resnet18", models.get_model("resnet18", weights=None).state_dict(), "resnet18", ())


def planned(options: Options, view: View, data: DataCard) -> list[Plan]:
    return propose(Facts(data, survey.backbone(view, "mark"), MACHINE), options.strategies, options.knobs)


def trained(plan: Plan, view: View, dim: int) -> dict[str, float]:
    """Name → rate of every parameter that the optimizer of a plan holds."""
    (phase,) = plan.phases
    chosen = freeze.trainable(view, nn.Linear(dim, 2), phase)
    optimizer = fit._optimizer(plan, chosen)
    assert [id(p) for group in optimizer.param_groups for p in group["params"]] == [id(p) for p, _ in chosen.values()]
    return {name: group["base"] for name, group in zip(chosen, optimizer.param_groups, strict=True)}


# ---------------------------------------------------------------- ants and bees


def test_the_pages_have_every_recipe() -> None:
    assert set(COMMANDS) == {*RECIPES, "reviews"}
    assert all(args[0] == "adapt" for args in COMMANDS.values())


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_plain_sgd(name: str, mobilenet: View, asked: Callable[[list[str]], Options]) -> None:
    (plan,) = planned(asked(COMMANDS[name]), mobilenet, ANTS)
    (phase,) = plan.phases
    rule = plan.optimizer
    assert (rule.name, rule.momentum, rule.weight_decay, rule.clip) == ("sgd", 0.9, 0.0, 0.0)
    assert (plan.batch, phase.epochs, phase.schedule, phase.warmup_frac) == (4, 25, "constant", 0.0)
    assert phase.patience_epochs >= phase.epochs, "an early stop would end it before its 25 epochs"
    assert (plan.loss.smoothing, plan.loss.balance, plan.init, plan.start) == (0.0, 0.0, "pretrained", "zero")
    assert (phase.norm, plan.augment, plan.inserts, plan.regularise) == ("keep", (), (), ())
    made = fit._optimizer(plan, freeze.trainable(mobilenet, nn.Linear(mobilenet.dim, 2), phase))
    assert isinstance(made, torch.optim.SGD) and not made.defaults["nesterov"]
    assert all((g["momentum"], g["dampening"], g["weight_decay"]) == (0.9, 0, 0.0) for g in made.param_groups)


def right(view: View, last: str, name: str, rates: dict[str, float]) -> None:
    """Body, last block and head train at the recipe's rates; a rate of 0 does not train."""
    body, block, head = RECIPES[name]
    place = next(stage.path for stage in view.stages if stage.name == last)
    inside = {id(p) for p in view.module.get_submodule(place).parameters()}
    wanted = {n: block if id(p) in inside else body for n, _, p in view.named()}
    wanted |= {"head/weight": head, "head/bias": head}
    assert rates == pytest.approx({name: rate for name, rate in wanted.items() if rate}, rel=1e-12)
    assert inside and len([n for n in wanted if n.startswith(f"{last}/")]) == len(inside)


@pytest.mark.parametrize("name", RECIPES)
def test_on_mobilenet_the_last_stage_and_the_head_are_the_articles_groups(
    name: str, mobilenet: View, asked: Callable[[list[str]], Options]
) -> None:
    (plan,) = planned(asked(COMMANDS[name]), mobilenet, ANTS)
    rates = trained(plan, mobilenet, mobilenet.dim)
    right(mobilenet, "conv_1x1", name, rates)
    assert len(rates) == {"head only": 2, "all layers": 158, "last block and head": 5, "two rates": 5}[name]


@pytest.mark.image
@pytest.mark.parametrize("name", RECIPES)
def test_on_resnet18_it_is_layer4_and_fc(name: str, resnet: View, asked: Callable[[list[str]], Options]) -> None:
    args = list(COMMANDS[name])
    args[args.index("--model") + 1] = "torchvision/resnet18"
    options = asked(args)
    assert options.model == "torchvision/resnet18" and "`--model torchvision/resnet18`" in ants_page()
    (plan,) = planned(options, resnet, ANTS)
    rates = trained(plan, resnet, resnet.dim)
    right(resnet, "layer4", name, rates)
    assert resnet.stages[-1].path == "layer4" and resnet.dim == 512
    from torchvision import models

    theirs = {n: p.numel() for n, p in models.get_model("resnet18", weights=None, num_classes=2).named_parameters()}
    body, block, head = RECIPES[name]
    count = sum(n for k, n in theirs.items() if (head if k[:2] == "fc" else block if k[:6] == "layer4" else body))
    chosen = freeze.trainable(resnet, nn.Linear(512, 2), plan.phases[0])
    assert sum(p.numel() for p, _ in chosen.values()) == count


def ants_page() -> str:
    return (PAGES / "ants_bees.md").read_text("utf-8")


# ---------------------------------------------------------------- movie reviews


def test_reviews_are_the_same_encoder_frozen_and_trained(tmp_path: Path, asked: Callable[[list[str]], Options]) -> None:
    options = asked(COMMANDS["reviews"])
    assert (options.model, options.strategies) == ("minilm", ("probe", "full"))
    view = transformers.load(places.encoder_model(tmp_path / "model"), "text")
    data = card(open_data(places.texts(tmp_path / "data")))
    frozen, tuned = planned(options, view, data)
    assert frozen.pooling == tuned.pooling == "mean", "the two read the same features"
    view = view.pooled("mean")
    assert set(trained(frozen, view, view.dim)) == {"head/weight", "head/bias"}
    rates = trained(tuned, view, view.dim)
    assert set(rates) == {n for n, _, _ in view.named()} | {"head/weight", "head/bias"}
    assert {n: r for n, r in rates.items() if n[:5] != "head/"} == pytest.approx(
        {n: 5e-5 for n in rates if n[:5] != "head/"}
    )
    (phase,) = tuned.phases
    assert (tuned.optimizer.name, tuned.batch, phase.epochs, phase.schedule) == ("adamw", 32, 3, "linear")
    assert (tuned.optimizer.weight_decay, tuned.optimizer.clip, phase.warmup_frac) == (0.01, 1.0, 0.1)
