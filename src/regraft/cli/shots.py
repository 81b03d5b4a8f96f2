"""`regraft shots`: the strategies for few rows, on several draws of so many rows of each class."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.adapt import Unlabelled, check_place, names
from regraft.cli.given import split
from regraft.cli.screen import Json, Screen, Verbose, put_line, put_object
from regraft.waist import Options, Reading, plain


def shots(
    data: Annotated[str, typer.Argument(help="Whatever regraft adapt reads.")],
    model: Annotated[str, typer.Option("--model", help="A model, as regraft adapt has it.")],
    shots: Annotated[int, typer.Option("--shots", help="Training rows of each class.", min=1)] = 8,
    draws: Annotated[int, typer.Option("--draws", help="How many times they are drawn.", min=1)] = 10,
    strategy: Annotated[
        list[str] | None,
        typer.Option("--strategy", help="What to run; may be given again. Those for few rows if left out."),
    ] = None,
    target: Annotated[str, typer.Option("--target", help="The column to predict.")] = "",
    text: Annotated[str, typer.Option("--text", help="The column of texts, or two with a comma: a pair.")] = "",
    image: Annotated[str, typer.Option("--image", help="The column of picture paths.")] = "",
    group: Annotated[str, typer.Option("--group", help="Rows with one value here stay in one split.")] = "",
    test: Annotated[str, typer.Option("--test", help="A path with the test split.")] = "",
    unlabelled: Unlabelled = "",
    metric: Annotated[str, typer.Option("--metric", help="The metric that is reported.")] = "",
    out: Annotated[Path, typer.Option("--out", help="The folder that trials are put into.")] = Path("runs"),
    seed: Annotated[int, typer.Option("--seed", help="Seeds the first draw; each later one has the next.")] = 0,
    as_json: Json = False,
    verbose: Verbose = False,
    knobs: dict[str, str] | None = None,
) -> None:
    """Train on a few rows of each class, several times over, and say how good each strategy is and how sure that is.

    regraft shots reviews.csv --model minilm --shots 8 --draws 10

    regraft shots reviews.csv --model minilm --strategy contrast --contrast.depth 4

    Every plan trains on all of a draw's rows; the test split stays whole. To ship a model: regraft adapt --shots.
    """
    from regraft import ahead

    check_place(out)
    reading = Reading(
        target=target, text=names(text), image=image, group=group, test=test, shots=shots, unlabelled=unlabelled
    )
    options = Options(
        data,
        model,
        reading,
        strategies=tuple(dict.fromkeys(split(strategy))),
        knobs=tuple(sorted((knobs or {}).items())),
        metric=metric,
        seed=seed,
    )
    screen = Screen(quiet=as_json)
    found = screen.watch(ahead.shots(options, draws, out), kept=False)
    if as_json:
        put_object("shots", plain(found))
        return
    wide = "mean [95 % interval]" if draws > 1 else "one draw"
    screen.table(
        ["plan", f"test {found.metric}, {wide}", "lowest", "highest", "seconds"],
        [
            [
                one.plan,
                f"{one.mean:.3f}" + ("" if math.isnan(one.low) else f" [{one.low:.3f}, {one.high:.3f}]"),
                f"{min(one.scores):.3f}",
                f"{max(one.scores):.3f}",
                f"{one.seconds:.1f}",
            ]
            for one in found.plans
        ],
    )
    put_line(f"{shots} rows of each class, {draws} draws, {found.rows:,} test rows")
