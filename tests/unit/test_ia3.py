"""IA3: where vectors go, laws of inserts, its plans, and its files: peft alone opens them, and ours opens peft's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regraft.backbone.view import View
from regraft.errors import ModelError, UsageError
from regraft.kit import shelf
from regraft.planner.request import strategies_of
from regraft.waist import Insert, Options
from tests import places, tiny
from tests.unit.test_lora import native

IA3 = shelf.find("inserts", "ia3")
NETWORKS = [
    ("bert", "auto", 12),
    ("gpt2", "auto", 12),
    ("minilm", "linear", 12),
    ("resnet", "conv", 64),
    pytest.param("timm/vit", "all", 32, marks=pytest.mark.image),
    pytest.param("timm/convnext", "all", 64, marks=pytest.mark.image),
]


def grafted(name: str, where: str, last: int = 2) -> tuple[View, Insert, nn.Linear]:
    """A tiny network whose last stages have vectors that are not fresh, the insert, and a head."""
    view = tiny.build(name).view.clone(0)
    found = [i for i, stage in enumerate(view.stages) if stage.params][-last:]
    insert = Insert("ia3", tuple(found), 1, where)
    IA3.put(view, insert, 5)
    moved(view)
    torch.manual_seed(2)
    return view, insert, nn.Linear(view.dim, 3)


def moved(view: View) -> None:
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for path, parameter in view.module.named_parameters():
            if path.endswith("ia3.scale"):
                parameter += 0.2 * torch.randn(parameter.shape, generator=draw)


def written(folder: Path, view: View, insert: Insert, head: nn.Module) -> Path:
    folder.mkdir()
    for name, data in IA3.files(view, insert, head, "base").items():
        (folder / name).write_bytes(data)
    return folder


# ---------------------------------------------------------------- where vectors go


@pytest.mark.parametrize(
    ("name", "inward", "outward"),
    [
        ("bert", {"output.dense"}, {"attention.self.key", "attention.self.value"}),
        ("deberta", {"output.dense"}, {"attention.self.key_proj", "attention.self.value_proj"}),
        ("gpt2", {"mlp.c_proj"}, {"attn.c_attn"}),
        ("llama", {"mlp.down_proj"}, {"self_attn.k_proj", "self_attn.v_proj"}),
        ("t5", {"layer.1.DenseReluDense.wo"}, {"layer.0.SelfAttention.k", "layer.0.SelfAttention.v"}),
        ("vit", {"mlp.fc2"}, {"attention.k_proj", "attention.v_proj"}),
        pytest.param("timm/vit", {"mlp.fc2"}, {"attn.qkv"}, marks=pytest.mark.image),
    ],
)
def test_keys_values_and_feed_forward_parts_are_found(name: str, inward: set[str], outward: set[str]) -> None:
    view = tiny.build(name).view.clone(0)
    IA3.put(view, Insert("ia3", (2,), 1, "auto"), 0)
    block = view.module.get_submodule(view.seams.mains[2])
    found = {path.removesuffix(".ia3"): m.inward for path, m in block.named_modules() if isinstance(m, IA3.Vector)}
    assert {path for path, way in found.items() if way} == inward
    assert {path for path, way in found.items() if not way} == outward


def test_stages_without_such_layers_are_refused_by_name() -> None:
    view = tiny.build("bert").view.clone(0)
    with pytest.raises(UsageError, match=r"no layer to put IA3 into · saw: conv layers in .*layer"):
        IA3.put(view, Insert("ia3", (2,), 1, "conv"), 0)


def test_what_torch_reads_without_calling_it_is_trained_and_scored_alike() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            kind = {"d_model": 16, "nhead": 2, "dim_feedforward": 24, "batch_first": True, "dropout": 0.0}
            self.blocks = nn.Sequential(*(nn.TransformerEncoderLayer(**kind) for _ in range(2)))
            self.head = nn.Linear(16, tiny.CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.blocks(x).mean(1))

    torch.manual_seed(0)
    view = tiny.viewed(Net(), lambda m, b: m(b["values"]), tiny.numbers("values", 6, 16), 6).view
    IA3.put(view, Insert("ia3", tuple(range(len(view.stages))), 1, "linear"), 0)
    moved(view)
    batch = {"values": torch.randn(3, 6, 16)}
    slow = view.run(batch)
    with torch.no_grad():
        assert torch.allclose(view.run(batch), slow, atol=1e-5), "scored by another path than trained"


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(("name", "where", "length"), NETWORKS)
def test_peft_alone_opens_what_is_written(tmp_path: Path, name: str, where: str, length: int) -> None:
    import peft

    view, insert, head = grafted(name, where)
    folder = written(tmp_path / "adapter", view, insert, head)
    batch = tiny.build(name).batch(3, length)
    with torch.no_grad():
        wanted = head(view.run(batch))
        opened = peft.PeftModel.from_pretrained(native(name, head), folder).eval()
        made: Tensor = view.call(opened.get_base_model(), batch)
        made = made if view.head else head(made)
    assert (made - wanted).abs().max() <= 1e-5 * wanted.abs().max().clamp(min=1)
    again = tiny.build(name).view.clone(0)
    IA3.load(again, folder)
    with torch.no_grad():
        assert torch.equal(again.native(again.run(batch)), head(view.run(batch)))


@pytest.mark.parametrize(("name", "where", "length"), NETWORKS)
def test_what_peft_wrote_opens_here(tmp_path: Path, name: str, where: str, length: int) -> None:
    import peft

    source, _, head = grafted(name, where)
    placed = [path for path, m in source.module.named_modules() if "ia3" in dict(m.named_children())]
    inward = [path for path in placed if source.module.get_submodule(path).ia3.inward]
    kept = {"modules_to_save": [source.head]} if source.head else {}
    turned = {"fan_in_fan_out": name == "gpt2"}
    config = peft.IA3Config(target_modules=placed, feedforward_modules=inward, **kept, **turned)
    model = peft.get_peft_model(native(name, head), config).eval()
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter += 0.1 * torch.randn(parameter.shape)
    model.save_pretrained(tmp_path / "theirs")
    view = tiny.build(name).view.clone(0)
    IA3.load(view, tmp_path / "theirs")
    batch = tiny.build(name).batch(3, length)
    with torch.no_grad():
        wanted = view.call(model.get_base_model(), batch)
        made = view.native(view.run(batch)) if view.head else view.run(batch)
    assert (made - wanted).abs().max() <= 1e-5 * wanted.abs().max().clamp(min=1)


def test_other_adapters_and_other_networks_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "adapter", *grafted("bert", "auto"))
    with pytest.raises(ModelError, match=r"not for this network · saw: .*bert\.encoder\.layer"):
        IA3.load(tiny.build("vit").view.clone(0), folder)
    told = json.loads((folder / "adapter_config.json").read_text()) | {"peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(told))
    with pytest.raises(ModelError, match=r"no plain IA3 · saw: peft_type = LORA"):
        IA3.load(tiny.build("bert").view.clone(0), folder)
    (folder / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match=r"adapter cannot be read · saw: .*SafetensorError"):
        IA3.load(tiny.build("bert").view.clone(0), folder)


# ---------------------------------------------------------------- plans


def plans(tmp_path: Path, **knobs: Any) -> Any:
    return places.plan(places.text_course(tmp_path, network="classifier"), "ia3", **knobs)


def test_placement_keeps_the_trunk(tmp_path: Path) -> None:
    assert "ia3" not in strategies_of(Options("data", "model"))
    every, two = plans(tmp_path), plans(tmp_path, last=2)
    assert (every.trunk, two.trunk) == (1, 2), "embeddings have no layer of it"
    assert two.phases[0].rates == (("head/*", 1.0), ("*ia3.scale", 10.0)) and two.phases[0].norm == "keep"
    assert two.optimizer.weight_decay == 0.0
    with pytest.raises(UsageError, match=r"that many blocks · saw: --ia3\.last 9"):
        plans(tmp_path, last=9)


def test_a_folder_of_ia3_is_a_model_with_its_vectors_merged(tmp_path: Path) -> None:
    network = places.encoder_model(tmp_path / "model", "classifier")
    adapter = shelf.find("providers", "adapter")
    view = shelf.find("providers", "transformers").load(str(network), "text")
    IA3.put(view, Insert("ia3", tuple(range(len(view.stages))), 1, "auto"), 0)
    moved(view)
    head, batch = nn.Linear(view.dim, 4), places.noise(view, 3)
    folder = written(tmp_path / "adapter", view, Insert("ia3", (0,), 1, "auto"), head)
    found = adapter.load(folder, "text", str(network))
    with torch.no_grad():
        assert torch.allclose(found.native(found.run(batch)), head(view.run(batch)), atol=1e-5)
    assert not any("ia3" in name for name, _ in found.module.named_parameters())
