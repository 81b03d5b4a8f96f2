"""A view's own promises: what is named, shared, copied and measured, and what is said when a network does not fit."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import pytest
import torch
from tiny import NETWORKS, build
from torch import Tensor, nn

from regraft.backbone.stages import Batch, find_head
from regraft.backbone.state import ghost, laid, leaves, thin, tree
from regraft.backbone.view import View, patched, replace
from regraft.errors import ModelError, UsageError
from regraft.providers import transformers
from regraft.waist import InputSpec, Target
from tests import places

CLONED = ["bert", "resnet", "t5", "wav2vec2"]
IDLE = {
    "Wav2Vec2ForSequenceClassification": {"wav2vec2.masked_spec_embed"},
    "CLIPForImageClassification": {"vision_model.post_layernorm.weight", "vision_model.post_layernorm.bias"},
}
"""Parameters that features do not depend on: what stands in for masked parts, a norm of a token that nobody reads."""
WORKING = (nn.Linear, nn.Conv1d, nn.Conv2d)


@pytest.fixture(
    params=[
        pytest.param(name, marks=[pytest.mark.image] if name.startswith(("timm/", "torchvision/")) else [])
        for name in NETWORKS
    ]
)
def view(request: pytest.FixtureRequest) -> View:
    return build(request.param).view


class Net(nn.Module):
    """Blocks of one class between tied tables, and weights that no stage holds."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.words = nn.Embedding(7, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)) for _ in range(3))
        self.norm = nn.LayerNorm(4)
        self.again = nn.Embedding(7, 4)
        self.again.weight = self.words.weight
        self.score = nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) * self.scale
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.score(self.norm(x) + self.again(ids))
        return out


def call(module: nn.Module, batch: Batch) -> Tensor:
    features: Tensor = module(batch["ids"])
    return features


def made(module: nn.Module | None = None, **options: Any) -> View:
    return View(
        name="net",
        provider="tiny",
        module=Net() if module is None else module,
        call=call,
        inputs=InputSpec("table", ()),
        example={"ids": torch.tensor([1, 5])},
        **options,
    )


# ---------------------------------------------------------------- what is measured


def test_stages_hold_all_weights_and_say_what_they_cost(view: View) -> None:
    held = {id(p) for _, _, p in view.named()}
    assert {name for name, p in view.module.named_parameters() if id(p) not in held} == IDLE.get(view.name, set())
    assert sum(stage.params for stage in view.stages) == sum(p.numel() for _, _, p in view.named())
    for i, stage in enumerate(view.stages):
        parts = [part for member in view.members(i) for part in member.modules()]
        works = any(isinstance(part, WORKING) or type(part).__name__ == "Conv1D" for part in parts)
        assert (stage.flops > 0) == works, stage


@torch.no_grad()
@pytest.mark.parametrize("name", [n for n in NETWORKS if "/" not in n])
def test_bytes_are_those_of_one_row(name: str) -> None:
    net = build(name)
    one = net.batch(1, net.lengths[0])
    states = [net.view.run(one, stop=k).value for k in range(1, len(net.view.stages))]
    kept = [sum(t.nbytes for t in leaves(value)) for value in [*states, net.view.run(one)]]
    assert [stage.out_bytes for stage in net.view.stages] == kept


def test_flops_are_per_example() -> None:
    block = 2 * 4 * 4
    assert [(stage.name, stage.flops) for stage in made().stages] == [
        ("words", 0),
        *((f"blocks.{i}", block) for i in range(3)),
        ("score", 2 * 4 * 3),
    ]


# ---------------------------------------------------------------- names


def test_every_parameter_has_one_name_and_a_tied_one_the_lowest_stage() -> None:
    view = made(head="score")
    assert [(name, stage) for name, stage, _ in view.named()] == [
        ("glue/scale", 0),
        ("words/weight", 0),
        *((f"blocks.{i}/{j}.{part}", i + 1) for i in range(3) for j in range(2) for part in ("weight", "bias")),
        ("blocks.2/norm.weight", 3),
        ("blocks.2/norm.bias", 3),
    ]
    assert {(name, stage) for name, stage, _ in view.buffers()} == {
        (f"blocks.{i}.1.{part}", i + 1)
        for i in range(3)
        for part in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert [type(m).__name__ for m in view.members(3)] == ["Sequential", "LayerNorm"]
    assert (view.stages[4].name, view.stages[4].params) == ("again", 0)


# ---------------------------------------------------------------- poolings


@pytest.fixture(scope="module", params=["encoder", "classifier"])
def bert(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> View:
    """BERT saved as a bare encoder, or with pooler and head."""
    found: View = transformers.load(str(places.encoder_model(tmp_path_factory.mktemp("bert"), request.param)), "text")
    return found


def test_what_suits_the_checkpoint_comes_first(bert: View) -> None:
    bare = bert.module.config.architectures == ["BertModel"]
    assert list(bert.calls) == (["mean", "native"] if bare else ["native", "mean"])
    assert bert.pooling == next(iter(bert.calls)) and bert.pooled(bert.pooling) is bert


def test_poolings_share_their_weights(bert: View) -> None:
    mean, native = bert.pooled("mean"), bert.pooled("native")
    assert mean.module is native.module is bert.module
    assert [s.name for s in native.stages] == [*(s.name for s in mean.stages), "pooler"]
    ours = {name: p for name, _, p in native.named()}
    assert all(ours[name] is p for name, _, p in mean.named())
    assert native.pooled("mean").paths == mean.paths and (mean.dim, native.dim) == (32, 32)
    assert mean.pooling == "mean" and native.pooling == "native", "a view is not changed by asking for another"


def test_what_the_features_do_not_need_is_no_parameter_of_theirs(bert: View) -> None:
    mean, native = bert.pooled("mean"), bert.pooled("native")
    pooler = {"pooler/dense.weight", "pooler/dense.bias"}
    assert {name for name, _, _ in native.named()} - {name for name, _, _ in mean.named()} == pooler
    assert sum(s.params for s in mean.stages) == sum(p.numel() for _, _, p in mean.named())
    assert mean.clone(2).pooled("native").stages == native.stages


def test_a_card_names_the_stages_that_the_checkpoint_lacks(bert: View) -> None:
    bare = bert.module.config.architectures == ["BertModel"]
    mean, native = bert.pooled("mean").card(), bert.pooled("native").card()
    assert (mean.pooling, mean.dim, mean.glue, mean.new) == ("mean", 32, 0, ())
    assert (native.pooling, native.stages[4].name, native.new) == ("native", "pooler", (4,) if bare else ())


@torch.no_grad()
def test_the_mean_is_over_tokens_that_are_no_padding(bert: View) -> None:
    mean = bert.pooled("mean")
    batch = places.noise(mean, 3)
    hidden = bert.module.base_model(**batch).last_hidden_state
    assert int(batch["attention_mask"][2].sum()) < batch["attention_mask"].shape[1]
    for i, made in enumerate(mean.run(batch)):
        kept = batch["attention_mask"][i].bool()
        torch.testing.assert_close(made, hidden[i][kept].mean(0))


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["mean", "native"])
def test_every_pooling_keeps_the_split_law(bert: View, pooling: Any) -> None:
    view = bert.pooled(pooling)
    batch = places.noise(view, 3)
    whole = view.run(batch)
    for k in range(1, len(view.stages)):
        assert torch.equal(view.run(start=k, state=view.run(batch, stop=k)), whole), k


def test_a_pooling_that_is_not_offered_is_refused(bert: View) -> None:
    with pytest.raises(UsageError) as caught:
        bert.pooled("tokens")
    assert caught.value.saw == "'tokens'" and set(caught.value.allowed.split(", ")) == {"mean", "native"}
    with pytest.raises(UsageError, match="pooling of this backbone"):
        made().pooled("mean")


@pytest.mark.parametrize("bias", [True, False])
def test_a_native_place_without_a_bias_is_told(bias: bool) -> None:
    net = Net()
    net.score = nn.Linear(4, 3, bias=bias)
    assert made(net, head="score").biased is bias
    assert made().biased, "where there is no native head there is room for anything"


# ---------------------------------------------------------------- clones


@pytest.mark.parametrize("name", CLONED)
def test_a_clone_shares_below_the_frontier_and_copies_above(name: str) -> None:
    view = build(name).view
    for k in (0, 1, len(view.stages) // 2, len(view.stages)):
        twin = view.clone(k)
        for a, b in ((view.named(), twin.named()), (view.buffers(), twin.buffers())):
            for (path, stage, mine), (same, _, yours) in zip(a, b, strict=True):
                assert path == same
                assert (mine is yours) == (stage < k) == (mine.data_ptr() == yours.data_ptr()), path
                assert torch.equal(mine, yours)


@pytest.mark.parametrize("name", CLONED)
def test_training_a_clone_changes_nothing_in_the_original(name: str) -> None:
    net = build(name)
    batch = net.batch(4, net.lengths[0])
    before = {n: t.clone() for n, t in net.view.module.state_dict().items()}
    k = len(net.view.stages) - 2
    twin = net.view.clone(k)
    chosen = [p for _, stage, p in twin.named() if stage >= k]
    for i in (k, k + 1):
        for member in twin.members(i):
            member.train()
    with torch.no_grad():
        state = twin.run(batch, stop=k)
    twin.run(start=k, state=state).square().sum().backward()
    torch.optim.SGD(chosen, lr=1.0).step()
    after = net.view.module.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before)
    moved = [n for n, t in twin.module.state_dict().items() if not torch.equal(t, before[n])]
    assert len([n for n in moved if "running" not in n and "num_batches" not in n]) >= len(chosen) // 2
    assert not net.view.module.training
    assert any("running_mean" in n for n in moved) == (name == "resnet")


def test_a_random_start_is_the_seed_s_alone() -> None:
    view = build("resnet").view
    before = {n: t.clone() for n, t in view.module.state_dict().items()}
    first, second, other = view.clone(0), view.clone(0), view.clone(0)
    first.randomise(1)
    second.randomise(1)
    other.randomise(2)
    one, same, two, now = (v.module.state_dict() for v in (first, second, other, view))
    assert all(torch.equal(one[n], same[n]) and torch.equal(before[n], now[n]) for n in before)
    assert not any(torch.equal(one[n], two[n]) or torch.equal(one[n], now[n]) for n in before if "batches" not in n)


# ---------------------------------------------------------------- running


@torch.no_grad()
def test_a_run_leaves_the_module_as_it_was() -> None:
    view = made()
    state = view.run({"ids": torch.tensor([1, 2, 3])}, stop=2)
    view.run(start=2, state=state)
    with pytest.raises(IndexError):
        view.run({"ids": torch.tensor([70])}, stop=2)
    assert not [name for name, m in view.module.named_modules() if "forward" in vars(m)]
    assert view.run(start=2, stop=2, state=state) is state


def test_a_run_from_the_middle_needs_a_state() -> None:
    view = made()
    with pytest.raises(AssertionError, match="without a batch needs a state"):
        view.run()
    with pytest.raises(AssertionError, match="from the middle needs a state"):
        view.run({"ids": torch.tensor([1])}, start=1)
    with pytest.raises(AssertionError, match="one row would not tell"):
        View(
            name="net",
            provider="tiny",
            module=Net(),
            call=call,
            inputs=InputSpec("table", ()),
            example={"ids": torch.tensor([1])},
        )


def test_patched_puts_back_a_forward_that_was_set_by_hand() -> None:
    net = nn.Sequential(nn.Identity(), nn.Identity())
    by_hand = net[0].forward = lambda x: x + 1
    x = torch.zeros(2)
    with pytest.raises(ZeroDivisionError), patched(net, {"0": lambda f: lambda x: f(x) * 3, "1": lambda f: f}):
        assert torch.equal(net(x), torch.full((2,), 3.0))
        raise ZeroDivisionError
    assert net[0].forward is by_hand
    assert "forward" not in vars(net[1])


# ---------------------------------------------------------------- values


def test_a_ghost_has_shape_and_type_but_no_memory() -> None:
    value = {"a": torch.ones(3, 2, dtype=torch.bfloat16), "b": [torch.ones(3), None], "table": torch.ones(5, 2)}
    made = ghost(value, 6, 3)
    assert (made["a"].shape, made["a"].dtype, made["a"].stride()) == ((6, 2), torch.bfloat16, (0, 0))
    assert (made["b"][0].shape, made["b"][1], made["table"].shape) == ((6,), None, (5, 2))
    assert ghost(torch.ones(3, 2), 4).shape == (4, 2)
    assert ghost(torch.tensor(1.0), 4).shape == ()


def test_a_copy_is_laid_out_as_the_network_had_it() -> None:
    x = torch.arange(24.0).reshape(2, 3, 4)
    turned = laid((x,), [[0, 2, 1]])[0]
    assert torch.equal(turned, x)
    assert turned.stride() == (12, 1, 3)
    assert turned.data_ptr() != x.data_ptr()


def test_numbers_of_a_batch_are_not_kept_but_ids_are() -> None:
    ids = torch.tensor([[1], [2]])
    assert thin(ids) is ids
    assert thin(torch.ones(2, 3)).stride() == (0, 0)


def test_a_tree_keeps_its_types() -> None:
    pair = namedtuple("pair", "first second")
    value = (pair(torch.ones(1), "x"), [torch.zeros(1)], OrderedDict(k=torch.ones(1)), 4)
    twice = tree(lambda t: t * 2, value)
    assert [float(t) for t in leaves(twice)] == [2.0, 0.0, 2.0]
    assert [type(v) for v in twice] == [pair, list, OrderedDict, int]


def test_a_module_is_replaced_at_its_path() -> None:
    net = nn.Sequential(nn.Sequential(nn.Linear(1, 1)), nn.Linear(1, 2))
    for path in ("0.0", "1"):
        replace(net, path, nn.Identity())
        assert isinstance(net.get_submodule(path), nn.Identity)


# ---------------------------------------------------------------- what does not fit


def test_the_head_is_the_linear_layer_that_runs_last() -> None:
    net = Net().eval()
    assert find_head(net, 3, lambda: net(torch.tensor([1, 2]))) == "score"
    with pytest.raises(ModelError, match="head of this model was not found") as caught:
        find_head(net, 5, lambda: net(torch.tensor([1, 2])))
    assert caught.value.saw == "blocks.1.0 (4), blocks.2.0 (4), score (3)"
    assert caught.value.allowed == "a last linear layer with 5 outputs"
    with pytest.raises(ModelError, match="no linear layers"):
        find_head(net.words, 5, lambda: net.words(torch.tensor([1, 2])))


def test_a_network_without_weights_has_no_stages() -> None:
    with pytest.raises(ModelError, match="no stages were found") as caught:
        View(
            name="net",
            provider="tiny",
            module=nn.Sequential(nn.ReLU()),
            call=lambda m, b: m(b["x"]),
            inputs=InputSpec("table", ()),
            example={"x": torch.ones(2, 2)},
        )
    assert caught.value.saw == "Sequential with 1 modules that run once"


def test_what_the_provider_did_not_give_is_said() -> None:
    view = made(head="score")
    with pytest.raises(ModelError, match="cannot be started at random") as caught:
        view.randomise(0)
    assert caught.value.saw == "net"
    with pytest.raises(ModelError, match="cannot be written in a native form") as caught:
        view.export(nn.Linear(4, 2), Target("label", "class", ("a", "b")), "nowhere")
    assert caught.value.saw == "tiny/net"


def test_tracing_puts_every_flag_back() -> None:
    net = Net()
    net.scale.requires_grad = False
    made(net)
    assert [n for n, p in net.named_parameters() if not p.requires_grad] == ["scale"]
    assert all(p.grad is None for p in net.parameters())
    assert not [m for m in net.modules() if m._forward_hooks or m._forward_pre_hooks]
