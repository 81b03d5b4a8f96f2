"""Heads at zero: nothing random, and a scaled one folds into a plain layer of the same function."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from regraft.tasks._linear import Scaled, between, line, nearest, plain


@pytest.mark.parametrize("bias", [True, False])
def test_a_scaled_head_says_the_centre_and_draws_nothing(bias: bool) -> None:
    state = torch.get_rng_state()
    head = Scaled(4, bias, centre=40.0, spread=12.0)
    assert torch.equal(torch.get_rng_state(), state), "random numbers were drawn"
    assert head(torch.randn(3, 4)).tolist() == [[40.0 if bias else 0.0]] * 3
    assert sorted(dict(head.named_parameters())) == (["bias", "weight"] if bias else ["weight"])
    assert list(head.buffers()) == []


@pytest.mark.parametrize("bias", [True, False])
def test_folding_keeps_the_function(bias: bool) -> None:
    head = Scaled(16, bias, centre=-3.0, spread=0.5)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    features = torch.randn(50, 16)
    folded = copy.deepcopy(head).folded()
    assert type(folded) is nn.Linear and (folded.bias is not None) is bias
    assert torch.allclose(folded(features), head(features), rtol=0, atol=1e-6)
    assert not folded.weight.equal(head.weight) and folded.weight.requires_grad


def test_a_copy_learns_for_itself() -> None:
    head = Scaled(2, True, centre=1.0, spread=2.0)
    twin = copy.deepcopy(head)
    nn.init.ones_(twin.weight)
    assert head.weight.tolist() == [[0.0, 0.0]] and twin(torch.ones(1, 2)).tolist() == [[5.0]]


def test_a_plain_head_is_trainable_and_zero() -> None:
    layer = plain(3, 2, True)
    assert all(p.requires_grad and not p.any() and p.device.type == "cpu" for p in layer.parameters())


# ---------------------------------------------------------------- set without a gradient


def clouds(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """90 rows of 5 features about three centres, and which of these each is of, [n, 3]."""
    draw = torch.Generator().manual_seed(seed)
    which = torch.arange(90) % 3
    x = torch.randn(90, 5, generator=draw) + 3 * torch.randn(3, 5, generator=draw)[which]
    return x, which[:, None] == torch.arange(3)


def test_the_nearest_centroid_has_the_largest_output() -> None:
    x, members = clouds()
    layer = plain(5, 3, True)
    nearest(layer, x, members)
    means = torch.stack([x[members[:, c]].mean(0) for c in range(3)])
    assert torch.equal(layer(x).argmax(1), torch.cdist(x, means).argmin(1))
    gaps = layer(x)[:, :1] - layer(x)
    wanted = (torch.cdist(x, means) ** 2 - torch.cdist(x, means)[:, :1] ** 2) / 2
    assert torch.allclose(gaps, wanted, atol=1e-3), "differences of outputs are those of half the squared distances"


def test_without_a_bias_the_centroid_of_the_nearest_direction_counts() -> None:
    x, members = clouds()
    layer = plain(5, 3, False)
    nearest(layer, x * 100, members.float())
    means = torch.stack([x[members[:, c]].mean(0) for c in range(3)])
    cosine = nn.functional.cosine_similarity(x[:, None], means[None], dim=-1)
    assert torch.equal(layer(x).argmax(1), cosine.argmax(1))
    assert torch.allclose(layer.weight.norm(dim=1), torch.ones(3))


def test_every_label_is_between_its_yeses_and_its_noes() -> None:
    x, members = clouds()
    layer = plain(5, 3, True)
    between(layer, x, members)
    for c in range(3):
        yes, no = x[members[:, c]].mean(0), x[~members[:, c]].mean(0)
        nearer = (x - yes).norm(dim=1) < (x - no).norm(dim=1)
        assert torch.equal(layer(x)[:, c] > 0, nearer)


@pytest.mark.parametrize("settle", [nearest, between])
def test_a_class_without_rows_gives_numbers(settle: Callable[..., None]) -> None:
    x, members = clouds()
    layer = plain(5, 3, True)
    settle(layer, x, members & torch.tensor([True, True, False]))
    assert layer(x).isfinite().all()


@pytest.mark.parametrize("bias", [True, False])
def test_a_line_is_that_of_least_squares(bias: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(50, 1, generator=draw)
    y = 40 * x[:, 0] - 7 + torch.randn(50, generator=draw)
    layer = Scaled(1, bias, centre=13.0, spread=9.0)
    line(layer, x, y)
    design = torch.cat([x, torch.ones(50, 1)], 1) if bias else x
    wanted = torch.linalg.lstsq(design.double(), y.double()[:, None]).solution
    assert torch.allclose(layer(x).double(), design.double() @ wanted, atol=1e-4)
    assert layer.weight.requires_grad and layer.weight.grad_fn is None


def test_a_line_through_equal_rows_is_their_mean() -> None:
    layer = Scaled(1, True, centre=0.0, spread=1.0)
    line(layer, torch.full((4, 1), 0.5), torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert layer(torch.tensor([[0.5]])).item() == pytest.approx(3.0)


def test_a_line_through_several_features_would_be_training() -> None:
    with pytest.raises(ValueError, match="2 features"):
        line(Scaled(2, True, centre=0.0, spread=1.0), torch.ones(3, 2), torch.ones(3))
