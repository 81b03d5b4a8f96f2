"""LoRA's plans, and its files: peft alone opens what is written here, and what peft wrote opens here."""

from __future__ import annotations

import copy
import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regraft.backbone.view import View, replace
from regraft.errors import ModelError, UsageError
from regraft.inserts._lowrank import Form, adapt, adapter
from regraft.kit import shelf
from regraft.planner.propose import propose
from regraft.planner.request import strategies_of
from regraft.waist import Insert, Options, Plan, Settings
from tests import places, tiny

LORA = shelf.find("inserts", "lora")
PLAIN: Settings = (("alpha", 16.0), ("rs", False), ("dora", False))
SCALED: Settings = (("alpha", 8.0), ("rs", True), ("dora", False))
DORA: Settings = (("alpha", 8.0), ("rs", False), ("dora", True))


@pytest.fixture
def peft() -> Any:
    """The library; keys that it misses are warnings, and so errors."""
    import peft

    return peft


def grafted(name: str, where: str, settings: Settings, last: int = 2) -> tuple[View, Insert, nn.Linear]:
    """A tiny network whose last stages have matrices that are not fresh, the insert, and a head."""
    view = tiny.build(name).view.clone(0)
    found = [i for i, stage in enumerate(view.stages) if stage.params][-last:]
    insert = Insert("lora", tuple(found), 4, where, settings)
    LORA.put(view, insert, 5)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for path, parameter in view.module.named_parameters():
            if "lora." in path:
                parameter += 0.1 * torch.randn(parameter.shape, generator=draw)
    torch.manual_seed(2)
    return view, insert, nn.Linear(view.dim, 3)


def written(folder: Path, view: View, insert: Insert, head: nn.Module) -> Path:
    folder.mkdir()
    for name, data in LORA.files(view, insert, head, "base").items():
        (folder / name).write_bytes(data)
    return folder


def native(name: str, head: nn.Module) -> nn.Module:
    """The network as its library has it, with a fresh head in its place."""
    view = tiny.build(name).view
    module = copy.deepcopy(view.module)
    if view.head:
        replace(module, view.head, copy.deepcopy(head))
        with torch.no_grad():
            for parameter in module.get_submodule(view.head).parameters():
                parameter.zero_()
    return module


NETWORKS = [
    ("bert", "auto", 12),
    ("gpt2", "auto", 12),
    ("minilm", "linear", 12),
    ("resnet", "conv", 64),
    pytest.param("timm/vit", "all", 32, marks=pytest.mark.image),
    pytest.param("timm/resnet18", "auto", 64, marks=pytest.mark.image),
    pytest.param("timm/convnext", "auto", 64, marks=pytest.mark.image),
    ("convnext", "auto", 64),
]
WAYS = [pytest.param(PLAIN, id="plain"), pytest.param(SCALED, id="rs"), pytest.param(DORA, id="dora")]


@pytest.mark.parametrize("settings", WAYS)
@pytest.mark.parametrize(("name", "where", "length"), NETWORKS)
def test_peft_alone_opens_what_is_written(
    tmp_path: Path, peft: Any, name: str, where: str, length: int, settings: Settings
) -> None:
    view, insert, head = grafted(name, where, settings)
    folder = written(tmp_path / "adapter", view, insert, head)
    batch = tiny.build(name).batch(3, length)
    with torch.no_grad():
        wanted = head(view.run(batch))
        opened = peft.PeftModel.from_pretrained(native(name, head), folder).eval()
        made: Tensor = view.call(opened.get_base_model(), batch)
        if not view.head:
            from safetensors.torch import load_file

            held = load_file(folder / "head.safetensors")
            made = nn.functional.linear(made, held["weight"], held["bias"])
    assert (made - wanted).abs().max() <= 1e-5 * wanted.abs().max().clamp(min=1)


@pytest.mark.parametrize("settings", WAYS)
@pytest.mark.parametrize(("name", "where", "length"), NETWORKS)
def test_what_peft_wrote_opens_here(
    tmp_path: Path, peft: Any, name: str, where: str, length: int, settings: Settings
) -> None:
    source, _, head = grafted(name, where, settings)
    told, placed = (
        dict(settings),
        [path for path, m in source.module.named_modules() if "lora" in dict(m.named_children())],
    )
    kept = {"modules_to_save": [source.head]} if source.head else {}
    patterns = {"rank_pattern": {re.escape(placed[0]): 2}, "alpha_pattern": {re.escape(placed[0]): 5}}
    ways = {"use_dora": told["dora"], "use_rslora": told["rs"], "fan_in_fan_out": name == "gpt2"}
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=placed, **ways, **patterns, **kept)
    model = peft.get_peft_model(native(name, head), config).eval()
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter += 0.1 * torch.randn(parameter.shape)
    model.save_pretrained(tmp_path / "theirs")
    view = tiny.build(name).view.clone(0)
    before = type(view.native)
    LORA.load(view, tmp_path / "theirs")
    batch = tiny.build(name).batch(3, length)
    with torch.no_grad():
        wanted = view.call(model.get_base_model(), batch)
        made = view.run(batch) if not view.head else view.native(view.run(batch))
        assert (made - wanted).abs().max() <= 1e-5 * wanted.abs().max().clamp(min=1)
        LORA.merge(view)
        made = view.run(batch) if not view.head else view.native(view.run(batch))
        assert (made - wanted).abs().max() <= 1e-5 * wanted.abs().max().clamp(min=1)
    assert view.head or type(view.native) is before


@pytest.mark.parametrize("name", ["bert", "minilm", "mobilenet_v2"])
def test_what_is_written_comes_back_bit_for_bit(tmp_path: Path, name: str) -> None:
    """Depthwise convolutions too, which peft cannot wrap."""
    view, insert, head = grafted(name, "all", DORA)
    folder = written(tmp_path / "adapter", view, insert, head)
    again = tiny.build(name).view.clone(0)
    LORA.load(again, folder)
    length = tiny.build(name).lengths[0]
    batch = tiny.build(name).batch(3, length)
    with torch.no_grad():
        assert torch.equal(again.native(again.run(batch)), head(view.run(batch)))


def test_another_pooling_names_the_network_without_its_head(tmp_path: Path, peft: Any) -> None:
    """The mean of a BERT that has a head: peft puts the matrices into the bare encoder."""
    course = places.text_course(tmp_path, network="encoder")
    plan = places.plan(course, "lora", pooling="mean", last=2, epochs=1)
    graft = course.restore(places.finish(course, plan))
    folder = written(tmp_path / "adapter", graft.view, plan.inserts[0], course.task.fold(graft.head))
    assert sorted(path.name for path in folder.iterdir()) == [LORA.CONFIG, LORA.WEIGHTS, "head.safetensors"]
    told = json.loads((folder / LORA.CONFIG).read_text())
    assert {name.split(".")[0] for name in told["target_modules"]} == {"encoder"}
    base = importlib.import_module("transformers").AutoModel.from_pretrained(tmp_path / "model")
    opened = peft.PeftModel.from_pretrained(base, folder).eval()
    batch = places.noise(graft.view, 3)
    with torch.no_grad():
        hidden = opened(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].float()
        made = (hidden * mask).sum(1) / mask.sum(1)
        assert torch.allclose(made, graft.view.run(batch), atol=1e-5)


# ---------------------------------------------------------------- what is refused


def broken(folder: Path, **changes: Any) -> Path:
    """A written adapter with other values in its configuration."""
    view, insert, head = grafted("bert", "auto", PLAIN)
    written(folder, view, insert, head)
    told = json.loads((folder / LORA.CONFIG).read_text()) | changes
    (folder / LORA.CONFIG).write_text(json.dumps(told))
    return folder


FOREIGN: list[tuple[dict[str, Any], str]] = [
    ({"peft_type": "LOHA"}, r"no plain LoRA · saw: peft_type = LOHA"),
    ({"lora_bias": True}, r"no plain LoRA · saw: lora_bias = True"),
    ({"init_lora_weights": "pissa"}, r"no plain LoRA · saw: init_lora_weights = pissa"),
]


@pytest.mark.parametrize(("changes", "said"), FOREIGN)
def test_what_computes_otherwise_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        LORA.load(tiny.build("bert").view.clone(0), broken(tmp_path / "adapter", **changes))


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    folder = broken(tmp_path / "adapter")
    (folder / LORA.WEIGHTS).write_bytes(b"torn")
    with pytest.raises(ModelError, match=r"adapter cannot be read · saw: .*SafetensorError"):
        LORA.load(tiny.build("bert").view.clone(0), folder)
    with pytest.raises(ModelError, match=r"adapter cannot be read · saw: .*FileNotFoundError"):
        LORA.load(tiny.build("bert").view.clone(0), tmp_path)


def test_another_network_is_refused_by_the_first_name_that_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"not for this network · saw: .*bert\.encoder\.layer"):
        LORA.load(tiny.build("vit").view.clone(0), broken(tmp_path / "adapter"))


# ---------------------------------------------------------------- plans


def test_it_runs_where_it_is_named() -> None:
    assert "lora" not in strategies_of(Options("data", "model"))
    assert strategies_of(Options("data", "model", strategies=("lora",))) == ("lora",)


def plans(tmp_path: Path, **knobs: Any) -> Plan:
    return places.plan(places.text_course(tmp_path, network="classifier"), "lora", **knobs)


def test_placement_keeps_the_trunk(tmp_path: Path) -> None:
    every, two = plans(tmp_path), plans(tmp_path, last=2, rank=4, alpha=2, dora=True)
    assert (every.trunk, every.inserts[0].stages) == (1, (1, 2, 3)), "embeddings have no layer of it"
    assert (two.trunk, two.inserts[0].stages) == (2, (2, 3))
    assert two.inserts[0].settings == (("alpha", 2.0), ("rs", False), ("dora", True))
    assert (every.label, two.label) == ("lora rank 8 lr 0.001", "lora last 2 rank 4 lr 0.001")
    assert two.phases[0].rates == (("head/*", 1.0), ("*lora.*", 1.0)) and two.phases[0].norm == "keep"


def test_more_blocks_than_there_are_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"that many blocks · saw: --lora.last 4 · allowed: 0 for all, or 1 to 3: "):
        plans(tmp_path, last=4)


def test_every_rate_is_a_plan_of_one_family(tmp_path: Path) -> None:
    from regraft.planner.families import families

    course = places.text_course(tmp_path)
    from regraft.data.open import card
    from regraft.planner import survey
    from regraft.waist import Facts

    facts = Facts(card(course.data), survey.backbone(course.view, "mark"), course.machine)
    found = propose(facts, ["lora"], [], raced=True)
    assert [plan.optimizer.lr for plan in found] == [1e-3, 3e-4, 3e-3] and len(families(found, 0)) == 1


@pytest.mark.parametrize("settings", [PLAIN, SCALED], ids=["plain", "rs"])
@pytest.mark.parametrize(("name", "where"), [("bert", "auto"), ("gpt2", "auto"), ("resnet", "conv")])
def test_files_alone_make_the_bits_of_merged_weights(name: str, where: str, settings: Settings, tmp_path: Path) -> None:
    view, insert, head = grafted(name, where, settings)
    folder = written(tmp_path / "adapter", view, insert, head)
    paths = [path for path, m in view.module.named_modules() if "lora" in dict(m.named_children())]
    before = {f"{path}.weight": dict(view.module.named_parameters())[f"{path}.weight"].clone() for path in paths}
    LORA.merge(view)
    after = dict(view.module.named_parameters())
    for path, weight in before.items():
        made = LORA.remake(folder, path, weight.detach())
        assert made is not None and torch.equal(made, after[path]) and not torch.equal(weight, after[path])
    assert LORA.remake(folder, "nothing.weight", torch.ones(2, 2)) is None


def test_norms_are_not_made_again_from_files(tmp_path: Path) -> None:
    view, insert, head = grafted("bert", "auto", DORA)
    folder = written(tmp_path / "adapter", view, insert, head)
    path = next(path for path, m in view.module.named_modules() if "lora" in dict(m.named_children()))
    assert LORA.remake(folder, f"{path}.weight", torch.ones(32, 32)) is None


@pytest.mark.parametrize("shape", [(5,), (7, 5), (2, 3, 5), (0, 5)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_has_the_gradients_of_its_sum(shape: tuple[int, ...], bias: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    layer = nn.Linear(5, 9, bias).requires_grad_(False)
    adapt(layer, Form(3, 0.7), draw)
    own = adapter(layer)
    with torch.no_grad():
        own.B.normal_(generator=draw)
    x, wanted = torch.randn(shape, generator=draw), torch.randn(*shape[:-1], 9, generator=draw)

    def gradients(made: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((made * wanted).sum(), of, retain_graph=True)

    taken = x.clone().requires_grad_()
    plain = nn.functional.linear(taken, layer.weight, layer.bias) + own.beside(taken)
    torch.testing.assert_close(layer(taken), plain)
    torch.testing.assert_close(
        gradients(layer(taken), taken, own.A, own.B), gradients(plain, taken, own.A, own.B), rtol=1e-4, atol=1e-5
    )
    assert torch.equal(layer(x), layer(taken)), "whether x has a gradient changes no bit"
    torch.testing.assert_close(gradients(layer(x), own.B), gradients(plain, own.B), rtol=1e-4, atol=1e-5)


def test_a_weight_that_moves_keeps_its_own_gradient() -> None:
    layer, draw = nn.Linear(5, 9), torch.Generator().manual_seed(0)
    adapt(layer, Form(3, 0.7), draw)
    (found,) = torch.autograd.grad(layer(x := torch.randn(4, 5, generator=draw)).sum(), [layer.weight])
    torch.testing.assert_close(found, x.sum(0).expand(9, 5))
