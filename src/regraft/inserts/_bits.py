"""Weights in 4 or 8 bits: quantised once, made whole layer by layer whenever they are multiplied, there and back."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634),
    *(0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""The sixteen values of four bits: quantiles of a normal distribution, and zero. Reference: QLoRA, appendix E."""
BLOCK, BLOCKS = 64, 256
"""Weights that share a scale; scales that share a scale of their own."""
AT_ONCE = 1024
"""Blocks that are quantised at a time. What is kept is made before what is not, so that no holes are left in memory."""
TINY = torch.finfo(torch.float32).tiny


class Bits(nn.Module):
    """A weight in few bits as buffers; `source` is the parameter that it was made of, which nothing is written to.

    In 4: NF4 in blocks of 64 with double quantisation, 4.13 bits a weight; in 8: whole numbers with a scale for each
    output. Both are the bits of bitsandbytes, but for scales halfway between two of the 256 values of `dynamic`, which
    may be taken for the other one. `turned` says that outputs are the weight's columns.

    Reference: Dettmers et al., QLoRA, 2023; Dettmers et al., LLM.int8(), 2022, section 2.1.

    >>> some = nn.Parameter(torch.tensor([[1.0, 0.0, -0.25], [0.5, 8.0, -8.0]]))
    >>> [(whole - some).abs().max() < 0.9 for whole in (Bits(some, 8).whole(), Bits(some, 4).whole())]
    [tensor(True), tensor(True)]
    """

    codes: Tensor
    scales: Tensor
    peaks: Tensor
    offset: Tensor

    def __init__(self, weight: nn.Parameter, bits: int, turned: bool = False) -> None:
        super().__init__()
        self.bits, self.turned, self.source = bits, turned, (weight,)
        plain = weight.detach().float()
        if bits == 8:
            codes, side = torch.empty_like(plain, dtype=torch.int8), 0 if turned else 1
            tops = torch.maximum(plain.amax(side, keepdim=True), -plain.amin(side, keepdim=True))
            factors = (127.0 / tops.clamp(min=TINY)).expand(plain.shape)
            for into, some, by in zip(*(t.split(BLOCK) for t in (codes, plain, factors)), strict=True):
                into.copy_((some * by).round())
            self.register_buffer("codes", codes)
            self.register_buffer("scales", tops)
            return
        packed = torch.empty(-(-plain.numel() // BLOCK) * BLOCK // 2, dtype=torch.uint8, device=plain.device)
        codes, tops = _nearest(plain.flatten(), torch.tensor(NF4), BLOCK)
        offset = tops.mean()
        scales, peaks = _nearest(tops - offset, dynamic(), BLOCKS)
        self.register_buffer("codes", torch.bitwise_or(codes[::2] << 4, codes[1::2], out=packed))
        self.register_buffer("scales", scales[: len(tops)])
        self.register_buffer("peaks", peaks)
        self.register_buffer("offset", offset)

    def whole(self) -> Tensor:
        """The weight that the bits stand for, float32 in the shape of the one that they were made of."""
        shape = self.source[0].shape
        if self.bits == 8:
            return self.codes * (self.scales / 127.0)
        scales = dynamic().to(self.scales.device)[self.scales.int()]
        scales *= self.peaks.repeat_interleave(BLOCKS)[: len(scales)]
        scales += self.offset
        pairs = _pairs().to(self.codes.device).index_select(0, self.codes.int())  # two weights a byte
        return pairs.view(torch.float32).view(-1, BLOCK).mul_(scales[:, None]).view(-1)[: shape.numel()].view(shape)


class _Product(torch.autograd.Function):
    """x Wᵀ + b for a weight in few bits: what is kept for the gradient are the bits."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, held: Bits) -> Tensor:
        ctx.held = held
        whole = held.whole()
        return nn.functional.linear(x, whole.T if held.turned else whole, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grad,) = grads
        into = bias = None
        if ctx.needs_input_grad[0]:
            whole = ctx.held.whole().to(grad.dtype)
            into = grad @ (whole.T if ctx.held.turned else whole)
        if ctx.needs_input_grad[1]:
            bias = grad.flatten(0, -2).sum(0)
        return into, bias, None


def product(x: Tensor, held: Bits, bias: Tensor | None) -> Tensor:
    """x [..., in] through a linear layer whose weight is held in few bits: [..., out]."""
    made: Tensor = _Product.apply(x, bias, held)
    return made


@cache
def dynamic() -> Tensor:
    """The 256 values of a scale in eight bits, [256]: fine near zero, coarse near one.

    Reference: Dettmers, 8-bit approximations for parallelism in deep learning, 2016.
    """
    found = [0.0, 1.0]
    for i in range(7):
        ends = torch.linspace(0.1, 1, 2**i + 1)
        means = (10 ** (i - 6) * ((ends[:-1] + ends[1:]) / 2)).tolist()
        found += [*means, *(-mean for mean in means)]
    return torch.tensor(sorted(found))


@cache
def _pairs() -> Tensor:
    """The two weights of each byte, [256], as the 64 bits of one number: one look-up finds both."""
    values = torch.tensor(NF4)
    return torch.stack([values.repeat_interleave(16), values.repeat(16)], 1).view(torch.int64).view(-1)


def _nearest(values: Tensor, code: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Numbers of the nearest values of a code, on the scale of each block's largest: uint8 [n to a block], [blocks]."""
    missing = -len(values) % size
    blocks = (nn.functional.pad(values, (0, missing)) if missing else values).view(-1, size)
    found, tops = torch.zeros(blocks.shape, dtype=torch.uint8, device=values.device), blocks.new_empty(len(blocks))
    middles = ((code[1:] + code[:-1]) / 2).tolist()
    for into, top, some in zip(*(t.split(AT_ONCE) for t in (found, tops, blocks)), strict=True):
        scaled = some / top.copy_(some.abs().amax(1)).clamp(min=TINY)[:, None]
        for middle in middles:  # half the time of a search
            into += scaled > middle
    return found.view(-1), tops
