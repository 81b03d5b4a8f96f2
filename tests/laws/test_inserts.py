"""Law 7 and law 10: a fresh insert changes no output, taken out it leaves no trace, merged it computes the same."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import pytest
import torch
from openings import ran
from torch import Tensor

from regraft.backbone.view import View
from regraft.engine import freeze
from regraft.errors import UsageError
from regraft.kit import shelf
from regraft.waist import Insert, Phase, Settings
from tests import places, tiny
from tests.conftest import SHARED

LORA = shelf.find("inserts", "lora")
PLAIN: Settings = (("alpha", 16.0), ("rs", False), ("dora", False))
DORA: Settings = (("alpha", 8.0), ("rs", True), ("dora", True))
MARKS = {"bottleneck": "narrow.", "ia3": "ia3.", "lora": "lora.", "prefix": "prefix.", "prompt": "prompt."}
MARKS |= {"side": "side"}
"""What stands in the names of an insert's weights, whatever stage they are in; a side network is in none."""
LORAS = [("bert", "auto", 12), ("gpt2", "auto", 12), ("vit", "all", 32), ("mobilenet_v2", "auto", 64)]
LORAS += [("timm/resnet18", "auto", 64), ("timm/convnext", "all", 64), ("torchvision/mobilenet_v3", "conv", 64)]
BOTTLENECKS = [("bert", "houlsby", 12), ("gpt2", "parallel", 12), ("vit", "houlsby", 32), ("swin", "parallel", 64)]
BOTTLENECKS += [("resnet", "parallel", 64), ("timm/resnet18", "houlsby", 64)]
BOTTLENECKS += [("timm/convnext", "parallel", 64)]
IA3S = [("bert", "auto", 12), ("gpt2", "auto", 12), ("timm/vit", "all", 32), ("resnet", "conv", 64)]
PREFIXES = [("bert", "", 12), ("gpt2", "", 12), ("timm/vit", "", 32)]
PROMPTS = [("bert", "shallow", 12), ("minilm", "deep", 12), ("vit", "deep", 32), ("timm/vit", "shallow", 32)]
SIDES = [("bert", "", 12), ("minilm", "", 12), ("mobilenet_v2", "", 64), ("timm/vit", "", 32)]
KINDS: list[tuple[str, Settings, list[tuple[str, str, int]]]]
KINDS = [("lora", PLAIN, LORAS), ("lora", DORA, LORAS), ("bottleneck", (), BOTTLENECKS), ("ia3", (), IA3S)]
KINDS += [("prefix", (), PREFIXES), ("prompt", (), PROMPTS), ("side", (), SIDES)]
WITHIN = [
    pytest.param(
        Insert(kind, (), 4, where, settings),
        name,
        length,
        id=f"{kind}{'-dora' if settings == DORA else ''}-{name}",
        marks=[pytest.mark.image] if "/" in name else [],
    )
    for kind, settings, networks in KINDS
    for name, where, length in networks
]


def test_no_insert_is_left_out() -> None:
    assert sorted(MARKS) == sorted({kind for kind, _, _ in KINDS}) == list(shelf.names("inserts"))
    for kind in MARKS:
        held = vars(shelf.find("inserts", kind))
        assert ("merge" in held) != ("LINES" in held), "it is merged, or its own lines put it in"


def inserted(name: str, insert: Insert) -> tuple[View, Insert]:
    """A copy of a tiny network with an insert in all of its stages but the lowest."""
    view = tiny.build(name).view.clone(0)
    within = tuple(range(1, len(view.stages)))
    reads = insert.kind == "side"
    insert = dataclasses.replace(insert, stages=() if reads else within, reads=within if reads else ())
    shelf.find("inserts", insert.kind).put(view, insert, 7)
    return view, insert


def state(view: View) -> dict[str, Tensor]:
    return {n: t.clone() for n, t in view.module.state_dict().items()}


def moved(view: View) -> None:
    """Give what was put in numbers as training would."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in view.module.named_parameters():
            if name.endswith("lora.magnitude"):
                parameter *= 1 + 0.2 * torch.rand(parameter.shape, generator=draw)
            elif any(f".{mark}" in f".{name}" for mark in MARKS.values()):
                parameter += 0.1 * torch.randn(parameter.shape, generator=draw)


@pytest.mark.parametrize(("insert", "name", "length"), WITHIN)
def test_fresh_taken_out_and_shipped(tmp_path: Path, insert: Insert, name: str, length: int) -> None:
    made, item = tiny.build(name), shelf.find("inserts", insert.kind)
    batch, before, kinds = made.batch(3, length), state(made.view), [type(m) for m in made.view.module.modules()]
    with torch.no_grad():
        wanted = made.view.run(batch)
        view, insert = inserted(name, insert)
        fresh_is_nothing = torch.equal(view.run(batch), wanted)
        assert fresh_is_nothing != vars(item).get("CHANGES", False), "fresh, it changes outputs where it says so, only"
        fresh = set(state(view)) - set(before)
        assert fresh and all(f".{MARKS[insert.kind]}" in f".{n}" for n in fresh), "names of weights stay"
        moved(view)
        other = view.run(batch)
        assert not torch.allclose(other, wanted, atol=1e-4), "trained, it changes nothing"
        kept = state(view)
        assert all(torch.equal(kept[n], t) for n, t in before.items()), "the weights beside it moved"

        shipped, bare = view.clone(0), view
        if "merge" in vars(item):
            item.merge(shipped)
            assert (shipped.run(batch) - other).abs().max() <= 1e-5 * other.abs().max()
        else:
            for file, data in item.files(view, insert, torch.nn.Linear(view.dim, 3), "base").items():
                (tmp_path / file).write_bytes(data)
            item.take_out(shipped)
            found = ran(item.LINES + "put_in(network, folder)", network=shipped.module, folder=str(tmp_path))
            assert (shipped.call(found["network"], batch) - other).abs().max() <= 1e-6 * other.abs().max()
            bare = made.view.clone(0)
            item.load(bare, tmp_path)
            assert torch.equal(bare.run(batch), other) and bare.native.out_features == 3
        for one in (view, bare):
            item.take_out(one)
            assert [type(m) for m in one.module.modules()] == kinds
            assert list(state(one)) == list(before)
            assert torch.equal(one.run(batch), wanted)
            assert all(torch.equal(state(one)[n], t) for n, t in before.items())
    assert made.view.module.state_dict().keys() == before.keys(), "the network that it was copied from has it, too"


@pytest.mark.parametrize(("insert", "name", "length"), [one for one in WITHIN if "dora" not in str(one.id)])
def test_the_split_law_holds_with_it(insert: Insert, name: str, length: int) -> None:
    view, _ = inserted(name, insert)
    moved(view)
    freeze.rest(view)
    batch = tiny.build(name).batch(3, length)
    with torch.no_grad():
        whole = view.run(batch)
        for k in range(1, len(view.stages) + 1):
            assert torch.equal(view.run(start=k, state=view.run(batch, stop=k)), whole), k


@pytest.mark.parametrize(("insert", "name", "length"), WITHIN)
def test_gradients_reach_all_of_it_and_nothing_else(insert: Insert, name: str, length: int) -> None:
    view, insert = inserted(name, insert)
    moved(view)
    mark, head = MARKS[insert.kind], torch.nn.Linear(view.dim, 3)
    phase = Phase(1, 1, (("head/*", 1.0), (f"*{mark}*", 1.0)))
    chosen = freeze.apply(view, head, phase)
    assert {n for n in chosen if not n.startswith("head/")} == {n for n, _, _ in view.named() if mark in n}
    within = set(insert.stages) or {len(view.stages)}
    assert {s for n, s, _ in view.named() if mark in n} <= within
    before = freeze.hashes(freeze.frozen(view, head, phase))
    rule = torch.optim.SGD([p for p, _ in chosen.values()], lr=0.1)
    with freeze.mode(view, head, phase):
        head(view.run(tiny.build(name).batch(3, length))).square().sum().backward()
    assert [n for n, (p, _) in chosen.items() if p.grad is None or not p.grad.any()] == []
    assert [n for n, p in view.module.named_parameters() if p.grad is not None and mark not in n] == []
    rule.step()
    assert freeze.verify(before, freeze.frozen(view, head, phase)) > 0


def test_what_torch_reads_without_calling_it_is_trained_and_scored_alike() -> None:
    """In eval mode torch's own encoder layer computes with the weights of layers that it never calls."""
    from tests.tiny import viewed

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(8, 16)
            kind = {"d_model": 16, "nhead": 2, "dim_feedforward": 24, "batch_first": True, "dropout": 0.0}
            self.blocks = torch.nn.Sequential(*(torch.nn.TransformerEncoderLayer(**kind) for _ in range(2)))
            self.head = torch.nn.Linear(16, tiny.CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.blocks(self.first(x)).mean(1))

    torch.manual_seed(0)
    view = viewed(Net(), lambda m, b: m(b["values"]), tiny.numbers("values", 6, 8), 6).view
    LORA.put(view, Insert("lora", tuple(range(len(view.stages))), 4, "linear", PLAIN), 0)
    moved(view)
    batch = {"values": torch.randn(3, 6, 8)}
    slow = view.run(batch)
    with torch.no_grad():
        assert torch.allclose(view.run(batch), slow, atol=1e-5), "scored by another path than trained"
        LORA.merge(view)
        assert torch.allclose(view.run(batch), slow, atol=1e-5)


def test_stages_without_such_layers_are_refused_by_name() -> None:
    view = tiny.build("bert").view.clone(0)
    with pytest.raises(UsageError, match=r"no layer to put LoRA into · saw: conv layers in .*layer"):
        LORA.put(view, Insert("lora", (len(view.stages) - 1,), 4, "conv", PLAIN), 0)


@pytest.mark.parametrize(("kind", "settings", "where"), [("lora", PLAIN, "auto"), ("bottleneck", (), "houlsby")])
def test_the_start_is_drawn_from_the_seed(kind: str, settings: Settings, where: str) -> None:
    one, other, again = (tiny.build("bert").view.clone(0) for _ in range(3))
    for view, seed in ((one, 1), (other, 2), (again, 1)):
        shelf.find("inserts", kind).put(view, Insert(kind, (2,), 4, where, settings), seed)
    a, b, c = (state(view) for view in (one, other, again))
    assert all(torch.equal(a[n], c[n]) for n in a)
    assert any(not torch.equal(a[n], b[n]) for n in a if n.endswith(("lora.A", "narrow.0.weight")))


@pytest.mark.shared
def test_a_real_encoder_with_it(tmp_path: Path) -> None:
    """MiniLM: fresh, cut below the last two blocks, merged, and opened by peft alone."""
    folder = SHARED / "models" / "all_minilm_l6_v2"
    if not (folder / "config.json").is_file():
        pytest.skip(f"{folder.name} is not in ../shared/models")
    base = shelf.find("providers", "sentences").load(str(folder), "text")
    batch = places.noise(base, 4)
    with torch.no_grad():
        wanted, view = base.run(batch), base.clone(len(base.stages) - 2)
        insert = Insert("lora", (len(base.stages) - 2, len(base.stages) - 1), 8, "auto", PLAIN)
        LORA.put(view, insert, 0)
        assert torch.equal(view.run(batch), wanted)
        moved(view)
        other, k = view.run(batch), insert.stages[0]
        assert torch.equal(view.run(start=k, state=base.run(batch, stop=k)), other), "the trunk is the base's own"
        for name, data in LORA.files(view, insert, torch.nn.Linear(view.dim, 2), "base").items():
            (tmp_path / name).write_bytes(data)
        LORA.merge(view)
        assert (view.run(batch) - other).abs().max() <= 1e-5 * other.abs().max().clamp(min=1)
        assert torch.equal(base.run(batch), wanted)
        import peft

        plain = importlib.import_module("transformers").AutoModel.from_pretrained(folder)
        hidden = peft.PeftModel.from_pretrained(plain, tmp_path).eval()(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].float()
        made = (hidden * mask).sum(1) / mask.sum(1)
        assert (made - other).abs().max() <= 1e-5 * other.abs().max().clamp(min=1)
