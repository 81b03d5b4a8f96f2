"""What a trunk hands on, and the trees of tensors that stages give: ghosts, layouts, leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class State(NamedTuple):
    """What a trunk hands on: stage k-1's output, one-row ghosts of what ran before it, the batch (floats as ghosts).

    Where a view reads stages on the way, `value` is a tuple of that output and a vector a row for each that has run.
    """

    value: Any
    seen: dict[str, Any]
    inputs: dict[str, Tensor]


def ghost(value: Any, n: int, rows: int | None = None) -> Any:
    """Zero-stride stand-in for a stage's output with n rows: right shape and dtype, no memory, no work.

    With `rows`, only tensors of that many rows get n; others are tables for all rows and keep their shape.
    """
    if torch.is_tensor(value):
        shape = value.shape
        if shape and rows in (None, shape[0]):
            shape = torch.Size((n, *shape[1:]))
        return torch.zeros((), dtype=value.dtype, device=value.device).expand(shape)
    return tree(lambda leaf: ghost(leaf, n, rows), value)


def laid(value: Any, layouts: Sequence[list[int]]) -> Any:
    """A copy of a stage's output with each tensor's dimensions in that order in memory: kernels are chosen by it."""
    orders = iter(layouts)

    def copied(tensor: Tensor) -> Tensor:
        order = next(orders)
        back = sorted(range(len(order)), key=order.__getitem__)
        return tensor.permute(order).clone(memory_format=torch.contiguous_format).permute(back)

    return tree(copied, value)


def thin(tensor: Tensor) -> Tensor:
    """A batch's entry as a state keeps it: numbers become a ghost (their values were used), ids and masks stay."""
    return ghost(tensor, len(tensor)) if tensor.is_floating_point() else tensor


def tree(change: Callable[[Tensor], Any], value: Any) -> Any:
    """`value` with every tensor in it changed; tuples, lists, dictionaries and model outputs keep their type."""
    if torch.is_tensor(value):
        return change(value)
    if isinstance(value, Mapping):
        return type(value)(**{k: tree(change, v) for k, v in value.items()})
    if isinstance(value, tuple) and type(value) is not tuple:
        return type(value)(*(tree(change, v) for v in value))
    if isinstance(value, (tuple, list)):
        return type(value)(tree(change, v) for v in value)
    return value


def leaves(value: Any) -> list[Tensor]:
    """The tensors in a stage's output, in a fixed order."""
    found: list[Tensor] = []
    tree(lambda t: found.append(t), value)
    return found


def vector(made: Any, mask: Tensor | None = None) -> Tensor:
    """A stage's output as one vector a row [n, d]: the mean over a picture's places, or over a text's own tokens.

    Of several tensors the first one with numbers counts; `mask` [n, T] is 0 at padding.

    >>> vector(torch.arange(8.0).view(1, 2, 2, 2)).tolist()
    [[1.5, 5.5]]
    >>> vector(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[1, 1, 0]])).tolist()
    [[2.0]]
    """
    first: Tensor = next(t for t in leaves(made) if t.is_floating_point())
    if first.ndim == 4:
        last = (
            first.shape[1] == first.shape[2] != first.shape[3]
        )  # channels last, as some transformers of pictures have
        return first.mean((1, 2)) if last else first.mean((2, 3))
    if first.ndim == 3 and mask is not None and mask.shape == first.shape[:2]:
        weight = mask[:, :, None].to(first.dtype)
        return (first * weight).sum(1) / weight.sum(1).clamp(min=1)
    return first.mean(1) if first.ndim == 3 else first.flatten(1)


def as_state(made: Any, batch: Mapping[str, Tensor]) -> State:
    """What `View.run` gave as a state: features at the last frontier are a state too."""
    if isinstance(made, State):
        return made
    return State(made, {}, {name: ghost(v, len(v)) for name, v in batch.items()})
