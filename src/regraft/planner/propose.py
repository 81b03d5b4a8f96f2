"""Turn facts into plans: ask each chosen strategy, with the knobs the user set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, get_type_hints

from regraft.errors import UsageError, unknown
from regraft.kit import hardware, shelf
from regraft.planner.families import families
from regraft.waist import Facts, Plan

MOST_VIEWS = 8


def propose(
    facts: Facts, strategies: Sequence[str], knobs: Sequence[tuple[str, str]], balance: float = 0.0, raced: bool = False
) -> list[Plan]:
    """The plans of each strategy in turn; for a race all rates and the cheapest kind first, otherwise one rate of each.

    `balance` goes into the loss of every plan, but where its own knobs say how rare classes are dealt with.

    Raises: UsageError: no such strategy or knob, or a value that is not of its kind.
    """
    check_knobs(strategies, knobs)
    plans: list[Plan] = []
    for name in strategies:
        item = shelf.find("strategies", name)
        own = {k.split(".", 1)[1]: v for k, v in knobs if k.split(".", 1)[0] == _short(name)}
        plans += [
            plan
            if "balance" in own or plan.loss.adjust or plan.sampling
            else dataclasses.replace(plan, loss=dataclasses.replace(plan.loss, balance=balance))
            for plan in item.propose(facts, make_knobs(name, own))
        ]
    plans = [viewed(plan, facts) if plan.augment else plan for plan in plans]
    groups = families(plans, 0)
    if raced:
        groups.sort(key=lambda family: effort(family[0][1], facts))
    return [plan for family in groups for _, plan in (family if raced else family[:1])]


def viewed(plan: Plan, facts: Facts) -> Plan:
    """A plan that varies its rows, with the number of views settled: each is a pass of the trunk and room in the cache.

    Nothing cached: a view for each epoch, as a plain loop has it. Otherwise what was asked for; for 0 the two that
    mirroring has, or as many as half the cache holds, eight at most. A head that is fitted at once sees all of them.

    Raises: UsageError: the modality does not vary cells in this way.
    """
    how, asked = str(dict(plan.augment)["how"]), int(dict(plan.augment)["views"])
    known = shelf.find("modalities", facts.data.modality).AUGMENTS
    if how not in known:
        raise UsageError(
            "cells of this kind are not varied in this way",
            saw=f"--{plan.strategy}.augment {how} for {facts.data.modality}",
            allowed=", ".join(("none", *known)),
            do="leave it out" if not known else "",
        )
    epochs = MOST_VIEWS if plan.optimizer.whole else max(1, sum(phase.epochs for phase in plan.phases))
    most = min(known[how] or epochs, epochs)
    if plan.trunk:
        pooled = facts.backbone.read(plan)
        each = facts.train_rows * pooled.stages[plan.trunk - 1].out_bytes
        most = min(most, MOST_VIEWS, max(1, hardware.cache_bytes() // (2 * max(1, each))))
    return dataclasses.replace(plan, augment=(("how", how), ("views", asked or most)))


def effort(plan: Plan, facts: Facts) -> tuple[int, float]:
    """What a plan takes, to order by: those that train nothing or no network first, then by FLOP; random starts last.

    The trunk's pass is counted as often as it is run: once for all examples, for whatever lies below the frontier.
    """
    if plan.init == "plain":
        return 0, 0.0
    pooled = facts.backbone.read(plan)
    rows, work = sum(count for _, count in facts.data.rows), 0.0
    for phase in plan.phases:
        above = sum(stage.flops for stage in pooled.stages[phase.frontier :])
        work += 3.0 * phase.epochs * facts.train_rows * above
    once = rows * plan.views * sum(stage.flops for stage in pooled.stages[: plan.frontier])
    return (1 if plan.init == "pretrained" else 2), work + once


def knobs_of(name: str) -> dict[str, tuple[Any, Any]]:
    """A strategy's knobs: name → (type, default). Importing it needs no torch."""
    kind = shelf.find("strategies", name).Knobs
    hints = get_type_hints(kind)
    return {f.name: (hints[f.name], f.default) for f in dataclasses.fields(kind)}


def make_knobs(name: str, own: dict[str, str]) -> Any:
    """A strategy's `Knobs` from texts.

    Raises: UsageError: a value that is not of the knob's kind.
    """
    from pydantic import TypeAdapter, ValidationError

    kind = shelf.find("strategies", name).Knobs
    try:
        return TypeAdapter(kind).validate_strings(own)
    except ValidationError as error:
        first = error.errors()[0]
        knob = str(first["loc"][0]) if first["loc"] else "?"
        raise UsageError(
            "a knob has a value of the wrong kind",
            saw=f"--{_short(name)}.{knob} {first['input']}",
            allowed=first["msg"],
            do=f"the default is {knobs_of(name).get(knob, ('', '?'))[1]}",
        ) from error


def check_knobs(strategies: Sequence[str], knobs: Sequence[tuple[str, str]]) -> None:
    """Refuse knobs of strategies that are not asked for, and names that a strategy does not have.

    Raises: UsageError: with the nearest name that exists.
    """
    known = [f"{_short(name)}.{knob}" for name in strategies for knob in knobs_of(name)]
    for name, _ in knobs:
        if name not in known:
            raise unknown("knob", name, known)


def _short(name: str) -> str:
    return name.rsplit(".", 1)[-1]
