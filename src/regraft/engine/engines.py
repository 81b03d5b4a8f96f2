"""How the frozen trunk computes: as the network stands, in another memory layout, in half precision, or compiled.

Where bits count there is one engine, "eager". The others are taken where they were measured to be faster on the machine
at hand, and only for the trunk: what is trained and what ships computes as the network stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from regraft.backbone.stages import Batch
from regraft.backbone.state import State, as_state, leaves, thin, tree
from regraft.backbone.view import View
from regraft.kit import hardware

Pass = Callable[[Batch], State]
COMPILE_S = 40.0
"""What a compilation is expected to take before one was measured: 10 to 45 s for a MobileNetV2 on two cores."""
GAIN = 1.5
"""How many times faster a compiled trunk is expected to be before one was measured: 1.3 to 2.9 were seen."""
WORTH = 0.95
APART = 1e-3


def eager(view: View, k: int) -> Pass:
    """The network as it stands."""
    return lambda batch: as_state(view.run(batch, stop=k), batch)


def channels_last(view: View, k: int) -> Pass:
    """A copy of the network whose pictures and kernels lie with the channels last in memory: what convolutions like.

    Differs from `eager` by rounding (1e-6 of a ResNet's features).
    """
    own = view.clone(0)
    own.module.to(memory_format=torch.channels_last)

    def run(batch: Batch) -> State:
        laid = {n: v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v for n, v in batch.items()}
        return as_state(own.run(laid, stop=k), batch)

    return run


def half(run: Pass) -> Pass:
    """Another engine's work in bfloat16 where autocast allows it; what comes out is float32 again."""

    def halved(batch: Batch) -> State:
        with torch.autocast("cpu", torch.bfloat16):
            state = run(batch)
        return State(*(tree(lambda t: t.float() if t.is_floating_point() else t, part) for part in state))

    return halved


def fastest(view: View, batch: Batch, in_half: bool) -> tuple[str, str]:
    """The engine that takes this batch through the whole network fastest without compiling, and what was measured."""
    if all(v.ndim != 4 for v in batch.values()):
        return "eager", ""
    k = len(view.stages)
    took = {name: seconds(Engine(view, k, name, in_half).run, batch) for name in ("eager", "channels-last")}
    gain = took["eager"] / took["channels-last"]
    name = "channels-last" if took["channels-last"] < WORTH * took["eager"] else "eager"
    return name, f"with channels last the trunk is {gain:.2f} times as fast: it runs {name}"


def compiled(view: View, k: int, batch: Batch) -> Pass:
    """The trunk for batches of this one shape, traced through its own forward and compiled with its weights folded in.

    Raises: RuntimeError, or another of torch's errors: the network decides by values, or there is no compiler.
    """
    names = list(batch)
    hardware.compile_apart()
    with torch.no_grad():
        state = as_state(view.run(batch, stop=k), batch)

        def flat(*tensors: Tensor) -> list[Tensor]:
            given = dict(zip(names, tensors, strict=True))
            return leaves(as_state(view.run(given, stop=k), given).value)

        from torch.fx.experimental.proxy_tensor import make_fx

        work: Any = torch.compile(
            make_fx(flat)(*batch.values()), dynamic=False, options={"freezing": True, "fx_graph_cache": False}
        )

        def run(given: Batch) -> State:
            made = iter(work(*(given[name] for name in names)))
            return State(tree(lambda _: next(made), state.value), state.seen, {n: thin(v) for n, v in given.items()})

        run(batch)
    return run


def seconds(run: Pass, batch: Batch, times: int = 3) -> float:
    """The least that a pass takes, after one that is not counted."""
    with torch.no_grad():
        run(batch)
        return min(_timed(run, batch) for _ in range(times))


def apart(one: State, other: State) -> float:
    """How far two states are from each other, as a share of the first one's norm."""
    gaps = [
        (float((a.double() - b.double()).norm()), float(a.double().norm()))
        for a, b in zip(leaves(one.value), leaves(other.value), strict=True)
        if a.is_floating_point()
    ]
    return max((gap / max(norm, 1e-12) for gap, norm in gaps), default=0.0)


class Engine:
    """What a trunk computes with: one way for all batches, and compiled ones for shapes that repay it."""

    def __init__(self, view: View, k: int, name: str = "eager", in_half: bool = False) -> None:
        self.view, self.k, self.name = view, k, name
        run = channels_last(view, k) if name == "channels-last" else eager(view, k)
        self.run = half(run) if in_half else run
        self._compiled: dict[tuple[int, ...], Pass] = {}

    def __call__(self, batch: Batch) -> State:
        return self._compiled.get(_shape(batch), self.run)(batch)

    def compile(self, batch: Batch, passes: int, cost_s: float = COMPILE_S) -> tuple[str, float]:
        """Compile for batches like this one if so many passes repay it, and keep that if it is faster and right.

        Returns: What to tell, "" where nothing was tried, and what a compilation took, 0 for none.
        """
        plain_s = seconds(self.run, batch)
        if passes * plain_s * (1 - 1 / GAIN) < cost_s:
            return "", 0.0
        begun = time.perf_counter()
        try:
            run = compiled(self.view, self.k, batch)
        except (RuntimeError, TypeError, ValueError, AttributeError, OSError) as error:
            why = " ".join(str(error).split())[:80]
            return f"the trunk cannot be compiled and runs as before: {why}", time.perf_counter() - begun
        took = time.perf_counter() - begun
        fast_s = seconds(run, batch)
        with torch.no_grad():
            gap = apart(self.run(batch), run(batch))
        told = f"compiled in {took:.0f} s: {plain_s / fast_s:.2f} times as fast, {gap:.0e} apart"
        if fast_s > WORTH * plain_s or gap > APART:
            return f"{told}: not used", took
        self._compiled[_shape(batch)] = run
        return told, took

    @property
    def compiles(self) -> bool:
        """Whether a shape has been compiled."""
        return bool(self._compiled)


def _shape(batch: Batch) -> tuple[int, ...]:
    return tuple(size for name in sorted(batch) for size in batch[name].shape)


def _timed(run: Pass, batch: Batch) -> float:
    begun = time.perf_counter()
    run(batch)
    return time.perf_counter() - begun
