"""Price plans before they are trained: seconds, memory, disk, energy and money, here and on cards by their figures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch

from regraft.engine import cache, close, freeze
from regraft.engine.fit import touched
from regraft.engine.predict import Graft
from regraft.planner.cards import Card
from regraft.planner.course import Course
from regraft.planner.energy import WATTS
from regraft.planner.sizes import passes
from regraft.planner.timing import Steps
from regraft.waist import Cost, Optimizer, Plan

GRAMS = 481.0
"""CO₂ of a kWh: the world's mean of 2023. Reference: Ember, Global Electricity Review, 2024."""
WRITTEN = 0.3e9
"""Bytes a second that are packed, hashed, written and made safe."""
SCRATCH = 1.1
"""What a step holds per byte that it saves: kernels' scratch, and what the allocator keeps; 1.06 to 1.15 were seen."""
FITTED = 15
"""What a head's fit to all rows holds per byte of its features: folds, penalties, answers."""
USED = 0.4
"""The share of a card's published peaks, of arithmetic and of bandwidth, that training is taken to reach."""
LAUNCHED_S = 0.0004
"""What a step takes for the head and for each stage above the frontier however small they are."""
LORA = 0.01
"""Adapters' share of a network's weights, at rank 8 to 16 on its linear layers."""
FLOAT, QUANTISED = 4.0, 0.516
"""Bytes of a weight; in four bits with a scale of a byte for 64 of them. Reference: Dettmers et al., QLoRA, 2023."""
MOST = "all epochs, from an empty cache: early stopping makes it less"

Need = Literal["fits", "smaller batch", "LoRA", "quantised LoRA", "sharding"]


@dataclass(frozen=True, slots=True)
class Rate:
    """What an hour costs, and the CO₂ of a kWh in grams. With `watts` 0 the power is what was measured, or assumed."""

    money: float = 0.0
    grams: float = GRAMS
    watts: float = 0.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes while a plan trains: its network, what it trains of it, the optimizer's state, a row of a batch.

    `base` is the process as it is, `copies` what the plan has of its own of the network, `held` cached states,
    `packed` what is packed at once to be written: all four of this machine alone.
    """

    weights: int
    trained: int
    state: int
    row: float
    batch: int
    base: int = 0
    copies: int = 0
    held: int = 0
    packed: int = 0

    @property
    def here(self) -> int:
        """The most that this process will hold: with gradients and the best weights so far."""
        step = 2 * self.trained + self.state + round(SCRATCH * self.row * self.batch)
        return self.base + self.copies + self.held + step + self.packed

    def on(self, batch: int, adapters: bool = False, each: float = FLOAT) -> float:
        """On a card, with weights of `each` bytes: what is trained lies there apart, with its gradients and its best.

        With `adapters` these are trained in place of more than them.
        """
        trained = min(self.trained, LORA * self.weights) if adapters else self.trained
        beside = trained * (3 + self.state / max(1, self.trained))
        return self.weights * each / FLOAT + beside + SCRATCH * self.row * batch


@dataclass(frozen=True, slots=True)
class Price:
    """A plan's cost beforehand and its money; what it is made of: FLOP, bytes moved, seconds of reading cells.

    `launches` are steps times the stages that they train, the head among them. `half` says that numbers are multiplied
    in bfloat16 where that is faster; `cache_bytes` lie on the disk beside the trial's own.
    """

    cost: Cost
    money: float
    memory: Memory
    flop: float
    moved: float
    launches: int
    read_s: float
    half: bool = False
    cache_bytes: int = 0
    notes: tuple[str, ...] = ()


class Fit(NamedTuple):
    """What a plan needs on a card: the largest batch that fits so, up to its own, and on how many cards."""

    need: Need
    batch: int
    cards: int = 1


def price(course: Course, plan: Plan, steps: Steps, rate: Rate) -> Price:
    """What a plan takes on this machine at most: all of its epochs, from an empty cache."""
    graft, data, machine = course.graft(plan), course.data, course.machine
    apart, stages = course.trunks.sides(graft.view), graft.view.stages
    flops, outs = [apart * stage.flops for stage in stages], [apart * stage.out_bytes for stage in stages]
    rows, scored = len(course.views(plan)), len(data.val) + len(data.test)
    kinds = [steps.of(plan, phase) for phase in plan.phases]
    written = _bytes(touched(plan, graft).values())
    seconds = steps.scored_s + kinds[0].made_s + written / WRITTEN
    read_s, flop, moved, count, launches, cached, filled = 0.0, 0.0, 0.0, 0, 0, 0.0, set[int]()
    for phase, kind in zip(plan.phases, kinds, strict=True):
        k, epochs = phase.frontier, min(phase.epochs, 1) if plan.optimizer.whole else phase.epochs
        again = passes(plan, rows)
        fits, trained = epochs * again, phase.epochs * again * (rows // plan.views)
        passed = epochs * len(data.val) + (scored if phase is plan.phases[-1] else 0)
        fresh = 0 if k in filled else rows + scored
        reads, share = fits * (rows // plan.views) + passed, _held(kind.input_bytes * _again(plan, rows, scored))
        read = fresh if k else reads * (1 - share) + min(reads, fresh) * share
        filled.add(k)
        seconds += read * (kind.read_s + kind.below_s) + fresh * kind.state_bytes / WRITTEN
        if k and fresh and not course.trunks.ships:  # what is scored goes through in float32
            seconds += scored * max(0.0, machine.forward_s * sum(flops[:k]) / sum(flops) - kind.below_s)
        seconds += fits * kind.epoch_s + epochs * len(data.val) * kind.judged_s
        seconds += (passed - epochs * len(data.val)) * kind.above_s
        read_s += read * kind.read_s
        flop += fresh * sum(flops[:k]) + (3 * trained + passed) * sum(flops[k:])
        moved += 2 * (fresh * sum(outs[:k]) + passed * sum(outs[k:])) + 4 * trained * kind.row_bytes
        count += fits * kind.steps
        launches += fits * kind.steps * (1 + len(stages) - k)
        cached += fresh * kind.state_bytes
    if close.asked(plan, close.CHANGE) and len(stages) not in filled:
        seconds += rows * (kind.read_s + kind.below_s + kind.above_s)
        read_s += rows * kind.read_s
        flop += rows * sum(flops)
        cached += rows * stages[-1].out_bytes
    memory = _memory(course, plan, graft, steps, seconds > course.every_s)
    moved += count * (6 * memory.trained + 2 * memory.state)
    with torch.no_grad():
        outputs = graft.head(torch.zeros(1, course.width(graft.view))).numel()
    cost = Cost(0.0, round(memory.trained / FLOAT), memory.here, written + round(FLOAT) * scored * outputs)
    watts, notes = rate.watts or machine.watts, [MOST]
    if not watts:
        watts = WATTS * machine.threads
        notes.append(f"power is not measured here: {WATTS:g} W a thread are assumed")
    half = machine.compiles
    made = Price(cost, 0.0, memory, flop, moved, launches, read_s, half, round(cached), tuple(notes))
    return charged(made, seconds, watts, rate)


def charged(made: Price, seconds: float, watts: float, rate: Rate) -> Price:
    """A price for so many seconds at a power in watts: energy, CO₂, money."""
    kwh = seconds * watts / 3.6e6
    cost = replace(made.cost, seconds=seconds, kwh=kwh, grams_co2=kwh * rate.grams)
    return replace(made, cost=cost, money=seconds / 3600 * rate.money)


def elsewhere(made: Price, card: Card, rate: Rate) -> Price:
    """The same plan on a named card, estimated: the slower of arithmetic and bandwidth at `USED` of their peaks.

    To it come `LAUNCHED_S` a launch, and the reading of cells by a processor such as this one. The rate is the card's;
    without watts in it the card draws all that it may.
    """
    peak = card.bf16 if made.half else card.fp32
    seconds = max(made.flop / peak, made.moved / card.bandwidth) / USED + made.launches * LAUNCHED_S + made.read_s
    told = f"estimated at {USED:.0%} of the published peaks of {card.name} ({card.source}, {card.date})"
    need = card.reserved_bytes + round(made.memory.on(made.memory.batch))
    there = replace(
        made, cost=replace(made.cost, peak_bytes=need), notes=(told, "cells are read as fast as here", MOST)
    )
    return charged(there, seconds, rate.watts or card.watts, rate)


def fits(made: Price, card: Card) -> Fit:
    """The least that must change for a plan to fit into a card's memory: nothing, its batch, what trains, the weights.

    Where not even a row fits with adapters on quantised weights, the plan needs several cards, everything shared out.
    """
    room, memory = card.memory_bytes - card.reserved_bytes, made.memory
    ways: tuple[tuple[Need, bool, float], ...] = (
        ("smaller batch", False, FLOAT),
        ("LoRA", True, FLOAT),
        ("quantised LoRA", True, QUANTISED),
    )
    for need, adapters, each in ways:
        left, row = room - memory.on(0, adapters, each), SCRATCH * memory.row
        batch = memory.batch if row * memory.batch <= left else int(left / row) if left > 0 else 0
        if batch:
            return Fit("fits" if need == "smaller batch" and batch == memory.batch else need, batch)
    return Fit("sharding", memory.batch, math.ceil(memory.on(memory.batch) / room))


def state_bytes(rule: Optimizer, trained: int) -> int:
    """What an optimizer keeps beside so many bytes of weights.

    >>> state_bytes(Optimizer("adamw"), 100), state_bytes(Optimizer("sgd", momentum=0.0), 100)
    (200, 0)
    """
    return trained * {"adamw": 2, "sgd": int(rule.momentum > 0)}.get(rule.name, 0)


def _memory(course: Course, plan: Plan, graft: Graft, steps: Steps, long: bool) -> Memory:
    """What a plan holds; where it takes `long`, a snapshot of all is packed while it trains, otherwise of the end."""
    view, named = graft.view, dict[str, torch.Tensor]()
    for phase in plan.phases:
        named |= {name: p for name, (p, _) in freeze.trainable(view, graft.head, phase).items()}
    trained = _bytes(named.values())
    copied = [(p, stage) for _, stage, p in (*view.named(), *view.buffers())]
    state = state_bytes(plan.optimizer, trained)
    state += trained * sum(bool(close.asked(plan, kept)) for kept in (close.WEIGHTS, close.AVERAGE))
    kinds = [steps.of(plan, phase) for phase in plan.phases]
    most = max(kinds, key=lambda kind: kind.row_bytes * kind.rows)
    rows, val, test = len(course.views(plan)), len(course.data.val), len(course.data.test)
    kept = round((rows + val) * max(kind.state_bytes for kind in kinds))
    held = 2 * kept if cache.fits(kept) else kept  # mapped from the disk, and gathered
    held += min(cache.room(), round(max(kind.input_bytes for kind in kinds) * _again(plan, rows, val + test)))
    return Memory(
        weights=_bytes((*view.module.parameters(), *view.module.buffers(), *graft.head.parameters())),
        trained=trained,
        state=state,
        row=most.row_bytes,
        batch=most.rows,
        base=steps.base_bytes,
        copies=_bytes(p for p, stage in copied if stage >= plan.trunk),
        held=held + (FITTED * kept if plan.optimizer.whole else 0),
        packed=2 * (2 * trained + state) if long else trained,
    )


def _again(plan: Plan, rows: int, scored: int) -> int:
    """How many rows may be held at the network's input."""
    return scored if plan.anew else rows + scored


def _held(need: float) -> float:
    """The share of rows' inputs that stays in memory."""
    return min(1.0, cache.room() / need) if need else 0.0


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
