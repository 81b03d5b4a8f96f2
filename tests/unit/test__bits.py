"""Weights in few bits: the nearest value of each, published sizes and errors, gradients of whole weights."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from regraft.inserts._bits import NF4, Bits, dynamic, product

SHAPES = [(37, 70), (384, 384), (1, 5), (64, 1)]


def weight(*shape: int, seed: int = 0) -> nn.Parameter:
    draw = torch.Generator().manual_seed(seed)
    return nn.Parameter(torch.randn(*shape, generator=draw) * 0.04, False)


def bits_of(held: Bits) -> float:
    return 8 * sum(buffer.nbytes for buffer in held.buffers()) / held.source[0].numel()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_weight_has_the_nearest_value(shape: tuple[int, int]) -> None:
    some = weight(*shape)
    held = Bits(some, 4)
    flat = nn.functional.pad(some.flatten(), (0, -some.numel() % 64)).view(-1, 64)
    scaled = flat / flat.abs().amax(1, keepdim=True).clamp(min=1e-30)
    nearest = (scaled[..., None] - torch.tensor(NF4)).abs().argmin(-1).view(-1)
    assert torch.equal(torch.stack([held.codes >> 4, held.codes & 15], 1).view(-1).long(), nearest)
    assert held.whole().shape == shape and Bits(some, 8).whole().shape == shape


@pytest.mark.parametrize(("bits", "low", "high", "size"), [(4, 0.08, 0.10, 4.13), (8, 0.005, 0.009, 8.09)])
def test_size_and_error_are_those_that_are_published(bits: int, low: float, high: float, size: float) -> None:
    """QLoRA: 0.127 bits a weight beside the four; of normal weights NF4 takes about 9 % of the norm."""
    some = weight(384, 384)
    held = Bits(some, bits)
    assert low < (held.whole() - some).norm() / some.norm() < high
    assert bits_of(held) == pytest.approx(size, abs=0.01)


@pytest.mark.parametrize("turned", [False, True])
def test_in_eight_bits_no_weight_is_off_by_more_than_half_a_step(turned: bool) -> None:
    some = weight(48, 96)
    held = Bits(some, 8, turned)
    step = some.abs().amax(0 if turned else 1, keepdim=True) / 127
    assert held.scales.numel() == (96 if turned else 48)
    assert ((held.whole() - some).abs() <= 0.501 * step).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_zeros_stay_zeros_and_one_number_is_kept(bits: int) -> None:
    assert torch.equal(Bits(nn.Parameter(torch.zeros(3, 70), False), bits).whole(), torch.zeros(3, 70))
    assert Bits(nn.Parameter(torch.tensor([[-3.0]]), False), bits).whole().item() == pytest.approx(-3)


def test_the_bits_are_those_of_bitsandbytes() -> None:
    """What bitsandbytes 0.50.2 made of this matrix: F.quantize_4bit(some, 64, True, "nf4"), and its whole weights."""
    some = nn.Parameter((torch.arange(37 * 70).double() * 0.7).sin().float().view(37, 70) * 0.04, False)
    held = Bits(some, 4)
    found = [held.codes[: 37 * 35], held.scales, (held.whole() * 1e6).round().int()]
    assert [hashlib.sha256(one.numpy().tobytes()).hexdigest()[:16] for one in found] == GOLDEN


GOLDEN = ["58e892532986128f", "564c1ee86d1d7ae5", "4485f9b2572c69d3"]


def test_what_is_installed_agrees() -> None:
    """The library itself, where it is here: of scales halfway between two values it may take the other one."""
    functional = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")
    some = weight(384, 768)
    theirs, state = functional.quantize_4bit(some.data, blocksize=64, compress_statistics=True, quant_type="nf4")
    held = Bits(some, 4)
    assert torch.equal(dynamic(), state.state2.code)
    assert torch.equal(held.codes, theirs.view(-1)) and torch.equal(held.peaks, state.state2.absmax)
    apart = (held.scales.int() - state.absmax.int()).abs()
    assert apart.max() <= 1 and apart.float().mean() < 0.01
    codes, tops, _ = functional.int8_vectorwise_quant(some.half())
    held = Bits(nn.Parameter(some.half().float(), False), 8)
    assert torch.equal(held.codes, codes) and torch.equal(held.scales.view(-1), tops)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("turned", [False, True])
def test_products_and_gradients_are_those_of_the_whole_weight(bits: int, turned: bool) -> None:
    held = Bits(weight(40, 24), bits, turned)
    whole = held.whole().T if turned else held.whole()
    draw = torch.Generator().manual_seed(1)
    bias, x = (torch.randn(*shape, generator=draw) for shape in ((len(whole),), (2, 3, whole.shape[1])))
    grads: list[list[Tensor]] = []
    for of in (lambda a, b: product(a, held, b), lambda a, b: nn.functional.linear(a, whole, b)):
        given = [x.clone().requires_grad_(), bias.clone().requires_grad_()]
        made = of(*given)
        grads.append([made, *torch.autograd.grad(made.square().sum(), given)])
    assert torch.equal(grads[0][0], grads[1][0])
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in zip(*grads, strict=True))


def test_a_step_keeps_no_whole_weight_for_its_gradient() -> None:
    held, kept = Bits(weight(96, 96), 4), list[int]()

    def seen(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    x = torch.randn(2, 96).requires_grad_()
    with saved_tensors_hooks(seen, lambda tensor: tensor):
        product(x, held, None).sum()
    assert all(size < 96 * 96 for size in kept)


def test_half_precision_goes_through_there_and_back() -> None:
    held, x = Bits(weight(40, 24), 4), torch.randn(3, 24).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        made = product(x, held, None)
    made.float().sum().backward()
    assert made.dtype == torch.bfloat16 and x.grad is not None and x.grad.dtype == torch.float32
    assert torch.allclose(x.grad, held.whole().sum(0).expand(3, -1), atol=0.02)
