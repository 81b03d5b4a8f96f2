"""Law 1: a network cut at any frontier and put together again gives what it gives uncut, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tiny import NETWORKS, Tiny, build
from torch import Tensor, nn

from regraft.backbone.stages import Batch
from regraft.backbone.state import State, leaves, tree
from regraft.backbone.view import GLUE, View
from regraft.waist import InputSpec

OF_IMAGE_EXTRA = ("timm/", "torchvision/")
FEATURES = [f"features.{i}" for i in range(13)]
BLOCKS = ["layers.0", "layers.1", "layers.2"]
ENCODER = [f"encoder.layer.{i}" for i in range(3)]

STAGES = {
    "timm/resnet18": ["conv1", "layer1", "layer2", "layer3", "layer4"],
    "timm/vit": ["patch_embed", "blocks.0", "blocks.1", "blocks.2"],
    "timm/convnext": ["stem", "stages.0", "stages.1", "stages.2", "stages.3"],
    "timm/swin": ["patch_embed", "layers.0", "layers.1", "layers.2", "layers.3"],
    "torchvision/resnet18": ["conv1", "layer1", "layer2", "layer3", "layer4"],
    "torchvision/mobilenet_v3": [*FEATURES, "classifier"],
    "torchvision/efficientnet": [f"features.{i}" for i in range(9)],
    "torchvision/vgg11": [*(f"features.{i}" for i in (0, 3, 6, 8, 11, 13, 16, 18)), "classifier.0", "classifier.3"],
    "bert": ["embeddings", *ENCODER, "pooler"],
    "distilbert": [
        "distilbert.embeddings",
        *(f"distilbert.transformer.layer.{i}" for i in range(3)),
        "pre_classifier",
    ],
    "roberta": ["roberta.embeddings", *(f"roberta.{name}" for name in ENCODER), "classifier"],
    "minilm": ["embeddings", *ENCODER],
    "gpt2": ["wte", "h.0", "h.1", "h.2"],
    "llama": ["embed_tokens", *BLOCKS],
    "deberta": ["deberta.embeddings", *(f"deberta.{name}" for name in ENCODER), "pooler"],
    "t5": ["embed_tokens", "block.0", "block.1", "block.2"],
    "wav2vec2": [
        *(f"wav2vec2.feature_extractor.conv_layers.{i}" for i in range(4)),
        "wav2vec2.feature_projection",
        "wav2vec2.encoder.pos_conv_embed",
        *(f"wav2vec2.encoder.{name}" for name in BLOCKS),
        "projector",
    ],
    "whisper": ["conv1", "conv2", *BLOCKS],
    "patchtst": ["embedder", "positional_encoder", *BLOCKS],
    "ast": ["embeddings", *BLOCKS],
    "vit": ["embeddings", *BLOCKS],
    "dinov2": ["embeddings", *ENCODER],
    "clip": ["embeddings", *(f"encoder.{name}" for name in BLOCKS)],
    "swin": ["embeddings", *(f"encoder.{name}" for name in BLOCKS)],
    "efficientnet": ["embeddings", *(f"encoder.blocks.{i}" for i in range(8)), "encoder.top_conv"],
    "convnext": ["embeddings", *(f"encoder.stages.{i}" for i in range(4))],
    "convnextv2": ["embeddings", *(f"encoder.stages.{i}" for i in range(4))],
    "resnet": ["embedder", *(f"encoder.stages.{i}" for i in range(4))],
    "mobilenet_v2": ["conv_stem", *(f"layer.{i}" for i in range(16)), "conv_1x1"],
}
GLUED = {
    "timm/vit": {"cls_token", "pos_embed"},
    "gpt2": {"transformer.wpe.weight"},
    "deberta": {
        "deberta.encoder.rel_embeddings.weight",
        "deberta.encoder.LayerNorm.weight",
        "deberta.encoder.LayerNorm.bias",
    },
    "whisper": {"embed_positions.weight"},
}
IDLE = {
    "wav2vec2": {"wav2vec2.masked_spec_embed"},
    "clip": {"vision_model.post_layernorm.weight", "vision_model.post_layernorm.bias"},
}
"""What the features do not depend on: it belongs to nobody, and nothing asks to train it."""
STILL = {"torchvision/vgg11"}
"""Networks that are the same in train mode: what VGG drops out lies between its stages, and that is never trained."""


@pytest.fixture(
    params=[
        pytest.param(name, marks=[pytest.mark.image] if name.startswith(OF_IMAGE_EXTRA) else []) for name in NETWORKS
    ]
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def cuts(view: View) -> range:
    """Every frontier that leaves something on both sides."""
    return range(1, len(view.stages))


def batches(net: Tiny) -> Iterator[dict[str, Tensor]]:
    """Batches of two sizes, at every length that the network takes."""
    for n, length in zip((3, 5), (net.lengths[0], net.lengths[-1]), strict=True):
        yield net.batch(n, length)


def plain(state: State) -> State:
    """A state as a store would give it back: the same numbers, rows after rows in memory."""
    return state._replace(value=tree(lambda t: t.clone(memory_format=torch.contiguous_format), state.value))


def test_stages_are_found_by_structure(name: str) -> None:
    view = build(name).view
    assert [stage.name for stage in view.stages] == STAGES[name]
    named = list(view.named())
    assert {n.removeprefix(f"{GLUE}/") for n, _, _ in named if n.startswith(GLUE)} == GLUED.get(name, set())
    assert len({n for n, _, _ in named}) == len(named)
    idle = IDLE.get(name, set())
    assert [id(p) for _, _, p in named] == [id(p) for n, p in view.module.named_parameters() if n not in idle]
    for full, i, _ in named:
        assert full.startswith((f"{view.stages[i].name}/", f"{GLUE}/"))


@torch.no_grad()
def test_a_cut_run_gives_what_the_whole_gives(name: str) -> None:
    net = build(name)
    for batch in batches(net):
        whole = net.view.run(batch)
        assert whole.shape == (len(whole), net.view.dim)
        for k in cuts(net.view):
            state = net.view.run(batch, stop=k)
            assert torch.equal(net.view.run(batch, start=k, state=state), whole), k
            assert torch.equal(net.view.run(start=k, state=state), whole), k
            assert torch.equal(net.view.run(start=k, state=plain(state)), whole), k


@torch.no_grad()
def test_a_run_in_three_parts_gives_what_the_whole_gives(name: str) -> None:
    net = build(name)
    batch = net.batch(3, net.lengths[-1])
    whole = net.view.run(batch)
    for k in cuts(net.view)[1:]:
        state = net.view.run(start=k - 1, stop=k, state=net.view.run(batch, stop=k - 1))
        assert torch.equal(net.view.run(start=k, state=state), whole), k


@torch.no_grad()
def test_a_state_can_be_taken_apart_by_rows(name: str) -> None:
    net = build(name)
    batch = net.batch(5, net.lengths[0])
    whole = net.view.run(batch)
    single = {k: v[:1] for k, v in batch.items()}
    index = torch.tensor([4, 1])
    for k in cuts(net.view):
        state, one = net.view.run(batch, stop=k), net.view.run(single, stop=k)
        for many, few in zip(leaves(state.value), leaves(one.value), strict=True):
            assert (len(many), len(few)) == (5, 1) or many.shape == few.shape
        some = tree(lambda t: t[index] if len(t) == 5 else t, state.value)
        rows = State(some, state.seen, {k: v[index] for k, v in state.inputs.items()})
        torch.testing.assert_close(net.view.run(start=k, state=rows), whole[index], rtol=1e-4, atol=1e-5)


def test_training_above_a_cut_gives_the_same_gradients_and_buffers(name: str) -> None:
    net = build(name)
    batch = net.batch(4, net.lengths[0])
    twin = net.view.clone(0)
    start = {n: b.clone() for n, _, b in twin.buffers()}
    for k in cuts(twin):
        _restore(twin, start)
        _freeze(twin, k)
        with torch.no_grad():
            state, calm = twin.run(batch, stop=k), twin.run(batch)
        whole = _trained(twin, k, start, lambda: twin.run(batch))
        above = _trained(twin, k, start, lambda k=k, state=state: twin.run(start=k, state=state))
        _equal(whole, above, k)
        if k == 1:
            assert torch.equal(whole["features"], calm) == (name in STILL)
            assert any(n.startswith("grad/") for n in whole)


@torch.no_grad()
def test_the_law_holds_in_bfloat16(name: str) -> None:
    net = build(name)
    half = net.view.clone(0)
    half.module.to(torch.bfloat16)
    batch = {k: v.bfloat16() if v.is_floating_point() else v for k, v in net.batch(3, net.lengths[0]).items()}
    whole = half.run(batch)
    assert whole.dtype == torch.bfloat16
    for k in {1, len(half.stages) - 1}:
        assert torch.equal(half.run(start=k, state=half.run(batch, stop=k)), whole), k


def _restore(view: View, start: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for n, _, buffer in view.buffers():
            buffer.copy_(start[n])


def _freeze(view: View, k: int) -> None:
    """Let the stages from k on want gradients, and no others.

    Also where no gradient is taken: `linear` on four dimensions folds them only if its weight wants one, and the last
    bits of what PatchTST gives differ by that.
    """
    for _, i, parameter in view.named():
        parameter.requires_grad_(i >= k)


def _trained(view: View, k: int, start: dict[str, Tensor], run: Callable[[], Tensor]) -> dict[str, Any]:
    """Features of one step with the stages from k on in train mode, gradients above the cut, and buffers after it.

    What lies below is frozen: attention takes another kernel where T5's table of positions wants a gradient.
    """
    _restore(view, start)
    _freeze(view, k)
    view.module.eval()
    view.module.zero_grad()
    for i in range(k, len(view.stages)):
        for member in view.members(i):
            member.train()
    torch.manual_seed(7)
    features = run()
    weights = torch.linspace(-1, 1, features.numel()).reshape(features.shape)
    (features * weights).sum().backward()
    view.module.eval()
    found = {f"grad/{n}": p.grad.clone() for n, i, p in view.named() if i >= k and p.grad is not None}
    return found | {n: b.clone() for n, _, b in view.buffers()} | {"features": features.detach()}


def _equal(whole: dict[str, Tensor], above: dict[str, Tensor], k: int) -> None:
    assert whole.keys() == above.keys()
    assert [n for n in whole if not torch.equal(whole[n], above[n])] == [], k


# ---------------------------------------------------------------- networks that are no line


class Odd(nn.Module):
    """Five blocks in a row, and a stem and a norm beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 6)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(5))
        self.norm = nn.LayerNorm(6)
        self.more = nn.Linear(6, 6)
        self.never = nn.Linear(6, 6)


class Hourglass(Odd):
    """What every block but the middle one gives goes round all that lies between it and its counterpart."""

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d, e = self.blocks
        first = a(self.stem(x))
        second = b(first)
        return self.more(e(d(c(second)) + second) + first)


class Shortcut(Odd):
    """One short way round blocks 1 and 2, and a norm that is on one of two ways."""

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d, e = self.blocks
        first = a(self.stem(x))
        third = c(b(first)) + first
        return e(d(third) + self.norm(third))


class Recall(Odd):
    """The input itself is read again at the end."""

    def forward(self, x: Tensor) -> Tensor:
        first = x
        for block in self.blocks:
            x = block(x)
        return x + first


class Overwrite(Odd):
    """What a block gives is changed in place by what comes next."""

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x).add_(1.0).mul_(0.5)
        return x


class Fold(Odd):
    """Block 1 sees two rows for each example, so what it gives cannot be kept row by row."""

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d, e = self.blocks
        return e(d(c(b(a(x).repeat(2, 1)).unflatten(0, (2, -1)).sum(0))))


class Again(Odd):
    """One block runs twice: it is glue; weights that never run belong to nobody."""

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, _, e = self.blocks
        return e(self.more(c(self.more(b(a(x))))))


class Detached(Odd):
    """No graph tells what depends on what."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Idle(Odd):
    """What one module gives is not used for the features."""

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        self.more(x)
        return x


class Rowless(nn.Module):
    """No two siblings of one class; the middle runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 4), nn.Bilinear(4, 4, 4), nn.Sequential(nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.third(self.second(self.second(x, x), x))


class Turned(Odd):
    """Rows lie along the second dimension between the blocks, so nothing can be kept row by row."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(1, (1, 6)).transpose(0, 1).contiguous()
        for block in self.blocks:
            x = block(x)
        return x[0]


class Aside(Odd):
    """Blocks give a mapping, with a number and a table for all rows beside the hidden values."""

    def forward(self, x: Tensor) -> Tensor:
        given: dict[str, Any] = {"hidden": x, "scale": torch.tensor(2.0), "table": torch.ones(7, 6), "none": None}
        for block in self.blocks:
            given = block(given)
        return given["hidden"] * given["scale"] + given["table"].sum(0)


class Beside(nn.Linear):
    def forward(self, given: dict[str, Any]) -> dict[str, Any]:
        table = given["table"] + self.bias
        return given | {
            "hidden": super().forward(given["hidden"] + table[0]),
            "scale": given["scale"] * 0.5,
            "table": table,
        }


def aside() -> Aside:
    net = Aside()
    net.blocks = nn.ModuleList(Beside(6, 6) for _ in range(5))
    return net


def idle(net: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of modules whose output reaches no feature: those that the class of the network does not use."""
    unused = {
        Hourglass: ["norm", "never"],
        Shortcut: ["more", "never"],
        Again: ["blocks.3", "stem", "norm", "never"],
    }
    rest = ["stem", "norm", "more", "never"] if isinstance(net, Odd) else []
    for path in unused.get(type(net), rest):
        yield from net.get_submodule(path).parameters()


def call(module: nn.Module, batch: Batch) -> Tensor:
    features: Tensor = module(batch["x"])
    return features


ODD: list[tuple[Callable[[], nn.Module], list[list[str]]]] = [
    (Hourglass, [["stem"], ["blocks.0"], ["blocks.1", "blocks.2", "blocks.3", "blocks.4", "more"]]),
    (Shortcut, [["stem"], ["blocks.0"], ["blocks.1", "blocks.2", "blocks.3", "norm", "blocks.4"]]),
    (Recall, [["blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4"]]),
    (Overwrite, [["blocks.0"], ["blocks.1"], ["blocks.2"], ["blocks.3"], ["blocks.4"]]),
    (Fold, [["blocks.0"], ["blocks.1", "blocks.2"], ["blocks.3"], ["blocks.4"]]),
    (Again, [["blocks.0"], ["blocks.1"], ["blocks.2"], ["blocks.4"]]),
    (Detached, [["blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4"]]),
    (Idle, [["blocks.0"], ["blocks.1"], ["blocks.2"], ["blocks.3"], ["blocks.4"]]),
    (Rowless, [["first"], ["third"]]),
    (Turned, [["blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4"]]),
    (aside, [["blocks.0"], ["blocks.1"], ["blocks.2"], ["blocks.3"], ["blocks.4"]]),
]


@torch.no_grad()
@pytest.mark.parametrize(("make", "stages"), ODD)
def test_only_cuts_that_keep_the_law_remain(make: Callable[[], nn.Module], stages: list[list[str]]) -> None:
    torch.manual_seed(0)
    net = make()
    view = View(
        name="odd",
        provider="tiny",
        module=net,
        call=call,
        inputs=InputSpec("table", (6,)),
        example={"x": torch.randn(3, 6)},
    )
    names = {id(m): n for n, m in net.named_modules()}
    assert [[names[id(m)] for m in view.members(i)] for i in range(len(view.stages))] == stages
    batch = {"x": torch.randn(4, 6)}
    whole = view.run(batch)
    for k in cuts(view):
        state = view.run(batch, stop=k)
        assert torch.equal(view.run(batch, start=k, state=state), whole), k
        assert torch.equal(view.run(start=k, state=state), whole), k
    held = {id(p) for members in stages for path in members for p in net.get_submodule(path).parameters()}
    needed = {id(p) for p in net.parameters()} - {id(p) for p in idle(net)}
    named = {id(p): n for n, _, p in view.named()}
    assert set(named) == needed, "exactly what the features depend on has a name"
    assert {i for i, n in named.items() if n.startswith(GLUE)} == needed - held
