"""`regraft advise`: which way to go with a model and data, and why, before anything is trained."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft.cli.adapt import Models, Zoo, check_place, names
from regraft.cli.screen import Json, Screen, Verbose, put_line, put_object, size
from regraft.waist import Options, Reading, plain

if TYPE_CHECKING:
    from regraft.planner.advise import Advice, Depth, Priced
    from regraft.planner.choose import Choice

SCORES = "work: share of a pass up to there; scores: higher is better, knn and ridge are accuracies (R² for numbers)"


def advise(
    data: Annotated[str, typer.Argument(help="Whatever regraft adapt reads.")],
    model: Models = None,
    zoo: Zoo = "",
    goal: Annotated[str, typer.Option("--goal", help="What matters most: accuracy, speed, stability or cost.")] = "",
    budget: Annotated[str, typer.Option("--budget", help="How long training may take: 30s, 5m, 1h30m.")] = "",
    energy_budget: Annotated[
        float, typer.Option("--energy-budget", help="How much training may draw, in kWh.", min=0)
    ] = 0.0,
    serve_on: Annotated[str, typer.Option("--serve-on", help="Where answers will be computed, such as cpu.")] = "",
    many_tasks: Annotated[bool, typer.Option("--many-tasks", help="One network shall serve many tasks.")] = False,
    on: Annotated[
        str, typer.Option("--on", help="Price the plans on this card, too: h200, h100, a100-80g, l4, rtx-4090, cpu-16.")
    ] = "",
    hourly: Annotated[
        float, typer.Option("--hourly", help="What an hour costs, here or on that card, in your currency.", min=0)
    ] = 0.0,
    explain: Annotated[bool, typer.Option("--explain", help="All rules in full, for readers new to this.")] = False,
    target: Annotated[str, typer.Option("--target", help="The column to predict.")] = "",
    text: Annotated[str, typer.Option("--text", help="The column of texts, or two with a comma: a pair.")] = "",
    image: Annotated[str, typer.Option("--image", help="The column of picture paths.")] = "",
    group: Annotated[str, typer.Option("--group", help="Rows with one value here stay in one split.")] = "",
    sensitive: Annotated[str, typer.Option("--sensitive", help="Columns that never are inputs.")] = "",
    time: Annotated[str, typer.Option("--time", help="A column of times: the latest rows become the test.")] = "",
    task: Annotated[str, typer.Option("--task", help="classify, multilabel, regress or ordinal.")] = "",
    val: Annotated[str, typer.Option("--val", help="A path with the validation split.")] = "",
    test: Annotated[str, typer.Option("--test", help="A path with the test split.")] = "",
    max_rows: Annotated[int, typer.Option("--max-rows", help="Most rows of each split; 0 takes all.", min=0)] = 0,
    positive: Annotated[str, typer.Option("--positive", help="Of two classes, the one that is looked for.")] = "",
    order: Annotated[str, typer.Option("--order", help="The labels from low to high, for --task ordinal.")] = "",
    allow_bad: Annotated[
        str, typer.Option("--allow-bad", help="The share of files and rows that may be unusable: they are left out.")
    ] = "1%",
    metric: Annotated[str, typer.Option("--metric", help="The metric that decides.")] = "",
    long: Annotated[
        str, typer.Option("--long", help="Texts that are too long: cut, ends (head and tail), or windows (averaged).")
    ] = "cut",
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Longest text in tokens; 0 takes the default.")] = 0,
    precision: Annotated[
        str, typer.Option("--precision", help="fp32 (exact), or auto: what is measured fastest here.")
    ] = "fp32",
    arch: Annotated[
        str, typer.Option("--arch", help="The architecture of a state dict: timm/NAME, torchvision/NAME.")
    ] = "",
    seed: Annotated[int, typer.Option("--seed", help="Seeds splits, rows that are looked at, random weights.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="A folder to keep it in: advice.json, advice.html, advice.md.")
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Look at the data and the model, and say which way to go and why; nothing is trained. --out keeps it.

    regraft advise photos/ --model path/to/model

    regraft advise reviews.csv --model minilm --target label --text review --goal speed --explain

    regraft advise photos/ --zoo path/to/models
    """
    from regraft import ahead
    from regraft.deliver.advice import keep
    from regraft.planner.request import parse_budget, parse_share
    from regraft.planner.rules import Needs

    reading = Reading(
        target=target,
        text=names(text),
        image=image,
        group=group,
        task=task,
        val=val,
        test=test,
        max_rows=max_rows,
        sensitive=names(sensitive),
        time=time,
        positive=positive,
        order=names(order),
        allow_bad=parse_share(allow_bad),
    )
    needs = Needs(
        goal=goal,
        seconds=parse_budget(budget).seconds,
        serve_on=serve_on,
        many_tasks=many_tasks,
        kwh=energy_budget,
    )
    if out is not None:
        check_place(out)
    screen = Screen(quiet=as_json)
    models = {one: one for one in model or ()}
    options = Options(
        data,
        next(iter(models), ""),
        reading,
        metric=metric,
        long=long,  # type: ignore[arg-type]
        max_tokens=max_tokens,
        arch=arch,
        precision=precision,  # type: ignore[arg-type]
        seed=seed,
    )
    work = ahead.advice(options, needs, hourly, on, data, models, zoo)
    facts, found = screen.watch(work, kept=False)
    command = adapting(options, found.model, budget)
    kept = keep(out, facts, found, command) if out is not None else None
    if as_json:
        put_object("advise", {"data": plain(facts.data), **plain(found), **({"kept": str(kept)} if kept else {})})
        return
    if found.choice:
        chosen(screen, found.choice)
    show(screen, found, found.explained if explain else "")
    follow(found, options, budget)
    if kept is not None:
        put_line(f"kept: {kept}")


def adapting(options: Options, model: str, budget: str) -> str:
    """The command that adapts a model to the same data, read in the same way."""
    usual = Options("", "", Reading())
    said: dict[str, str] = {}
    for record, other in ((options.reading, usual.reading), (options, usual)):
        for one in fields(other):
            value = getattr(record, one.name)
            if value != getattr(other, one.name) and one.name not in ("data", "model", "reading"):
                said[one.name.replace("_", "-")] = ",".join(value) if isinstance(value, tuple) else str(value)
    said["budget"] = budget
    words = [word for name, value in said.items() if value for word in (f"--{name}", value)]
    return shlex.join(["regraft", "adapt", options.data, "--model", model, *words])


def follow(found: Advice, options: Options, budget: str) -> None:
    """What to do next."""
    command = adapting(options, found.model, budget)
    put_line("")
    put_line(f"begin with {found.first.label}: {command} --strategy {found.first.strategy}")
    put_line(f"or race all ways: {command}")
    if found.choice and len(found.choice.candidates) > 1:
        second = adapting(options, found.choice.candidates[1].name, budget)
        put_line(f"and hold the second best model against it: {second}")


def chosen(screen: Screen, choice: Choice) -> None:
    """Several models side by side, and how one of them was chosen."""
    from regraft.deliver.chosen import choosing, models

    told = models(choice)
    screen.table(list(told.head), [list(row) for row in told.rows])
    put_line("")
    for line in choosing(choice):
        put_line(line)
    put_line("")


def show(screen: Screen, found: Advice, explained: str) -> None:
    """What was seen, the rules that fire, and all of them in full where that is asked for."""
    from regraft.deliver.foreseen import sentences

    seen = found.survey
    rows = [_line(depth) for depth in (*seen.depths, *([seen.untrained] if seen.untrained else []))]
    if rows:
        screen.table(["features after", "work", *(name for name, _ in seen.depths[0].scores)], rows)
        put_line(SCORES)
        put_line("")
    for line in sentences(seen):
        put_line(line)
    put_line("")
    screen.table(*prices(found.priced))
    for note in dict.fromkeys(note for one in found.priced[:1] for note in (one.there or one.here).notes):
        put_line(note)
    put_line("")
    fired = [one for one in found.fired if one.fires and one.verdict != "race"]
    marks = ["overruled" if one.overruled else "" for one in fired]
    screen.table(
        ["rule", "says", "here", ""],
        [[one.id, one.verdict, one.value, mark] for one, mark in zip(fired, marks, strict=True)],
    )
    put_line("")
    for evidence in dict.fromkeys(one.overruled for one in fired if one.overruled):
        put_line(f"{', '.join(one.id for one in fired if one.overruled == evidence)} overruled: {evidence}")
    put_line(f"{found.way}: {found.why}")
    for line in ["", *explained.splitlines()] if explained else []:
        put_line(line)


def prices(priced: Sequence[Priced]) -> tuple[list[str], list[list[str]]]:
    """The plans with what they take, a column for money where an hour has a price, and more where a card was named."""
    paid = any(one.here.money for one in priced)
    there = any(one.there for one in priced)
    head = ["plan", "way", "trained", "seconds", "memory", "disk", "kWh", "g CO2", *(["money"] if paid else [])]
    head += ["there: seconds", "fits", "batch"] if there else []
    rows = []
    for one in priced:
        cost = one.here.cost
        row = [one.label, one.way, f"{cost.trainable:,}", f"{cost.seconds:,.0f}", size(cost.peak_bytes or 0)]
        row += [
            size((cost.disk_bytes or 0) + one.here.cache_bytes),
            f"{cost.kwh or 0:.2g}",
            f"{cost.grams_co2 or 0:.2g}",
        ]
        row += [f"{one.here.money:,.2f}"] if paid else []
        if one.there and one.fit:
            row += [f"{one.there.cost.seconds:,.0f}", one.fit.need, str(one.fit.batch)]
        rows.append(row)
    return head, rows


def _line(depth: Depth) -> list[str]:
    return [depth.stage, f"{depth.share:.0%}", *(f"{value:.3f}" for _, value in depth.scores)]
