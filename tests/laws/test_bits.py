"""LoRA beside frozen weights in few bits: nothing moves, nothing is lost, what ships is what was trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load as read_tensors
from torch import Tensor, nn

from regraft.backbone.view import View
from regraft.engine import freeze
from regraft.errors import ModelError, RegraftError, UsageError
from regraft.inserts import _peft
from regraft.inserts._bits import Bits
from regraft.kit import shelf
from regraft.planner.price import Rate, price
from regraft.planner.timing import timed
from regraft.waist import Insert, Phase, Settings
from tests import places, tiny
from tests.conftest import SHARED

LORA = shelf.find("inserts", "lora")
NETWORKS = [("bert", "auto", 12), ("gpt2", "auto", 12), ("minilm", "auto", 12), ("vit", "all", 32)]
NETWORKS += [pytest.param("timm/vit", "linear", 32, marks=pytest.mark.image)]  # type: ignore[list-item]


def settings(bits: int) -> Settings:
    return ("alpha", 16.0), ("rs", False), ("dora", False), ("bits", bits)


def inserted(base: View, where: str, bits: int, low: int = 1) -> tuple[View, Insert]:
    """A copy of a network with an insert from a stage on; what it holds in few bits is shared, not copied."""
    insert = Insert("lora", tuple(range(low, len(base.stages))), 4, where, settings(bits))
    view = base.clone(0, LORA.kept(base, insert))
    LORA.put(view, insert, 7)
    return view, insert


def moved(view: View) -> None:
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in view.module.named_parameters():
            if "lora." in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=draw)


def held(view: View) -> dict[str, Bits]:
    return {path: m for path, m in view.module.named_modules() if isinstance(m, Bits)}


def state(view: View) -> dict[str, Tensor]:
    return {n: t.clone() for n, t in view.module.state_dict().items()}


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("name", "where", "length"), NETWORKS)
def test_fresh_taken_out_and_merged(name: str, where: str, length: int, bits: int) -> None:
    base = tiny.build(name).view
    batch, before, kinds = tiny.build(name).batch(3, length), state(base), [type(m) for m in base.module.modules()]
    view, _ = inserted(base, where, bits)
    whole = base.clone(0)
    with torch.no_grad():
        for path, some in held(view).items():
            whole.module.get_submodule(path.removesuffix(".held")).weight.copy_(some.whole())
        wanted = whole.run(batch)
        assert torch.equal(view.run(batch), wanted), "fresh, it is the network of the weights that the bits stand for"
        assert not torch.equal(wanted, base.run(batch))
        assert {n for n, _ in view.module.named_parameters() if ".lora." not in n}.isdisjoint(
            path.replace("held", "weight") for path in held(view)
        ), "whole weights are still in it"

        moved(view)
        other, merged = view.run(batch), view.clone(0)
        assert not torch.allclose(other, wanted, atol=1e-4), "trained, it changes nothing"
        LORA.merge(merged)
        assert (merged.run(batch) - other).abs().max() <= 1e-5 * other.abs().max()
        LORA.merge(view)
        assert [type(m) for m in view.module.modules()] == kinds and list(state(view)) == list(before)

        again, _ = inserted(base, where, bits)
        LORA.take_out(again)
        assert [type(m) for m in again.module.modules()] == kinds and list(state(again)) == list(before)
        assert all(torch.equal(state(again)[n], t) for n, t in before.items()), "bits that were lost come back"
        assert torch.equal(again.run(batch), base.run(batch))
    assert all(torch.equal(state(base)[n], t) for n, t in before.items()), "the network that it was copied from moved"


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("name", "where", "length"), NETWORKS)
def test_gradients_reach_matrices_alone_and_bits_are_proved_at_rest(
    name: str, where: str, length: int, bits: int
) -> None:
    view, _ = inserted(tiny.build(name).view, where, bits)
    moved(view)
    head, batch = nn.Linear(view.dim, 3), tiny.build(name).batch(3, length)
    phase = Phase(1, 1, (("head/*", 1.0), ("*lora.*", 1.0)))
    chosen = freeze.apply(view, head, phase)
    still = freeze.frozen(view, head, phase)
    assert {f"buffer/{path}.codes" for path in held(view)} <= still.keys()
    before = freeze.hashes(still)
    rule = torch.optim.SGD([p for p, _ in chosen.values()], lr=0.1)
    with freeze.mode(view, head, phase):
        head(view.run(batch)).square().sum().backward()
    assert [n for n, (p, _) in chosen.items() if p.grad is None or not p.grad.any()] == []
    rule.step()
    assert freeze.verify(before, freeze.frozen(view, head, phase)) == len(still)
    next(iter(held(view).values())).codes[0] += 1
    with pytest.raises(RegraftError, match=r"frozen tensors changed .*such as buffer/.*held\.codes"):
        freeze.verify(before, freeze.frozen(view, head, phase))


@pytest.mark.parametrize(("name", "where", "length"), NETWORKS)
def test_the_split_law_holds_with_it(name: str, where: str, length: int) -> None:
    view, _ = inserted(tiny.build(name).view, where, 4)
    moved(view)
    freeze.rest(view)
    batch = tiny.build(name).batch(3, length)
    with torch.no_grad():
        whole = view.run(batch)
        for k in range(1, len(view.stages)):
            assert torch.equal(view.run(start=k, state=view.run(batch, stop=k)), whole), k


def test_networks_without_linear_layers_are_refused() -> None:
    view = tiny.build("resnet").view
    insert = Insert("lora", (len(view.stages) - 1,), 4, "auto", settings(4))
    with pytest.raises(UsageError, match=r"no weight to hold in 4 bits · saw: auto layers in .* · allowed: linear"):
        LORA.put(view.clone(0), insert, 0)


@pytest.mark.parametrize("bits", [4, 8])
def test_its_files_alone_make_the_network_that_was_trained(tmp_path: Path, bits: int) -> None:
    """Read back or merged, and remade by name: the bits of what trained, not of the whole weights."""
    base = tiny.build("bert").view
    view, insert = inserted(base, "auto", bits)
    moved(view)
    head, batch = nn.Linear(view.dim, 3), tiny.build("bert").batch(3, 12)
    for name, data in LORA.files(view, insert, head, "base").items():
        (tmp_path / name).write_bytes(data)
    again = base.clone(0)
    LORA.load(again, tmp_path)
    paths = [path.removesuffix(".held") for path in held(view)]
    with torch.no_grad():
        assert torch.equal(again.run(batch), view.run(batch)) and len(held(again)) == len(held(view))
        LORA.merge(view)
        for path in paths:
            made = LORA.remake(tmp_path, f"{path}.weight", base.module.get_submodule(path).weight)
            assert torch.equal(made, view.module.get_submodule(path).weight), "a family would keep a copy of it"


def test_adapters_of_unlike_bases_are_not_added(tmp_path: Path) -> None:
    folders = []
    for bits in (4, 8, 4):
        view, insert = inserted(tiny.build("bert").view, "auto", bits)
        moved(view)
        folders.append(tmp_path / str(len(folders)))
        folders[-1].mkdir()
        for name, data in LORA.files(view, insert, nn.Linear(view.dim, 3), "base").items():
            (folders[-1] / name).write_bytes(data)
    with pytest.raises(ModelError, match=r"not for this network · saw: .*regraft\.bits"):
        LORA.combined(folders[:2], [0.5, 0.5], 0)
    view = tiny.build("bert").view.clone(0)
    (tmp_path / "sum").mkdir()
    for name, data in LORA.combined(folders[::2], [0.5, 0.5], 0).items():
        (tmp_path / "sum" / name).write_bytes(data)
    LORA.load(view, tmp_path / "sum")
    assert {some.bits for some in held(view).values()} == {4}


@pytest.mark.parametrize(("network", "bits"), [("bert", 5), ("resnet", 8)])
def test_bits_that_no_layer_can_be_held_in_are_refused(tmp_path: Path, network: str, bits: int) -> None:
    """A file that says so was not written here: another number of bits, or bits of a convolution."""
    view = tiny.build(network).view.clone(0)
    insert = Insert("lora", (len(view.stages) - 1,), 4, "auto", settings(0))
    bare = view.clone(0)
    LORA.put(view, insert, 0)
    for name, data in LORA.files(view, insert, nn.Linear(view.dim, 3), "base").items():
        if name == _peft.WEIGHTS:
            tensors = read_tensors(data)
            names = {key.removeprefix(_peft.ROOT).partition(".lora_")[0] for key in tensors if ".lora_A" in key}
            data = _peft.packed(tensors, dict.fromkeys(sorted(names), bits))
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelError, match=r"regraft\.bits"):
        LORA.load(bare, tmp_path)


def test_memory_is_foreseen_to_be_what_the_bits_take(tmp_path: Path) -> None:
    course = places.text_course(tmp_path)
    plans = [places.plan(course, "lora", last=1, epochs=1, bits=bits) for bits in ("none", "4", "8")]
    assert [plan.label.split(" lr")[0] for plan in plans] == [
        f"lora last 1 rank 8{more}" for more in ("", " bits 4", " bits 8")
    ]
    steps = timed(course, plans)
    whole, *few = (price(course, plan, steps, Rate()).memory for plan in plans)
    for plan, made in zip(plans[1:], few, strict=True):
        some = held(course.graft(plan).view).values()
        saved = sum(4 * one.source[0].numel() - sum(b.nbytes for b in one.buffers()) for one in some)
        assert saved > 0 and whole.copies - made.copies == whole.weights - made.weights == saved
        shared = {p.data_ptr() for p in course.view.module.parameters()}
        assert all(one.source[0].data_ptr() in shared for one in some), "whole weights were copied"


@pytest.mark.shared
@pytest.mark.parametrize(("bits", "near"), [(4, 0.85), (8, 0.999)])
def test_a_real_encoder_with_it(bits: int, near: float) -> None:
    """MiniLM: how far quantisation moves its features, and matrices merged into what is left of its weights."""
    folder = SHARED / "models" / "all_minilm_l6_v2"
    if not (folder / "config.json").is_file():
        pytest.skip(f"{folder.name} is not in ../shared/models")
    base = shelf.find("providers", "sentences").load(str(folder), "text")
    batch = places.noise(base, 4)
    view, _ = inserted(base, "auto", bits)
    with torch.no_grad():
        wanted, found = base.run(batch), view.run(batch)
        assert nn.functional.cosine_similarity(wanted, found).min() > near and not torch.equal(wanted, found)
        moved(view)
        other = view.run(batch)
        LORA.merge(view)
        assert (view.run(batch) - other).abs().max() <= 1e-5 * other.abs().max().clamp(min=1)
        assert torch.equal(base.run(batch), wanted)
