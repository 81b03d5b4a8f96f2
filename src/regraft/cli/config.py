"""`regraft config`: what holds where nothing else is said."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, get_args

from typer.models import ParameterInfo

from regraft.cli.adapt import adapt
from regraft.cli.screen import Json, Screen, Verbose, put_line, put_object

FLAGS = {"strategies": "strategy"}
"""Fields of the request that the command line calls otherwise."""


def show(as_json: Json = False, verbose: Verbose = False) -> None:
    """Show the default of every option of regraft adapt and of every strategy's knobs.

    regraft config show
    """
    options, knobs = option_defaults(), knob_defaults()
    if as_json:
        put_object("config show", {"options": options, "knobs": knobs})
        return
    screen = Screen()
    for title, told in (("option", options), ("knob", knobs)):
        screen.table([title, "default", "what it is"], [[f"--{n}", _shown(d), what] for n, (d, what) in told.items()])
        put_line("")
    put_line("an empty default is guessed, measured or left out; see regraft adapt --help")


def option_defaults() -> dict[str, tuple[Any, str]]:
    """Option → its default in the request's records, as JSON, and what the command's help says of it."""
    from regraft.waist import Options, Reading, plain

    said = {name: _help(p) for name, p in inspect.signature(adapt, eval_str=True).parameters.items()}
    usual = Options("", "")
    found = {**plain(usual), **plain(Reading())}
    for name in ("data", "model", "reading", "knobs"):
        del found[name]
    budget = {f.name: getattr(usual.budget, f.name) for f in dataclasses.fields(usual.budget)}
    found["budget"] = {name: value for name, value in budget.items() if value}
    flags = {FLAGS.get(name, name): value for name, value in found.items()}
    return {name.replace("_", "-"): (flags[name], said[name]) for name in said if name in flags}


def knob_defaults() -> dict[str, tuple[Any, str]]:
    """strategy.knob → its default and what the strategy's docstring says of it."""
    from regraft.cli.knobs import sayings
    from regraft.kit import shelf
    from regraft.planner.propose import knobs_of
    from regraft.waist import plain

    found = {}
    for name in shelf.names("strategies"):
        said = sayings(shelf.find("strategies", name).Knobs)
        for knob, (_, default) in knobs_of(name).items():
            found[f"{name}.{knob}"] = (plain(default), said.get(knob, ""))
    return found


def _help(parameter: inspect.Parameter) -> str:
    """What the command's help says of a parameter."""
    return next((m.help or "" for m in get_args(parameter.annotation)[1:] if isinstance(m, ParameterInfo)), "")


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple, dict)):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
