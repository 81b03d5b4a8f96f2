"""`regraft evaluate`: what a model scores on labelled data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.adapt import names
from regraft.cli.predict import check_out, keep
from regraft.cli.screen import Json, Screen, Verbose, put_line, put_object


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run, or a bundle.")],
    data: Annotated[str, typer.Argument(help="Labelled data: whatever regraft adapt reads.")],
    target: Annotated[str, typer.Option("--target", help="The column of the truth; as in training if left out.")] = "",
    text: Annotated[str, typer.Option("--text", help="The column of texts, or two with a comma: a pair.")] = "",
    image: Annotated[str, typer.Option("--image", help="The column of picture paths.")] = "",
    split: Annotated[
        str, typer.Option("--split", help="train, val, test or all; test if there is one and otherwise all.")
    ] = "",
    max_rows: Annotated[int, typer.Option("--max-rows", help="Most rows; 0 takes all.", min=0)] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Write predictions here: .csv or .jsonl.")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Score a model on labelled data: every metric of its task with a 95 % interval.

    regraft evaluate runs/RUN newer_photos/

    regraft evaluate runs/RUN later.csv --target verdict --out answers.csv

    It says how many of the rows the model was trained on.
    """
    from regraft.deliver import evaluate as room
    from regraft.deliver.report import told
    from regraft.waist import Reading, plain

    check_out(out)
    reading = Reading(target=target, text=names(text), image=image, max_rows=max_rows)
    screen = Screen(quiet=as_json)
    found = screen.watch(room.steps(run, data, reading, split), kept=False)
    keep(out, [dict(answer) for answer in found.answers])
    if as_json:
        parts = {name: value for name, value in plain(found).items() if name != "answers"}
        put_object("evaluate", {**parts, "sentence": found.sentence, "out": str(out or "")})
        return
    head = ["metric", "value", "95 % interval", "better"]
    screen.table(head, [[s.metric, f"{s.value:.4f}", f"{s.low:.4f} – {s.high:.4f}", s.better] for s in found.scores])
    put_line("")
    put_line(f"{told(found.scores[0])} on {found.rows:,} rows of {found.data}")
    put_line(found.sentence)
    if out is not None:
        put_line(f"{found.rows:,} predictions written to {out}")
