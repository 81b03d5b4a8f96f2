"""`regraft evaluate`: what a model scores on labelled data, or each task of a family on its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli.adapt import names
from regraft.cli.predict import Arch, Labels, check_out, keep, opened_adapter
from regraft.cli.screen import Json, Screen, Verbose, put_line, put_object
from regraft.errors import UsageError

if TYPE_CHECKING:
    from regraft.deliver.evaluate import Evaluation


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run, a bundle, a family of tasks on one backbone, a folder of peft.")],
    data: Annotated[
        list[str], typer.Argument(help="Labelled data: whatever regraft adapt reads. Of a family TASK=DATA, for each.")
    ],
    target: Annotated[str, typer.Option("--target", help="The column of the truth; as in training if left out.")] = "",
    text: Annotated[str, typer.Option("--text", help="The column of texts, or two with a comma: a pair.")] = "",
    image: Annotated[str, typer.Option("--image", help="The column of picture paths.")] = "",
    split: Annotated[
        str, typer.Option("--split", help="train, val, test or all; test if there is one and otherwise all.")
    ] = "",
    max_rows: Annotated[int, typer.Option("--max-rows", help="Most rows; 0 takes all.", min=0)] = 0,
    task: Annotated[str, typer.Option("--task", help="Of a family the task that DATA is for.")] = "",
    arch: Arch = "",
    labels: Labels = "",
    out: Annotated[Path | None, typer.Option("--out", help="Write predictions here: .csv or .jsonl.")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Score a model on labelled data: every metric of its task with a 95 % interval.

    regraft evaluate runs/RUN newer_photos/

    regraft evaluate runs/RUN later.csv --target verdict --out answers.csv

    regraft evaluate runs/FAMILY reviews=later.csv questions=new_questions.csv

    It says how many of the rows the model was trained on.
    """
    from regraft.deliver import evaluate as room
    from regraft.deliver.family import is_family
    from regraft.waist import Reading

    check_out(out)
    reading = Reading(target=target, text=names(text), image=image, max_rows=max_rows)
    screen = Screen(quiet=as_json)
    several = bool(task) or is_family(run)
    if several:
        asked = by_task(run, data, task)
        if out is not None and len(asked) > 1:
            raise UsageError(
                "answers of several tasks do not fit one table", str(out), "one task at a time", "--task NAME"
            )
        made = screen.watch(room.family_steps(run, asked, reading, split), kept=False)
    elif len(data) > 1:
        raise UsageError("a model is scored on one data at a time", " ".join(data), "one DATA", "give the others later")
    else:
        adapter = opened_adapter(run, arch, labels)
        made = {"": screen.watch(room.steps(run, data[0], reading, split, adapter), kept=False)}
    for one in made.values():
        keep(out, [dict(answer) for answer in one.answers])
    if as_json:
        told = {name: _object(one, out) for name, one in made.items()}
        put_object("evaluate", {"family": str(run), "tasks": told} if several else told[""])
        return
    (_tell_all if several else _tell)(screen, made)
    if out is not None:
        put_line(f"{sum(one.rows for one in made.values()):,} predictions written to {out}")


def by_task(folder: Path, data: Sequence[str], task: str) -> dict[str, str]:
    """Task → its data: "TASK=DATA", data that is called as its task, or with `task` the one that is given.

    A path with a "=" of its own begins with a folder: "./a=b.csv".

    Raises: UsageError: no family, or it is not clear which task data is for.
    """
    from regraft.deliver import family
    from regraft.many import names as called

    there = [one.task for one in family.read(folder).tasks]
    if task:
        data = [f"{family.read(folder).member(task).task}={one}" for one in data]
    found: dict[str, str] = {}
    for one in data:
        name, _, path = one.partition("=")
        if not path or "/" in name:
            ((name, path),) = called([one]).items()
        if name not in there or name in found:
            raise UsageError(
                f"the task {name} has data already" if name in found else "it is not clear which task this data is for",
                saw=one,
                allowed=f"TASK=DATA, once for each of {', '.join(there)}",
                do=f"regraft evaluate {folder} {there[0] if there else 'TASK'}={path}",
            )
        found[name] = path
    return found


def _object(found: Evaluation, out: Path | None) -> dict[str, Any]:
    """What `--json` prints of an evaluation."""
    from regraft.waist import plain

    parts = {name: value for name, value in plain(found).items() if name != "answers"}
    return {**parts, "sentence": found.sentence, "out": str(out or "")}


def _tell(screen: Screen, made: dict[str, Evaluation]) -> None:
    """Every metric of one model."""
    from regraft.deliver.report import told

    (found,) = made.values()
    head = ["metric", "value", "95 % interval", "better"]
    screen.table(head, [[s.metric, f"{s.value:.4f}", f"{s.low:.4f} – {s.high:.4f}", s.better] for s in found.scores])
    put_line("")
    put_line(f"{told(found.scores[0])} on {found.rows:,} rows of {found.data}")
    put_line(found.sentence)


def _tell_all(screen: Screen, made: dict[str, Evaluation]) -> None:
    """A line for each metric of each task, and how new the rows were."""
    head = ["task", "metric", "value", "95 % interval", "better", "rows"]
    cells = [
        [name, s.metric, f"{s.value:.4f}", f"{s.low:.4f} – {s.high:.4f}", s.better, f"{one.rows:,} of {one.data}"]
        for name, one in made.items()
        for s in one.scores
    ]
    screen.table(head, cells)
    put_line("")
    for name, one in made.items():
        put_line(f"{name}: {one.sentence}")
