"""Heads at zero: nothing random, and a scaled one folds into a plain layer of the same function."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from regraft.tasks._linear import Scaled, plain


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
