"""`regraft predict`: answers for files, folders, tables, texts and standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli.adapt import names
from regraft.cli.screen import Json, Screen, Verbose, put_object, shown
from regraft.errors import UsageError

if TYPE_CHECKING:
    from regraft.deliver.model import Model

Arch = Annotated[str, typer.Option("--arch", help="Of a folder of peft the network, if it does not name one here.")]
Labels = Annotated[str, typer.Option("--labels", help="Of a folder of peft what the outputs mean, with commas.")]
TABLE_ROWS = 40
LEFT_OUT_SHOWN = 20


def predict(
    run: Annotated[Path, typer.Argument(help="A run, a bundle, a family of tasks on one backbone, a folder of peft.")],
    inputs: Annotated[
        list[str] | None, typer.Argument(help="Files, folders, tables; - reads a text or a path a line.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option("--text", help="A text; for a model of pairs give two.")] = None,
    task: Annotated[str, typer.Option("--task", help="Of a family the task to answer; all if left out.")] = "",
    arch: Arch = "",
    labels: Labels = "",
    out: Annotated[Path | None, typer.Option("--out", help="Write predictions here: .csv or .jsonl.")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Predict with a run or a bundle, or with all tasks of a family in one pass of their backbone.

    regraft predict runs/RUN photo.jpg more_photos/

    regraft predict runs/RUN --text "a quiet triumph"

    regraft predict runs/RUN table.csv --out labels.csv

    regraft predict path/to/adapter --arch path/to/base --labels cold,warm table.csv

    From standard input a pair is two texts with a tab between them.
    """
    from regraft.data.inspect import place
    from regraft.deliver import inputs as reading
    from regraft.deliver.family import is_family, open_family
    from regraft.deliver.model import open_model
    from regraft.waist import Bad, plain

    check_out(out)
    if not inputs and not text:
        raise UsageError("there is nothing to predict", allowed="files, folders, --text, or - for standard input")
    adapter = opened_adapter(run, arch, labels)
    model = adapter or (open_family(run, task) if task or is_family(run) else open_model(run))
    cells: list[Any] = []
    for each in inputs or []:
        cells += reading.lines(sys.stdin, model) if each == "-" else [Path(each)]
    cells += reading.texts(text or [], model)
    left_out: list[Bad] = []
    notes: list[str] = []
    answers = model.predict(cells, left_out, notes)
    keep(out, answers)
    screen = Screen()
    for note in (*notes, *(f"left out: {place(one)}: {one.why}" for one in left_out[:LEFT_OUT_SHOWN])):
        screen.say(note)
    if len(left_out) > LEFT_OUT_SHOWN:
        screen.say(f"left out: {len(left_out) - LEFT_OUT_SHOWN:,} more")
    if as_json:
        put_object("predict", {"run": str(run), "predictions": answers, "left_out": plain(left_out)})
        return
    head = [name for name, value in answers[0].items() if not isinstance(value, dict)]
    rows = [[shown(answer[name]) for name in head] for answer in answers]
    screen.table(head, rows[: TABLE_ROWS if out else None])
    if out is not None:
        screen.say(f"{len(rows)} predictions written to {out}")


def opened_adapter(folder: Path, arch: str, labels: str) -> Model | None:
    """The model of a folder of peft; None where it is none and nothing is said of one."""
    from regraft.deliver import borrowed

    if not arch and not labels and not borrowed.is_adapter(folder):
        return None
    return borrowed.open_adapter(folder, arch, names(labels))


def check_out(out: Path | None) -> None:
    """Refuse a file for predictions before any work.

    Raises: UsageError: its ending is none that can be written.
    """
    if out is not None and out.suffix not in (".csv", ".jsonl"):
        raise UsageError("predictions cannot be written in this form", str(out), ".csv or .jsonl", "change its ending")


def keep(out: Path | None, answers: list[dict[str, Any]]) -> None:
    """Write answers where they were asked for: a table, or a line of JSON each."""
    from regraft.deliver.inputs import as_csv
    from regraft.kit import durable

    if out is None:
        return
    lines = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
    durable.write(out, (as_csv(answers) if out.suffix == ".csv" else lines).encode("utf-8", "surrogatepass"))
