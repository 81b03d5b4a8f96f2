"""`regraft report`: the report of a finished run, made again from its records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.screen import Json, Verbose, put_line, put_object


def report(
    run: Annotated[Path, typer.Argument(help="A finished run.")], as_json: Json = False, verbose: Verbose = False
) -> None:
    """Write report.md and report.html of a finished run again, from its records alone: nothing is computed anew.

    regraft report runs/RUN
    """
    from regraft.deliver import page, story
    from regraft.deliver import report as words
    from regraft.kit import durable, store

    told = story.read(store.existing(run))
    made = {"report.md": words.write_report(told), "report.html": page.write_page(told)}
    for name, text in made.items():
        durable.write(run / name, text.encode("utf-8", "surrogatepass"))
    if as_json:
        put_object("report", {"run": str(run), "report": str(run / "report.html"), "text": str(run / "report.md")})
        return
    for name in made:
        put_line(str(run / name))
