"""Prompts and prefixes: what they compute, held against the libraries' own parts; whom they serve, and their plans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from regraft.backbone.patching import tap
from regraft.backbone.view import View
from regraft.engine import freeze
from regraft.errors import ModelError, UsageError
from regraft.kit import shelf
from regraft.planner.request import strategies_of
from regraft.waist import Insert, Options
from tests import places, tiny

PROMPT, PREFIX = shelf.find("inserts", "prompt"), shelf.find("inserts", "prefix")
COUNT = 4


def inserted(name: str, kind: str, where: str = "", blocks: tuple[int, ...] = (1, 2, 3)) -> View:
    """A tiny network with prompts or prefixes whose numbers are far from their start."""
    view = tiny.build(name).view.clone(0)
    shelf.find("inserts", kind).put(view, Insert(kind, blocks, COUNT, where), 7)
    freeze.rest(view)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for path, parameter in view.module.named_parameters():
            if f".{kind}." in path:
                parameter += torch.randn(parameter.shape, generator=draw)
    return view


def held(view: View, kind: str) -> list[Tensor]:
    """What was put in, in the order of blocks."""
    return [p.detach() for n, p in view.module.named_parameters() if f".{kind}." in n]


def full(mask: Tensor, count: int = COUNT) -> Tensor:
    """A mask of texts behind so many tokens that all see."""
    return torch.nn.functional.pad(mask, (count, 0), value=1)


# ---------------------------------------------------------------- what they compute


@pytest.mark.parametrize("where", ["shallow", "deep"])
def test_prompts_of_texts_are_tokens_before_those_of_the_text(where: str) -> None:
    """MiniLM's own blocks on longer rows, their mask made by transformers from a longer one."""
    view, batch = inserted("minilm", "prompt", where), tiny.build("minilm").batch(3, 12)
    bare, tokens = tiny.build("minilm").view.module, held(view, "prompt")
    assert len(tokens) == (1 if where == "shallow" else 3)
    with torch.no_grad():
        x = bare.embeddings(batch["input_ids"])
        seen = full(batch["attention_mask"])[:, None, None].bool().expand(-1, -1, 12 + COUNT, -1)
        for i, block in enumerate(bare.encoder.layer):
            if where == "deep" or not i:
                x = torch.cat([tokens[min(i, len(tokens) - 1)].expand(3, -1, -1), x[:, COUNT if i else 0 :]], 1)
            x = block(x, seen)
        kept = batch["attention_mask"][..., None].float()
        wanted = (x[:, COUNT:] * kept).sum(1) / kept.sum(1)
        assert torch.allclose(view.run(batch), wanted, atol=1e-6), "the mean is that of the text's own tokens"


@pytest.mark.parametrize("name", ["vit", pytest.param("timm/vit", marks=pytest.mark.image)])
def test_visual_prompts_are_patches_beside_those_of_the_picture(name: str) -> None:
    view, batch = inserted(name, "prompt", "deep"), tiny.build(name).batch(2, 32)
    bare, tokens = tiny.build(name).view, held(view, "prompt")
    blocks = [bare.module.get_submodule(bare.seams.mains[i]) for i in (1, 2, 3)]
    with torch.no_grad():
        taken: list[Tensor] = []
        bare.called(batch, {bare.seams.mains[1]: tap(lambda args, _: taken.append(args[0]))})
        x = taken[0]
        for own, block in zip(tokens, blocks, strict=True):
            x = block(torch.cat([x[:, :1], own.expand(2, -1, -1), x[:, 1:]], 1))  # behind CLS, as in the paper
            x = torch.cat([x[:, :1], x[:, 1 + COUNT :]], 1)
        after = bare.called(batch, {bare.seams.mains[3]: lambda _: lambda *_, **__: x})
        assert torch.allclose(view.run(batch), after, atol=1e-5)


def test_a_prefix_is_what_transformers_keeps_of_tokens_before() -> None:
    """Keys and values of the past, at positions that begin with the text."""
    from transformers import DynamicCache

    view, batch = inserted("minilm", "prefix"), tiny.build("minilm").batch(3, 12)
    past, own = DynamicCache(), held(view, "prefix")
    for i in range(3):
        past.update(*(part.expand(3, -1, -1, -1) for part in own[2 * i : 2 * i + 2]), i)
    with torch.no_grad():
        bare, mask = tiny.build("minilm").view.module, batch["attention_mask"]
        places_of = torch.arange(12).expand(3, -1)
        x = bare(batch["input_ids"], full(mask), position_ids=places_of, past_key_values=past).last_hidden_state
        wanted = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        assert torch.allclose(view.run(batch), wanted, atol=1e-6)


def test_a_prefix_before_tokens_that_look_back_is_seen_by_all() -> None:
    """GPT-2 asks torch for causal attention: without padding by a flag, with padding by a mask."""
    view = inserted("gpt2", "prefix")
    ids = tiny.build("gpt2").batch(1, 12)["input_ids"]
    with torch.no_grad():
        alone = view.run({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        longer = torch.nn.functional.pad(ids, (0, 3))
        padded = view.run({"input_ids": longer, "attention_mask": (longer > 0).long()})
    assert torch.allclose(alone, padded, atol=1e-5)


@pytest.mark.parametrize(("kind", "where"), [("prompt", "shallow"), ("prompt", "deep"), ("prefix", "")])
@pytest.mark.parametrize("name", ["distilbert", "roberta"])
def test_padding_and_company_change_nothing(name: str, kind: str, where: str) -> None:
    view, batch = inserted(name, kind, where), tiny.build(name).batch(3, 12)
    with torch.no_grad():
        wanted = view.run(batch)
        longer = view.run({n: torch.nn.functional.pad(t, (0, 5)) for n, t in batch.items()})
        alone = torch.cat([view.run({n: t[i : i + 1] for n, t in batch.items()}) for i in range(3)])
    assert torch.allclose(longer, wanted, atol=1e-5) and torch.allclose(alone, wanted, atol=1e-5)


def test_they_leave_what_is_below_and_above_as_it_is() -> None:
    """In the last block alone: the trunk's states serve, whatever lies below."""
    made = tiny.build("bert")
    batch = made.batch(3, 12)
    for kind in ("prompt", "prefix"):
        view = inserted("bert", kind, "shallow", blocks=(3,))
        with torch.no_grad():
            state = made.view.run(batch, stop=3)
            assert torch.equal(view.run(start=3, state=state), view.run(batch)), kind


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gpt2", r"is told the places of its tokens"),
        ("llama", r"is told the places of its tokens"),
        ("deberta", r"is told the places of its tokens"),
        ("swin", r"is told the places of its tokens"),
        ("resnet", r"no block takes and gives tokens"),
        ("wav2vec2", r"pos_conv_embed tokens attend to those before them only"),
    ],
)
def test_prompts_are_refused_where_places_or_directions_matter(name: str, why: str) -> None:
    view = tiny.build(name).view.clone(0)
    with pytest.raises(UsageError, match=rf"prompts cannot be put .* · saw: .*{why}"):
        PROMPT.put(view, Insert("prompt", tuple(range(len(view.stages))), COUNT, "deep"), 0)
    assert not [n for n, _ in view.module.named_parameters() if ".prompt." in n]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("deberta", r"attention in 0 of 5 blocks"),
        ("llama", r"model\.layers\.0: heads share keys"),
        ("swin", r"attention in 3 of 4 blocks, 6 times"),
        ("resnet", r"attention in 0 of 5 blocks"),
    ],
)
def test_prefixes_are_refused_where_attention_is_another(name: str, why: str) -> None:
    view = tiny.build(name).view.clone(0)
    with pytest.raises(UsageError, match=rf"prefix cannot be put .* · saw: {why}"):
        PREFIX.put(view, Insert("prefix", tuple(range(len(view.stages))), COUNT), 0)


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_files_of_other_networks_and_other_kinds_are_refused(tmp_path: Path, kind: str) -> None:
    item, view = shelf.find("inserts", kind), inserted("bert", kind, "deep")
    insert = Insert(kind, (1, 2, 3), COUNT, "deep")
    for name, data in item.files(view, insert, torch.nn.Linear(view.dim, 3), "base").items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelError, match=r"not for this network · saw: .*bert\.encoder\.layer\.0"):
        item.load(tiny.build("vit").view.clone(0), tmp_path)
    with pytest.raises(UsageError, match=r"cannot be put .* · saw: .*(prompts in .* already|has one)"):
        item.put(view, insert, 0)
    with pytest.raises(ModelError, match=r"not for this network"):
        item.load(view, tmp_path)
    told = json.loads((tmp_path / "insert.json").read_text())
    (tmp_path / "insert.json").write_text(json.dumps(told | {"kind": "other"}))
    with pytest.raises(ModelError, match=rf"{kind} cannot be read · saw: .*ValueError: other"):
        item.load(tiny.build("bert").view.clone(0), tmp_path)


# ---------------------------------------------------------------- plans


@pytest.mark.parametrize(("kind", "knobs"), [("prompt", {"by": "shallow"}), ("prefix", {})])
def test_placement_keeps_the_trunk(tmp_path: Path, kind: str, knobs: dict[str, Any]) -> None:
    assert kind not in strategies_of(Options("data", "model"))
    course = places.text_course(tmp_path, network="classifier")
    plan = places.plan(course, kind, last=2, size=3, epochs=1, **knobs)
    assert plan.trunk == 2 and plan.inserts == (Insert(kind, (2, 3), 3, knobs.get("by", "")),)
    assert plan.phases[0].rates == (("head/*", 1.0), (f"*{kind}.*", 30.0)) and plan.optimizer.weight_decay == 0.0
    start, ended = course.graft(plan), course.restore(places.finish(course, plan))
    pairs = zip(start.view.named(), ended.view.named(), strict=True)
    moved = {name for (name, _, a), (_, _, b) in pairs if not torch.equal(a, b)}
    assert moved == {name for name, _, _ in start.view.named() if f"{kind}." in name} and moved
    with pytest.raises(UsageError, match=rf"that many blocks · saw: --{kind}\.last 9"):
        places.plan(course, kind, last=9)
