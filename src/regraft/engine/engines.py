"""How networks compute: as they stand, in another memory layout, in half precision, or, where frozen, compiled.

Where bits count there is one engine, "eager". The others are taken where they were measured to be faster on the machine
at hand, for the frozen trunk and for steps of training; what ships computes as it stands, and so do scores, but for
rounding.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from regraft.backbone.stages import Batch
from regraft.backbone.state import State, as_state, leaves, tree
from regraft.backbone.view import View
from regraft.engine import freeze
from regraft.engine.compilers import COMPILERS, Pass
from regraft.waist import Phase, Training

GAIN = 1.5
"""How many times faster a compiled trunk is expected to be before one was measured: 1.2 to 7 were seen."""
WORTH = 0.95
APART = 1e-3
"""How far a compiled trunk may be from the network as it stands; in bfloat16, up to twice as far as the plain one."""


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
        return as_state(own.run(last(batch), stop=k), batch)

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


def training(view: View, batch: Batch, engine: str, in_half: bool) -> tuple[Training, str]:
    """How a step that trains the whole network on this batch is fastest, and what was measured: once for a network.

    Another task on the same network gets what the first one found; texts may be of another length, pictures not.

    Args:
        engine: What suits the trunk: tried beside the network as it stands where bfloat16 is not.
        in_half: Whether to try bfloat16: as the network stands and, for pictures, with channels last, which suits steps
            in it even where it does not suit the trunk.
    """
    names = ["eager", *["channels-last"] * any(v.ndim == 4 for v in batch.values())] if in_half else [engine]
    plain, dtype = Training(), "bfloat16" if in_half else "float32"
    others = [one for name in names if (one := Training(name, dtype)) != plain]  # type: ignore[arg-type]
    if not others:
        return plain, ""
    known = _MEASURED.setdefault(view.module, {})
    case = (plain, *others, *(tuple(v.shape[1:]) for v in batch.values() if v.ndim == 4))
    if case not in known:
        known[case] = _fastest_step(view, batch, plain, others)
    return known[case]


_MEASURED: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], tuple[Training, str]]] = WeakKeyDictionary()
"""What `training` found, while its network is held."""


def _fastest_step(view: View, batch: Batch, plain: Training, others: Sequence[Training]) -> tuple[Training, str]:
    own = view.clone(0)
    freeze.apply(own, nn.Identity(), Phase(1, 0, (("*", 1.0),)))

    def step(way: Training) -> float:
        def run(batch: Batch) -> State:
            own.module.zero_grad(set_to_none=True)
            with torch.enable_grad():
                with autocast(way):
                    state = as_state(own.run(batch), batch)
                state.value.float().sum().backward()
            return state

        if way.engine != "eager":
            lay(own, 0)
        return seconds(run, batch if way.engine == "eager" else last(batch), 2)

    took = {way: step(way) for way in (plain, *others)}
    best = min(others, key=took.__getitem__)
    gain = took[plain] / took[best]
    way = f"{best.engine} in {best.dtype}"
    if took[best] > WORTH * took[plain]:
        return plain, f"a training step is {gain:.2f} times as fast {way}: it runs as it stands"
    return replace(best, gain=round(gain, 3)), f"a training step is {gain:.2f} times as fast {way}: it runs so"


def lay(view: View, k: int) -> None:
    """Let the kernels of stages from k on lie with the channels last in memory; their values stay."""
    for _, stage, parameter in view.named():
        if stage >= k and parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def last(batch: Batch) -> dict[str, Tensor]:
    """A batch whose pictures lie with the channels last in memory."""
    return {n: v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v for n, v in batch.items()}


def autocast(way: Training) -> torch.autocast:
    """Where a training step computes in bfloat16, if it does."""
    return torch.autocast("cpu", torch.bfloat16, enabled=way.dtype == "bfloat16")


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
    """What a trunk computes with: one way for all batches, and compiled ones for shapes that repay it.

    `compiler` names the one that made these, all of them; "" where there are none.
    """

    def __init__(self, view: View, k: int, name: str = "eager", in_half: bool = False) -> None:
        self.view, self.k, self.in_half = view, k, in_half
        run = channels_last(view, k) if name == "channels-last" else eager(view, k)
        self.run = half(run) if in_half else run
        self.compiler = ""
        self._compiled: dict[tuple[int, ...], Pass] = {}

    def __call__(self, batch: Batch) -> State:
        return self._compiled.get(_shape(batch), self.run)(batch)

    def compile(self, batch: Batch, passes: int, costs: dict[str, float], sure: str = "") -> list[str]:
        """Compile for batches like this one where so many passes repay it, and keep what is right and fastest.

        Args:
            batch: A micro-batch of the shape.
            passes: How many of these are to come.
            costs: The compilers that may be tried, the cheapest first, and the seconds that each is expected to take.
                What one took is put there, and one that failed is taken out.
            sure: The compiler that was chosen before: the only one then, whatever it costs.

        Returns: What to tell of each compiler that was tried.
        """
        if sure and sure not in costs:
            return [f"no longer compiled with {sure}, which is not here"]
        told: list[str] = []
        only, plain_s = sure or self.compiler, seconds(self.run, batch)
        now_s = plain_s
        for name in sorted((name for name in costs if only in ("", name)), key=costs.__getitem__):
            if not sure and passes * (now_s - plain_s / GAIN) < costs[name]:
                continue
            begun = time.perf_counter()
            try:
                run = COMPILERS[name].compile(self.view, self.k, batch, self.in_half)
            except Exception as error:  # whatever a compiler raises, or a library that it needs
                del costs[name]
                told.append(f"not compiled with {name} ({' '.join(str(error).split())[:120]})")
                continue
            costs[name] = took = time.perf_counter() - begun
            fast_s = seconds(run, batch)
            with torch.no_grad():
                exact = eager(self.view, self.k)(batch)
                gap, allowed = apart(exact, run(batch)), max(APART, 2 * apart(exact, self.run(batch)))
            used = fast_s <= WORTH * now_s and gap <= allowed
            if used:
                now_s, self.compiler, self._compiled[_shape(batch)] = fast_s, name, run
            speed = f"{plain_s / fast_s:.2f} times as fast, {gap:.0e} apart"
            told.append(f"compiled with {name} in {took:.0f} s: {speed}{'' if used else ': not used'}")
        return told


def _shape(batch: Batch) -> tuple[int, ...]:
    return tuple(size for name in sorted(batch) for size in batch[name].shape)


def _timed(run: Pass, batch: Batch) -> float:
    begun = time.perf_counter()
    run(batch)
    return time.perf_counter() - begun
