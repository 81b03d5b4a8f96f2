"""`regraft config`: every setting with the value that holds and where it is from, and the schema of a file of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from regraft.cli import given as giving
from regraft.cli import settings
from regraft.cli.adapt import adapt, demo
from regraft.cli.advise import advise
from regraft.cli.doctor import doctor
from regraft.cli.evaluate import evaluate
from regraft.cli.knobs import CONFIG_HELP, SET_HELP, known, settled
from regraft.cli.screen import Json, Screen, Verbose, put, put_line, put_object
from regraft.cli.settings import KNOB, PREFIX, Setting
from regraft.cli.shots import shots
from regraft.kit import hardware, shelf

VERBS: dict[str, Callable[..., None]] = {
    "adapt": adapt,
    "advise": advise,
    "demo": demo,
    "evaluate": evaluate,
    "doctor": doctor,
    "shots": shots,
}
"""Verbs whose options may come from a file or the environment too."""


def show(
    config: Annotated[Path | None, typer.Option("--config", help=CONFIG_HELP)] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help=SET_HELP)] = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show every option of regraft adapt and every knob of its strategies, with the value that would hold now.

    regraft config show

    regraft config show --config regraft.toml --set seed=3 --origin
    """
    found, told = resolved(config, sets or [])
    if as_json:
        parts = [{one.name: found[one.name] for one in told if (KNOB in one.param) == knob} for knob in (False, True)]
        put_object("config show", {"options": parts[0], "knobs": parts[1]})
        return
    screen = Screen()
    for title, knob in (("option", False), ("knob", True)):
        head = [title, "value", *(["from"] if origin else []), "what it is"]
        rows = []
        for one in told:
            if (KNOB in one.param) == knob:
                at = found[one.name]
                rows.append(
                    [
                        "DATA" if one.param == "data" else f"--{one.name}",
                        _shown(at["value"]),
                        *([at["origin"]] if origin else []),
                        one.help,
                    ]
                )
        screen.table(head, rows)
        put_line("")
    put_line("an empty value is guessed, measured or left out; see regraft adapt --help")


def schema(verbose: Verbose = False) -> None:
    """Print a JSON Schema of the files that --config reads, for editors.

    regraft config schema > regraft.schema.json
    """
    put(json.dumps(settings.schema(known(VERBS, shelf.names("strategies"))), indent=1, ensure_ascii=False))


def resolved(config: Path | None, sets: list[str]) -> tuple[dict[str, dict[str, Any]], list[Setting]]:
    """Name → value, origin and help of every setting of `regraft adapt`, as a command would have them; and these.

    Raises: UsageError: a setting that cannot be.
    """
    values = {f"{PREFIX}STRATEGY": hardware.variables(PREFIX).get(f"{PREFIX}STRATEGY", "")}
    named = giving.split([*values.values(), *(giving.names_of(giving.read(config)) if config else [])])
    told = known(VERBS, [*shelf.names("strategies"), *(name for name in named if "." in name)])
    lone = typer.Typer(add_completion=False, rich_markup_mode=None)
    lone.command("adapt")(settled("adapt", adapt, told))
    args = ["--config", str(config)] if config else []
    context = get_command(lone).make_context("adapt", args)
    found = giving.resolve(context, context.params, told["adapt"], sets)  # type: ignore[arg-type]
    made = {}
    for param, one in told["adapt"].items():
        value, where = found.values.get(param), found.origins.get(param, "default")
        made[one.name] = {
            "value": one.default if where == "default" else giving.told_value(one, value),
            "origin": where,
            "help": one.help,
        }
    return made, list(told["adapt"].values())


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple, dict)):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
